"""The lab's rules: what a user may have. Imports neither JupyterHub nor Docker."""

from .limits import GIB, Limits, Machine, this_machine
from .sizes import format_bytes, parse_bytes

__all__ = ["GIB", "Limits", "Machine", "format_bytes", "parse_bytes", "this_machine"]
