"""Try an image: start a notebook's kernel in it, and import the packages that were asked for.

The container's command where an image has just been built. The only argument is a JSON object with
``packages`` (names of distributions, with the marker behind a semicolon where an image may do
without), ``seconds`` (for all of it) and ``nonce``: the report is the line of standard output that
begins with it, as the image may print what it likes.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from queue import Empty
from typing import Any

from .__main__ import server_variables

#: Seconds for a kernel to answer at all, on a machine that does other things too.
_KERNEL_S = 90

#: Runs in the kernel, on whatever Python the image has.
_LIST = """
def _ds01_list():
    import json
    try:
        from importlib import metadata
    except ImportError:
        import importlib_metadata as metadata
    found = {}
    for one in metadata.distributions():
        name = one.metadata["Name"]
        # What the server brings along is not the image's.
        if name and not str(one.locate_file("")).startswith("/opt/ds01"):
            found.setdefault(name.lower().replace("_", "-").replace(".", "-"), one.version)
    print("ds01:" + json.dumps(found))
_ds01_list()
"""
_MODULES = """
def _ds01_modules(name):
    import json
    try:
        from importlib import metadata
    except ImportError:
        import importlib_metadata as metadata
    try:
        one = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        print("ds01:null")
        return
    listed = (one.read_text("top_level.txt") or "").split()
    if not listed:
        for file in one.files or ():
            first, last = file.parts[0], file.parts[-1]
            if len(file.parts) == 1 and last.endswith((".py", ".so", ".pyd")):
                listed.append(last.split(".")[0])
            elif len(file.parts) == 2 and last.split(".")[0] == "__init__":
                listed.append(first)
    names = sorted({m.replace("/", ".") for m in listed})
    skip = ("test", "tests", "docs", "examples", "benchmarks", "setup", "conftest")
    names = [m for m in names if not m.startswith("_") and m not in skip and m.isidentifier()]
    print("ds01:" + json.dumps(names))
_ds01_modules(%r)
"""
_WITHOUT_A_DRIVER = ("libcuda.so", "libnvidia-ml.so", "no nvidia", "cuda driver", "no cuda-capable")
_LONGEST_ERROR = 1000
_MOST_LISTED = 5000


def main() -> int:
    """Try the image and print the report."""
    asked = json.loads(sys.argv[1])
    deadline = time.monotonic() + asked["seconds"]
    report = Check(deadline).run(asked["packages"])
    print("\n" + asked["nonce"] + json.dumps(report), flush=True)
    return 0


class Check:
    """One try."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._client: Any = None

    def run(self, packages: list[str]) -> dict[str, Any]:
        """Return the report."""
        report: dict[str, Any] = {"kernel": "ok", "imports": [], "packages": {}}
        manager = start_kernel()
        try:
            self._client = manager.client()
            self._client.start_channels()
            self._client.wait_for_ready(timeout=min(_KERNEL_S, self._left()))
            report["packages"] = dict(list(self._told(_LIST).items())[:_MOST_LISTED])
            report["imports"] = self.tried(packages)
        except (RuntimeError, Failed) as error:
            report["kernel"] = str(error)[:_LONGEST_ERROR] or "no kernel starts"
        finally:
            manager.shutdown_kernel(now=True)
        return report

    def tried(self, packages: list[str]) -> list[dict[str, Any]]:
        """Return how the import of each package went that must be there, or is."""
        found = []
        for package in packages:
            name, _, marker = package.partition(";")
            found.append(self._try(name.strip(), is_optional=bool(marker)))
        return [one for one in found if one]

    def _try(self, package: str, is_optional: bool) -> dict[str, Any] | None:
        error = ""
        try:
            modules = self._told(_MODULES % package)
            if modules is None and is_optional:
                return None
            if modules is None:
                raise Failed("it is not installed")
            for module in modules:
                self._execute(f"import {module}")
        except Failed as failed:
            error = str(failed)[:_LONGEST_ERROR]
        needs_gpu = any(words in error.lower() for words in _WITHOUT_A_DRIVER)
        return {"package": package, "ok": not error, "error": error, "needs_gpu": needs_gpu}

    def _told(self, code: str) -> Any:
        """Return what code in the kernel tells as JSON."""
        for line in self._execute(code).splitlines():
            if line.startswith("ds01:"):
                return json.loads(line[len("ds01:") :])
        raise Failed("the kernel does not answer as a kernel of Python does")

    def _execute(self, code: str) -> str:
        """Run code and return what it prints."""
        asked = self._client.execute(code, store_history=False)
        printed = []
        while True:
            try:
                message = self._client.get_iopub_msg(timeout=max(1, min(5, self._left())))
            except Empty:
                if self._left() <= 0:
                    raise Failed("it took too long") from None
                if not self._client.is_alive():
                    raise Failed("the kernel died, perhaps for lack of memory") from None
                continue
            if message["parent_header"].get("msg_id") != asked:
                continue
            content = message["content"]
            if message["msg_type"] == "stream" and content["name"] == "stdout":
                printed.append(content["text"])
            elif message["msg_type"] == "error":
                raise Failed(f"{content['ename']}: {content['evalue']}")
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                return "".join(printed)

    def _left(self) -> float:
        return self._deadline - time.monotonic()


class Failed(Exception):
    """Code that raised an error in the kernel, or a kernel that does not answer."""


def start_kernel() -> Any:
    """Start the kernel that a notebook would get, in the environment that a server would have."""
    variables = server_variables()
    os.environ.clear()
    os.environ.update(variables)

    from jupyter_client.manager import KernelManager

    from .kernelspecs import NATIVE, ImageKernelSpecManager
    from .server import ignore_configuration_of_image

    ignore_configuration_of_image()
    place = Path(tempfile.mkdtemp(prefix="ds01-check-"))
    manager = KernelManager(
        kernel_name=NATIVE,
        kernel_spec_manager=ImageKernelSpecManager(),
        transport="ipc",
        ip=str(place / "kernel"),
        connection_file=str(place / "kernel.json"),
    )
    manager.start_kernel(cwd="/tmp")
    return manager


if __name__ == "__main__":
    sys.exit(main())
