"""From a spawner's settings and one user's options to the plan of a container."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from . import containers, image_volumes, runtime
from .accounts import Account
from .admission.grants import grant_labels
from .gpus.devices import Device
from .workspaces import Directory

if TYPE_CHECKING:
    from .spawner import DS01Spawner


def server_plan(
    spawner: DS01Spawner,
    image: containers.Image,
    account: Account,
    workspace: Directory,
    devices: Sequence[Device],
    start: str,
) -> containers.Plan:
    """Return the plan of a server's container.

    Parameters
    ----------
    devices
        What it was granted; the labels say so, attaching them is a back end's work.
    start
        What no other start has, for the label ``ds01.start``.
    """
    limits, options = spawner.limits(), spawner.options
    swap = limits.memory_swap_bytes - limits.memory_bytes
    home = containers.home_in_container(account)
    mounts = containers.server_mounts(
        account, workspace.path, runtime.volume_name(), spawner.ca_bundle_path
    )
    return containers.Plan(
        name=spawner.object_name,
        hostname=spawner.project,
        image=image,
        account=account,
        cpus=options.cpus,
        memory_bytes=options.memory,
        memory_swap_bytes=options.memory + swap,
        shm_bytes=min(limits.shm_bytes, options.memory),
        pids=limits.pids,
        env=_env(spawner, image, account),
        labels={**_labels(spawner, start), **grant_labels(devices)},
        mounts=(*mounts, *image_volumes.mounts(image.volumes, home)),
        network=spawner.network_name,
        hardening=spawner.hardening(),
        log_bytes=spawner.container_log_bytes,
    )


def _env(spawner: DS01Spawner, image: containers.Image, account: Account) -> dict[str, str]:
    return {
        **spawner.get_env(),
        **(containers.ca_environment() if spawner.ca_bundle_path else {}),
        "JUPYTER_IMAGE_SPEC": image.reference,
        "HOME": containers.home_in_container(account),
        "USER": account.login,
        "LOGNAME": account.login,
        "DS01_USER": account.login,
        "DS01_PROJECT": spawner.project,
        "DS01_SAFE_START": "1" if spawner.options.safe_start else "",
    }


def _labels(spawner: DS01Spawner, start: str) -> dict[str, str]:
    return {
        **spawner.ownership_labels(),
        "ds01.managed": "true",
        "ds01.start": start,
        "ds01.image": spawner.options.image,
        "ds01.created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
