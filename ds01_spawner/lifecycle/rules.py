"""Users' rules as the service needs them: worked out once for each reading of the policy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta

from ..live import NeverRead
from ..policy import Lifecycle, Policy
from ..settings import DS01Settings
from .decide import NOTICE, Rules
from .history import Idle

#: All servers of one look are judged by the policy as it was at its beginning, or so long ago.
_FRESH_S = 2.0


class LiveRules:
    """What the policy says of the life of users' servers, as its files are now.

    - A policy that changes is seen within two seconds.
    - Rules that end by themselves on a day are worked out each time.

    Parameters
    ----------
    settings
        Know the policy.
    clock
        Seconds, counted from anywhere.
    """

    def __init__(self, settings: DS01Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._policy: Policy | None = None
        self._read_at = -_FRESH_S
        self._temporary: frozenset[str] = frozenset()
        self._known: dict[tuple[str, tuple[str, ...]], Lifecycle] = {}

    def __call__(self, user: str, groups: Iterable[str]) -> Lifecycle:
        """Return a user's rules.

        Raises
        ------
        Refused
            503 if the policy could not be read even once.
        """
        self._look()
        key = user, tuple(groups)
        found = self._known.get(key)
        if found is None:
            found = self._settings.share_of(*key).resolved.limits.lifecycle
            if self._policy is not None and user not in self._temporary:
                self._known[key] = found
        return found

    def _look(self) -> None:
        now = self._clock()
        if now - self._read_at < _FRESH_S:
            return
        self._read_at = now
        policy: Policy | None = None
        with suppress(NeverRead):
            policy = self._settings.policy.current()
        if policy is None or policy != self._policy:
            self._policy, self._known = policy, {}
            self._temporary = _temporary(policy) if policy else frozenset()


def rules_from(lifecycle: Lifecycle, notice: timedelta = NOTICE) -> Rules:
    """Return what `decide` needs of a user's policy."""
    return Rules(
        idle_timeout=lifecycle.idle_timeout,
        max_runtime=lifecycle.max_runtime,
        idle=Idle(
            gpu_percent=lifecycle.gpu_idle_percent,
            cpu_percent=lifecycle.cpu_idle_percent,
            network_bytes=lifecycle.network_idle_bytes,
            stalled_network_bytes=lifecycle.stalled_network_bytes,
            checks=lifecycle.idle_checks,
        ),
        grace=lifecycle.grace,
        stalled_after=lifecycle.stalled_kernel,
        high_demand_factor=lifecycle.high_demand_factor,
        notice=notice,
        container_bytes=lifecycle.container_bytes,
        workspace_bytes=lifecycle.workspace_bytes,
    )


def _temporary(policy: Policy) -> frozenset[str]:
    """Return the users for whom something is written that ends on a day."""
    overrides = (user for user, override in policy.overrides.items() if override.until)
    exemptions = (each.username for each in policy.exemptions if each.expires_on)
    return frozenset((*overrides, *exemptions))
