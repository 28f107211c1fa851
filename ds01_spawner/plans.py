"""From a spawner's settings and one user's options to the plan of a container."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from . import containers, image_volumes, runtime
from .accounts import Account
from .admission.grants import grant_labels
from .admission.holdings import holding_labels
from .clock import utc_now
from .containers import Mount
from .gpus.devices import Device
from .shared_folders import SharedFolder
from .workspaces import Directory

if TYPE_CHECKING:
    from .spawner import DS01Spawner


def server_plan(
    spawner: DS01Spawner,
    image: containers.Image,
    account: Account,
    workspace: Directory,
    folders: Sequence[SharedFolder],
    devices: Sequence[Device],
    start: str,
) -> containers.Plan:
    """Return the plan of a server's container.

    Parameters
    ----------
    folders
        Shared folders to mount; their groups are added to the user's.
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
        account=_with_groups(account, folders),
        cpus=options.cpus,
        memory_bytes=options.memory,
        memory_swap_bytes=options.memory + swap,
        shm_bytes=min(limits.shm_bytes, options.memory),
        pids=limits.pids,
        env=_env(spawner, image, account),
        labels={
            **_labels(spawner, start),
            **holding_labels(options.cpus, options.memory, limits.pids),
            **grant_labels(devices),
        },
        mounts=(
            *mounts,
            *(Mount(f.folder.path, f.folder.target, f.folder.read_only) for f in folders),
            *image_volumes.mounts(image.volumes, home),
        ),
        network=spawner.network_name,
        hardening=spawner.hardening(),
        log_bytes=spawner.container_log_bytes,
    )


def _with_groups(account: Account, folders: Sequence[SharedFolder]) -> Account:
    """Add the folders' groups to a user's; root's is nobody's."""
    groups = {*account.groups, *(folder.gid for folder in folders)}
    return replace(account, groups=tuple(sorted(groups - {0, account.gid})))


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
        "DS01_URL": spawner.portal_url,
    }


def _labels(spawner: DS01Spawner, start: str) -> dict[str, str]:
    return {
        **spawner.ownership_labels(),
        "ds01.managed": "true",
        "ds01.start": start,
        "ds01.image": spawner.options.image,
        "ds01.created_at": utc_now().isoformat(timespec="seconds"),
    }
