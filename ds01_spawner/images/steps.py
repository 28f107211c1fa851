"""What is added to a Dockerfile for its build: uv, a cache of the user's own, the site's index."""

from __future__ import annotations

from pathlib import Path

from ..names import user_slug
from .wheels import INDEX

#: In the build's context; nobody's file of this name is copied there.
OURS = ".ds01"

_MOUNT = "/opt/ds01"

#: The engine finds a COPY in its cache by what is copied, whoever built it; after this one, only
#: what the same user has built. Where it goes to, servers see the runtime instead.
MARK = f"COPY {OURS}/owner {_MOUNT}/owner"

#: Reads what `buildkit.site_secrets` gives. Any shell runs it; sed is not everywhere.
_PIP = f"""\
#!/bin/sh
# pip in a build: uv, with this site's index and certificates, and a cache of the user's own.
set -eu
extra=
if [ -s /run/secrets/ca ]; then
    export SSL_CERT_FILE=/run/secrets/ca
fi
while read -r key equals value; do
    case "$key" in
    index-url) export UV_DEFAULT_INDEX="$value" ;;
    extra-index-url) extra="$value" ;;
    trusted-host) export UV_INSECURE_HOST="$value" ;;
    esac
done </run/secrets/pip
if ! python="$(command -v python3 || command -v python)"; then
    echo "This image has no Python that packages could be installed for: no interpreter found" >&2
    exit 1
fi
export UV_PYTHON="$python" UV_BREAK_SYSTEM_PACKAGES=1 UV_PYTHON_DOWNLOADS=never
export UV_CACHE_DIR={_MOUNT}/cache UV_LINK_MODE=copy UV_NO_CONFIG=1 UV_NO_PROGRESS=1
# Servers cannot write into the image's packages: compiled now, or anew at each import.
export UV_COMPILE_BYTECODE=1
# Of a package that the site has itself, no other index is asked: uv takes the first that has it.
if [ -d {_MOUNT}/wheels ]; then
    extra="file://{_MOUNT}/wheels/{INDEX} $extra"
fi
export UV_INDEX="$extra"
exec {_MOUNT}/uv/uv pip "$@"
"""


def write_ours(context: Path, user: str, hub_id: str) -> None:
    """Put our part of a build's context where `run_options` and `MARK` look for it."""
    folder = context / OURS
    folder.mkdir()
    pip = folder / "pip"
    pip.write_text(_PIP, "utf-8")
    pip.chmod(0o755)
    (folder / "owner").write_text(f"{_key(user, hub_id)}\n", "utf-8")


def run_options(user: str, hub_id: str, uv_image: str, wheels_image: str = "") -> tuple[str, ...]:
    """Return the options of each ``RUN``.

    A layer is found again in the engine's cache by its options too, and the cache's name is the
    user's: so what somebody has put into a cache, or made of it, reaches nobody else.

    Parameters
    ----------
    user, hub_id
        Whose cache it is.
    uv_image
        Image with uv in it.
    wheels_image
        Image with the site's own wheels; empty if there are none.
    """
    cache = _key(user, hub_id)
    options = [
        f"type=bind,source={OURS},target={_MOUNT}/build",
        f"type=bind,from={uv_image},target={_MOUNT}/uv",
        f"type=cache,id={cache},target={_MOUNT}/cache,sharing=locked",
        "type=secret,id=ca",
        "type=secret,id=pip",
        "type=secret,id=pip,target=/etc/pip.conf",
    ]
    if wheels_image:
        options.append(f"type=bind,from={wheels_image},target={_MOUNT}/wheels")
    return tuple(f"--mount={option}" for option in options)


def _key(user: str, hub_id: str) -> str:
    return f"ds01-{hub_id}-{user_slug(user)}"
