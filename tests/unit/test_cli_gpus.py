"""The command ds01 gpus: what an admin reads, and what a program does."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone
from types import SimpleNamespace

import pytest

from ds01_spawner import cli, columns
from ds01_spawner.gpus import report
from ds01_spawner.gpus.devices import GpuProcess, Holder, Inventory, Reading, Snapshot, State

from .machine import FIRST, IDLE, INVENTORY, PARTED, SECOND, WHOLE

NOON = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)


class Engine:
    """An engine that lists prepared containers."""

    def __init__(self):
        self.listed, self.inspected, self.discovered = [], {}, []
        self.api = self

    def add(self, name, request, **labels):
        container_id = f"{len(self.listed):064x}"
        self.listed.append(
            {
                "Id": container_id,
                "Names": [f"/{name}"],
                "State": "running",
                "Created": NOON.timestamp(),
                "Labels": {key.replace("_", "."): value for key, value in labels.items()},
            }
        )
        host = {"Runtime": "runc", "DeviceRequests": [{"Driver": "", **request}]}
        self.inspected[container_id] = {"HostConfig": host, "Config": {}}

    def containers(self, all):
        return self.listed

    def info(self):
        return {"Runtimes": {"runc": {"path": "runc"}}, "DiscoveredDevices": self.discovered}

    def inspect_container(self, container_id):
        return self.inspected[container_id]


@pytest.fixture
def engine(monkeypatch):
    engine = Engine()
    monkeypatch.setattr(cli, "_engine", lambda: engine)
    monkeypatch.delenv("DS01_PRETEND_GPUS", raising=False)
    return engine


@pytest.fixture
def gpus(engine, monkeypatch, capsys, tmp_path):
    """Return the command as a function: of what NVML reads, to status, output and errors."""
    (tmp_path / "hub-id").write_text("h1\n")

    def run(reading, *words, utilisation=None):
        nvml = SimpleNamespace(read=lambda: reading, utilisation=lambda: utilisation or {})
        monkeypatch.setattr(cli, "_nvml", lambda data: nvml)
        status = cli.main(["gpus", "--data", str(tmp_path), *words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def add_server(engine, user, device):
    engine.add(
        f"default._.{user}",
        {"DeviceIDs": [device.uuid]},
        ds01_hub="h1",
        ds01_user=user,
        ds01_project="default",
        ds01_server="",
    )


def row(output, index):
    """Return the words of a device's row."""
    (line,) = (line for line in output.splitlines() if line.split()[0] == index and "GiB" in line)
    return line.split()


def test_the_table_says_who_holds_what_since_when(gpus, engine):
    add_server(engine, "alice", FIRST)
    engine.add("somebodys-job", {"DeviceIDs": ["0"]})

    status, output, _ = gpus(Reading(INVENTORY), utilisation={FIRST.uuid: 0.374})

    assert status == 0
    assert output.splitlines()[0].split() == [
        "DEVICE",
        "MODEL",
        "MEMORY",
        "WEIGHT",
        "STATE",
        "HELD",
        "BY",
        "SINCE",
        "USE",
    ]
    since = f"{NOON.astimezone():%d %b %H:%M}".split()
    assert row(output, "0") == [
        "0",
        "A100",
        "80",
        "GiB",
        "1.00",
        "ok",
        "somebodys-job",
        *since,
        "-",
    ]
    held = ["1:0", "2g.20gb", "A100", "20", "GiB", "0.29", "ok", "alice/default", *since, "37%"]
    assert row(output, "1:0") == held
    assert row(output, "1:1")[-3:] == ["-", "-", "-"]
    assert "partitioned" in row(output, "1")


def test_every_object_has_what_programs_were_promised(gpus, engine):
    add_server(engine, "alice", FIRST)
    process = GpuProcess(2**22 + 1, IDLE.uuid)

    status, output, errors = gpus(Reading(INVENTORY, (process,)), "--json")

    objects = {entry["uuid"]: entry for entry in json.loads(output)}
    assert (status, errors) == (0, "")
    assert list(objects) == [device.uuid for device in INVENTORY.devices]
    first = objects[FIRST.uuid]
    assert {key: first[key] for key in ("kind", "profile", "state")} == {
        "kind": "mig",
        "profile": "2g.20gb",
        "state": "ok",
    }
    assert (first["memory_bytes"], first["weight"]) == (FIRST.memory_bytes, FIRST.weight)
    holder = {key: first["holder"][key] for key in ("user", "server", "container")}
    assert holder == {"user": "alice", "server": "", "container": "default._.alice"}
    assert datetime.fromisoformat(first["held_since"]) == NOON
    whole = objects[WHOLE.uuid]
    assert (whole["kind"], whole["model"], whole["profile"]) == ("gpu", "A100", None)
    assert whole["holder"] is None
    assert objects[SECOND.uuid]["holder"] is None
    of_process = objects[IDLE.uuid]["holder"]
    assert (of_process["user"], of_process["server"], of_process["container"]) == (None, None, None)
    assert f"process {2**22 + 1}" in of_process["detail"]


def test_gpus_that_the_engine_cannot_attach_are_said_to_be_so(gpus, engine, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert "Warning: The engine cannot attach GPUs" in gpus(Reading(INVENTORY))[1]

    listed = [d for d in INVENTORY.devices if d != IDLE]
    engine.discovered = [{"Source": "cdi", "ID": f"nvidia.com/gpu={d.uuid}"} for d in listed]
    output = gpus(Reading(INVENTORY))[1]
    assert "unattachable" in row(output, IDLE.index)
    assert f"the engine's CDI devices lack {IDLE.uuid}" in output
    assert "unattachable" not in row(output, WHOLE.index)


def test_the_servers_of_another_hub_are_containers(gpus, engine, tmp_path):
    add_server(engine, "alice", FIRST)
    (tmp_path / "hub-id").unlink()

    _, output, _ = gpus(Reading(INVENTORY))

    assert "default._.alice" in row(output, "1:0")


def test_a_watcher_is_not_shown_as_a_holder(gpus, engine):
    engine.add("dcgm-exporter", {"Count": -1})

    assert "dcgm-exporter" in gpus(Reading(INVENTORY))[1]
    assert "dcgm-exporter" not in gpus(Reading(INVENTORY), "--watcher", "dcgm-*")[1]


def test_a_machine_without_gpus_says_so(gpus):
    assert gpus(Reading(Inventory())) == (0, "There is no GPU on this server.\n", "")
    assert gpus(Reading(Inventory()), "--json") == (0, "[]\n", "")


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_gpus_that_cannot_be_read_are_no_machine_without_gpus(gpus, words):
    broken = Reading(Inventory(problem="NVIDIA's driver is not loaded: run modprobe nvidia"))

    status, output, errors = gpus(broken, *words)

    assert status == 1
    assert "no GPU" not in output
    assert errors == "ds01: NVIDIA's driver is not loaded: run modprobe nvidia\n"


def test_what_is_wrong_stands_below_the_table(gpus, engine):
    broken = replace(WHOLE, state=State.LOST, detail="fell off the bus")
    engine.add("mystery", {"DeviceIDs": ["99"]})

    _, output, _ = gpus(Reading(Inventory((broken, IDLE), driver="550.54.15")))

    assert "lost" in row(output, "0")
    assert output.splitlines()[3] == "Driver 550.54.15"
    below = output.splitlines()[4:]
    assert below[0] == f"0 ({WHOLE.uuid}): lost: fell off the bus"
    assert below[1].startswith("Warning: The container mystery asks for 99")


def test_pretended_gpus_are_said_to_be(gpus, monkeypatch, tmp_path):
    monkeypatch.setenv("DS01_PRETEND_GPUS", str(tmp_path))

    assert "These GPUs are pretended" in gpus(Reading(INVENTORY))[1]
    json.loads(gpus(Reading(INVENTORY), "--json")[1])


def test_the_table_fits_into_a_hundred_columns_whatever_the_names_are(capsys):
    device = replace(
        FIRST,
        index="15:6",
        model="RTX PRO 6000 Blackwell Server Edition",
        profile="1g.24gb+me.all",
        memory_bytes=1003 * 1024**3,
        state=State.RESET_REQUIRED,
    )
    holder = Holder(container="c", user="a" * 40, server="b" * 30, since=NOON)
    snapshot = Snapshot(Inventory((PARTED, device)), {device.uuid: (holder, *[Holder()] * 10)})

    cli._table(report.table(snapshot, {device.uuid: 1.0}))

    lines = capsys.readouterr().out.splitlines()
    assert max(map(columns.width, lines)) <= 100
    assert "… +10" in lines[2]


def test_columns_stand_under_their_headings_in_any_script():
    rows = [("HELD BY", "SINCE"), ("山田太郎", "24 Nov"), ("e\u0301va", "24 Nov")]

    heading, *lines = columns.aligned(rows)

    assert heading.index("SINCE") == 10
    assert lines == ["山田太郎  24 Nov", "e\u0301va       24 Nov"]
    assert columns.shortened("山田太郎", 5) == "山田…"
    assert columns.shortened("alice", 5) == "alice"
