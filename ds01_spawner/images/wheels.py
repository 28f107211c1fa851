"""The site's own wheels, as an image that builds mount: a package index of plain files."""

from __future__ import annotations

import asyncio
import hashlib
import html
import io
import logging
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from docker.errors import ImageNotFound
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    parse_sdist_filename,
    parse_wheel_filename,
)

from ..engine import Docker

_LOG = logging.getLogger(__name__)

REPOSITORY = "ds01/wheels"
#: Where the index is in the image.
INDEX = "simple"


async def wheels_image(docker_call: Docker, directory: Path, hub_id: str) -> str:
    """Return the name of a Hub's image with what lies in a directory now, made when missing.

    Images of what lay there before are removed, as far as nothing uses them.

    Raises
    ------
    OSError
        If the directory cannot be read.
    """
    files = _listed(directory)
    prefix = f"{REPOSITORY}:{hub_id}-"
    name = prefix + _hash(files.values())
    try:
        await docker_call("inspect_image", name)
    except ImageNotFound:
        with tempfile.NamedTemporaryFile() as tar:
            await asyncio.to_thread(_write_index, files, tar)
            tar.flush()
            repository, _, tag = name.partition(":")
            await docker_call("import_image_from_file", tar.name, repository, tag)
        listed = await docker_call("images", name=REPOSITORY)
        for other in (tag for image in listed for tag in image.get("RepoTags") or ()):
            if other.startswith(prefix) and other != name:
                await docker_call("remove_image", other, force=True)
    return name


def _listed(directory: Path) -> dict[tuple[str, str], Path]:
    """Return project and name of each file -> its path.

    What is no wheel and no source archive is left out, and the log says so.
    """
    found = {}
    for path in sorted(directory.iterdir()):
        if not path.is_file():
            continue
        try:
            found[_project(path.name), path.name] = path
        except (InvalidWheelFilename, InvalidSdistFilename) as error:
            _LOG.warning("%s is left out of the site's wheels: %s", path, error)
    return found


def _project(name: str) -> str:
    if name.endswith(".whl"):
        return str(parse_wheel_filename(name)[0])
    return str(parse_sdist_filename(name)[0])


def _hash(files: Iterable[Path]) -> str:
    """Return what changes with any of the files; they may be gigabytes and are not read for it."""
    known = hashlib.sha256()
    for path in files:
        found = path.stat()
        known.update(f"{path.name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return known.hexdigest()[:16]


def _write_index(files: dict[tuple[str, str], Path], tar: IO[bytes]) -> None:
    """Write a simple repository. Source: PEP 503."""
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for project in dict.fromkeys(project for project, _ in files):
            _add(archive, f"{INDEX}/{project}/index.html", _page(files, project))
        for (project, name), path in files.items():
            info = archive.gettarinfo(path, f"{INDEX}/{project}/{name}")
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mode = 0o644
            with path.open("rb") as content:
                archive.addfile(info, content)


def _page(files: Iterable[tuple[str, str]], project: str) -> bytes:
    def links() -> Iterator[str]:
        for name in (html.escape(name) for of, name in files if of == project):
            yield f'<a href="{name}">{name}</a>\n'

    return f"<!DOCTYPE html>\n{''.join(links())}".encode()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))
