"""What somebody may have and has, as the API answers it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from ..policy import explain
from .standing import Server, Standing


class Limit(BaseModel):
    """How much of one limit is used, over all servers; ``used`` is null if that is not known."""

    key: str
    label: str
    used: float | None
    limit: float | None
    unit: str
    source: str


class Device(BaseModel):
    """A GPU or MIG device; its weight is in GPU equivalents."""

    uuid: str
    size: str
    weight: float


class Amount(BaseModel):
    """A limit of one server, and what it uses of it."""

    limit: float
    used: float | None


class Bytes(BaseModel):
    """A limit of one server in bytes, and what it uses of it."""

    limit_bytes: int
    used_bytes: int | None


class OneServer(BaseModel):
    """One server; its state is in Docker's words.

    ``disk_bytes`` is what it takes outside of its owner's files; null if that is not known.
    """

    server: str
    project: str
    state: str
    started: str
    gpus: list[Device]
    cpus: Amount
    memory: Bytes
    processes: Amount
    disk_bytes: int | None

    @classmethod
    def of(cls, server: Server) -> OneServer:
        """Return what is told of a server."""
        now = server.now
        return cls(
            server=server.name,
            project=server.project,
            state=server.state,
            started=server.started,
            gpus=[
                Device(
                    uuid=uuid,
                    size=server.gpu_size,
                    weight=server.gpu_weight / len(server.gpu_uuids),
                )
                for uuid in server.gpu_uuids
            ],
            cpus=Amount(limit=server.cpus, used=now.cpus if now else None),
            memory=Bytes(
                limit_bytes=server.memory_bytes, used_bytes=now.memory_bytes if now else None
            ),
            processes=Amount(limit=server.pids, used=now.tasks if now else None),
            disk_bytes=server.disk_bytes,
        )


class SharedFolder(BaseModel):
    """A shared folder; its mode is ``ro`` or ``rw``."""

    name: str
    target: str
    mode: str


class Limits(BaseModel):
    """What a user may have and has.

    ``enforced`` is what holds the sum over all servers. ``life`` says how long one goes on, and
    ``files`` what there is to tell of the room that the user's files take.
    """

    user: str
    group: str | None
    groups: list[str]
    why: str
    enforced: str
    life: str
    files: str
    limits: list[Limit]
    servers: list[OneServer]
    policy: dict[str, dict[str, Any]]
    folders: list[SharedFolder]

    @classmethod
    def of(cls, found: Standing) -> Limits:
        """Return what is told of a user's standing."""
        resolved = found.share.resolved
        return cls(
            user=resolved.user,
            group=resolved.group,
            groups=list(resolved.groups),
            why=resolved.why,
            enforced=found.enforced,
            life=found.life,
            files=found.files,
            limits=[Limit.model_validate(bar, from_attributes=True) for bar in found.bars],
            servers=list(map(OneServer.of, found.servers)),
            policy=explain.as_objects(resolved),
            folders=[
                SharedFolder(name=f.name, target=f.target, mode=f.mode) for f in found.share.folders
            ],
        )
