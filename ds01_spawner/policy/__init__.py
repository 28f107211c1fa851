"""The lab's rules: what a user may have. Imports neither JupyterHub nor Docker."""

from .files import PolicyError, load_policy
from .limits import GIB, Aggregate, ImageRules, Lifecycle, Limits, Machine, this_machine
from .live import LivePolicy, Share, share_of
from .resolve import Policy, Resolved, Value
from .sizes import format_bytes, parse_bytes
from .storage import Folder, load_storage_beside

__all__ = [
    "GIB",
    "Aggregate",
    "Folder",
    "ImageRules",
    "Lifecycle",
    "Limits",
    "LivePolicy",
    "Machine",
    "Policy",
    "PolicyError",
    "Resolved",
    "Share",
    "Value",
    "format_bytes",
    "load_policy",
    "load_storage_beside",
    "parse_bytes",
    "share_of",
    "this_machine",
]
