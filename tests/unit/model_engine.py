"""An engine in memory and a loop in steps: nothing happens until a test makes it happen.

It behaves as the real one does where that matters for a grant. A create reserves its name at the
beginning and lists the container at the end; a call goes on when its caller has gone away; an
answer can be lost although the work is done.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import docker.errors
import requests

IMAGE = "sha256:image"


def api_error(status: int, text: str = "") -> docker.errors.APIError:
    """Return what the client raises for an answer with this status."""
    response = requests.Response()
    response.status_code = status
    if status == 404:
        kind = docker.errors.ImageNotFound if "image" in text else docker.errors.NotFound
        return kind(text, response)
    return docker.errors.APIError(text, response)


class Clock:
    """The time of everybody, which passes when somebody says so."""

    now = 0.0


class SteppedLoop(asyncio.SelectorEventLoop):
    """A process's event loop: runs when it is told to, and never waits."""

    def __init__(self, clock: Clock) -> None:
        self._own_clock = clock
        super().__init__()

    def time(self) -> float:
        return self._own_clock.now

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: Any) -> Any:
        """Run it here and now: a thread of its own would make no two runs alike."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001
            future.set_exception(error)
        return future

    def next_timer(self) -> float | None:
        """Return when something is due, None if nothing is."""
        due = [timer.when() for timer in self._scheduled if not timer.cancelled()]
        return min(due, default=None)

    def run_until_idle(self) -> None:
        """Run until everybody waits for an answer or for time to pass."""
        while self._ready or (self.next_timer() or float("inf")) <= self.time():
            self.call_soon(self.stop)
            self.run_forever()

    def end(self) -> None:
        """Let nothing of it run on."""
        self.set_exception_handler(lambda *_: None)
        for _ in range(10):
            left = asyncio.all_tasks(self)
            for task in left:
                task.cancel()
            self.run_until_idle()
            if not left:
                break
        self.close()


@dataclass(eq=False)
class Made:
    """A container that the engine lists."""

    container_id: str
    name: str
    body: dict[str, Any]
    at: int
    state: str = "created"

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.body.get("Labels") or {})

    def __repr__(self) -> str:
        owner = self.labels.get("ds01.hub", "nobody")
        held = self.labels.get("ds01.gpu.uuids", "")
        return f"<{self.name} {self.at} of {owner}, {self.state}, with {held or 'no GPU'}>"

    def listed(self) -> dict[str, Any]:
        return {
            "Id": self.container_id,
            "Names": [f"/{self.name}"],
            "State": self.state,
            "Created": 1_700_000_000 + self.at,
            "Labels": self.labels,
        }

    def inspected(self) -> dict[str, Any]:
        return {
            "Id": self.container_id,
            "Name": f"/{self.name}",
            "Config": {"Labels": self.labels, "Env": list(self.body.get("Env") or [])},
            "State": {
                "Status": self.state,
                "Running": self.state == "running",
                "Pid": 4_000_000 + self.at if self.state == "running" else 0,
                "ExitCode": 0,
            },
            "HostConfig": dict(self.body.get("HostConfig") or {}),
            "Mounts": [],
        }


@dataclass(eq=False)
class Call:
    """A call that the engine has not answered yet, and how far it is."""

    client: Client
    method: str
    args: tuple[Any, ...]
    future: asyncio.Future[Any]
    #: What else there is to do before the answer.
    steps: list[Callable[[], None]] = field(default_factory=list)
    begun: bool = False
    #: What its client noted when it asked.
    mark: Any = None
    result: Any = None
    error: Exception | None = None
    #: Whether it asks for all that there is, as a grant does.
    is_of_all: bool = True

    @property
    def is_awaited(self) -> bool:
        return not self.client.dead and not self.future.done()

    def __repr__(self) -> str:
        return f"<{self.client.name}: {self.method}{' begun' if self.begun else ''}>"


class Client:
    """One Hub's way to the engine: a `Docker`, and threads for other calls."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        self.dead = False
        self.mark: Callable[[], Any] = lambda: None

    async def __call__(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return await self._ask(method, *args, is_of_all="filters" not in kwargs)

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await self._ask("in_thread", function, *args)

    async def _ask(self, method: str, *args: Any, is_of_all: bool = True) -> Any:
        if self.engine.down and method != "in_thread":
            raise requests.exceptions.ConnectionError("refused")
        call = Call(self, method, args, asyncio.get_running_loop().create_future())
        call.mark, call.is_of_all = self.mark(), is_of_all
        self.engine.take(call)
        return await call.future


class Engine:
    """Lists containers, and does what it is asked one step after the other.

    Parameters
    ----------
    info
        Its answer to ``GET /info``.
    """

    def __init__(self, info: Callable[[], dict[str, Any]]) -> None:
        self.containers: dict[str, Made] = {}
        #: The names that creates under way have taken, each with its call.
        self.reserved: dict[str, Call] = {}
        self.calls: list[Call] = []
        self.images = [IMAGE]
        self.down = False
        #: Number of the newest container.
        self.last = 0
        #: Told of each create that begins, of each listing, and of each removal.
        self.on_create: Callable[[Call, str, dict[str, Any]], None] = lambda *_: None
        self.on_list: Callable[[Client], None] = lambda *_: None
        self.on_remove: Callable[[Client, Made], None] = lambda *_: None
        self.on_fail: Callable[[Call], None] = lambda *_: None
        self._describe = info
        self._count = itertools.count(1)

    # -- what a test does ----------------------------------------------------------------------

    def step(self, call: Call) -> None:
        """Do the next piece of a call's work; answer it when all is done."""
        if call.steps:
            call.begun = True
            try:
                call.steps.pop(0)()
            except Exception as error:  # noqa: BLE001
                call.error, call.steps = error, []
            return
        self.calls.remove(call)
        if not call.is_awaited:
            return
        if call.error is not None:
            call.future.set_exception(call.error)
        else:
            call.future.set_result(call.result)

    def lose(self, call: Call) -> None:
        """Break the connection of a call; what was asked for goes on."""
        if call.is_awaited:
            call.future.set_exception(requests.exceptions.ConnectionError("broken"))

    def fail(self, call: Call) -> None:
        """Answer that something is wrong in here, and do not go on with it."""
        self._drop(call)
        if call.is_awaited:
            self.on_fail(call)
            call.future.set_exception(api_error(500, "Something is wrong in here"))

    def restart(self) -> None:
        """Forget all that is under way; containers stay."""
        for call in [call for call in self.calls if call.method != "in_thread"]:
            self._drop(call)
            self.lose(call)

    def forget(self, client: Client) -> None:
        """Forget what a client asked for that has not begun."""
        for call in [call for call in self.calls if call.client is client and not call.begun]:
            self._drop(call)

    def _drop(self, call: Call) -> None:
        self.calls.remove(call)
        if not call.begun or not call.steps:
            return
        if call.method == "create_container_from_config":
            del self.reserved[call.args[1]]
        if call.method == "remove_container":
            # Half of it is gone.
            self._found(call.args[0]).state = "dead"

    def put(self, name: str, body: dict[str, Any], state: str = "running") -> Made:
        """List a container that somebody else has made."""
        self.last = number = next(self._count)
        made = Made(f"{number:064x}", name, body, number, state)
        self.containers[made.container_id] = made
        return made

    # -- what it does --------------------------------------------------------------------------

    def take(self, call: Call) -> None:
        """Take a call on."""
        method, args = call.method, call.args

        def work() -> None:
            call.result = getattr(self, f"_{method}")(call, *args)

        call.steps = [work]
        self.calls.append(call)

    def find(self, key: str) -> Made | None:
        by_name = (made for made in self.containers.values() if made.name == key)
        return self.containers.get(key) or next(by_name, None)

    def _found(self, key: str) -> Made:
        made = self.find(key)
        if made is None:
            raise api_error(404, "No such container")
        return made

    def _in_thread(self, _call: Call, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    def _containers(self, call: Call) -> list[dict[str, Any]]:
        if call.is_of_all:
            self.on_list(call.client)
        return [made.listed() for made in self.containers.values()]

    def _info(self, _call: Call) -> dict[str, Any]:
        return self._describe()

    def _images(self, _call: Call) -> list[dict[str, Any]]:
        return [{"Id": image, "RepoTags": None} for image in self.images]

    def _inspect_container(self, _call: Call, key: str) -> dict[str, Any]:
        return self._found(key).inspected()

    def _logs(self, _call: Call, _key: str) -> bytes:
        return b""

    def _start(self, _call: Call, key: str) -> None:
        made = self._found(key)
        if made.state == "removing":
            raise api_error(409, "marked for removal")
        made.state = "running"

    def _create_container_from_config(self, call: Call, body: dict[str, Any], name: str) -> None:
        if body["Image"] not in self.images:
            raise api_error(404, "No such image")
        if name in self.reserved or self.find(name) is not None:
            raise api_error(409, f"The container name {name} is already in use")
        self.on_create(call, name, body)
        self.reserved[name] = call

        def finish() -> None:
            del self.reserved[name]
            made = self.put(name, body, "created")
            call.result = {"Id": made.container_id}

        call.steps.append(finish)

    def _remove_container(self, call: Call, key: str) -> None:
        made = self._found(key)
        if made.state == "removing":
            raise api_error(409, "removal is already in progress")
        self.on_remove(call.client, made)
        made.state = "removing"

        def finish() -> None:
            self.containers.pop(made.container_id, None)

        call.steps.append(finish)
