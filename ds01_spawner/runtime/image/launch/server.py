"""The notebook server itself, in the environment that the launcher made for it."""

import sys

from .places import KERNELS, MOUNT


def main() -> None:
    """Run the server until it is told to stop."""
    # For what of IPython the server itself uses, in exporting notebooks; the server's come first.
    sys.path.append(str(KERNELS / "cp311"))
    ignore_configuration_of_image()
    from jupyterhub.singleuser import main as singleuser

    singleuser()


def ignore_configuration_of_image() -> None:
    """Keep /etc/jupyter of the image away: it is for the Jupyter of the image, if it has one.

    The launcher names the data directories of the image in JUPYTER_PATH.
    """
    from jupyter_core import paths

    paths.SYSTEM_CONFIG_PATH = []
    paths.SYSTEM_JUPYTER_PATH = [str(MOUNT / "share" / "jupyter")]


if __name__ == "__main__":
    main()
