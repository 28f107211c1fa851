"""The replay of a trace: what is a request, what is counted, and that our choice wins."""

from __future__ import annotations

import importlib.util
import json
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from ds01_spawner.gpus.placement import GpuRequest, choose, parse_request

FILE = Path(__file__).parents[2] / "bench" / "placement.py"
HEADER = (
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,"
    "creation_time,deletion_time,scheduled_time"
)


def _load():
    spec = importlib.util.spec_from_file_location("bench_placement", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


bench = _load()


def trace(*tasks: tuple) -> list[str]:
    """Write tasks of (created, scheduled, deleted, num_gpu, gpu_milli) as the trace does."""
    return [HEADER] + [
        f"task-{number},1000,1000,{gpus},{milli},,LS,Running,{created},{deleted},{scheduled}"
        for number, (created, scheduled, deleted, gpus, milli) in enumerate(tasks)
    ]


def made_up(seed: int, load: float, tasks: int = 2500) -> list[str]:
    """Make a trace up: every size, run times from minutes to a day, as many GPUs as `load`."""
    chance = random.Random(seed)
    shares = (50, 140, 250, 280, 400, 430, 460, 550, 810, 1000, 1000, 1000)
    clock = 0.0
    lines = []
    for _ in range(tasks):
        clock += chance.expovariate(load / 3600 / 0.55)
        gpus = chance.choices((0, 1, 2, 8), (10, 85, 4, 1))[0]
        milli = chance.choice(shares) if gpus == 1 else 1000
        seconds = chance.lognormvariate(7.2, 1.4)
        lines.append((round(clock), round(clock), round(clock + seconds), gpus, milli))
    return trace(*lines)


def test_shares_of_a_gpu_become_the_smallest_profile_that_is_enough():
    wanted = {
        50: "1g.10gb",
        142: "1g.10gb",
        143: "2g.20gb",
        285: "2g.20gb",
        286: "3g.40gb",
        428: "3g.40gb",
        429: "4g.40gb",
        571: "4g.40gb",
    }
    tasks = bench.read_trace(trace(*[(n, n, n + 1, 1, m) for n, m in enumerate(wanted)]))
    assert [task.request.profile for task in tasks] == list(wanted.values())


@pytest.mark.parametrize(("gpus", "milli"), [(1, 572), (1, 1000), (2, 1000), (8, 1000)])
def test_more_than_half_a_gpu_and_several_become_whole_gpus(gpus, milli):
    (task,) = bench.read_trace(trace((0, 0, 1, gpus, milli)))
    assert task.request == GpuRequest(gpus, whole=True)


def test_a_task_without_a_gpu_is_no_request():
    assert bench.read_trace(trace((0, 0, 1, 0, 0))) == []


def test_run_times_begin_when_a_task_was_scheduled_and_end_after_a_day():
    tasks = bench.read_trace(
        trace((0, 50, 60, 1, 1000), (1, 1, 10**6, 1, 1000), (2, "", 30, 1, 1000))
    )
    assert [task.seconds for task in tasks] == [10, 24 * 3600, 28]


def test_the_time_before_the_first_hundredth_of_the_arrivals_is_cut():
    late = [(10**6 + n, 10**6 + n, 10**6 + n + 1, 1, 1000) for n in range(198)]
    tasks = bench.read_trace(trace((0, 0, 1, 1, 1000), (500, 500, 501, 1, 1000), *late))
    assert len(tasks) == 198
    assert tasks[0].at == 10**6


def replayed(layouts, tasks, policy):
    return bench.replay(
        bench.read_trace(trace(*tasks)), bench.build(layouts), policy, bench.Result("", "")
    )


def test_what_cannot_ever_fit_is_counted_apart_and_what_does_not_fit_now_is_dropped():
    tasks = [(0, 0, 10, 2, 1000), (1, 1, 10, 1, 1000), (2, 2, 10, 1, 1000), (10, 10, 20, 1, 1000)]
    result = replayed([bench.WHOLE, bench.HALVES], tasks, bench.ours())
    assert (result.never_fitting, result.requests, result.granted) == (1, 3, 2)
    assert result.gpu_seconds == 9 + 10


def test_a_request_is_fragmented_if_enough_is_free_in_devices_that_are_too_small():
    tasks = [(0, 0, 10, 1, 560), (1, 1, 10, 1, 560), (2, 2, 10, 1, 420), (3, 3, 10, 1, 420)]
    result = replayed([bench.HALVES, bench.HALVES], tasks, bench.ours())
    assert (result.granted, result.fragmented) == (4, 0)
    result = replayed([bench.HALVES, bench.HALVES], [*tasks[:2], tasks[1]], bench.ours())
    assert (result.granted, result.fragmented) == (2, 1)


def test_demand_served_is_what_was_asked_for_and_not_what_was_given():
    result = replayed([bench.WHOLE], [(0, 0, 70, 1, 100)], bench.ours())
    assert result.gpu_seconds == pytest.approx(10)


def test_lowest_index_takes_the_first_that_is_enough_and_ours_the_smallest():
    tasks = [(0, 0, 10, 1, 100), (1, 1, 10, 1, 1000)]
    layouts = [bench.WHOLE, bench.ONES]
    assert replayed(layouts, tasks, bench.lowest_index()).granted == 1
    assert replayed(layouts, tasks, bench.ours()).granted == 2


def test_the_layouts_are_of_seven_slices_and_eight_gpus():
    for layouts in bench.PARTITIONINGS.values():
        assert len(layouts) == 8
        assert all(sum(bench.PROFILES[p][0] for p in layout) <= 7 for layout in layouts)
    assert len(bench.PARTITIONINGS) >= 3


def test_it_prints_a_line_of_json_for_each_partitioning_and_policy(tmp_path):
    file = tmp_path / "trace.csv"
    file.write_text("\n".join(made_up(1, 8, tasks=300)))
    first, second = (
        subprocess.run(
            [sys.executable, FILE, file], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    )
    assert first == second
    lines = [json.loads(line) for line in first.splitlines()]
    assert [(line["partitioning"], line["policy"]) for line in lines] == [
        (partitioning, policy)
        for partitioning in bench.PARTITIONINGS
        for policy in ("ours", "lowest-index", "random")
    ]
    for line in lines:
        assert 0 < line["granted"] <= line["requests"]
        assert line["granted"] + line["fragmented"] <= line["requests"]
        assert line["gpu_seconds"] > 0


@pytest.mark.parametrize(("seed", "load"), [(1, 6), (2, 10), (3, 16)])
def test_our_choice_grants_more_than_the_first_or_any_that_are_enough(seed, load):
    tasks = bench.read_trace(made_up(seed, load))
    granted: Counter[str] = Counter()
    gpu_seconds: Counter[str] = Counter()
    for result in bench.results(tasks):
        granted[result.policy] += result.granted
        gpu_seconds[result.policy] += result.gpu_seconds
    assert granted["ours"] >= 1.06 * granted["lowest-index"]
    assert granted["ours"] >= 1.02 * granted["random"]
    assert gpu_seconds["ours"] >= max(gpu_seconds.values())


def test_remembered_demand_keeps_a_model_for_those_who_ask_for_it():
    chance = random.Random(3)
    inventory = bench.build([bench.WHOLE] * 8)
    devices = [
        replace(device, model="H100-SXM5-80GB") if device.index in "4567" else device
        for device in inventory.devices
    ]
    inventory = replace(inventory, devices=tuple(devices))
    sizes = [parse_request(text) for text in ("full", "full@A100", "full@H100")]
    clock, tasks = 0.0, []
    for _ in range(2000):
        clock += chance.expovariate(5.6 / 3600)
        seconds = chance.expovariate(1 / 3600)
        tasks.append(bench.Task(clock, chance.choices(sizes, (5, 4, 1))[0], seconds))

    def without_demand(request, free, inventory):
        return choose(request, free, inventory).devices

    granted = [
        bench.replay(tasks, inventory, policy, bench.Result("", "")).granted
        for policy in (bench.ours(), without_demand)
    ]
    assert granted[0] > 1.03 * granted[1]
