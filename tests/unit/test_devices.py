"""Whether a cgroup's processes may open devices; tests/slices tries it with a filter."""

import pytest

from ds01_spawner.cgroups.devices import may_open
from ds01_spawner.cgroups.limits import SliceError


def test_without_a_filter_a_device_may_be_opened(tmp_path):
    (tmp_path / "cgroup.procs").touch()

    assert may_open(tmp_path)
    assert (tmp_path / "cgroup.procs").read_text() == "0"


def test_a_cgroup_that_cannot_be_joined_is_not_taken_for_a_closed_one(tmp_path):
    with pytest.raises(SliceError, match=r"is not known: .*No such file"):
        may_open(tmp_path / "gone")
