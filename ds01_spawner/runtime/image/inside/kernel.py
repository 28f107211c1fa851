"""Start an IPython kernel on whatever Python runs this.

The image's own ipykernel is used if it has one. Otherwise a pack with ipykernel and what it needs
lies behind the image's packages, so that these win where both have one. Where they are too old for
it, the pack goes in front, and where even that fails, the notebook runs on the runtime's Python and
says so. Each try is a new process image under the same process id.

Runs on the image's Python, which may be as old as 3.6.
"""

import importlib.util
import os
import sys
import traceback
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
)
from typing import Any

INSIDE = os.path.dirname(os.path.abspath(__file__))
RUNTIME = os.path.dirname(INSIDE)
PACK = os.path.join(RUNTIME, "kernels", "cp{}{}".format(*sys.version_info[:2]))
#: What to try after what.
NEXT = {"own": "behind", "behind": "front", "front": "runtime"}
#: Bytecode of the pack: the build has it for its own version of Python only, and without a place to
#: keep it each kernel would compile a thousand modules.
CACHE = os.path.join(os.path.expanduser("~"), ".cache", "ds01", "bytecode")
PLACE, NOTICE = "DS01_KERNEL_PACK", "DS01_KERNEL_NOTICE"


def main() -> None:
    """Start the kernel, or the next try."""
    # Where a script lies comes first, unless PYTHONSAFEPATH is set; a notebook has no script.
    if sys.path[0] == INSIDE:
        del sys.path[0]
    place = os.environ.pop(PLACE, None) or ("own" if has("ipykernel") else "behind")
    notice = os.environ.pop(NOTICE, "")
    try:
        app = initialized(place)
    except Exception as error:  # noqa: BLE001  (packages of an image break in every way)
        traceback.print_exc()
        try_next(place, notice, error)
    else:
        add_notices(app.shell, notice)
        app.start()


def has(module: str) -> bool:
    """Return whether the image has a module."""
    return importlib.util.find_spec(module) is not None


def initialized(place: str) -> Any:
    """Return a kernel application that is ready to start."""
    if place != "own":
        add_pack(in_front=place == "front")
    from ipykernel.kernelapp import IPKernelApp

    app = IPKernelApp.instance()
    app.initialize(sys.argv[1:])
    return app


def add_pack(in_front: bool) -> None:
    """Make the pack importable, behind everything else or in front of it."""
    # A safe start trusts nothing in the home.
    if not os.environ.get("DS01_SAFE_START"):
        sys.path_hooks.insert(0, pack_finder)
    sys.path.insert(0 if in_front else len(sys.path), PACK)


def pack_finder(path: str) -> FileFinder:
    """Return what finds the pack's modules; an ImportError leaves the others to Python."""
    if path != PACK and not path.startswith(PACK + os.sep):
        raise ImportError("not in the pack")
    return FileFinder(path, (ExtensionFileLoader, EXTENSION_SUFFIXES), (PackLoader, [".py"]))


class PackLoader(SourceFileLoader):
    """Reads bytecode from the pack, else from the cache, and writes it into the cache."""

    def get_data(self, path: str) -> bytes:
        """Return the content of a source or of its bytecode."""
        if not path.endswith(".pyc") or os.path.exists(path):
            return super().get_data(path)
        return super().get_data(CACHE + path)

    def set_data(self, path: str, data: Any, **mode: int) -> None:
        """Keep bytecode; where it cannot be written nothing happens, as with the original."""
        super().set_data(CACHE + path, data, **mode)


def try_next(place: str, notice: str, error: Exception) -> None:
    """Become the next try; give up if this was the runtime's own Python."""
    print(f"ds01: no kernel with its packages {place!r}: {error}", file=sys.stderr)
    following = NEXT[place]
    if following != "runtime":
        environment = dict(os.environ, **{PLACE: following, NOTICE: notice})
        os.execve(sys.executable, [sys.executable, __file__, *sys.argv[1:]], environment)
    if notice:
        sys.exit("ds01: a kernel starts on no Python here.")
    reason = f"{type(error).__name__}: {error}"
    python = os.path.join(RUNTIME, "bin", "python3")
    enter = [python, "-I", "-X", "utf8", "-m", "ds01_launch.enter"]
    environment = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "LD_AUDIT")}
    os.execve(python, [*enter, "runtime-kernel", reason, *sys.argv[1:]], environment)


def add_notices(shell: Any, notice: str) -> None:
    """Say below the first cell what Python this is, and below ``%pip install`` what it means."""
    if notice:

        def tell_once(*_: Any) -> None:
            shell.events.unregister("pre_run_cell", tell_once)
            print(notice)

        shell.events.register("pre_run_cell", tell_once)

    original = shell.find_line_magic("pip")
    if original is None:
        return

    def pip(line: str) -> None:
        original(line)
        if line.split()[:1] == ["install"] and not shell.user_ns.get("_exit_code"):
            print("ds01: what is installed here is gone when the server stops.")

    shell.register_magic_function(pip, "line", "pip")


if __name__ == "__main__":
    main()
