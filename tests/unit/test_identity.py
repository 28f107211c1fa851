"""The user's entries in passwd and group, and reading an image's own."""

import io
import tarfile
from pathlib import Path

import docker.errors
import pytest

from ds01_spawner.accounts import Account
from ds01_spawner.identity import identity_archive, read_image_file, with_user

ACCOUNT = Account("alice", 400_001, 400_002, (), Path("/h"), Path("/w"), False)


class OneFile:
    """Answers like the engine for one archive."""

    def __init__(self, data):
        self.data = data

    def get_archive(self, _container, _path):
        if self.data is None:
            raise docker.errors.NotFound("no such file")
        return (chunk for chunk in [self.data]), {}


def tar(**fields):
    buffer = io.BytesIO()
    content = fields.pop("content", b"")
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("passwd")
        info.size = len(content)
        for key, value in fields.items():
            setattr(info, key, value)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_the_images_entries_stay_and_the_users_come_first():
    passwd, group = with_user("root:x:0:0::/root:/bin/sh\n", "root:x:0:\n", ACCOUNT)
    assert passwd.splitlines() == [
        "alice:x:400001:400002::/home/alice:/bin/sh",
        "root:x:0:0::/root:/bin/sh",
    ]
    assert group.splitlines() == ["alice:x:400002:", "root:x:0:"]


def test_an_image_cannot_take_the_users_name_or_number():
    image = "alice:x:0:0::/root:/bin/sh\nmallory:x:400001:0::/:/bin/sh\nok:x:7:7::/:/bin/sh\n"
    passwd, _ = with_user(image, "", ACCOUNT)
    assert [line.split(":")[0] for line in passwd.splitlines()] == ["alice", "ok"]


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"not a tar",
        tar(type=tarfile.SYMTYPE, linkname="/etc/shadow"),
        tar(type=tarfile.DIRTYPE),
        tar(content=b"x" * (1024 * 1024 + 1)),
    ],
)
def test_an_image_with_something_odd_in_its_place_counts_as_without(data):
    assert read_image_file(OneFile(data), "c", "/etc/passwd") == ""


def test_an_images_file_is_read():
    assert read_image_file(OneFile(tar(content=b"root:x:0:0")), "c", "/etc/passwd") == "root:x:0:0"


def test_the_place_for_packages_belongs_to_the_user():
    with tarfile.open(fileobj=io.BytesIO(identity_archive("p", "g", ACCOUNT))) as archive:
        place, passwd = archive.getmember("opt/temporary"), archive.getmember("etc/passwd")
    assert (place.isdir(), place.uid, place.gid, place.mode) == (True, 400_001, 400_002, 0o755)
    assert passwd.uid == 0
