"""Where the runtime's parts lie in a container."""

from pathlib import Path

MOUNT = Path("/opt/ds01")
PYTHON = MOUNT / "bin" / "python3"
#: Isolated: neither PYTHON* variables nor the working directory decide what is imported.
ISOLATED = [str(PYTHON), "-I", "-X", "utf8", "-m"]
KERNELS = MOUNT / "kernels"
PIP = MOUNT / "pip"
INSIDE = MOUNT / "inside"
#: Last on a user's PATH: a program of the image's own of the same name comes first.
COMMANDS = MOUNT / "commands"
LOGOS = MOUNT / "share" / "ds01" / "kernel"
BASH_RC = MOUNT / "etc" / "ds01" / "bashrc"
SH_RC = MOUNT / "etc" / "ds01" / "shrc"

#: Packages installed while a server runs go here, and go with it.
TEMPORARY = Path("/opt/temporary")
