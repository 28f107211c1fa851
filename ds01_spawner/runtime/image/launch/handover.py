"""What the launcher found out, for the server and for what the server starts."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from . import environment, interpreter
from .interpreter import Interpreter

VARIABLE = "DS01_HANDOVER"


@dataclass(frozen=True)
class Handover:
    """The outcome of a look at the image.

    Attributes
    ----------
    user
        The environment of kernels and terminals.
    server_names
        The names of the variables that the server itself was started with.
    python
        What runs notebooks of the kind "Python 3".
    overlay
        The overlay of that Python.
    place
        The directory for overlays.
    notice
        What to tell about that Python; "" where it is the image's own.
    """

    user: dict[str, str]
    server_names: tuple[str, ...]
    python: Interpreter
    overlay: str
    place: str
    notice: str

    def dumped(self) -> str:
        """Return a text for the environment, in plain ASCII."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, current: Mapping[str, str] = os.environ) -> "Handover":
        """Read the text back."""
        values = json.loads(current[VARIABLE])
        values["python"] = interpreter.from_facts(values["python"])
        values["server_names"] = tuple(values["server_names"])
        return cls(**values)

    def entered(self, current: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Return the user's environment for a process that the server starts."""
        return environment.entered(current, self.server_names, self.user)
