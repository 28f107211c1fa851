"""Containers of this Hub's that no server owns any more: removed after a while."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from ..admission.leftovers import Leftovers, Servers
from ..engine import Docker
from ..gpus.occupancy import Container
from ..store import Store

#: A Hub that is restarted knows all of its servers again long before.
_GIVEN_UP = timedelta(minutes=10)


class Sweep:
    """Removes them, beside the next grant of a GPU that does so too.

    - What was made and never ran goes after the policy's time: a start may be under way.
    - What ran goes when the Hub has not known it in ten minutes of looks.
    - What runs stays while the Hub has a server of that name without a container: its owner may
      have another name than when it was started.

    Parameters
    ----------
    docker_call
        The engine.
    store
        Where it is kept how servers ended.
    """

    def __init__(self, docker_call: Docker, store: Store) -> None:
        self._known: frozenset[tuple[str, str]] = frozenset()
        self._since: dict[str, datetime] = {}
        self._leftovers = Leftovers(docker_call, store, lambda: Servers(frozenset(), self._known))

    async def look(
        self,
        own: Collection[Container],
        known: Collection[tuple[str, str]],
        never_started: timedelta,
        now: datetime,
    ) -> list[Container]:
        """Remove what has been nobody's for long enough, and return it.

        Parameters
        ----------
        own
            All containers of this Hub's, also those that do not run.
        known
            User and name of each server that the Hub has, also of those that come or go.
        never_started
            For how long one may be made and not started.
        """
        self._known = frozenset(known)
        servers = Servers(frozenset(), self._known)
        nobodys = [c for c in own if not servers.include(c) or c.state == "created"]
        self._since = {c.container_id: self._since.get(c.container_id, now) for c in nobodys}
        with_container = {_names(container) for container in own}
        alone = {name for user, name in self._known if (user, name) not in with_container}
        old = [
            c
            for c in nobodys
            if self._is_old(c, never_started, now)
            and not (c.state == "running" and _names(c)[1] in alone)
        ]
        await self._leftovers.bury(old)
        return old

    def _is_old(self, container: Container, never_started: timedelta, now: datetime) -> bool:
        since = self._since[container.container_id]
        if container.state == "created":
            return now - max(container.created or since, since) >= never_started
        return now - since >= _GIVEN_UP


def _names(container: Container) -> tuple[str, str]:
    """Return the names that its owner and its server had when it was started."""
    return container.labels.get("ds01.user", ""), container.labels.get("ds01.server", "")
