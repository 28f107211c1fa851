"""Out-of-memory kills, counted by the kernel for each container.

Usually only the kernel's process dies and the notebook server lives on; Docker's ``OOMKilled``
is then false, and this counter is the only witness.
"""

from __future__ import annotations

from pathlib import Path

from .hierarchies import CGROUP_ROOT, PROC, cgroups_of, hierarchies
from .usage import oom_kills_v1, oom_kills_v2


def oom_kills(pid: int, *, proc: Path = PROC, root: Path = CGROUP_ROOT) -> int | None:
    """Return how many processes the kernel killed for memory in the cgroup of a process.

    Parameters
    ----------
    pid
        The container's first process, as the host sees it.

    Returns
    -------
    int or None
        None when the process is gone or the kernel does not say.
    """
    try:
        cgroups = cgroups_of(pid, proc)
        # v1 first, as hybrid machines have an empty v2 beside it.
        if "memory" in cgroups:
            return oom_kills_v1(hierarchies(root)["memory"] / cgroups["memory"].lstrip("/"))
        return oom_kills_v2(root / cgroups[""].lstrip("/"))
    except (OSError, ValueError, KeyError):
        return None
