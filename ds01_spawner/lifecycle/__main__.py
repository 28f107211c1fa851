"""Runs the service that stops idle servers: ``python -m ds01_spawner.lifecycle CONFIGURATION``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import docker
from docker.utils import kwargs_from_env

from .. import engine
from ..deployment import Deployment, DeploymentError, only_one, read_deployment
from ..errors import Refused
from ..gpus.nvml import Nvml
from ..images.installed import read_installed
from ..messages.outbox import Outbox
from ..settings import CULLER, DS01Settings
from ..storage import places
from ..storage.measure import Measure, Place
from ..storage.rounds import Rounds
from . import kernels, processes
from .gpus import MachineGpus
from .history import Kernels
from .hub import Hub
from .rules import LiveRules
from .server import Server
from .service import Service
from .sweep import Sweep

_LOG = logging.getLogger("ds01_spawner.lifecycle")
_ENGINE_TIMEOUT_S = 60
#: Seconds that a server has to say what is lost with it.
_INSTALLED_S = 10
#: Seconds for counting one user's files: millions of them, on a disk that others use.
_MEASURED_S = 1200


def main() -> int:
    """Run the service until it is told to end; returns 1 if it cannot run."""
    parser = argparse.ArgumentParser(prog="python -m ds01_spawner.lifecycle", description=__doc__)
    parser.add_argument("configuration", type=Path, help="the Hub's configuration file")
    args = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, format="[%(levelname)1.1s %(asctime)s DS01 culler] %(message)s"
    )
    try:
        deployment = read_deployment(args.configuration.resolve())
        # For as long as this process lives.
        only_one(Path(deployment.settings.data_dir) / "culler.lock")
        asyncio.run(_serve(deployment))
    except DeploymentError as error:
        _LOG.error("%s", error)
        return 1
    return 0


def make_outbox(deployment: Deployment) -> Outbox:
    """Return what sends messages to owners.

    Raises
    ------
    DeploymentError
        If what is configured of messages contradicts itself.
    """
    settings = deployment.settings
    if found := list(settings.message_problems()):
        raise DeploymentError("\n".join(found))
    channels = settings.channels(settings.message_records, deployment.links)
    if channels and not deployment.links.home:
        _LOG.warning("Messages name no page: set c.JupyterHub.public_url")
    return Outbox(settings.message_records, settings.life_records, channels, CULLER)


def make_service(deployment: Deployment, call: engine.Docker, outbox: Outbox) -> Service:
    """Return the service of a Hub.

    Parameters
    ----------
    outbox
        Takes what owners are told.

    Raises
    ------
    DeploymentError
        If the Hub's configuration has no such service.
    """
    settings, token = deployment.settings, deployment.token(CULLER)
    return Service(
        Hub(deployment.hub_api, token),
        call,
        settings.hub_id,
        MachineGpus(Nvml(settings.store.gpu_faults)),
        LiveRules(settings),
        ask,
        settings.life_records,
        Sweep(call, settings.store),
        partial(_installed, call),
        outbox,
        timedelta(seconds=settings.cull_every_s),
        timedelta(seconds=settings.stop_notice_s),
        uses=settings.storage_records.uses,
    )


def make_rounds(settings: DS01Settings, service: Service, docker_call: engine.Docker) -> Rounds:
    """Return what measures the files of a service's users and servers."""

    def places_of(user: str) -> tuple[Place, ...]:
        account = settings.accounts.find(user)
        return places.of_user(account) if account else ()

    return Rounds(
        settings.storage_records,
        Measure(_MEASURED_S),
        docker_call,
        places_of,
        settings.store.users,
        service.running,
    )


async def _installed(docker_call: engine.Docker, container: Mapping[str, Any]) -> list[str]:
    """Return the packages that somebody has asked pip for in a server; none if it does not say."""
    try:
        found = await asyncio.wait_for(read_installed(docker_call, container), _INSTALLED_S)
    except (Refused, OSError, asyncio.TimeoutError, *engine.UNREACHABLE):
        return []
    return [str(package["name"]) for package in found if package["requested"]]


async def ask(server: Server) -> Kernels | None:
    """Return what a server says of its kernels, and the system of its terminals.

    Returns
    -------
    Kernels or None
        None if one of them does not say.
    """
    seen = server.watched
    terminals = asyncio.to_thread(processes.executing_in, seen.container_id, seen.pid)
    try:
        said, since = await asyncio.gather(kernels.ask(server.address, server.token), terminals)
    except processes.UNREADABLE:
        return None
    return None if said is None else said.with_executing(since)


async def _serve(deployment: Deployment) -> None:
    client = docker.APIClient(version="auto", **kwargs_from_env(), timeout=_ENGINE_TIMEOUT_S)
    call = engine.Caller(client, ThreadPoolExecutor(8, thread_name_prefix="engine"))
    outbox = make_outbox(deployment)
    service = make_service(deployment, call, outbox)
    rounds = make_rounds(deployment.settings, service, call)
    running = asyncio.gather(service.run(), rounds.run())
    sending = asyncio.ensure_future(outbox.run())
    # Ctrl-C is run.sh's to hear, which then sends this.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    _LOG.info("Servers are looked at every %s s", deployment.settings.cull_every_s)
    with suppress(asyncio.CancelledError):
        await running
    await service.wait()
    # What was not sent is kept for the next one.
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


if __name__ == "__main__":
    sys.exit(main())
