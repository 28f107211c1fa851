"""The toolkit's hook: called before a container starts, it makes device nodes in it.

The nodes have the real names, and do what /dev/null does. Settings and a journal of the calls lie
in the directory that is the first argument; see `tests.gpu.toolkit.Toolkit`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# The engine runs this file alone, isolated.
sys.path.insert(0, str(Path(__file__).parent))
import request

CONTROL = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")
_CLONE_NEWNS = 0x00020000


def main() -> None:
    """Do what the toolkit would do, or what a test wants to go wrong."""
    folder, step = Path(sys.argv[1]), sys.argv[2]
    if step != "prestart":
        return
    settings = json.loads((folder / "settings.json").read_text())
    state = json.load(sys.stdin)
    config = json.loads((Path(state["bundle"]) / "config.json").read_text())
    env = request.environment(config)
    bounding = (config["process"].get("capabilities") or {}).get("bounding") or ()
    wanted = request.requested(
        env, settings["swarm_resource"], settings["accepts_variables"], "CAP_SYS_ADMIN" in bounding
    )
    call: dict[str, Any] = {"id": state["id"], "wanted": wanted}
    try:
        if wanted is None:
            return
        call["capabilities"] = request.driver_capabilities(env)
        request.check_requirements(env)
        made = request.nodes(wanted, settings["devices"])
        made = _misbehave(settings["misbehave"], made, settings["devices"])
        call["nodes"] = sorted(made)
        _make_nodes(state["pid"], Path(state["bundle"]), config, made | set(CONTROL))
    finally:
        with (folder / "calls.jsonl").open("a") as journal:
            journal.write(json.dumps(call) + "\n")


def _misbehave(how: str, made: set[str], devices: Iterable[dict[str, Any]]) -> set[str]:
    if how == "fails":
        raise request.HookError("the driver has gone")
    if how == "nothing":
        return set()
    if how == "one too many":
        others = (device for device in devices if not set(device["nodes"]) <= made)
        return made | set(next(others)["nodes"])
    return made


def _make_nodes(pid: int, bundle: Path, config: dict[str, Any], names: Iterable[str]) -> None:
    """Make the nodes where the container will have its ``/dev``, in its own mounts."""
    root = bundle / config["root"]["path"]
    mounts = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(mounts, _CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    os.umask(0)
    for name in names:
        path = root / "dev" / name
        path.parent.mkdir(mode=0o755, exist_ok=True)
        # The engine calls once for each of several requests.
        with contextlib.suppress(FileExistsError):
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))


if __name__ == "__main__":
    try:
        main()
    except request.HookError as error:
        sys.exit(f"nvidia-container-cli: {error}")
