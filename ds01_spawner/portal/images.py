"""The workshop of images, as the portal runs it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
from docker.utils import kwargs_from_env

from .. import engine
from ..accounts import Account
from ..blocking import in_thread
from ..cgroups.builds import choose_build_room
from ..cgroups.limits import SliceLimits
from ..images import bases
from ..images.builder import Builder, Site
from ..images.checks import Report, Room, check_image
from ..images.holdings import Holdings
from ..images.orders import Orders
from ..images.queue import BuildQueue
from ..images.shelf import Shelf
from ..images.sources import Sources
from ..images.workshop import Workshop
from ..policy import this_machine
from ..settings import DS01Settings
from ..workspaces import Workspaces

#: Calls of the engine that take long, such as removing a large image, have this many seconds.
_ENGINE_TIMEOUT_S = 120
#: Seconds for the trial of a finished image: large packages take minutes to import at first.
_CHECK_S = 300


async def make_workshop(settings: DS01Settings) -> Workshop:
    """Return what builds and keeps users' images on this machine.

    Raises
    ------
    SliceError
        If builds cannot be limited here.
    Exception
        Whatever the engine raises when it gives no answer.
    """
    client = docker.APIClient(version="auto", **kwargs_from_env(), timeout=_ENGINE_TIMEOUT_S)
    call = engine.Caller(client, ThreadPoolExecutor(8, thread_name_prefix="images"))
    info = await call("info")
    room = choose_build_room(info)
    machine = this_machine()
    work = Path(settings.data_dir) / "builds" / "work"
    site = Site(
        hub_id=settings.hub_id,
        uv_image=bases.UV,
        ca_bundle=settings.ca_bundle_path,
        package_index=settings.package_index,
        wheels=Path(settings.wheels_directory) if settings.wheels_directory else None,
        limits=SliceLimits(
            cpus=min(settings.build_cpus, machine.cpus),
            memory_bytes=min(settings.build_memory, machine.memory_bytes),
            tasks=settings.build_pids,
        ),
        free_bytes=settings.lowest_free_disk,
        cache_bytes=settings.build_cache_size,
        disk=Path(info["DockerRootDir"]),
        work=work,
    )

    async def check(image_id: str, packages: tuple[str, ...], uid: int) -> Report:
        assert site.limits.memory_bytes is not None
        assert site.limits.cpus is not None
        trial = Room(
            hub_id=settings.hub_id,
            cgroup_parent=room.parent(),
            memory_bytes=site.limits.memory_bytes,
            cpus=site.limits.cpus,
            pids=settings.build_pids,
            seconds=_CHECK_S,
        )
        async with in_thread(room.hold(site.limits)):
            return await check_image(call, image_id, packages, uid, trial)

    records = settings.image_records
    builder = Builder(site, call, records, room, check)
    await builder.sweep()
    queue = BuildQueue(
        builder, records, Path(settings.data_dir) / "builds", settings.builds_at_once
    )

    def workspaces(user: str) -> tuple[Account, Workspaces]:
        account = settings.accounts.get(user)
        return account, Workspaces(user, account, settings.store)

    shelf = Shelf(call, settings.hub_id)
    holdings = Holdings(call, shelf, records, lambda: settings.catalogue)
    sources = Sources(workspaces)
    orders = Orders(
        *(call, settings.hub_id, holdings, sources, records, queue),
        disk=site.disk,
        lowest_free_bytes=settings.lowest_free_disk,
    )
    return Workshop(call, shelf, records, queue, holdings, sources, orders)
