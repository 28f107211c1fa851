"""Stands in for `busctl`: keeps what it is told, and does to plain files what systemd does.

Started with a directory that has ``mode`` (``work``, ``idle``, or a method that is refused),
``cg`` (the root of the cgroups) and, if the unit is one that systemd knows, ``known``.
"""

import json
import shutil
import sys
from pathlib import Path

FILES = {
    "memory.max": "MemoryMax",
    "memory.high": "MemoryHigh",
    "pids.max": "TasksMax",
    "cpu.max": "CPUQuotaPerSecUSec",
}


def main(here: Path, words: list[str]) -> None:
    with (here / "calls").open("a") as calls:
        calls.write(json.dumps(words) + "\n")
    at = words.index("org.freedesktop.systemd1.Manager") + 1
    method, _signature, name, *arguments = words[at:]
    unit, pending, mode = here / "cg/ds01.slice" / name, here / "pending", (here / "mode")
    if mode.read_text() == method:
        sys.exit(f"Call failed: {method} is refused")
    if method == "StartTransientUnit" and (unit.exists() or (here / "known").exists()):
        sys.exit(f"Call failed: Unit {name} was already loaded or has a fragment file.")
    if mode.read_text() == "idle":
        return
    if method in ("StartTransientUnit", "StartUnit"):
        unit.mkdir(parents=True, exist_ok=True)
        (unit / "cgroup.procs").touch()
    if method == "StopUnit":
        shutil.rmtree(unit)
    if "MemoryMax" in arguments:
        pending.write_text(json.dumps(arguments))
    if unit.exists():
        apply(unit, json.loads(pending.read_text()))


def apply(unit: Path, properties: list[str]) -> None:
    for file, key in FILES.items():
        value = properties[properties.index(key) + 2]
        text = "max" if value == str(2**64 - 1) else value
        if file == "cpu.max":
            text = f"{text if text == 'max' else int(text) // 10} 100000"
        (unit / file).write_text(text)


main(Path(sys.argv[1]), sys.argv[2:])
