"""The kernels that a server offers: the image's Python, its conda environments, its own specs."""

import json
from pathlib import Path

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from jupyter_core.paths import jupyter_path
from traitlets import TraitError, default

from .handover import Handover
from .kernels import Values, adapted, conda, conda_environments, conda_name, is_image_python, native
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
        python = self.handover.python
        found = {NATIVE: self._spec(native(self.handover), str(LOGOS))}
        for prefix in conda_environments(python):
            found[conda_name(prefix)] = self._spec(conda(prefix), str(LOGOS))
        for name, directory in super().find_kernel_specs().items():
            try:
                values = self._read(Path(directory))
                if name == NATIVE:
                    if is_image_python(values["argv"][0], python):
                        continue
                    name = f"{NATIVE}-image"
                adjusted = adapted(values, self.handover)
                if adjusted is not None:
                    found.setdefault(name, self._spec(adjusted, directory))
            except (OSError, LookupError, TypeError, ValueError, TraitError) as error:
                self.log.warning("The kernel in %s cannot be used: %s", directory, error)
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

    def _spec(self, values: Values, directory: str) -> KernelSpec:
        return self.kernel_spec_class(resource_dir=directory, **values)

    def _read(self, directory: Path) -> Values:
        values: Values = json.loads((directory / "kernel.json").read_text("utf-8"))
        return values
