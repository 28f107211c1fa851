"""The reference deployment as the tests run it: a token for the tests, and their own catalogue."""

import os
from pathlib import Path

data = Path(os.environ["DS01_DATA"])
load_subconfig(str(Path(__file__).parents[1] / "jupyterhub_config.py"))  # noqa: F821

c = get_config()  # noqa: F821
c.JupyterHub.services = [{"name": "tests", "api_token": os.environ["DS01_TEST_TOKEN"]}]
c.JupyterHub.load_roles = [
    {
        "name": "tests",
        "services": ["tests"],
        "scopes": [
            "admin:users",
            "admin:servers",
            "admin:server_state",
            "tokens",
            "access:servers",
            "list:users",
        ],
    }
]
c.DS01Spawner.catalogue_file = str(data / "catalogue.yaml")
c.DS01Spawner.start_timeout = 120
c.DS01Spawner.poll_interval = 2
more = data / "more_config.py"
if more.exists():
    load_subconfig(str(more))  # noqa: F821
