"""Runs the portal: ``python -m ds01_spawner.portal CONFIGURATION``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from tornado.httpserver import HTTPServer
from tornado.web import Application

from ..cgroups.limits import SliceError
from ..deployment import DeploymentError, only_one
from ..engine import UNREACHABLE
from .app import LARGEST_BODY, make_app
from .images import make_workshop
from .look import Look
from .people import People
from .site import Site, read_site

#: Seconds after which what the engine or the machine has refused is tried again.
_RETRY_S = 60

_LOG = logging.getLogger("ds01_spawner.portal")


def main() -> int:
    """Run the portal until it is told to end; returns 1 if it cannot run."""
    parser = argparse.ArgumentParser(prog="python -m ds01_spawner.portal", description=__doc__)
    parser.add_argument("configuration", type=Path, help="the Hub's configuration file")
    args = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, format="[%(levelname)1.1s %(asctime)s DS01 portal] %(message)s"
    )
    try:
        site = read_site(args.configuration.resolve())
        lock = only_one(Path(site.settings.data_dir) / "portal.lock")
    except DeploymentError as error:
        _LOG.error("%s", error)
        return 1
    try:
        return asyncio.run(_serve(site))
    finally:
        os.close(lock)


async def _serve(site: Site) -> int:
    people, look = People(site.hub_api, site.token), Look(site.settings)
    app = make_app(site, people, look)
    server = HTTPServer(
        app,
        xheaders=True,
        max_body_size=LARGEST_BODY,
        idle_connection_timeout=60,
        body_timeout=20,
        # Of the Hub's proxy alone is believed what it says of the browser.
        trusted_downstream=["127.0.0.1"],
    )
    # Loopback for the Hub's proxy, the bridge for servers; the fence leads them to this port.
    try:
        server.listen(site.port, "127.0.0.1")
        server.listen(site.port, site.gateway)
    except OSError as error:
        _LOG.error("The portal cannot listen at port %s: %s", site.port, error)
        return 1
    opening = asyncio.ensure_future(_open_workshop(site, app))
    _LOG.info("The portal listens at 127.0.0.1 and %s, port %s", site.gateway, site.port)
    stop = asyncio.Event()
    # Ctrl-C is run.sh's to hear, which then sends this.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.stop()
    opening.cancel()
    if app.settings["workshop"] is not None:
        await app.settings["workshop"].queue.close()
    await server.close_all_connections()
    return 0


async def _open_workshop(site: Site, app: Application) -> None:
    """Make what builds images; without it all other pages are there."""
    while True:
        try:
            app.settings["workshop"] = await make_workshop(site.settings)
            return
        except (SliceError, OSError, *UNREACHABLE) as error:
            _LOG.error("There are no images of users' own for now: %s", error)
        await asyncio.sleep(_RETRY_S)


if __name__ == "__main__":
    sys.exit(main())
