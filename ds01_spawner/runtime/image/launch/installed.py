"""What was installed with pip into a running server: the packages in its overlays."""

import json
import os
import signal
import stat
import sys
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from .overlay import FOR_RUNTIME
from .places import TEMPORARY

_MOST = 1000
#: Seconds.
_PATIENCE_S = 25
_LARGEST_METADATA = 1 << 20


def main() -> int:
    """Print the packages as JSON."""
    # Ends this process, also in the middle of a system call: nobody waits for longer.
    signal.alarm(_PATIENCE_S)
    print(json.dumps(found()))
    return 0


def found(place: Path = TEMPORARY) -> list[dict[str, Any]]:
    """Return the packages by name.

    Returns
    -------
    list of dict
        ``name``, ``version``, and ``requested``: whether somebody asked for it, or it came along.
        Where no installer has left a mark of that, all count as asked for.
    """
    packages = {}
    for root in (place, place / FOR_RUNTIME):
        for folder in sorted(root.glob("lib/python3*/site-packages/*.dist-info"))[:_MOST]:
            head = HeaderParser().parsestr(_text(folder / "METADATA"))
            name, version = head.get("Name"), head.get("Version")
            if name and version:
                requested = (folder / "REQUESTED").exists()
                packages[name] = {"name": name, "version": version, "requested": requested}
    if not any(package["requested"] for package in packages.values()):
        packages = {name: {**package, "requested": True} for name, package in packages.items()}
    return [packages[name] for name in sorted(packages)]


def _text(path: Path) -> str:
    """Return a small file's text, nothing for all else: a pipe in its place would never end."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_METADATA:
            return ""
        return os.read(file, _LARGEST_METADATA).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(file)


if __name__ == "__main__":
    sys.exit(main())
