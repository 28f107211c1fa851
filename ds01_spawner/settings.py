"""What an admin configures in ``jupyterhub_config.py``; rules about people are policy."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlparse

from jupyterhub.traitlets import ByteSpecification
from traitlets import Bool, Enum, Float, Int, List, Unicode, default

from .accounts import OwnAccounts, SystemAccounts
from .admission.grants import Grants
from .admission.leftovers import Servers
from .admission.lock import GrantLock
from .containers import Hardening
from .engine import Caller
from .errors import Refused
from .gpus.attachment import DRIVER_CAPABILITIES
from .gpus.nodes import capabilities_here
from .gpus.nvml import Nvml
from .gpus.snapshot import Snapshots
from .images.catalogue import Catalogue
from .images.live import LiveCatalogue
from .images.records import ImageRecords
from .images.settings import ImageSettings
from .lifecycle.records import LifeRecords
from .live import NeverRead
from .lone_thread import LoneThread
from .messages.records import MessageRecords
from .messages.settings import MessageSettings
from .policy import LivePolicy, Share, this_machine
from .storage.records import StorageRecords
from .store import Store

#: The portal's name as a service of the Hub.
PORTAL = "ds01"
#: The service that stops idle servers.
CULLER = "ds01-culler"

_Records = TypeVar("_Records")

#: Traits of the parent that have no effect here, and what to use instead.
WITHOUT_EFFECT = {
    "allowed_images": "the catalogue",
    "args": "nothing: the mounted runtime decides what runs",
    "certs_volume_name": "nothing: servers are reached on their own network",
    "cmd": "nothing: the mounted runtime decides what runs",
    "container_image": "the catalogue",
    "container_ip": "nothing: servers are reached on their own network",
    "container_name_template": "nothing: names are <project>._.<user>",
    "container_prefix": "nothing: names are <project>._.<user>",
    "cpu_guarantee": "the policy: there are limits only",
    "cpu_limit": "the policy",
    "escape": "nothing: names are slugs as JupyterHub makes them",
    "extra_create_kwargs": "the traits of DS01Spawner",
    "extra_host_config": "the traits of DS01Spawner",
    "format_volume_name": "storage.yaml beside the policy",
    "host_ip": "nothing: servers are reached on their own network",
    "image": "the catalogue",
    "image_whitelist": "the catalogue",
    "links": "nothing: servers do not reach each other",
    "mem_guarantee": "the policy: there are limits only",
    "mem_limit": "the policy",
    "mounts": "storage.yaml beside the policy",
    "move_certs_image": "nothing: servers are reached on their own network",
    "name_template": "nothing: names are <project>._.<user>",
    "post_start_cmd": "nothing: an image brings what it needs",
    "prefix": "nothing: names are <project>._.<user>",
    "pull_policy": "nothing: an image is fetched when it is missing",
    "read_only_volumes": "storage.yaml beside the policy",
    "remove": "nothing: a container is removed when its end is recorded",
    "remove_containers": "nothing: a container is removed when its end is recorded",
    "use_internal_hostname": "nothing: servers are reached on their own network",
    "use_internal_ip": "nothing: servers are reached on their own network",
    "volumes": "storage.yaml beside the policy",
}


class DS01Settings(ImageSettings, MessageSettings):
    """The traits of `DS01Spawner`, and the things that are made from them."""

    hub: Any
    """The Hub as the spawner sees it; set by JupyterHub."""
    log: Any

    data_dir = Unicode(
        "/var/lib/ds01",
        help="""
        Directory with everything that lasts: `workspaces/`, `homes/` and `ds01.sqlite`.

        Put it on a disk that is large enough for all users' files.
        """,
    ).tag(config=True)

    catalogue_file = Unicode(
        help="""
        The catalogue of images that users are offered, a YAML file.

        Read again when it changes; no restart is needed.
        """,
    ).tag(config=True)

    accounts_from = Enum(
        ["hub", "system"],
        "hub",
        help="""
        Where users' numbers and directories come from.

        `"hub"`: users exist in JupyterHub only. Each gets a number from `first_uid` on, and
        directories in `data_dir`.

        `"system"`: users are accounts of this machine with the same name. Servers run with their
        uid, gid and groups, and their projects are the folders in `~/workspace`.
        """,
    ).tag(config=True)

    first_uid = Int(
        400_000,
        help="First user number given out with `accounts_from = 'hub'`; used by nobody else here.",
    ).tag(config=True)

    last_uid = Int(499_999, help="Last user number given out.").tag(config=True)

    ca_bundle = Unicode(
        "",
        help="""
        File with the certificates that servers trust, mounted read-only into each of them.

        Needed where the site has its own certificate authority: without it `pip install` fails.
        Empty: an image's own certificates are used.
        """,
    ).tag(config=True)

    policy_file = Unicode(
        help="""
        The lab's policy: who may have what. DS01's `resource-limits.yaml`, with its other files and
        `storage.yaml` beside it (docs/policy.md).

        Read again when it changes; no restart is needed. Empty: everybody has DS01's defaults.
        """,
    ).tag(config=True)

    aggregate_limits = Enum(
        ["slices", "admission"],
        "slices",
        help="""
        What holds the sum of a user's servers to the policy's `aggregate` and `max_tasks`.

        `"slices"`: the kernel, by a cgroup for each user around all of their servers. Needs root,
        and an engine on this machine.

        `"admission"`: a server is refused if the limits of the user's servers would together be
        more than that. For a Hub that may not make cgroups.
        """,
    ).tag(config=True)

    gpu_backend = Enum(
        ["", "cdi", "device-requests", "nvidia-runtime"],
        "",
        help="""
        How Docker attaches GPUs; empty lets the engine's own answer decide.

        `"cdi"`: by the names of the Container Device Interface, on engines from 28.2 on.
        `"device-requests"`: as `docker run --gpus` does, with NVIDIA's hook.
        `"nvidia-runtime"`: by a variable that NVIDIA's OCI runtime reads.
        """,
    ).tag(config=True)

    gpu_driver_capabilities = Unicode(
        DRIVER_CAPABILITIES,
        help="Parts of NVIDIA's driver that servers see; add `graphics` or `video` if needed.",
    ).tag(config=True)

    gpu_watchers = List(
        Unicode(),
        help="""
        Names of containers that see GPUs and only watch them, such as `["dcgm-exporter"]`.

        They hold no GPU. Patterns such as `"monitoring-*"` are allowed.
        """,
    ).tag(config=True)

    gpu_lock_file = Unicode(
        "/run/ds01-gpus.lock",
        help="""
        The lock around each grant of a GPU; all Hubs that share this machine's GPUs share it.
        """,
    ).tag(config=True)

    cap_add = List(
        Unicode(),
        help="""
        Linux capabilities that servers keep, such as `["NET_BIND_SERVICE"]`.

        All are dropped by default: an ordinary user needs none.
        """,
    ).tag(config=True)

    no_new_privileges = Bool(
        True, help="Whether setuid programs such as `sudo` are without effect in servers."
    ).tag(config=True)

    oci_runtime = Unicode(
        "runc",
        help="""
        The engine's runtime for servers, named so that the engine's default has no say.

        With the NVIDIA runtime as default, an image could ask for every GPU by a variable.
        """,
    ).tag(config=True)

    container_log_bytes = ByteSpecification(
        10 * 1024**2, help="Largest size of a server's log; two such files are kept."
    ).tag(config=True)

    stop_grace_s = Int(
        10, min=0, help="Seconds a stopped server has to end before it is killed."
    ).tag(config=True)

    engine_threads = Int(
        16, min=2, help="Calls to the engine under way at once, of all users together."
    ).tag(config=True)

    concurrent_starts = Int(
        min=1,
        help="""
        Servers that come up at the same time; the next ones wait for seconds.

        Starting JupyterLab keeps one CPU busy for a second or two. Default: the CPUs plus one.
        """,
    ).tag(config=True)

    @default("concurrent_starts")
    def _default_concurrent_starts(self) -> int:
        return this_machine().cpus + 1

    manage_fence = Bool(
        True,
        help="""
        Check before each start that servers reach nothing of this machine but the Hub, and mend
        it if needed. Needs root. Where an admin fences the network otherwise, set it to False.
        """,
    ).tag(config=True)

    network_name = Unicode(
        "ds01", help="The servers' Docker network, made with `ds01 network setup`."
    ).tag(config=True)

    portal_port = Int(
        0,
        min=0,
        max=65535,
        help="Port of the portal, the service `ds01`, on the address that the Hub has; 0 for none.",
    ).tag(config=True)

    cull_every_s = Float(
        60.0,
        min=1.0,
        help="""
        Seconds between two looks of the service `ds01-culler` at what servers do. Policy's
        `idle_detection_window` counts these looks.
        """,
    ).tag(config=True)

    stop_notice_s = Float(
        600.0,
        min=0.0,
        help="Seconds that an owner has at least between the first warning and the stop.",
    ).tag(config=True)

    lowest_free_disk_for_servers = ByteSpecification(
        2 * 1024**3, help="With less where users' files or containers lie, no server starts."
    ).tag(config=True)

    @default("use_internal_ip")
    def _default_use_internal_ip(self) -> bool:
        return True

    @default("catalogue_file")
    def _default_catalogue_file(self) -> str:
        return str(Path(self.data_dir) / "catalogue.yaml")

    def warn_without_effect(self) -> None:
        """Say in the log which configured traits of the parent are not heeded, and what is."""
        for section in ("Spawner", "DockerSpawner", "DS01Spawner"):
            for trait in WITHOUT_EFFECT.keys() & self.config[section].keys():
                self.log.warning(
                    "c.%s.%s has no effect with DS01Spawner; use %s",
                    section,
                    trait,
                    WITHOUT_EFFECT[trait],
                )

    @property
    def ca_bundle_path(self) -> Path | None:
        """The file with certificates, None if there is none."""
        return Path(self.ca_bundle) if self.ca_bundle else None

    @property
    def ports_for_servers(self) -> tuple[int, ...]:
        """The ports of this machine that servers may open: the Hub's, and the portal's."""
        hub = urlparse(self.hub.api_url).port or 80
        return (hub, self.portal_port) if self.portal_port else (hub,)

    @property
    def portal_url(self) -> str:
        """Where servers reach the portal; empty if there is none."""
        if not self.portal_port:
            return ""
        hub = urlparse(self.hub.api_url)
        base = hub.path.removesuffix("/").removesuffix("hub/api")
        return f"{hub.scheme}://{hub.hostname}:{self.portal_port}{base}services/{PORTAL}/"

    @property
    def images_url(self) -> str:
        """Where a browser finds the page of images; empty if there is no portal."""
        base = self.hub.base_url.removesuffix("/").removesuffix("hub")
        return f"{base}services/{PORTAL}/images" if self.portal_port else ""

    @property
    def hub_id(self) -> str:
        """What tells this Hub's containers from another Hub's on the same engine."""
        return _hub_id(Path(self.data_dir))

    @property
    def store(self) -> Store:
        """The project's own database."""
        return self._opened(Store)

    @property
    def image_records(self) -> ImageRecords:
        """Builds of users' images, in the same database."""
        return self._opened(ImageRecords)

    @property
    def life_records(self) -> LifeRecords:
        """What is remembered of servers' lives, in the same database."""
        return self._opened(LifeRecords)

    @property
    def storage_records(self) -> StorageRecords:
        """What users' files and servers take on the disk, in the same database."""
        return self._opened(StorageRecords)

    @property
    def message_records(self) -> MessageRecords:
        """Who wants e-mail, and what is to be sent, in the same database."""
        return self._opened(MessageRecords)

    def _opened(self, kind: Callable[[Path], _Records]) -> _Records:
        """Return records in the project's database; one of a kind is enough for a process."""
        found: _Records = _records(kind, Path(self.data_dir) / "ds01.sqlite")
        return found

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue of images, as the file is now."""
        return _live_catalogue(Path(self.catalogue_file)).current()

    @property
    def accounts(self) -> OwnAccounts | SystemAccounts:
        """Where users' numbers and directories come from."""
        if self.accounts_from == "system":
            return SystemAccounts()
        return OwnAccounts(Path(self.data_dir), self.first_uid, self.last_uid)

    @property
    def policy(self) -> LivePolicy:
        """The lab's policy, as its files are now."""
        return _live_policy(Path(self.policy_file) if self.policy_file else None)

    def share_of(self, user: str, hub_groups: Collection[str]) -> Share:
        """Return what a user may have.

        Raises
        ------
        Refused
            503 if the policy could not be read even once.
        """
        try:
            return self.policy.share(user, hub_groups)
        except NeverRead as error:
            raise Refused(
                "The lab's policy cannot be read, so nothing can be started. Please tell an admin: "
                "the Hub's log says what is wrong with it.",
                reason="policy",
                status_code=503,
            ) from error

    def make_grants(
        self, docker_call: Caller, servers: Callable[[], Servers] | None = None
    ) -> Grants:
        """Return where GPUs are granted; one for a process is enough.

        Parameters
        ----------
        servers
            Gives the servers that the Hub has now; None before it knows them.
        """
        snapshots = Snapshots(
            docker_call,
            Nvml(self.store.gpu_faults).read,
            LoneThread("nvml").run,
            self.hub_id,
            self.gpu_watchers,
            capabilities_here(),
        )
        return Grants(
            docker_call,
            snapshots,
            GrantLock(Path(self.gpu_lock_file)),
            self.store,
            self.gpu_backend,
            self.gpu_driver_capabilities,
            servers,
            counts_sums=self.aggregate_limits == "admission",
        )

    def hardening(self) -> Hardening:
        """Return what keeps a server in its container."""
        return Hardening(
            cap_add=tuple(self.cap_add),
            no_new_privileges=self.no_new_privileges,
            oci_runtime=self.oci_runtime,
        )


@lru_cache
def _hub_id(data: Path) -> str:
    file = data / "hub-id"
    if not file.exists():
        # Whole or not at all: an empty one would be every other Hub's name, too.
        half_made = file.with_suffix(".new")
        half_made.write_text(secrets.token_hex(8))
        half_made.rename(file)
    return file.read_text().strip()


@lru_cache
def _records(kind: Callable[[Path], Any], file: Path) -> Any:
    return kind(file)


@lru_cache
def _live_catalogue(path: Path) -> LiveCatalogue:
    return LiveCatalogue(path)


@lru_cache
def _live_policy(file: Path | None) -> LivePolicy:
    return LivePolicy(file)
