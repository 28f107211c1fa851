"""Tell, as JSON on standard output, what the Python that runs this is.

Any Python from 2.7 on must be able to run it.
"""

import json
import os
import sys


def main():
    """Print the facts, after a mark: start-up code of the image may print things first."""
    facts = {
        "version": list(sys.version_info[:2]),
        "implementation": _implementation(),
        "platform": getattr(getattr(sys, "implementation", None), "_multiarch", ""),
        "free_threaded": "t" in getattr(sys, "abiflags", ""),
        "executable": getattr(sys, "_base_executable", None) or sys.executable,
        "prefix": sys.prefix,
        "base_prefix": getattr(sys, "base_prefix", sys.prefix),
        "packages": _packages(),
        "has_ipykernel": _can_find("ipykernel"),
        "has_pip": _can_find("pip"),
    }
    sys.stdout.write("\nds01-probe:" + json.dumps(facts) + "\n")


def _implementation():
    implementation = getattr(sys, "implementation", None)
    return implementation.name if implementation else "cpython"


def _packages():
    """Return the directories with the packages of this prefix alone."""
    inside = sys.prefix + os.sep
    return [path for path in sys.path if path.startswith(inside) and path.endswith("-packages")]


def _can_find(name):
    try:
        from importlib.util import find_spec

        return find_spec(name) is not None
    except Exception:  # noqa: BLE001  (a broken finder of the image has not found it)
        return False


main()
