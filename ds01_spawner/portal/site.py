"""What the portal knows of its Hub: read from the Hub's own configuration file."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import docker
from docker.utils import kwargs_from_env
from jupyterhub.app import JupyterHub
from jupyterhub.services.auth import HubOAuth
from jupyterhub.utils import url_path_join

from .. import network
from ..deployment import DeploymentError, read_deployment
from ..settings import PORTAL, DS01Settings

#: Seconds for which the Hub's word on a token or a user counts: a stopped server's token is dead.
HUBS_WORD_S = 5


@dataclass(frozen=True)
class Site:
    """Where the portal is, where its Hub is, and what is configured.

    Attributes
    ----------
    settings
        The spawner's settings.
    hub_api, hub_url
        The Hub's API as the portal reaches it, and the Hub's pages as a browser does.
    token
        The portal's own token at the Hub.
    prefix
        The path of the portal's pages, with a slash at both ends.
    gateway, port
        The address that servers reach, beside 127.0.0.1 for the Hub's proxy.
    auth
        Tells who sends a request.
    """

    settings: DS01Settings
    hub_api: str
    hub_url: str
    token: str
    prefix: str
    gateway: str
    port: int
    auth: HubOAuth

    @property
    def hub_host(self) -> str:
        """The Hub's origin where it is another one than the portal's; empty where it is not."""
        return str(self.auth.hub_host)

    @property
    def cookie_secret(self) -> bytes:
        """What signs cookies; the same after a restart."""
        return hmac.digest(self.token.encode(), b"cookies of the portal", hashlib.sha256)


def read_site(file: Path) -> Site:
    """Read the configuration file of a Hub, with all that it loads.

    Raises
    ------
    DeploymentError
        If it has no portal.
    Exception
        Whatever goes wrong in the file, which is a program.
    """
    deployment = read_deployment(file)
    settings, hub = deployment.settings, deployment.hub
    if not settings.portal_port:
        raise DeploymentError("c.DS01Spawner.portal_port is 0: there is no portal to run.")
    prefix = url_path_join(hub.base_url, "services", PORTAL) + "/"
    token = deployment.token(PORTAL)
    return Site(
        settings=settings,
        hub_api=deployment.hub_api,
        hub_url=hub.hub.public_host + hub.hub.base_url,
        token=token,
        prefix=prefix,
        gateway=_gateway(settings.network_name),
        port=settings.portal_port,
        auth=_auth(hub, token, prefix),
    )


def _gateway(network_name: str) -> str:
    client = docker.APIClient(version="auto", **kwargs_from_env())
    try:
        return network.find(client, network_name).gateway
    finally:
        client.close()


def _auth(hub: JupyterHub, token: str, prefix: str) -> HubOAuth:
    """Return what asks the Hub who sends a request; nothing of it from the environment."""
    return HubOAuth(
        api_url=hub.hub.api_url,
        api_token=token,
        base_url=prefix,
        hub_host=hub.hub.public_host if hub.subdomain_host else "",
        hub_prefix=hub.hub.base_url,
        oauth_client_id=f"service-{PORTAL}",
        oauth_redirect_uri=_own_host(hub) + prefix + "oauth_callback",
        access_scopes={f"access:services!service={PORTAL}"},
        cache_max_age=HUBS_WORD_S,
        allow_token_in_url=False,
        cookie_host_prefix_enabled=hub.cookie_host_prefix_enabled,
        cookie_options=json.loads(json.dumps(hub.tornado_settings.get("cookie_options", {}))),
    )


def _own_host(hub: JupyterHub) -> str:
    """Return the portal's origin where each service has a domain of its own; empty otherwise."""
    if not hub.subdomain_host:
        return ""
    origin = urlparse(hub.subdomain_host)
    domain = hub.subdomain_hook(PORTAL, origin.hostname, kind="service")
    return f"{origin.scheme}://{domain}" + (f":{origin.port}" if origin.port else "")
