"""Debian 12 from its own packages, for machines that reach no image registry."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from docker import DockerClient

from ..buildkit import BuildError, Log, run_logged

SUITE = "bookworm"
PACKAGES = ("ca-certificates",)
#: Debian 12's public keys: 4D64FEC119C2029067D6E791F8D2585B8783D481 (its release) and
#: B8B80B5B623EAB6AD8775C45B7C5D7D6350947F8 (its archive). Ubuntu has none that are this new.
KEYRING = Path(__file__).with_name("bookworm.gpg")
_DEBIAN = "http://ftp.debian.org/debian"
_DEBIAN_SECURITY = "http://security.debian.org/debian-security"
#: Left out of the image: downloads, indexes that age, and what is this machine's own.
_NOT_IN_THE_IMAGE = (
    "./var/cache/apt/*.bin",
    "./var/cache/apt/archives/*.deb",
    "./var/lib/apt/lists/*",
    "./var/log/*.log",
    "./etc/hostname",
    "./etc/resolv.conf",
)


def import_debian(client: DockerClient, tag: str, labels: Mapping[str, str], log: Log) -> None:
    """Make a minimal Debian 12 image from the packages that this machine's apt uses.

    Raises
    ------
    BuildError
        If what it takes is missing, or fails.
    """
    if missing := missing_packages():
        raise BuildError(
            "The engine reaches no image registry, and what makes Debian from its packages is not "
            f"here either. Install it with: apt-get install {' '.join(missing)}"
        )
    with tempfile.TemporaryDirectory(prefix="ds01-debian-", dir="/var/tmp") as directory:
        root, archive = Path(directory) / "root", Path(directory) / "root.tar"
        _run(_debootstrap_command(root), log)
        (root / "etc/apt/sources.list").write_text(_sources(), "utf-8")
        excluded = [f"--exclude={pattern}" for pattern in _NOT_IN_THE_IMAGE]
        _run(["tar", "--numeric-owner", *excluded, "-C", str(root), "-cf", str(archive), "."], log)
        repository, _, version = tag.rpartition(":")
        changes = ['CMD ["bash"]', *(f'LABEL {key}="{value}"' for key, value in labels.items())]
        client.api.import_image(str(archive), repository=repository, tag=version, changes=changes)


def missing_packages() -> tuple[str, ...]:
    """Return the system's packages that `import_debian` needs and does not find."""
    # Newer systems verify signatures with sqv in place of gpgv.
    programs = {"debootstrap": ("debootstrap",), "gpgv": ("gpgv", "sqv")}
    return tuple(
        package for package, names in programs.items() if not any(map(shutil.which, names))
    )


def _debootstrap_command(root: Path) -> list[str]:
    # In a mount namespace of its own: what debootstrap mounts in the tree goes away with it, so
    # removing the tree cannot reach the machine's /proc or /sys.
    return [
        *("unshare", "--mount", "--propagation", "private"),
        *("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
        *(f"--keyring={KEYRING}", "--force-check-gpg"),
        *(SUITE, str(root), mirrors()[0]),
    ]


def _sources() -> str:
    """Return the image's ``sources.list``."""
    packages, security = mirrors()
    entries = (packages, SUITE), (packages, f"{SUITE}-updates"), (security, f"{SUITE}-security")
    return "".join(f"deb {mirror} {suite} main\n" for mirror, suite in entries)


def mirrors() -> tuple[str, str]:
    """Return where Debian's packages and their security updates come from.

    That is ``DS01_DEBIAN_MIRROR``, or else what this machine's apt uses, or else Debian itself.
    """
    if given := os.environ.get("DS01_DEBIAN_MIRROR", "").rstrip("/"):
        return given, f"{given}-security"
    return _apt_mirror(SUITE) or _DEBIAN, _apt_mirror(f"{SUITE}-security") or _DEBIAN_SECURITY


def _apt_mirror(suite: str) -> str | None:
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    done = subprocess.run(
        [*command, f"Codename: {suite}", "Component: main"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return next((uri for uri in done.stdout.split() if uri.startswith("http")), None)


def _run(command: list[str], log: Log) -> None:
    run_logged(command, " ".join(command), environment={"LC_ALL": "C"}, log=log)
