"""An image's VOLUMEs hide nothing that a user or a server needs, and are never filled."""

import io
import tarfile
from pathlib import Path

import pytest

from ds01_spawner import image_volumes
from ds01_spawner.accounts import Account
from ds01_spawner.containers import Image
from ds01_spawner.errors import Refused
from ds01_spawner.identity import identity_archive

HOME = "/home/alice"
ACCOUNT = Account("alice", 400_001, 400_002, (), Path("/h"), Path("/w"), False)


def volumes_of(*places):
    inspected = {"Config": {"Volumes": {place: {} for place in places}}}
    return Image.from_inspect("sha256:1", inspected).volumes


@pytest.mark.parametrize(
    "place",
    [
        "/",
        "/workspace/results",
        "//workspace/results/",
        "/data/../workspace/results",
        "/home/alice/.jupyter",
        "/opt/ds01/bin",
        "/opt/temporary",
        "/dev",
        "/dev/shm",
        "/proc",
        "/sys/fs/cgroup",
        "/etc/ds01",
        "/run",
        "/var/run/nvidia-container-devices/all",
        "/usr",
        "relative/path",
    ],
)
def test_a_volume_that_would_hide_something_is_refused_by_image_and_place(place):
    with pytest.raises(Refused, match="brags") as caught:
        image_volumes.check("brags", volumes_of("/data", place), HOME)
    assert caught.value.status_code == 400
    assert repr(volumes_of(place)[0]) in str(caught.value)
    assert "build it without" in str(caught.value)


@pytest.mark.parametrize(
    "place", ["/data", "/tmp", "/home", "/opt", "/workspaces", "/home/alice2/x", "/usr/share/data"]
)
def test_any_other_volume_is_new_empty_and_never_filled_by_the_engine(place):
    image_volumes.check("works", volumes_of(place), HOME)

    (mount,) = image_volumes.mounts(volumes_of(place), HOME)

    assert mount.as_docker() == {
        "Type": "volume",
        "Source": "",
        "Target": place,
        "ReadOnly": False,
        "VolumeOptions": {"NoCopy": True},
    }


def test_exactly_at_our_own_mounts_ours_stay():
    volumes = volumes_of("/workspace", "/workspace/", "/opt/ds01", HOME)

    image_volumes.check("works", volumes, HOME)

    assert image_volumes.mounts(volumes, HOME) == ()
    assert image_volumes.places(volumes, HOME) == []


def test_an_image_with_thousands_of_volumes_is_refused():
    with pytest.raises(Refused, match="2000 volumes"):
        image_volumes.check("brags", volumes_of(*(f"/data/{n}" for n in range(2000))), HOME)


def test_an_image_that_says_nothing_has_no_volumes():
    assert Image.from_inspect("x", {"Config": {"Volumes": None}}).volumes == ()
    assert Image.from_inspect("x", {"Config": None}).volumes == ()


def test_the_user_can_write_to_the_new_volumes():
    data = identity_archive("p", "g", ACCOUNT, ["/tmp", "/var/data"])

    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = {member.name: (member.isdir(), member.mode) for member in archive}
    assert found["tmp"] == found["var/data"] == (True, 0o1777)
