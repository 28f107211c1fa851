"""The kernels that a server offers: the image's Python, its conda environments, its own specs."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from jupyter_core.paths import jupyter_path
from traitlets import default

from .enter import ENVIRONMENT_KERNEL, KERNEL, RUN
from .handover import Handover
from .interpreter import Interpreter
from .places import LOGOS

#: The name of the kernel on the image's Python, as notebooks from anywhere have it.
NATIVE = "python3"


class ImageKernelSpecManager(KernelSpecManager):
    """Offers what the image has, started in the image's environment."""

    handover = Handover.load()

    @default("kernel_dirs")
    def _default_kernel_dirs(self) -> list[str]:
        return jupyter_path("kernels")

    @default("ensure_native_kernel")
    def _default_ensure_native_kernel(self) -> bool:
        return False

    def specs(self) -> dict[str, KernelSpec]:
        """Return all kernels by name."""
        found = {NATIVE: self._spec(native(self.handover), str(LOGOS))}
        for prefix in conda_environments(self.handover.python):
            name = f"conda-env-{prefix.name}-py"
            found[name] = self._spec(conda(prefix), str(LOGOS))
        for name, directory in super().find_kernel_specs().items():
            values = self._read(Path(directory))
            values = values and adapted(values, self.handover)
            if values and name not in found:
                found[name] = self._spec(values, directory)
        return found

    def find_kernel_specs(self) -> dict[str, str]:
        """Return the directories with the kernels' logos, by name."""
        return {name: spec.resource_dir for name, spec in self.specs().items()}

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Return a kernel.

        Raises
        ------
        NoSuchKernel
            If there is none of that name.
        """
        try:
            return self.specs()[kernel_name.lower()]
        except KeyError:
            raise NoSuchKernel(kernel_name) from None

    def _spec(self, values: dict[str, Any], directory: str) -> KernelSpec:
        return self.kernel_spec_class(resource_dir=directory, **values)

    def _read(self, directory: Path) -> dict[str, Any] | None:
        try:
            values = json.loads((directory / "kernel.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            self.log.warning("The kernel in %s cannot be read: %s", directory, error)
            return None
        return values if isinstance(values, dict) else None


def native(handover: Handover) -> dict[str, Any]:
    """Return the kernel on the image's Python, or on the runtime's where that cannot be."""
    name = handover.python.name
    return _python(f"{name} (not the image's)" if handover.notice else name, KERNEL)


def conda(prefix: Path) -> dict[str, Any]:
    """Return the kernel on a conda environment's Python."""
    return _python(f"Python (conda: {prefix.name})", [*ENVIRONMENT_KERNEL, str(prefix)])


def _python(title: str, command: list[str]) -> dict[str, Any]:
    return {
        "argv": [*command, "-f", "{connection_file}"],
        "display_name": title,
        "language": "python",
        "metadata": {"debugger": True},
    }


def conda_environments(python: Interpreter) -> Iterator[Path]:
    """Yield the prefixes of the image's conda environments, but not of "Python 3"."""
    root = python.conda_root
    if root is None:
        return
    for prefix in sorted(root.glob("envs/*")):
        if (prefix / "bin" / "python").exists() and str(prefix) != python.prefix:
            yield prefix


def adapted(values: dict[str, Any], handover: Handover) -> dict[str, Any] | None:
    """Return a kernel of the image as the server must start it, or None if it cannot start.

    Its program runs in the image's environment. A "python" means the image's Python; the server
    would take it for its own. The home's kernels may belong to another image.
    """
    argv = values.get("argv")
    if not argv or not all(isinstance(word, str) for word in argv):
        return None
    program, *rest = (word.replace("{prefix}", handover.python.prefix) for word in argv)
    if is_image_python(program, handover.python):
        if handover.notice:
            return None
        program = f"{handover.overlay}/bin/python"
    elif shutil.which(program, path=handover.user["PATH"]) is None:
        return None
    variables = json.dumps(values.get("env") or {})
    return {**values, "argv": [*RUN, variables, program, *rest], "env": {}}


def is_image_python(program: str, python: Interpreter) -> bool:
    """Return whether a program is the Python that the kernel "Python 3" runs on."""
    major, minor = python.version
    directory, _, name = program.rpartition("/")
    if name not in ("python", f"python{major}", f"python{major}.{minor}"):
        return False
    return not directory or directory == f"{python.prefix}/bin"
