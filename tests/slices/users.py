"""Containers of one user, as tests start them, and what runs in them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import docker.errors

from ds01_spawner.cgroups.limits import SliceLimits
from ds01_spawner.cgroups.slices import Slices, slice_name
from ds01_spawner.cgroups.usage import Usage, container_usage

#: How many times slower than usual this machine is.
SLOW = float(os.environ.get("DS01_SLOW") or 1)
MIB = 1 << 20


def eventually(condition: Callable[[], Any], what: str, within_s: float = 30) -> Any:
    """Wait until a condition holds, and return what it says."""
    deadline = time.monotonic() + within_s * SLOW
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {within_s * SLOW:.0f} s: {what}"
        time.sleep(0.1)
    return result


class Process:
    """A process in a container that nobody waits for."""

    def __init__(self, engine: Any, id_: str) -> None:
        self._engine, self._id = engine, id_

    @property
    def exit_code(self) -> int | None:
        """Return how it has ended, None while it runs."""
        found = self._engine.exec_inspect(self._id)
        return None if found["Running"] else found["ExitCode"]


class Container:
    """A container that sleeps, and in which a test runs things."""

    def __init__(self, engine: Any, id_: str) -> None:
        self.engine, self.id = engine, id_

    @property
    def pid(self) -> int:
        return int(self.engine.inspect_container(self.id)["State"]["Pid"])

    @property
    def is_running(self) -> bool:
        return bool(self.engine.inspect_container(self.id)["State"]["Running"])

    @property
    def usage(self) -> Usage:
        usage = container_usage(self.pid)
        assert usage is not None
        return usage

    def run(self, script: str) -> Process:
        """Run a shell script in the background."""
        id_ = self.engine.exec_create(self.id, ["sh", "-c", script])["Id"]
        self.engine.exec_start(id_, detach=True)
        return Process(self.engine, id_)

    def hold_memory(self, mib: int) -> Process:
        """Use so much memory until the end."""
        # A process of its own for the kernel to kill, beside the container's first one.
        return self.run(f"exec perl -e 'vec($x, ({mib} << 20) - 1, 8) = 1; sleep 1 while 1'")

    def compute(self) -> Process:
        """Use as much of one CPU as can be had."""
        return self.run("while :; do :; done")

    def fork_forever(self) -> Process:
        """Make processes until one cannot be made."""
        return self.run("while :; do sleep 100000 & done >/dev/null 2>&1")

    def remove(self) -> None:
        """Remove it with all that runs in it, unless it is gone."""
        with suppress(docker.errors.NotFound):
            self.engine.remove_container(self.id, force=True)


class User:
    """Somebody with a slice and containers."""

    def __init__(self, name: str, engine: Any, image: str, slices: Slices) -> None:
        self.name, self.slice = name, slice_name(name)
        self._engine, self._image, self._slices = engine, image, slices
        self._containers: list[Container] = []

    def limit(self, **limits: Any) -> None:
        """Set the slice's limits; see `SliceLimits`."""
        self._slices.set(self.slice, SliceLimits(**limits))

    @property
    def limits(self) -> SliceLimits | None:
        return self._slices.limits(self.slice)

    @property
    def usage(self) -> Usage:
        usage = self._slices.usage(self.slice)
        assert usage is not None
        return usage

    def start(self, cpus: float = 0, memory_mib: int = 0, pids: int = 0) -> Container:
        """Start a container under the slice with limits of its own; 0 is no limit."""
        config = self._engine.create_host_config(
            cgroup_parent=self._slices.parent(self.slice),
            nano_cpus=round(cpus * 1e9),
            mem_limit=memory_mib * MIB,
            memswap_limit=memory_mib * MIB,
            pids_limit=pids or -1,
            network_mode="none",
            init=True,
        )
        made = self._engine.create_container(
            self._image, ["sleep", "100000"], host_config=config, labels={"ds01.test": "slices"}
        )
        container = Container(self._engine, made["Id"])
        self._containers.append(container)
        self._engine.start(container.id)
        return container

    def close(self) -> None:
        """Remove containers and slice."""
        for container in self._containers:
            container.remove()
        eventually(lambda: self._slices.remove_if_empty(self.slice), "the slice is gone")
