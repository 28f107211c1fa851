"""What stands in for the world around the two that are compared; imports nothing of theirs.

Run as a program, with a file of the servers' first processes, it is the Hub, the engine and every
notebook server, all on one port of loopback.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tornado import httpserver, netutil, web

HUB_ID, PROJECT = "bench", "default"
GPUS = tuple(f"GPU-{number:08x}-0000-0000-0000-000000000000" for number in range(8))
#: JupyterHub's own: api_page_default_limit, api_page_max_limit.
PAGE, LARGEST_PAGE = 50, 200
#: One server of so many is near a limit.
NEAR = 20
WORKSPACE = Path(__file__).resolve().parent


def user_name(number: int) -> str:
    """Return a user's name, who has one server."""
    return f"student{number:05}"


def container_id(number: int) -> str:
    """Return the id of the container of that server."""
    return hashlib.sha256(user_name(number).encode()).hexdigest()


def moment(at: datetime) -> str:
    """Write a time as JupyterHub and Jupyter do."""
    return at.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def hub_user(number: int, now: datetime) -> dict[str, Any]:
    """Return a user as JupyterHub 6 shows them to a service that may read servers and groups."""
    name, path = user_name(number), f"/user/{user_name(number)}/"
    server = {
        "name": "",
        "display_name": "",
        "full_name": f"{name}/",
        "last_activity": moment(now),
        "started": moment(now - timedelta(hours=1)),
        "pending": None,
        "ready": True,
        "stopped": False,
        "url": path,
        "user_options": {"project": PROJECT, "image": "base", "gpu": "1", "folders": None},
        "progress_url": f"/hub/api/users/{name}/server/progress",
        "full_url": None,
        "full_progress_url": None,
    }
    return {
        "kind": "user",
        "name": name,
        "groups": ["student"],
        "last_activity": moment(now),
        "servers": {"": server},
    }


def hub_page(users: list[dict[str, Any]], url: str) -> dict[str, Any]:
    """Return a page of the list of users. Source: jupyterhub/apihandlers/users.py, base.py."""
    asked = parse_qs(urlsplit(url).query)
    offset = int(asked.get("offset", ["0"])[0])
    limit = min(int(asked.get("limit", [str(PAGE)])[0]), LARGEST_PAGE)
    pages = {"offset": offset, "limit": limit, "total": len(users), "next": None}
    if offset + limit < len(users):
        query = urlencode({**asked, "offset": [offset + limit], "limit": [limit]}, doseq=True)
        following = urlsplit(url)._replace(query=query).geturl()
        pages["next"] = {"offset": offset + limit, "limit": limit, "url": following}
    return {"items": users[offset : offset + limit], "_pagination": pages}


def labels(number: int, servers: int) -> dict[str, str]:
    """Return a container's labels. All servers share eight devices, more than any machine has."""
    return {
        "ds01.hub": HUB_ID,
        "ds01.user": user_name(number),
        "ds01.project": PROJECT,
        "ds01.server": "",
        "ds01.managed": "true",
        "ds01.start": container_id(number)[:16],
        "ds01.image": "base",
        "ds01.created_at": "2026-01-01T00:00:00+00:00",
        "ds01.gpu.uuids": GPUS[number % len(GPUS)],
        "ds01.gpu.parents": GPUS[number % len(GPUS)],
        # Half of the GPUs' weight: no high demand, which would move the limits.
        "ds01.gpu.allocated": str(len(GPUS) / 2 / servers),
    }


def listed(number: int, servers: int) -> dict[str, Any]:
    """Return a container as Docker lists it."""
    places = ("/opt/ds01", "/workspace", f"/home/{user_name(number)}")
    return {
        "Id": container_id(number),
        "Names": [f"/{PROJECT}._.{user_name(number)}"],
        "Image": "ds01/base:latest",
        "ImageID": f"sha256:{container_id(number)}",
        "Command": "/opt/ds01/bin/launch",
        "Created": 1767225600,
        "Ports": [],
        "Labels": labels(number, servers),
        "State": "running",
        "Status": "Up About an hour",
        "HostConfig": {"NetworkMode": "ds01"},
        "NetworkSettings": {"Networks": {"ds01": _network()}},
        "Mounts": [
            {
                "Type": "bind",
                "Source": f"/var/lib/ds01/{number}{place}",
                "Destination": place,
                "Mode": "",
                "RW": True,
                "Propagation": "rprivate",
            }
            for place in places
        ],
    }


def inspected(number: int, servers: int, port: int, pid: int) -> dict[str, Any]:
    """Return what ours reads of a container's inspection."""
    url = f"http://0.0.0.0:{port}/user/{user_name(number)}/"
    return {
        "Id": container_id(number),
        "State": {"Status": "running", "Running": True, "Pid": pid},
        "Config": {
            "Labels": labels(number, servers),
            "Env": ["LANG=C.UTF-8", f"JUPYTERHUB_SERVICE_URL={url}"],
        },
        "HostConfig": {"NanoCpus": 4_000_000_000},
        "NetworkSettings": {"Networks": {"ds01": _network()}},
        # Ours looks there for a file that keeps a server; there is none.
        "Mounts": [{"Type": "bind", "Source": str(WORKSPACE), "Destination": "/workspace"}],
    }


def _network() -> dict[str, Any]:
    return {
        "IPAMConfig": None,
        "Links": None,
        "Aliases": None,
        "NetworkID": "0" * 64,
        "EndpointID": "1" * 64,
        "Gateway": "127.0.0.1",
        "IPAddress": "127.0.0.1",
        "IPPrefixLen": 8,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "MacAddress": "02:42:0a:00:00:02",
        "DriverOpts": None,
    }


class StandIn(web.RequestHandler):
    """Answers as the Hub, as the engine and as every notebook server, and counts."""

    def initialize(self, answers: Answers) -> None:
        """Take what Tornado hands over."""
        self._answers = answers

    def get(self) -> None:
        """Answer anything."""
        self.set_header("Content-Type", "application/json")
        self.write(self._answers.to(self.request.full_url()))


class Answers:
    """What the stand-in says, made beforehand, and how often it was asked by whom."""

    def __init__(self, pids: list[int], port: int) -> None:
        now, servers = datetime.now(timezone.utc), len(pids)
        self._port = port
        self._pids = pids
        self._counts: dict[str, int] = {}
        self._users = [hub_user(number, now) for number in range(servers)]
        self._pages: dict[str, bytes] = {}
        self._list = json.dumps([listed(number, servers) for number in range(servers)]).encode()
        self._inspections = {container_id(number): number for number in range(servers)}
        idle = {"last_activity": moment(now - timedelta(hours=1)), "execution_state": "idle"}
        self._kernels = json.dumps(
            [{"id": "0" * 36, "name": "python3", "connections": 1, **idle}]
        ).encode()

    def to(self, url: str) -> bytes:
        """Answer a request."""
        path = urlsplit(url).path
        if path == "/counts":
            counts, self._counts = self._counts, {}
            return json.dumps(counts).encode()
        who, answer = self._find(path, url)
        self._counts[who] = self._counts.get(who, 0) + 1
        return answer

    def _find(self, path: str, url: str) -> tuple[str, bytes]:
        if path == "/hub/api/":
            return "hub", b'{"version": "6.1.1"}'
        if path == "/hub/api/users":
            if url not in self._pages:
                self._pages[url] = json.dumps(hub_page(self._users, url)).encode()
            return "hub", self._pages[url]
        if path.endswith("/api/kernels"):
            return "kernels", self._kernels
        if path.endswith("/containers/json"):
            return "engine", self._list
        if path.startswith("/v1.41/containers/"):
            number = self._inspections[path.split("/")[3]]
            model = inspected(number, len(self._pids), self._port, self._pids[number])
            return "engine", json.dumps(model).encode()
        raise web.HTTPError(404)


async def stand_in(pids: list[int]) -> None:
    """Serve until the process is ended; the first line tells the port."""
    (socket,) = netutil.bind_sockets(0, "127.0.0.1", backlog=1024)
    port = socket.getsockname()[1]
    handed = {"answers": Answers(pids, port)}
    server = httpserver.HTTPServer(web.Application([(".*", StandIn, handed)], log_function=_silent))
    server.add_sockets([socket])
    print(port, flush=True)
    await asyncio.Event().wait()


def _silent(_handler: web.RequestHandler) -> None:
    pass


# -- the kernel -----------------------------------------------------------------------------

_NET_DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    6520      80    0    0    0     0          0         0     6520      80    0    0    0     0       0          0
  eth0: 8400512    9120    0    0    0     0          0         0  1290112    7740    0    0    0     0       0          0
"""  # noqa: E501
_STAT = "(tini) S 1 {0} {0} 0 -1 4194560 312 0 0 0 1 1 0 0 20 0 1 0 100 2621440 160 18446744073709"
_V1 = ("memory", "cpuacct", "cpu", "pids", "devices", "freezer", "blkio", "cpuset", "systemd")
#: Counters as long as the kernel's: what is looked for stands in the middle.
_MEMORY_STAT = "".join(
    f"{prefix}{key} 1048576\n"
    for prefix in ("", "total_")
    for key in (
        *("cache", "rss", "rss_huge", "shmem", "mapped_file", "dirty", "writeback", "swap"),
        *("pgpgin", "pgpgout", "pgfault", "pgmajfault"),
        *("inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable"),
    )
)


def plain_files(directory: Path, servers: int, version: str) -> list[int]:
    """Write the kernel's files of all servers below a directory; return their first processes."""
    proc, root = directory / "proc", directory / "cgroup"
    pids = [100_000 + number for number in range(servers)]
    for name in _V1 if version == "v1" else ():
        (root / name).mkdir(parents=True)
    proc.mkdir()
    (proc / "uptime").write_text("100000.00 100000.00\n")
    for number, pid in enumerate(pids):
        place = f"/ds01.slice/ds01-{user_name(number)}.slice/{container_id(number)}"
        (proc / f"{pid}" / "net").mkdir(parents=True)
        (proc / f"{pid}" / "net" / "dev").write_text(_NET_DEV)
        (proc / f"{pid}" / "stat").write_text(f"{pid} {_STAT.format(pid)}\n")
        lines = [f"{10 - i}:{name}:{place}\n" for i, name in enumerate(_V1)]
        lines = lines if version == "v1" else []
        (proc / f"{pid}" / "cgroup").write_text("".join([*lines, f"0::{place}\n"]))
        files = _files_v1(pid) if version == "v1" else _files_v2(pid)
        for name, text in files.items():
            hierarchy, _, file = name.rpartition("/")
            (root / hierarchy / place[1:]).mkdir(parents=True, exist_ok=True)
            (root / hierarchy / place[1:] / file).write_text(text)
    return pids


def _files_v1(pid: int) -> dict[str, str]:
    return {
        "memory/memory.usage_in_bytes": "209715200\n",
        "memory/memory.stat": _MEMORY_STAT,
        "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
        "cpuacct/cpuacct.usage": "12345678901\n",
        "pids/pids.current": "12\n",
        "pids/cgroup.procs": f"{pid}\n",
    }


def _files_v2(pid: int) -> dict[str, str]:
    return {
        "memory.current": "209715200\n",
        "memory.stat": _MEMORY_STAT.replace("total_", "zone_"),
        "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
        "cpu.stat": "usage_usec 12345678\nuser_usec 12000000\nsystem_usec 345678\n",
        "pids.current": "12\n",
        "cgroup.procs": f"{pid}\n",
    }


if __name__ == "__main__":
    asyncio.run(stand_in(json.loads(Path(sys.argv[1]).read_text())))
