"""What labs' files look like: DS01's of several generations, and files that are broken."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from ds01_spawner.policy import GIB, PolicyError, load_policy

NOW = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)

#: As DS01 wrote it in its first year.
EARLY = """
defaults:
  max_mig_instances: 2      # over all containers
  max_gpus_per_container: 1
  allow_full_gpu: false
  gpu_memory: null
  max_cpus: 16
  memory: 32g
  io_read_bps: 500M
  ulimit_nofile: 65535
  storage_workspace: 100G
  storage_tmp: 1G
  max_runtime: 24h
  idle_timeout: 0.5h
  gpu_hold_after_stop: 0.25h
  max_tasks: 512
default_group: student
groups:
  student:
    members: []
  admin:
    members: [datasciencelab]
    max_mig_instances: null
    max_gpus_per_container: null
    idle_timeout: null
    container_hold_after_stop: null
user_overrides:
  # john: {memory: 64g}
gpu_allocation:
  strategy: least_allocated
  mig_gpus: {0: {enable: false, profile: null}}
policies:
  auto_stop_idle: true
  checkpoint_warning: 1h
  high_demand_threshold: 0.8
  grace_period: 30m
  sigterm_grace_seconds: 45
advanced: {network_mode: host}
wizard: {default_mig_count: 1}
"""
#: As it was later, with members in files.
LATER = """
defaults: {max_gpu_equivalents: 2.0, max_gpu_slots_per_container: 2, idle_timeout_h: 0.5}
default_group: student
enforcement: {aggregate_limits: true, cgroup_driver: systemd}
groups:
  student:
    aggregate: {cpu_quota: "9600%", memory_max: "96G", memory_high: "86G", tasks_max: 12288,
                gpu_limit: 3}
    policies: {gpu_idle_threshold: 5, cpu_idle_threshold: 2.0, idle_detection_window: 3}
  researcher:
    # Members in a file.
  admin: {max_tasks: null}
container_types: {devcontainer: {idle_timeout: null}}
monitoring: {infrastructure_label: ds01.protected}
bare_metal_access: {exempt_users: [datasciencelab]}
access_control: {admin_group: ds01-admin}
"""
BESIDE = {
    "user-overrides.yaml": "204214@school.lan:\n  max_runtime_h: null\n",
    "group-overrides.txt": "# Who is where\nh.baker@school.lan:admin      # an admin\n",
    "groups/researcher.members": "\ufeff# PhD students\r\n204214@school.lan   # Sam\r\n",
    "groups/archived.members": "left@school.lan\n",
    "lifecycle-exemptions.yaml": (
        "exemptions:\n"
        "  - {username: ex@school.lan, category: waiver, exempt_from: [idle_timeout_h],\n"
        "     reason: training, approved_by: lab, approved_on: '2026-02-14', expires_on: null}\n"
    ),
}


@pytest.fixture
def lab(tmp_path):
    """Return a function that writes a lab's files and reads them."""

    def read(main, beside=()):
        for name, text in {"resource-limits.yaml": main, **dict(beside)}.items():
            file = tmp_path / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_policy(tmp_path / "resource-limits.yaml")

    return read


def of(policy, user, *hub_groups, now=NOW):
    return policy.resolve(user, hub_groups, now)


def values(resolved, *keys):
    return [(resolved.values[key].value, resolved.values[key].source) for key in keys]


def problems(lab, main, beside=()):
    with pytest.raises(PolicyError) as refusal:
        lab(main, beside)
    parted = [problem.partition(":") for problem in refusal.value.problems]
    return [f"{Path(path).name}:{rest}" for path, _, rest in parted]


# -- DS01's own -----------------------------------------------------------------------------------


def test_a_file_of_the_first_year_means_what_it_meant(lab):
    policy = lab(EARLY)

    student = of(policy, "anybody")
    assert student.group == "student"
    assert values(student, "max_gpu_equivalents", "max_gpu_slots_per_container") == [
        (2, "defaults"),
        (1, "defaults"),
    ]
    assert values(student, "idle_timeout_h", "policies.sigterm_grace_s") == [
        (0.5, "defaults"),
        (45, "policies"),
    ]
    assert student.limits.lifecycle.max_runtime == timedelta(hours=24)
    assert student.limits.memory_bytes == 32 * GIB
    assert student.limits.lifecycle.workspace_bytes == 100 * GIB
    admin = of(policy, "datasciencelab")
    assert values(admin, "max_gpu_equivalents", "idle_timeout_h") == [(None, "group admin")] * 2
    assert admin.limits.gpu_equivalents is None


def test_one_warning_names_every_key_without_effect(lab):
    (warning,) = lab(EARLY).warnings
    for key in (
        *("defaults.gpu_memory", "defaults.io_read_bps", "defaults.ulimit_nofile"),
        *("defaults.storage_tmp", "defaults.gpu_hold_after_stop_h"),
        *("groups.admin.container_hold_after_stop_h", "policies.auto_stop_idle"),
        *("policies.checkpoint_warning", "gpu_allocation", "advanced", "wizard"),
    ):
        assert key in warning
    assert "idle_timeout" not in warning
    assert "storage_workspace" not in warning


def test_a_later_file_with_its_neighbours(lab):
    policy = lab(LATER, BESIDE.items())

    student = of(policy, "somebody")
    assert values(student, "aggregate.cpu_quota") == [("9600%", "group student")]
    assert student.limits.aggregate.cpus == 96
    assert student.limits.aggregate.tasks == 12288
    # The lower of two that say the same.
    assert student.limits.gpu_equivalents == 2
    sam = of(policy, "204214@school.lan")
    assert (sam.group, *values(sam, "max_runtime_h")) == ("researcher", (None, "user override"))
    assert of(policy, "h.baker@school.lan").limits.aggregate.tasks is None
    assert values(of(policy, "ex@school.lan"), "idle_timeout_h") == [(None, "exemption")]
    (warning,) = policy.warnings
    for section in ("enforcement", "container_types", "monitoring", "archived.members"):
        assert section in warning


def test_an_override_keeps_what_the_group_gives(lab):
    # DS01 lost it.
    policy = lab("groups: {g: {members: [a], memory: 64g}}\nuser_overrides: {a: {max_cpus: 2}}")
    assert values(of(policy, "a"), "memory", "max_cpus") == [
        ("64g", "group g"),
        (2, "user override"),
    ]


def test_the_file_of_overrides_wins_over_the_section(lab):
    policy = lab(
        "user_overrides: {a: {priority: 1}, b: {priority: 2}}",
        {"user-overrides.yaml": "a: {memory: 1g}"},
    )
    assert values(of(policy, "a"), "priority", "memory") == [
        (10, "built-in default"),
        ("1g", "user override"),
    ]
    assert values(of(policy, "b"), "priority") == [(2, "user override")]


def test_both_names_of_a_key_count_as_the_newer_one(lab):
    policy = lab("defaults: {max_mig_instances: 3, max_gpu_equivalents: 1.5}")
    assert values(of(policy, "a"), "max_gpu_equivalents") == [(1.5, "defaults")]


# -- groups ---------------------------------------------------------------------------------------


def test_of_several_groups_the_first_of_the_file_counts_unless_it_is_said_otherwise(lab):
    main = "groups: {b: {members: [x]}, a: {members: [x]}}"

    found = of(lab(main), "x")
    assert (found.groups, found.group) == (("b", "a"), "b")
    assert found.why == "the first of b, a in the order of the file"
    assert of(lab(main, {"group-overrides.txt": "x:a"}), "x").group == "a"


def test_groups_of_the_hub_count_as_those_of_the_file_and_give_nothing_of_their_own(lab):
    policy = lab("default_group: all\ngroups: {all: , staff: {memory: 64g}}")

    assert of(policy, "x", "staff", "choir").group == "staff"
    assert of(policy, "x", "choir").group == "all"


def test_names_are_taken_as_they_are_written(lab):
    policy = lab(
        "groups: {g: {members: [007, no, 1e3, 2026-01-01]}}\nuser_overrides: {0123: {priority: 1}}"
    )
    for name in ("007", "no", "1e3", "2026-01-01"):
        assert of(policy, name).group == "g"
    assert of(policy, "7").group is None
    assert of(policy, "0123").limits.priority == 1


def test_members_of_a_group_that_there_is_not(lab):
    main = "groups: {student: , staff: }\ndefault_group: studnet"
    found = problems(
        lab, main, {"groups/studen.members": "a\n", "group-overrides.txt": "# x\nb:stafff\nc\n"}
    )
    assert found == [
        "studen.members:1: there is no group 'studen'; the nearest known is 'student' in "
        "resource-limits.yaml",
        "group-overrides.txt:2: there is no group 'stafff'; the nearest known is 'staff'",
        "group-overrides.txt:3: 'c' is not user:group",
        "resource-limits.yaml:2: default_group: there is no group 'studnet'; the nearest known is "
        "'student'",
    ]


# -- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("until", "holds"),
    [
        ("2026-05-31", False),
        ("2026-06-01", True),
        ("2026-06-01T11:00:00Z", False),
        ("2026-06-01T13:00:00Z", True),
        ("'2999-01-01'", True),
        ("null", True),
    ],
)
def test_an_override_and_an_exemption_end_with_their_time(lab, until, holds):
    policy = lab(
        f"user_overrides: {{a: {{priority: 99, until: {until}, reason: thesis}}}}",
        {
            "lifecycle-exemptions.yaml": (
                f"- {{username: a, exempt_from: [max_runtime_h], expires_on: {until}}}"
            )
        },
    )
    found = of(policy, "a")
    assert (found.limits.priority == 99) is holds
    assert (found.limits.lifecycle.max_runtime is None) is holds


# -- files that are broken -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "empty", ["", "# nothing\n", "defaults:\ngroups:\nuser_overrides:\n", "{}"]
)
def test_an_empty_file_gives_ds01s_defaults(lab, empty):
    found = of(lab(empty), "a")
    assert {value.source for value in found.values.values()} == {"built-in default"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("defaults: {", "resource-limits.yaml:1: expected"),
        ("defaults:\n  memory: 1g\n  memory: 2g\n", ":3: the key 'memory' comes twice"),
        ("a: &a [*a]\n", "resource-limits.yaml:"),
        ("- 1\n", "resource-limits.yaml:1: must be a section"),
        ("--- {}\n--- {}\n", "resource-limits.yaml:2:"),
        ("defaults: !!python/name:os.system x\n", "resource-limits.yaml:1:"),
        ("? [a]\n: 1\n", "a key must be plain text"),
        ("user_overrides: {a: {until: 2026-13-45}}", "resource-limits.yaml:1:"),
        ("user_overrides: {a: {until: soon}}", "user_overrides.a.until: 'soon' is not a date"),
        ("defaults: {memory: 32}", "32 is less than 6 MiB; a bare number is bytes, write 32g"),
        ("defaults: {max_cpus: true}", "defaults.max_cpus: true is not a number"),
        ("defaults: {max_cpus: .inf}", "defaults.max_cpus:"),
        ("defaults: {max_cpus: null}", "null is not possible here"),
        ("defaults: {idle_timeout_h: -1}", "-1 is not a time"),
        ("groups: {a: {aggregate: {cpu_quota: 400}}}", "write for example '400%'"),
        ("groups: {a: {members: alice}}", "groups.a.members: must be a list"),
        ("groups: [a]", "groups: must be a section"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_with_its_place(lab, text, problem):
    (found,) = problems(lab, text)
    assert problem in found
    assert "\n" not in found


def test_aliases_that_multiply_without_end_are_an_error_and_not_a_wait(lab):
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]" for n in range(9)]
    (found,) = problems(lab, "\n".join(lines))
    assert "more values here than a policy has" in found


def test_a_merge_brings_in_what_another_section_has(lab):
    policy = lab("groups:\n  a: &a {memory: 1g, priority: 5}\n  b: {<<: *a, memory: 2g}\n")
    assert values(of(policy, "x", "b"), "memory", "priority") == [("2g", "group b"), (5, "group b")]


def test_what_is_no_text_and_what_cannot_be_read(lab, tmp_path):
    assert problems(lab, b"defaults:\n  memory: \xff\n") == [
        "resource-limits.yaml:2: is not UTF-8 text"
    ]
    (tmp_path / "user-overrides.yaml").mkdir()
    assert problems(lab, "") == ["user-overrides.yaml: cannot be read: Is a directory"]


def test_groups_that_cannot_be_listed_are_no_empty_groups(lab, tmp_path):
    (tmp_path / "groups").write_text("a file in the place of the directory")
    assert problems(lab, "groups: {a: }") == ["groups: cannot be read: Not a directory"]


def test_exemptions_from_what_there_is_not(lab):
    text = "- username: a\n  exempt_from: [idle_timeout]\n- exempt_from: [max_runtime_h]\n"
    assert problems(lab, "", {"lifecycle-exemptions.yaml": text}) == [
        "lifecycle-exemptions.yaml:3: [1].username: is missing"
    ]
    assert problems(lab, "", {"lifecycle-exemptions.yaml": text.split("- ex")[0]}) == [
        "lifecycle-exemptions.yaml:2: [0].exempt_from[0]: 'idle_timeout' is not one of "
        "idle_timeout_h, max_runtime_h"
    ]


def test_a_mistake_in_an_older_key_is_named_by_its_line(lab):
    (found,) = problems(lab, "defaults:\n  memory: 1g\n  max_runtime: soon\n")
    assert found.startswith("resource-limits.yaml:3: defaults.max_runtime_h: 'soon' is not a time")


def test_room_on_the_disk_is_a_size_or_no_limit(lab):
    policy = lab(
        "defaults: {storage_workspace: 100G, storage_container: unlimited}\n"
        "groups: {student: {storage_workspace: null, storage_container: 20g}}\n"
    )
    assert values(of(policy, "anybody"), "storage_workspace") == [("100G", "defaults")]
    assert of(policy, "anybody").limits.lifecycle.container_bytes is None
    student = of(policy, "eve", "student").limits.lifecycle
    assert (student.workspace_bytes, student.container_bytes) == (None, 20 * GIB)
    assert "less than 6 MiB" in problems(lab, "defaults: {storage_workspace: 100}\n")[0]
