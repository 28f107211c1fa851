"""A slice of its own for each user, whatever the name."""

import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01_spawner.cgroups.slices import PROBE, slice_name

#: What turns up in names that were made to collide: escapes, dots, dashes, both cases.
NAMES = st.one_of(
    st.text(),
    st.text(alphabet="aAdD.-\\x2/:_ 0", max_size=12),
    st.text(min_size=150, max_size=300, alphabet="a-é"),
)


def test_a_plain_name_is_readable():
    assert slice_name("alice") == "ds01-alice.slice"
    assert slice_name("a.b@x-y") == r"ds01-a.b\x40x\x2dy.slice"


@given(NAMES, NAMES)
def test_two_users_never_share_a_slice(one, other):
    assert (slice_name(one) == slice_name(other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Alice", "alice"),
        ("a.b", "a-b"),
        ("a-b", r"a\x2db"),
        ("é", "e\u0301"),
        ("", "\\x2D"),
        ("x" * 190, "x" * 191),
    ],
)
def test_names_that_look_alike_are_two(one, other):
    assert slice_name(one) != slice_name(other)


def test_a_long_name_shares_its_slice_with_no_name_that_spells_it():
    hashed = slice_name("\N{GRINNING FACE}" * 255)
    assert len(hashed) < 60
    spelled = hashed.removeprefix("ds01-").removesuffix(".slice")
    assert slice_name(spelled) != hashed
    assert slice_name(spelled.replace(r"\x2D", "-")) != hashed


@given(NAMES)
def test_a_name_is_one_level_for_the_kernel_systemd_and_docker(user):
    name = slice_name(user)
    # systemd makes a level of each dash; Docker's systemd driver splits at colons.
    assert re.fullmatch(r"ds01-([A-Za-z0-9_.]|\\x[0-9a-f]{2}|\\x2D)+\.slice", name)
    assert not name.startswith("ds01-.")
    assert len(name) <= 200
    assert name != PROBE


@pytest.mark.parametrize("user", ["../x", "a/b", ".", "..", "ü b", "a-b-c", "-"])
def test_systemd_reads_the_name_back(user):
    escaped = slice_name(user).removeprefix("ds01-").removesuffix(".slice")
    read = subprocess.run(
        ["systemd-escape", "--unescape", "--", escaped], capture_output=True, text=True, check=True
    )
    # systemd-escape writes a slash for each dash, and there is none left.
    assert read.stdout == f"{user}\n"
