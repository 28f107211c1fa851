"""What is checked and put in order before the Hub serves anybody; called by its configuration."""

from __future__ import annotations

import asyncio
import fnmatch
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import datetime
from typing import Any

import docker
from docker.utils import kwargs_from_env
from traitlets.config import Config, LazyConfigValue

from .containers import FORBIDDEN_ENV
from .engine import Caller
from .gpus import toolkit
from .gpus.attachment import AttachmentError, Engine, choose_backend
from .gpus.devices import Inventory
from .gpus.nvml import Nvml
from .gpus.xid import XidWatch
from .settings import DS01Settings

_LOG = logging.getLogger(__name__)

#: What decides which GPUs a container has, as the Docker SDK and the engine call it.
_GPU_KEYS = {
    "cgroup_parent": "nothing yet",
    "device_cgroup_rules": "nothing: a server gets the devices that it is granted",
    "device_requests": "gpu_backend",
    "devices": "nothing: a server gets the devices that it is granted",
    "privileged": "nothing: a privileged server would see every GPU",
    "runtime": "oci_runtime or gpu_backend",
}


class ConfigurationError(Exception):
    """The configuration contradicts itself; the text says where and what to do."""


def check(config: Config) -> None:
    """Refuse a configuration that would decide about GPUs in two places, or that cannot be had.

    Raises
    ------
    ConfigurationError
        With one line for each contradiction.
    """
    found = list(contradictions(config))
    if not found:
        found = _found_impossible(_settings(config))
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
    starting.
    """
    # The Hub's own loop runs already, and waits for its configuration.
    with ThreadPoolExecutor(4, thread_name_prefix="recover") as executor:
        executor.submit(asyncio.run, _recover(config, executor)).result()


def watch_gpus(config: Config) -> None:
    """Keep, from now on, which devices report a critical error: they are not given to anybody."""
    store = _settings(config).store

    def keep(uuid: str, xid: int, at: datetime) -> None:
        _LOG.error("%s reports the critical error Xid %s; it is not given to anybody", uuid, xid)
        store.add_gpu_fault(uuid, xid, at)

    XidWatch(keep).start()


async def _recover(config: Config, executor: Executor) -> None:
    client = docker.APIClient(version="auto", **kwargs_from_env())
    try:
        await _settings(config).make_grants(Caller(client, executor)).recover()
    except Exception:  # noqa: BLE001
        _LOG.exception("What an earlier Hub has left could not be put in order yet")
    finally:
        client.close()


def _settings(config: Config) -> DS01Settings:
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
        for key in _keys(config[section].get("environment")):
            if any(fnmatch.fnmatchcase(key, pattern) for pattern in FORBIDDEN_ENV[:2]):
                yield (
                    f"c.{section}.environment sets {key!r}, which decides about GPUs. Take it "
                    "out; use gpu_driver_capabilities for parts of NVIDIA's driver."
                )


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
    if oci_runtime in Engine.from_info(info).nvidia_runtimes:
        yield (
            f"c.DS01Spawner.oci_runtime is {oci_runtime!r}, under which any image can ask for "
            "every GPU. Leave it at 'runc'; gpu_backend = 'nvidia-runtime' uses it for grants."
        )
    if not inventory.devices:
        return
    try:
        choose_backend(info, inventory, gpu_backend)
    except AttachmentError as error:
        if gpu_backend:
            yield f"c.DS01Spawner.gpu_backend: {error}"
        else:
            _LOG.error("Servers can only start without a GPU: %s", error)


def _found_impossible(settings: DS01Settings) -> list[str]:
    client, nvml = docker.APIClient(version="auto", **kwargs_from_env()), Nvml()
    try:
        return list(
            impossible(
                client.info(),
                nvml.read().inventory,
                oci_runtime=settings.oci_runtime,
                gpu_backend=settings.gpu_backend,
            )
        )
    finally:
        client.close()
        nvml.close()


def _keys(value: Any) -> list[str]:
    """Return the keys of a configured dictionary, also of one that is only added to."""
    if isinstance(value, LazyConfigValue):
        value = value.get_value({})
    return [str(key) for key in value] if isinstance(value, dict | Config) else []


def _plain(key: str) -> str:
    """Return a key as the SDK spells it: ``DeviceRequests`` is ``device_requests``."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in key).lstrip("_")
