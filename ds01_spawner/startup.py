"""What is checked and put in order before the Hub serves anybody; called by its configuration."""

from __future__ import annotations

import asyncio
import copy
import fcntl
import logging
import os
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from datetime import datetime
from pathlib import Path
from typing import Any

import docker
from docker.utils import kwargs_from_env
from jupyterhub.app import JupyterHub
from traitlets.config import Config, LazyConfigValue

from .cgroups.limits import SliceError
from .cgroups.slices import choose_slices
from .cgroups.user_slices import UserSlices
from .engine import Caller
from .gpus import toolkit
from .gpus.attachment import AttachmentError, choose_backend
from .gpus.claims import Runtimes
from .gpus.conflicts import asks_for_gpus
from .gpus.devices import Inventory, State
from .gpus.nvml import Nvml
from .gpus.snapshot import DRIVER_HANGS, NVML_PATIENCE_S
from .gpus.xid import XidWatch
from .live import NeverRead
from .lone_thread import LoneThread
from .policy import LivePolicy
from .settings import DS01Settings

_LOG = logging.getLogger(__name__)

#: Seconds after which the Hub starts without waiting for others any longer, such as for another Hub
#: that holds the lock on the GPUs and hangs.
_RECOVERY_S = 90.0

#: What decides which GPUs a container has, as the Docker SDK and the engine call it.
_GPU_KEYS = {
    "cgroup_parent": "nothing: each user has a cgroup around all of their servers",
    "device_cgroup_rules": "nothing: a server gets the devices that it is granted",
    "device_requests": "gpu_backend",
    "devices": "nothing: a server gets the devices that it is granted",
    "privileged": "nothing: a privileged server would see every GPU",
    "runtime": "oci_runtime or gpu_backend",
}


class ConfigurationError(Exception):
    """The configuration contradicts itself; the text says where and what to do."""


def prepare(config: Config) -> None:
    """Check and put in order what a Hub needs; nothing where another program reads its settings.

    Raises
    ------
    ConfigurationError
        If the configuration contradicts itself.
    """
    if not JupyterHub.initialized():
        return
    check(config)
    recover(config)
    watch_gpus(config)


def check(config: Config) -> None:
    """Refuse a configuration that would decide about GPUs in two places, or that cannot be had.

    Raises
    ------
    ConfigurationError
        With one line for each contradiction.
    """
    found = list(contradictions(config)) or unreadable(settings_of(config).policy)
    found += settings_of(config).message_problems()
    if not found:
        found = _found_impossible(settings_of(config))
    if found:
        raise ConfigurationError("\n".join(found))
    _log_like_the_hub()
    if old := toolkit.warning():
        _LOG.warning("%s", old)


def _log_like_the_hub() -> None:
    """Give what our modules log the time and the level that the Hub's own lines have."""
    ours = logging.getLogger("ds01_spawner")
    if not ours.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("[%(levelname)1.1s %(asctime)s DS01] %(message)s"))
        ours.addHandler(handler)


def recover(config: Config) -> None:
    """Put in order what a Hub that was killed has left with the engine.

    What cannot be settled now is tried again at each grant, so no failure here keeps the Hub from
    starting. Other commands read the configuration as well, such as ``jupyterhub token``: beside a
    Hub that runs they put nothing in order, as its starts are under way.
    """
    if not _is_the_only_one(Path(settings_of(config).data_dir) / "hub.lock"):
        _LOG.info("A Hub runs on this directory already; nothing is put in order")
        return
    with ThreadPoolExecutor(4, thread_name_prefix="recover") as executor:
        _run(_recover(config, executor))


def _is_the_only_one(lock: Path) -> bool:
    """Take a lock for as long as this process lives; tell whether it was free."""
    file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    return True


def watch_gpus(config: Config) -> None:
    """Keep, from now on, which devices report a critical error: they are not given to anybody."""
    store = settings_of(config).store

    def keep(uuid: str, xid: int, at: datetime) -> None:
        _LOG.error("%s reports the critical error Xid %s; it is not given to anybody", uuid, xid)
        store.add_gpu_fault(uuid, xid, at)

    XidWatch(keep).start()


async def _recover(config: Config, executor: Executor) -> None:
    client = docker.APIClient(version="auto", **kwargs_from_env())
    try:
        grants = settings_of(config).make_grants(Caller(client, executor))
        await asyncio.wait_for(grants.recover(), _RECOVERY_S)
    except Exception:  # noqa: BLE001
        _LOG.exception("What an earlier Hub has left could not be put in order yet")
    finally:
        client.close()


def settings_of(config: Config) -> DS01Settings:
    """Return the spawner's settings, without a spawner."""
    configured = config.DS01Spawner
    known = {name: configured[name] for name in configured if name in DS01Settings.class_traits()}
    return DS01Settings(config=Config(DS01Settings=known))


def contradictions(config: Config) -> Iterator[str]:
    """Give what is configured in a second place and decides about GPUs."""
    for section in ("Spawner", "DockerSpawner", "DS01Spawner"):
        for trait in ("extra_host_config", "extra_create_kwargs"):
            for key in _keys(config[section].get(trait)):
                plain = _plain(key)
                if plain in _GPU_KEYS:
                    yield (
                        f"c.{section}.{trait} sets {key!r}, which decides about GPUs. Take it out; "
                        f"use {_GPU_KEYS[plain]}."
                    )
        for trait in ("environment", "env_keep"):
            for key in filter(asks_for_gpus, _keys(config[section].get(trait))):
                yield (
                    f"c.{section}.{trait} sets {key!r}, which decides about GPUs. Take it "
                    "out; use gpu_driver_capabilities for parts of NVIDIA's driver."
                )


def unreadable(policy: LivePolicy) -> list[str]:
    """Return what is wrong with the policy, a line each, if there is none to begin with.

    A Hub that runs keeps its last good one; one that starts has none, and would have to guess.
    """
    try:
        current = policy.current()
        policy.folders()
    except NeverRead as error:
        return str(error).splitlines()
    for warning in current.warnings:
        _LOG.warning("%s", warning)
    return []


def impossible(
    info: Mapping[str, Any], inventory: Inventory, *, oci_runtime: str, gpu_backend: str
) -> Iterator[str]:
    """Give what is configured about GPUs and this engine cannot do, or must not.

    Parameters
    ----------
    info
        The engine's answer to ``GET /info``.
    oci_runtime, gpu_backend
        The settings of these names.
    """
    if Runtimes.from_info(info).is_nvidias(oci_runtime):
        yield (
            f"c.DS01Spawner.oci_runtime is {oci_runtime!r}, under which any image can ask for "
            "every GPU. Leave it at 'runc'; gpu_backend = 'nvidia-runtime' uses it for grants."
        )
        return
    if not inventory.devices:
        return
    try:
        backend = choose_backend(info, inventory, gpu_backend)
    except AttachmentError as error:
        if gpu_backend:
            yield f"c.DS01Spawner.gpu_backend: {error}"
        else:
            _LOG.error("Servers can only start without a GPU: %s", error)
        return
    working = [device for device in inventory.devices if device.state is State.OK]
    try:
        # As a start does it, so that what is in its way shows now.
        backend.apply({"HostConfig": {"Runtime": oci_runtime}}, working[:1])
    except ValueError as error:
        yield f"c.DS01Spawner.oci_runtime: {error}"


def _found_impossible(settings: DS01Settings) -> list[str]:
    client = docker.APIClient(version="auto", **kwargs_from_env())
    try:
        info = client.info()
        return [
            *impossible(
                info,
                _inventory(),
                oci_runtime=settings.oci_runtime,
                gpu_backend=settings.gpu_backend,
            ),
            *no_slices(settings, info),
        ]
    finally:
        client.close()


def no_slices(settings: DS01Settings, info: Mapping[str, Any]) -> Iterator[str]:
    """Give why no slices can be made here, if they are what holds the users' sums.

    Parameters
    ----------
    info
        The engine's answer to ``GET /info``.
    """
    if settings.aggregate_limits != "slices":
        _LOG.warning("The sum of a user's servers is counted when they start; no cgroup holds it")
        return
    try:
        slices = UserSlices(choose_slices(info))
        _run(slices.check())
        _run(slices.sweep())
    except SliceError as error:
        yield (
            f"No cgroup can be made around a user's servers: {error} Or let their limits be "
            "counted instead: c.DS01Spawner.aggregate_limits = 'admission'."
        )
        return
    _LOG.info("The sum of a user's servers is held by a cgroup of theirs")


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end, in a thread: the Hub's own loop waits for its configuration."""
    with ThreadPoolExecutor(1) as executor:
        executor.submit(asyncio.run, work).result()


def _inventory() -> Inventory:
    """Read the GPUs; if the driver hangs, servers without one start all the same."""

    def read() -> Inventory:
        nvml = Nvml()
        try:
            return nvml.read().inventory
        finally:
            nvml.close()

    try:
        return LoneThread("nvml-check").submit(read).result(NVML_PATIENCE_S)
    except TookTooLong:
        _LOG.error("Servers can only start without a GPU: %s", DRIVER_HANGS)
        return Inventory(problem=DRIVER_HANGS)


def _keys(value: Any) -> list[str]:
    """Return the keys of a configured dictionary, or the items of a list, also of what is added."""
    if isinstance(value, LazyConfigValue):
        # A copy: asked for its value, it keeps what it was added to that time.
        value = copy.deepcopy(value).get_value({} if "update" in value.to_dict() else [])
    return [str(key) for key in value] if isinstance(value, dict | list | Config) else []


def _plain(key: str) -> str:
    """Return a key as the SDK spells it: ``DeviceRequests`` is ``device_requests``."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in key).lstrip("_")
