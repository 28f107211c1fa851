"""What run.sh and the images install: exact versions with hashes, and no registry's name."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "images/datascience/requirements.lock")


def names_in(path: Path) -> set[str]:
    lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
    return {canonicalize_name(Requirement(line).name) for line in lines if line}


def locked(path: str) -> list[str]:
    """Return one text for each locked package: its line and its hashes."""
    return [
        " ".join(entry.split())
        for entry in re.split(r"\n(?=\S)", (REPOSITORY / path).read_text().strip())
        if not entry.startswith("#")
    ]


def locked_names(path: str) -> set[str]:
    return {canonicalize_name(entry.split("==")[0]) for entry in locked(path)}


@pytest.mark.parametrize("path", LOCKS)
def test_every_package_has_one_version_and_hashes(path):
    for entry in locked(path):
        assert re.match(r"[A-Za-z0-9._-]+==[^ ]+ ", entry), entry
        assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize("path", LOCKS)
def test_no_registry_is_named(path):
    assert "://" not in (REPOSITORY / path).read_text()


def test_the_lock_covers_what_the_package_needs():
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    needed = {
        canonicalize_name(Requirement(line).name)
        for line in setup["options"]["install_requires"].split("\n")
        if line
    }
    missing = (needed | names_in(REPOSITORY / "requirements.in")) - locked_names(LOCKS[0])

    assert missing == set(), "run scripts/relock.sh"


def test_the_data_science_lock_covers_its_list():
    wanted = names_in(REPOSITORY / "images/datascience/requirements.in")

    assert {"pandas", "scipy", "scikit-learn", "matplotlib", "seaborn"} <= wanted
    assert wanted - locked_names(LOCKS[1]) == set(), "run scripts/relock.sh"


def test_no_image_has_jupyter_in_it():
    assert not {name for name in locked_names(LOCKS[1]) if "jupyter" in name or name == "ipykernel"}


def test_the_proxy_is_pinned_with_all_it_needs():
    wanted = json.loads((REPOSITORY / "proxy/package.json").read_text())["dependencies"]
    packages = json.loads((REPOSITORY / "proxy/package-lock.json").read_text())["packages"]

    assert packages.pop("")["dependencies"] == wanted == {"configurable-http-proxy": "5.3.0"}
    assert not any("resolved" in package for package in packages.values()), "names a registry"
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
