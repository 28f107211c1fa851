"""Images for the runtime's tests: each is one thing that a vendor, or a student, may bring.

None of them was made with JupyterHub in mind. They are built once and found again by a tag that
is a hash of what they are made from.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from docker import DockerClient
from docker.errors import ImageNotFound

from ds01_spawner import buildkit

HERE = Path(__file__).parent
REPOSITORY = "ds01-test/runtime"
#: Suites of Debian that are made from packages, with nothing in them but Python.
SUITES = {"debian11": "bullseye", "debian13": "trixie"}
_FROM = re.compile(r"^FROM ds01-test/runtime:(\S+)", re.MULTILINE)


def build(client: DockerClient, name: str, ca_bundle: Path | None) -> str:
    """Build an image if this version of it is not there yet, and return its tag."""
    if name in SUITES:
        return _debian(client, SUITES[name])
    context = HERE / name
    dockerfile = (context / "Dockerfile").read_text()
    parents = {parent: build(client, parent, ca_bundle) for parent in _FROM.findall(dockerfile)}
    tag = f"{REPOSITORY}:{name}-{buildkit.content_hash(context, *parents.values())[:12]}"
    if _exists(client, tag):
        return tag
    for parent, parent_tag in parents.items():
        client.images.get(parent_tag).tag(REPOSITORY, parent)
    with buildkit.site_secrets(ca_bundle) as secrets:
        buildkit.build(context, tag, secrets=secrets, log=print)
    return tag


def _debian(client: DockerClient, suite: str) -> str:
    tag = f"{REPOSITORY}:{suite}-python"
    if _exists(client, tag):
        return tag
    with tempfile.TemporaryDirectory(prefix="ds01-test-", dir="/var/tmp") as directory:
        root = Path(directory) / "root"
        subprocess.run(
            # What debootstrap mounts goes away with its mount namespace.
            [
                *("unshare", "--mount", "--propagation", "private"),
                *("debootstrap", "--variant=minbase", "--include=python3", suite, str(root)),
            ],
            check=True,
            env={**os.environ, "LC_ALL": "C"},
            stdout=subprocess.DEVNULL,
        )
        archive = Path(directory) / "root.tar"
        packages = ["--exclude=./var/cache/apt/archives/*.deb", "--exclude=./var/lib/apt/lists/*"]
        subprocess.run(["tar", *packages, "-C", root, "-cf", archive, "."], check=True)
        client.api.import_image(str(archive), repository=REPOSITORY, tag=f"{suite}-python")
    return tag


def _exists(client: DockerClient, tag: str) -> bool:
    try:
        client.images.get(tag)
    except ImageNotFound:
        return False
    return True
