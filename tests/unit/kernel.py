"""Plain files that stand in for the kernel's cgroups, with as much of its behaviour as matters."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ds01_spawner.cgroups import files

PAGE = 4096

V1 = {
    "memory": {
        "memory.use_hierarchy": "1",
        "memory.limit_in_bytes": "9223372036854771712",
        "memory.usage_in_bytes": "0",
        "memory.stat": "inactive_file 1\ntotal_inactive_file 0\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
    },
    "cpu": {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"},
    "cpuacct": {"cpuacct.usage": "0"},
    "pids": {"pids.max": "max", "pids.current": "0"},
    "freezer": {},
    "systemd": {},
}
V2 = {
    "cgroup.controllers": "cpu io memory pids",
    "cgroup.subtree_control": "",
    "memory.max": "max",
    "memory.high": "max",
    "memory.current": "0",
    "memory.stat": "anon 0\ninactive_file 0\n",
    "memory.events": "low 0\noom 0\noom_kill 0\n",
    "cpu.max": "max 100000",
    "cpu.stat": "usage_usec 0\nuser_usec 0\n",
    "pids.max": "max",
    "pids.current": "0",
}


class Kernel:
    """Cgroups under a directory.

    Attributes
    ----------
    written
        What was written, in its order: file and value.
    refuses
        Names of files to which a write fails, with the error's number.
    """

    def __init__(self, root: Path, version: int, monkeypatch) -> None:
        self.root, self.version = root, version
        self.written: list[tuple[Path, str]] = []
        self.refuses: dict[str, int] = {}
        self._write, self._mkdir, self._rmdir = files.write, Path.mkdir, Path.rmdir
        monkeypatch.setattr(files, "write", self.write)
        monkeypatch.setattr(Path, "mkdir", lambda path, *args, **kw: self.mkdir(path, *args, **kw))
        monkeypatch.setattr(Path, "rmdir", lambda path: self.rmdir(path))
        for each in (root / name for name in V1) if version == 1 else [root]:
            os.makedirs(each)
            self._fill(each)

    def mkdir(self, path: Path, *args, **kwargs) -> None:
        self._mkdir(path, *args, **kwargs)
        if path.is_relative_to(self.root):
            self._fill(path)

    def rmdir(self, path: Path) -> None:
        if path.is_relative_to(self.root):
            if files.is_occupied(path):
                raise OSError(errno.EBUSY, "Device or resource busy")
            for file in path.iterdir():
                file.unlink()
        self._rmdir(path)

    def write(self, file: Path, value: str) -> None:
        if file.name in self.refuses:
            number = self.refuses[file.name]
            raise OSError(number, os.strerror(number))
        self.written.append((file, value))
        if file.name == "cpu.cfs_quota_us":
            self._check_cpu(file.parent, int(value))
        if file.name in ("memory.limit_in_bytes", "memory.max", "memory.high"):
            number = 2**63 if value in ("-1", "max") else int(value)
            value = str(min(number, 2**63 - 1) // PAGE * PAGE)
            if self.version == 2 and number == 2**63:
                value = "max"
        if file.name == "cgroup.subtree_control":
            value = f"{file.read_text()} {value.replace('+', '')}"
        self._write(file, value)

    def container(self, name: str, where: tuple[str, ...] = tuple(V1)) -> list[Path]:
        """Make a container's cgroup under a slice, as the engine does."""
        roots = [self.root / each for each in where] if self.version == 1 else [self.root]
        made = [root / "ds01.slice" / name / "c0ffee" for root in roots]
        for each in made:
            for level in (each.parent.parent, each.parent, each):
                if not level.is_dir():
                    level.mkdir()
        return made

    def _fill(self, path: Path) -> None:
        kinds = [V2]
        if self.version == 1:
            kinds = [V1[name] for name in path.relative_to(self.root).parts[0].split(",")]
        for kind in kinds:
            for name, text in {**kind, "cgroup.procs": ""}.items():
                (path / name).write_text(text)

    def _check_cpu(self, cpu: Path, quota: int) -> None:
        """Refuse more than the level above has, and less than one below has; Linux does."""

        def share(directory: Path, its_quota: int | None = None) -> float:
            its_quota = its_quota or int((directory / "cpu.cfs_quota_us").read_text())
            period = int((directory / "cpu.cfs_period_us").read_text())
            return its_quota / period

        mine = share(cpu, quota)
        above = share(cpu.parent)
        below = [share(child) for child in files.children(cpu)]
        if 0 < above < mine or (mine > 0 and any(child > mine for child in below)):
            raise OSError(errno.EINVAL, "Invalid argument")
