"""Start an IPython kernel on whatever Python runs this.

The image's own ipykernel is used if it has one. Otherwise a pack with ipykernel and what it needs
lies behind the image's packages, so that these win where both have one. Where they are too old for
it, the pack goes in front, and where even that fails, the notebook runs on the runtime's Python and
says so. Each try is a new process image under the same process id.
"""

import importlib.util
import os
import sys
import traceback

INSIDE = os.path.dirname(os.path.abspath(__file__))
if sys.path[0] == INSIDE:
    import pack

    del sys.path[0]
RUNTIME = os.path.dirname(INSIDE)
PACK = os.path.join(RUNTIME, "kernels", "cp{}{}".format(*sys.version_info[:2]))
#: What to try after what.
NEXT = {"own": "behind", "behind": "front", "front": "runtime"}
PLACE, NOTICE = "DS01_KERNEL_PACK", "DS01_KERNEL_NOTICE"


def main():
    """Start the kernel, or the next try."""
    place = os.environ.pop(PLACE, None) or ("own" if has("ipykernel") else "behind")
    notice = os.environ.pop(NOTICE, "")
    try:
        app = initialized(place)
    except Exception as error:  # noqa: BLE001: packages of an image break in every way
        traceback.print_exc()
        try_next(place, notice, error)
    else:
        add_notices(app.shell, notice)
        app.start()


def has(module):
    """Return whether the image has a module."""
    return importlib.util.find_spec(module) is not None


def initialized(place):
    """Return a kernel application that is ready to start."""
    if place != "own":
        pack.add(PACK, in_front=place == "front")
    from ipykernel.kernelapp import IPKernelApp

    app = IPKernelApp.instance()
    app.initialize(sys.argv[1:])
    return app


def try_next(place, notice, error):
    """Become the next try; give up if this was the runtime's own Python."""
    print("ds01: no kernel with the pack's place %r: %s" % (place, error), file=sys.stderr)
    following = NEXT[place]
    if following != "runtime":
        environment = dict(os.environ, **{PLACE: following, NOTICE: notice})
        os.execve(sys.executable, [sys.executable, __file__] + sys.argv[1:], environment)
    if notice:
        sys.exit("ds01: a kernel starts on no Python here.")
    reason = "%s: %s" % (type(error).__name__, error)
    python = os.path.join(RUNTIME, "bin", "python3")
    enter = [python, "-I", "-X", "utf8", "-m", "ds01_launch.enter"]
    environment = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "LD_AUDIT")}
    os.execve(python, enter + ["runtime-kernel", reason] + sys.argv[1:], environment)


def add_notices(shell, notice):
    """Say below the first cell what Python this is, and below ``%pip install`` what it means."""
    if notice:

        def tell_once(*_):
            shell.events.unregister("pre_run_cell", tell_once)
            print(notice)

        shell.events.register("pre_run_cell", tell_once)

    original = shell.find_line_magic("pip")
    if original is None:
        return

    def pip(line):
        original(line)
        if line.split()[:1] == ["install"]:
            print("ds01: what is installed here is gone when the server stops.")

    shell.register_magic_function(pip, "line", "pip")


if __name__ == "__main__":
    main()
