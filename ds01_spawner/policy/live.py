"""The policy as its files are now, or were while they could be read."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ..clock import utc_now
from ..live import Live
from .files import PolicyError, load_policy, policy_files
from .resolve import Policy, Resolved
from .storage import Folder, folders_of, load_storage_beside, storage_file


@dataclass(frozen=True)
class Share:
    """What one user may have: their limits with their sources, and their shared folders."""

    resolved: Resolved
    folders: tuple[Folder, ...]


def share_of(
    policy: Policy,
    folders: Iterable[Folder],
    user: str,
    hub_groups: Collection[str],
    now: datetime,
) -> Share:
    """Return what a user may have; the parameters are those of `Policy.resolve`."""
    resolved = policy.resolve(user, hub_groups, now)
    groups = {*resolved.groups, *hub_groups, *filter(None, [resolved.group])}
    return Share(resolved, folders_of(folders, groups))


class LivePolicy:
    """The lab's rules, which follow their files.

    A mistake in the policy leaves its last good reading in force, and one in ``storage.yaml`` that
    file's; neither touches the other.

    Parameters
    ----------
    file
        ``resource-limits.yaml``; None gives everybody DS01's defaults, and no shared folders.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self._policy: Live[Policy] | None = None
        self._storage: Live[tuple[Folder, ...]] | None = None
        if file is not None:
            self._policy = Live(
                "The policy", lambda: policy_files(file), lambda: load_policy(file), PolicyError
            )
            self._storage = Live(
                "The list of shared folders",
                lambda: [storage_file(file)],
                lambda: load_storage_beside(file),
                PolicyError,
            )

    @property
    def problems(self) -> tuple[str, ...]:
        """Why the files are not in force as they are now, a line each; empty if they are."""
        problems = (live.problem for live in (self._policy, self._storage) if live)
        return tuple(line for problem in problems for line in problem.splitlines())

    def current(self) -> Policy:
        """Return the policy.

        Raises
        ------
        NeverRead
            If it could not be read even once.
        """
        return self._policy.current() if self._policy else Policy()

    def folders(self) -> tuple[Folder, ...]:
        """Return all shared folders.

        Raises
        ------
        NeverRead
            If their list could not be read even once.
        """
        return self._storage.current() if self._storage else ()

    def share(self, user: str, hub_groups: Collection[str]) -> Share:
        """Return what a user may have now.

        Raises
        ------
        NeverRead
            If the policy could not be read even once.
        """
        return share_of(self.current(), self.folders(), user, hub_groups, utc_now())
