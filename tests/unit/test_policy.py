"""Sizes and limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01_spawner.policy import GIB, Machine, format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [("8g", 8 * GIB), ("512 MB", 512 * 1024**2), ("1.5 GiB", 3 * GIB // 2), ("100", 100), (7, 7)],
)
def test_sizes_are_read_as_docker_reads_them(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text",
    [
        *("", "g", "-1g", "1x", "0", "0.5", "٣g", "9" * 305 + "t", "9" * 400),
        *(float("nan"), float("inf"), True, 10**400),
    ],
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="size"):
        parse_bytes(text)


@given(st.integers(1, 2**50))
def test_a_size_for_people_is_close_to_the_size(size):
    number, unit = format_bytes(size).split()
    factor = {"B": 0, "KiB": 1, "MiB": 2, "GiB": 3, "TiB": 4}[unit]
    assert float(number) * 1024**factor == pytest.approx(size, rel=0.01)


def test_limits_are_cut_to_the_machine_and_leave_it_a_reserve(limits):
    cut = limits.within(Machine(cpus=2, memory_bytes=4 * GIB))
    assert cut.cpus == 2
    assert cut.memory_bytes == 3 * GIB
    assert cut.memory_swap_bytes == cut.memory_bytes
    assert cut.shm_bytes <= cut.memory_bytes


def test_a_large_machine_changes_no_limit(limits):
    assert limits.within(Machine(cpus=64, memory_bytes=512 * GIB)) == limits
