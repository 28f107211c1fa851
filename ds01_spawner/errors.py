"""The one exception whose text may be shown to a user."""

from __future__ import annotations

from jupyterhub.spawner import SpawnException


class Refused(SpawnException):
    """A start, stop or change that cannot be done, explained to the person who asked.

    Anything else that goes wrong is logged in full and shown as a general failure.

    Parameters
    ----------
    message
        One or two plain sentences: what is wrong, and what to do about it.
    reason
        A short label for the Hub's metrics, such as ``"image"`` or ``"limits"``.
    status_code
        4xx when the request is at fault, 503 when the machine is.
    record
        What is still true of it later; the message by default.
    """

    def __init__(
        self, message: str, *, reason: str, status_code: int = 400, record: str = ""
    ) -> None:
        self.record = record or message
        super().__init__(message, reason=reason, status_code=status_code)
        # The pages read these two, which JupyterHub 6.1 does not set by itself.
        self.jupyterhub_message = message
        self.jupyterhub_html_message = ""
