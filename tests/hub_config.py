"""The reference deployment as the tests run it: a token for the tests, and their own catalogue."""

import os
from pathlib import Path

data = Path(os.environ["DS01_DATA"])
c = get_config()  # noqa: F821
c.JupyterHub.services = [{"name": "tests", "api_token": os.environ["DS01_TEST_TOKEN"]}]
c.JupyterHub.load_roles = [
    {
        "name": "tests",
        "services": ["tests"],
        "scopes": [
            "admin:users",
            "admin:groups",
            "admin:servers",
            "admin:server_state",
            "tokens",
            "access:servers",
            "list:users",
        ],
    }
]
c.DS01Spawner.poll_interval = 2
# Last, with the site's settings in it, which a test may have made.
load_subconfig(str(Path(__file__).parents[1] / "jupyterhub_config.py"))  # noqa: F821
