"""Runs the portal: ``python -m ds01_spawner.portal CONFIGURATION``."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import logging
import os
import signal
import sys
from pathlib import Path

from tornado.httpserver import HTTPServer

from .app import LARGEST_BODY, make_app
from .look import Look
from .people import People
from .site import Site, SiteError, read_site

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
        lock = _only_one(Path(site.settings.data_dir) / "portal.lock")
    except SiteError as error:
        _LOG.error("%s", error)
        return 1
    try:
        asyncio.run(_serve(site))
    except OSError as error:
        _LOG.error("The portal cannot listen at port %s: %s", site.port, error)
        return 1
    finally:
        os.close(lock)
    return 0


def _only_one(lock: Path) -> int:
    """Take the lock for as long as this process lives.

    Raises
    ------
    SiteError
        If another portal has it.
    """
    file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise SiteError(f"A portal runs already; it holds {lock}.") from None
    return file


async def _serve(site: Site) -> None:
    app = make_app(site, People(site.hub_api, site.token), Look(site.settings))
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
    server.listen(site.port, "127.0.0.1")
    server.listen(site.port, site.gateway)
    _LOG.info("The portal listens at 127.0.0.1 and %s, port %s", site.gateway, site.port)
    stop = asyncio.Event()
    # Ctrl-C is run.sh's to hear, which then sends this.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.stop()
    await server.close_all_connections()


if __name__ == "__main__":
    sys.exit(main())
