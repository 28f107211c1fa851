"""What has been asked for lately, and what taking a device costs those who come next."""

from __future__ import annotations

from collections.abc import Sequence

from .devices import Device
from .request import GpuRequest, suffices

#: So many requests that nobody made count beside those that were made. As long as little is
#: known, a device is worth its size.
_UNKNOWN = 10.0


class RecentDemand:
    """The requests of late; the older, the less they count.

    - It remembers at most `sizes` different requests, however many come.
    - The same requests in the same order give the same choices.
    - Time does not matter to it: a server that is quiet over the holidays forgets nothing.

    Parameters
    ----------
    remembered
        A request counts for a third when so many others have come after it.
    sizes
        How many different requests are told apart; the rarest is forgotten first.
    """

    def __init__(self, remembered: int = 200, sizes: int = 16) -> None:
        self._keep = 1 - 1 / remembered
        self._sizes = sizes
        self._counts: dict[GpuRequest, float] = {}

    def saw(self, request: GpuRequest) -> None:
        """Count a request, be it granted or refused."""
        counts = {known: count * self._keep for known, count in self._counts.items()}
        if request not in counts and len(counts) == self._sizes:
            del counts[min(counts, key=lambda known: counts[known])]
        counts[request] = counts.get(request, 0.0) + 1
        self._counts = counts

    @property
    def shares(self) -> tuple[tuple[GpuRequest, float], ...]:
        """Each request made lately, and its share of all that may come next."""
        total = sum(self._counts.values()) + _UNKNOWN
        return tuple((request, count / total) for request, count in self._counts.items())


def losses(makes: Sequence[Sequence[Device]], demand: RecentDemand | None) -> list[float]:
    """Estimate how many of the next requests fail if one device of a make is taken.

    Each kind of request that a device would serve loses one of all the free devices that would
    serve it; the fewer they are, the more. Where one make serves all that another does, it
    never counts for less: among the sizes of one model the smallest that is enough is the best
    choice whatever is asked for, since whoever comes next can do with what is left over at
    least what they could with the other. Demand decides between makes that serve different
    requests, such as two models.

    Parameters
    ----------
    makes
        The free devices, each make's together.
    """
    shares = demand.shares if demand else ()
    unknown = 1 - sum(share for _, share in shares)
    found = [unknown * make[0].weight for make in makes]
    for request, share in shares:
        serving = [place for place, make in enumerate(makes) if suffices(make[0], request)]
        spare = sum(len(makes[place]) for place in serving) - request.count
        if spare >= 0:
            for place in serving:
                found[place] += share / (spare + 1)
    return found
