"""GPUs that can be pretended, and how NVIDIA's driver lets them be cut into MIG devices.

Profiles and placements are those of NVIDIA's MIG user guide, "Supported MIG Profiles", and of
``nvidia-smi mig -lgipp``: a profile takes a number of compute slices and of memory slices, and its
memory slices begin only at certain places.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class Profile:
    """A kind of GPU instance.

    Attributes
    ----------
    name
        Such as ``3g.40gb``.
    slices
        Compute slices.
    memory_slices
        Memory slices that it takes, side by side.
    starts
        Memory slices at which it may begin.
    memory_mib
        Memory in MiB, as the driver tells it.
    limit
        How many of it there may be on a GPU.
    number
        The driver's number of this kind, ``NVML_GPU_INSTANCE_PROFILE_…``.
    """

    name: str
    slices: int
    memory_slices: int
    starts: tuple[int, ...]
    memory_mib: int
    limit: int
    number: int

    @property
    def has_all_media(self) -> bool:
        """Whether it takes the GPU's only media engines, so that there is one at most."""
        return self.name.endswith("+me")


@dataclass(frozen=True)
class Model:
    """A kind of GPU.

    Attributes
    ----------
    name
        What the driver calls it, with the maker's name.
    memory_mib
        Memory in MiB.
    slices, memory_slices
        What can be shared out between MIG devices; 0 without MIG.
    profiles
        Kinds of GPU instances, from the smallest; empty without MIG.
    nvlinks
        Number of NVLink connections.
    has_gpm
        Whether the driver tells the utilisation of MIG devices (from Hopper on).
    retires_pages
        Whether broken memory is set aside by pages; newer GPUs remap rows.
    """

    name: str
    memory_mib: int
    slices: int = 0
    memory_slices: int = 0
    profiles: tuple[Profile, ...] = ()
    nvlinks: int = 0
    has_gpm: bool = False
    retires_pages: bool = False

    def profile(self, name: str) -> Profile | None:
        """Return the profile of this name, None if there is none."""
        return next((profile for profile in self.profiles if profile.name == name), None)


def _sevenths(gb: tuple[int, int, int, int], mib: tuple[int, int, int, int]) -> tuple[Profile, ...]:
    """Return the profiles of a GPU with 7 compute and 8 memory slices.

    Parameters
    ----------
    gb, mib
        What one, two, four and all memory slices hold: in the profile's name, and exactly.
    """
    evens = (0, 2, 4, 6)
    return (
        Profile(f"1g.{gb[0]}gb", 1, 1, tuple(range(7)), mib[0], 7, 0x0),
        Profile(f"1g.{gb[0]}gb+me", 1, 1, tuple(range(7)), mib[0], 1, 0x7),
        Profile(f"1g.{gb[1]}gb", 1, 2, evens, mib[1], 4, 0x9),
        Profile(f"2g.{gb[1]}gb", 2, 2, (0, 2, 4), mib[1], 3, 0x1),
        Profile(f"3g.{gb[2]}gb", 3, 4, (0, 4), mib[2], 2, 0x2),
        Profile(f"4g.{gb[2]}gb", 4, 4, (0,), mib[2], 1, 0x3),
        Profile(f"7g.{gb[3]}gb", 7, 8, (0,), mib[3], 1, 0x4),
    )


_A30 = (
    Profile("1g.6gb", 1, 1, (0, 1, 2, 3), 5952, 4, 0x0),
    Profile("1g.6gb+me", 1, 1, (0, 1, 2, 3), 5952, 1, 0x7),
    Profile("2g.12gb", 2, 2, (0, 2), 11968, 2, 0x1),
    Profile("2g.12gb+me", 2, 2, (0, 2), 11968, 1, 0x8),
    Profile("4g.24gb", 4, 4, (0,), 24064, 1, 0x3),
)
_40 = _sevenths((5, 10, 20, 40), (4864, 9984, 20096, 40192))
_80 = _sevenths((10, 20, 40, 80), (9728, 19968, 40192, 80896))
_141 = _sevenths((18, 35, 71, 141), (16384, 33280, 71168, 143360))

#: What a spec may name.
MODELS = {
    "a100-40gb": Model("NVIDIA A100-SXM4-40GB", 40960, 7, 8, _40, nvlinks=12),
    "a100-80gb": Model("NVIDIA A100-SXM4-80GB", 81920, 7, 8, _80, nvlinks=12),
    "a30": Model("NVIDIA A30", 24576, 4, 4, _A30, nvlinks=4),
    "h100-80gb": Model("NVIDIA H100 80GB HBM3", 81559, 7, 8, _80, nvlinks=18, has_gpm=True),
    "h200-141gb": Model("NVIDIA H200", 143771, 7, 8, _141, nvlinks=18, has_gpm=True),
    "rtx-4090": Model("NVIDIA GeForce RTX 4090", 24564),
    "v100-32gb": Model("Tesla V100-SXM2-32GB", 32768, nvlinks=6, retires_pages=True),
}
