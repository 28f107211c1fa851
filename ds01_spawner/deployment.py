"""What a service beside the Hub knows of it: read from the Hub's own configuration file."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from jupyterhub.app import JupyterHub
from traitlets.config.loader import PyFileConfigLoader

from .messages.words import Links
from .settings import PORTAL, DS01Settings
from .startup import settings_of


class DeploymentError(Exception):
    """The configuration does not say all that a service needs; the text says what."""


@dataclass(frozen=True)
class Deployment:
    """One Hub, as it is configured.

    Attributes
    ----------
    settings
        The spawner's settings.
    hub
        Knows its addresses, and does nothing.
    """

    settings: DS01Settings
    hub: JupyterHub

    @property
    def hub_api(self) -> str:
        """The Hub's API, as a service reaches it."""
        return str(self.hub.hub.api_url)

    @property
    def links(self) -> Links:
        """Where browsers find pages; empty if ``c.JupyterHub.public_url`` does not say."""
        return Links.below(self.hub.public_url, PORTAL if self.settings.portal_port else "")

    def token(self, service: str) -> str:
        """Return a service's own token at the Hub.

        Raises
        ------
        DeploymentError
            If there is no such service, or it has none.
        """
        services = [each for each in self.hub.services if each["name"] == service]
        tokens = [each.get("api_token", "") for each in services]
        if len(tokens) != 1 or not tokens[0]:
            raise DeploymentError(
                f"c.JupyterHub.services must have one service {service!r} with an api_token, as in "
                "the reference configuration; add a site's own with "
                "c.JupyterHub.services.append(...)."
            )
        return str(tokens[0])


def read_deployment(file: Path) -> Deployment:
    """Read the configuration file of a Hub, with all that it loads.

    Raises
    ------
    Exception
        Whatever goes wrong in the file, which is a program.
    """
    config = PyFileConfigLoader(file.name, str(file.parent)).load_config()
    settings = settings_of(config)
    # No instance(): this process is not the Hub.
    hub = JupyterHub(config=config)
    hub.init_hub()
    return Deployment(settings, hub)


def only_one(lock: Path) -> int:
    """Take a service's lock for as long as this process lives; return the open file.

    Raises
    ------
    DeploymentError
        If another one has it.
    """
    file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise DeploymentError(f"One runs already; it holds {lock}.") from None
    return file
