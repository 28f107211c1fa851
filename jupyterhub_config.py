"""The reference deployment: one machine, readable from top to bottom.

run.sh decides where things are and passes that on in the environment. A site's own settings go into
site_config.py in the data directory, which is read last.
"""

import os
from pathlib import Path

import docker

from ds01_spawner import certificates, network, pages, startup

c = get_config()  # noqa: F821  (provided by JupyterHub)

# -- Where things are ------------------------------------------------------------------------
data = Path(os.environ.get("DS01_DATA", "/var/lib/ds01"))
secrets = data / "secrets"
here = Path(__file__).resolve().parent
ip = os.environ.get("DS01_IP", "127.0.0.1")
port = int(os.environ.get("DS01_PORT", "8000"))
hub_port = int(os.environ.get("DS01_HUB_PORT", "8081"))
proxy_api_port = int(os.environ.get("DS01_PROXY_API_PORT", "8001"))
portal_port = int(os.environ.get("DS01_PORTAL_PORT", "8082"))  # 0: no portal

# -- The Hub ---------------------------------------------------------------------------------
c.JupyterHub.bind_url = f"http://{ip}:{port}"
c.JupyterHub.db_url = f"sqlite:///{data / 'jupyterhub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(secrets / "cookie-secret")
# Servers outlive the Hub: a restart finds and adopts them.
c.JupyterHub.cleanup_servers = os.environ.get("DS01_STOP_SERVERS") == "1"
# Seconds; servers that were starting when the Hub stopped are looked for while it serves others.
c.JupyterHub.init_spawners_timeout = 1
# A server name is a project; the unnamed server is the project "default".
c.JupyterHub.allow_named_servers = True
c.JupyterHub.named_server_limit_per_user = 50
c.JupyterHub.template_paths = [pages.template_path()]
c.JupyterHub.template_vars = {"ds01": pages.PageInfo()}
# A domain for each user keeps a page on one's server from acting for whoever visits it. It needs a
# wildcard in DNS and in the certificate (docs/deploy.md).
c.JupyterHub.subdomain_host = os.environ.get("DS01_SUBDOMAIN_HOST", "")
# A class that presses Start at once is answered at once: what a start costs has its own limit
# (DS01Spawner.concurrent_starts).
c.JupyterHub.concurrent_spawn_limit = 1000
# A start that fails for one user's reasons must not end the Hub for all.
c.Spawner.consecutive_failure_limit = 0

# -- Who may log in --------------------------------------------------------------------------
# Any name with the shared password; "admin" with a password of its own. A real server has an
# authenticator of its site's, in site_config.py (docs/deploy.md).
c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = (secrets / "user-password").read_text().strip()
c.SharedPasswordAuthenticator.admin_password = (secrets / "admin-password").read_text().strip()
# Named by its class: none of this must hold for a site's own authenticator.
c.SharedPasswordAuthenticator.allow_all = True
c.SharedPasswordAuthenticator.admin_users = {"admin"}
# Short, and without characters that control a terminal or cannot be seen: names stand in logs, in
# addresses and on pages.
unseen = r"\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
c.Authenticator.username_pattern = rf"[^{unseen}]{{1,255}}\Z"

# -- The proxy -------------------------------------------------------------------------------
c.ConfigurableHTTPProxy.command = [str(here / "proxy/node_modules/.bin/configurable-http-proxy")]
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{proxy_api_port}"
c.ConfigurableHTTPProxy.auth_token = (secrets / "proxy-token").read_text().strip()
c.ConfigurableHTTPProxy.pid_file = str(data / "proxy.pid")

# -- The servers' network --------------------------------------------------------------------
# Servers reach the Hub and the portal at the bridge's own address and nothing else on this machine.
servers = network.find(docker.from_env().api, os.environ.get("DS01_NETWORK", "ds01"))
c.JupyterHub.hub_ip = servers.gateway
c.JupyterHub.hub_port = hub_port

# -- The servers -----------------------------------------------------------------------------
c.JupyterHub.spawner_class = "ds01"
c.DS01Spawner.data_dir = str(data)
c.DS01Spawner.network_name = servers.name
c.DS01Spawner.catalogue_file = str(here / "images/catalogue.yaml")
c.DS01Spawner.ca_bundle = str(certificates.ca_bundle() or "")
# Seconds: for a whole start, which may have to fetch an image, and for JupyterLab in it.
c.DS01Spawner.start_timeout = 600
c.DS01Spawner.http_timeout = 120

# Who may have what; run.sh puts an example there.
c.DS01Spawner.policy_file = str(data / "policy/resource-limits.yaml")

# -- The portal ------------------------------------------------------------------------------
# A process of its own, which run.sh starts and which reads this file too. A server's own token may
# ask it for what its owner may have; the rest is what JupyterHub gives that token by itself.
c.DS01Spawner.portal_port = portal_port
c.DS01Spawner.server_token_scopes = [
    "users:activity!user",
    "access:servers!server",
    "access:services!service=ds01",
    "custom:ds01:images",
]

# So that a token can be made that only looks.
c.JupyterHub.custom_scopes = {
    "custom:ds01:images": {
        "description": "Make, change and delete one's own images, and keep one's servers.",
        "subscopes": ["custom:ds01:images:read"],
    },
    "custom:ds01:images:read": {"description": "Look at the images that one may use."},
}

# -- The site's own settings -----------------------------------------------------------------
if (data / "site_config.py").exists():
    load_subconfig(str(data / "site_config.py"))  # noqa: F821  (provided by JupyterHub)

# Added to the site's own.
if portal_port:
    c.JupyterHub.services.append(
        {
            "name": "ds01",
            "url": f"http://127.0.0.1:{portal_port}",
            "api_token": (secrets / "portal-token").read_text().strip(),
            "oauth_no_confirm": True,
            # Whoever may list all users, as admins may, is one in the portal, too; nobody else can
            # give a log-in this.
            "oauth_client_allowed_scopes": ["list:users", "custom:ds01:images"],
            # Seconds for which the Hub waits for it when it starts.
            "timeout": 5,
        }
    )
    c.JupyterHub.load_roles.append(
        {"name": "ds01", "services": ["ds01"], "scopes": ["read:users:name", "read:users:groups"]}
    )
    c.JupyterHub.extra_user_scopes.update({"access:services!service=ds01", "custom:ds01:images"})

# -- Idle servers ----------------------------------------------------------------------------
# A process of its own, too: it looks at what servers do, warns, and stops those whose time is up.
c.JupyterHub.services.append(
    {"name": "ds01-culler", "api_token": (secrets / "culler-token").read_text().strip()}
)
c.JupyterHub.load_roles.append(
    {
        "name": "ds01-culler",
        "services": ["ds01-culler"],
        # It asks a server for its kernels with that server's own token.
        "scopes": ["list:users", "read:users:groups", "read:servers", "delete:servers"],
    }
)

# -- Before anybody is served ----------------------------------------------------------------
startup.prepare(c)
