"""Imports from a kernel pack, with its bytecode kept in the user's cache.

A pack lies read-only, and the build has bytecode for its own version of Python only. Without a
place to keep it, each start of a kernel would compile a thousand modules: two seconds of CPU.
"""

import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder, SourceFileLoader


def add(pack, in_front):
    """Make a pack importable, behind everything else or in front of it."""
    cache = _cache()
    if cache:
        sys.path_hooks.insert(0, _finder(pack, cache))
    sys.path.insert(0 if in_front else len(sys.path), pack)


def _cache():
    """Return where bytecode is kept; None in a safe start, which trusts nothing in the home."""
    if os.environ.get("DS01_SAFE_START"):
        return None
    return os.path.join(os.path.expanduser("~"), ".cache", "ds01", "bytecode")


def _finder(pack, cache):
    class Loader(SourceFileLoader):
        """Reads bytecode from the pack, else from the cache; writes it into the cache."""

        def get_data(self, path):
            if not path.endswith(".pyc") or os.path.exists(path):
                return super().get_data(path)
            return super().get_data(cache + path)

        def set_data(self, path, data, **mode):
            # Does nothing, like its original, where it may not write.
            super().set_data(cache + path, data, **mode)

    def finder(path):
        if path != pack and not path.startswith(pack + os.sep):
            raise ImportError("not in the pack")
        return FileFinder(path, (ExtensionFileLoader, EXTENSION_SUFFIXES), (Loader, [".py"]))

    return finder
