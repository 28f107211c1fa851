"""What has been asked for lately: what a free device is worth to those who come next."""

from __future__ import annotations

from .request import GpuRequest


class RecentDemand:
    """Requests of late, the older the less they count.

    - It holds at most `sizes` different requests, however many come.
    - The same requests in the same order give the same answers.

    Parameters
    ----------
    remembered
        After so many further requests, one counts for a third.
    sizes
        How many different requests are told apart.
    """

    def __init__(self, remembered: float = 200, sizes: int = 32) -> None:
        self._keep = 1 - 1 / remembered
        self._sizes = sizes
        self._shares: dict[GpuRequest, float] = {}

    def saw(self, request: GpuRequest, at: float) -> None:
        """Count a request, granted or not, that came at this time (seconds, any clock)."""
        shares = {known: share * self._keep for known, share in self._shares.items()}
        shares[request] = shares.get(request, 0.0) + 1
        if len(shares) > self._sizes:
            del shares[min(shares, key=lambda known: shares[known])]
        self._shares = shares

    def shares(self) -> tuple[tuple[GpuRequest, float], ...]:
        """Give each kind of request lately made and its share of all, 0 to 1."""
        total = sum(self._shares.values())
        return tuple((request, share / total) for request, share in self._shares.items())
