"""Which GPUs NVLink connects, and by how many links."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pynvml


def read_links(handles: Mapping[str, Any]) -> dict[frozenset[str], int]:
    """Return pairs of UUIDs -> number of active NVLinks between the two.

    GPUs that meet in an NVSwitch are all connected to each other. What NVML cannot tell counts as
    no link: a link is a reason to take GPUs together, never to give one or to refuse one.

    Parameters
    ----------
    handles
        UUID -> NVML's handle of each GPU.
    """
    linked = {uuid: handle for uuid, handle in handles.items() if _is_linked(handle)}
    places = {_place(handle): uuid for uuid, handle in linked.items()}
    one_way: Counter[tuple[str, str]] = Counter()
    to_switch: Counter[str] = Counter()
    for uuid, handle in linked.items():
        for far_end in _far_ends(handle):
            if far_end is None:
                to_switch[uuid] += 1
            elif places.get(far_end, uuid) != uuid:
                one_way[uuid, places[far_end]] += 1
    links: dict[frozenset[str], int] = {}
    for (one, other), number in one_way.items():
        # Each link is seen from both of its ends.
        pair = frozenset((one, other))
        links[pair] = max(number, links.get(pair, 0))
    for one, other in itertools.combinations(to_switch, 2):
        pair = frozenset((one, other))
        links[pair] = links.get(pair, 0) + min(to_switch[one], to_switch[other])
    return links


#: Domain, bus and device on the PCI bus.
_Place = tuple[int, int, int]


def _is_linked(handle: Any) -> bool:
    """Tell whether a GPU has NVLinks that can be asked, active or not."""
    try:
        pynvml.nvmlDeviceGetNvLinkState(handle, 0)
    except pynvml.NVMLError:
        return False
    return True


def _far_ends(handle: Any) -> Iterator[_Place | None]:
    """Give the place at the other end of each active link, None for a switch."""
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        try:
            if not pynvml.nvmlDeviceGetNvLinkState(handle, link):
                continue
            if _is_switch(handle, link):
                yield None
            else:
                yield _in_numbers(pynvml.nvmlDeviceGetNvLinkRemotePciInfo(handle, link))
        except pynvml.NVMLError as error:
            # There are no more links than the number of the first that is none.
            if error.value == pynvml.NVML_ERROR_INVALID_ARGUMENT:
                return


def _is_switch(handle: Any, link: int) -> bool:
    try:
        kind = pynvml.nvmlDeviceGetNvLinkRemoteDeviceType(handle, link)
    except pynvml.NVMLError:
        # Older drivers do not tell; the place at the other end then says whether it is a GPU.
        return False
    return bool(kind == pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH)


def _place(handle: Any) -> _Place | None:
    try:
        return _in_numbers(pynvml.nvmlDeviceGetPciInfo(handle))
    except pynvml.NVMLError:
        return None


def _in_numbers(info: Any) -> _Place:
    return info.domain, info.bus, info.device
