"""One machine with modelled Hubs on it, and all that must never happen there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from docker.errors import ImageNotFound

from ds01_spawner import engine
from ds01_spawner.errors import Refused
from ds01_spawner.gpus.devices import Device, State
from ds01_spawner.gpus.request import suffices

from .model_engine import IMAGE, Call, Client, Clock, Engine, Made
from .model_hub import LIMITS, Attempt, Hub
from .model_machine import NOTATIONS, Machine, foreign_body, opened, relatives


class World:
    """One machine with Hubs, and all that went wrong.

    Parameters
    ----------
    lock_file
        Shared by the Hubs.
    """

    def __init__(self, lock_file: Path, hubs: int = 2) -> None:
        self.lock_file = lock_file
        self.clock, self.machine = Clock(), Machine()
        self.engine = Engine(self.machine.info)
        self.engine.on_create, self.engine.on_list = self._created, self._listed
        self.engine.on_remove, self.engine.on_fail = self._removed, self._failed
        #: Container id -> which of the notations it was made with.
        self.foreign: dict[str, int] = {}
        self.late: set[str] = set()
        self.wrong: list[str] = []
        self.granted = 0
        self._died: list[Hub] = []
        self.hubs: dict[str, Hub | None] = {}
        for number in range(hubs):
            self.restart(f"hub{number}")

    # -- what happens ------------------------------------------------------------------------

    def restart(self, hub_id: str) -> None:
        """Start a Hub; of the one before it, it has nothing but what the engine lists."""
        self.hubs[hub_id] = Hub(self, hub_id)

    def kill(self, hub_id: str, *, forget: bool, cleanly: bool = False) -> None:
        """End a Hub: nothing of it runs on, and its lock is let go.

        Parameters
        ----------
        forget
            The engine never sees what was on the way to it.
        cleanly
            The Hub cancels everything before; otherwise as ``kill -9`` does.
        """
        hub = self.hubs[hub_id]
        if hub is None:
            return
        if cleanly:
            hub.shut_down()
        hub.client.dead = True
        hub.lock.die()
        if forget:
            self.engine.forget(hub.client)
        self._died.append(hub)
        self.hubs[hub_id] = None

    @property
    def living(self) -> list[Hub]:
        return [hub for hub in self.hubs.values() if hub is not None]

    @property
    def attempts(self) -> list[Attempt]:
        return [attempt for hub in self.living for attempt in hub.attempts.values()]

    def put_foreign(self, number: int, state: str) -> None:
        name = f"theirs{len(self.foreign)}"
        made = self.engine.put(name, foreign_body(number), state)
        self.foreign[made.container_id] = number

    def take_foreign(self, number: int, how: str) -> None:
        theirs = [one for one in self.foreign if one in self.engine.containers]
        if theirs and how == "exits":
            self.engine.containers[theirs[number % len(theirs)]].state = "exited"
        elif theirs:
            del self.engine.containers[theirs[number % len(theirs)]]

    def run(self) -> None:
        """Let every Hub go on as far as it can without an answer."""
        for hub in self.living:
            hub.loop.run_until_idle()
        for attempt in self.attempts:
            if attempt.task.done() and not attempt.seen:
                attempt.seen = True
                self._judge_outcome(attempt)

    def pass_time(self, seconds: float) -> None:
        end = self.clock.now + seconds
        while (due := self._next_timer()) is not None and due <= end:
            self.clock.now = max(self.clock.now, due)
            self.run()
        self.clock.now = end

    def _next_timer(self) -> float | None:
        timers = [hub.loop.next_timer() for hub in self.living]
        return min((timer for timer in timers if timer is not None), default=None)

    def calm_down(self) -> None:
        """Let the engine answer everything, and time pass, until nobody waits for anything."""
        for _ in range(20_000):
            self.run()
            if self.engine.calls:
                self.engine.step(self.engine.calls[0])
            elif (due := self._next_timer()) is not None:
                self.clock.now = max(self.clock.now, due)
            else:
                return
        self.wrong.append(f"It never ends: {self.engine.calls}")

    def mend(self) -> None:
        """Send everybody else away, and repair the machine and its engine."""
        machine = self.machine
        machine.problem, self.engine.down, self.engine.images = "", False, [IMAGE]
        for trouble in (machine.broken, machine.unasked, machine.processes, machine.unattachable):
            trouble.clear()
        for container_id in self.foreign:
            self.engine.containers.pop(container_id, None)

    def end_in_peace(self) -> None:
        """Mend everything, stop everybody, and see that all is free again."""
        machine, engine_ = self.machine, self.engine
        self.mend()
        self.calm_down()
        for hub_id, hub in self.hubs.items():
            if hub is None:
                self.restart(hub_id)
        self.calm_down()
        for attempt in self.attempts:
            if attempt.is_up:
                attempt.stop()
        self._stop_orphans()
        self.calm_down()
        for hub in self.living:
            hub.recovery = hub.loop.create_task(hub.grants.recover())
            self.calm_down()
            if hub.recovery.exception() is not None:
                self.wrong.append(f"There is no recovery: {hub.recovery.exception()!r}")
            if hub.grants.starts:
                self.wrong.append(f"Starts that are over are not forgotten: {hub.grants.starts}")
        left = [made for made in engine_.containers.values() if made.container_id]
        self.wrong += [f"There is still {made}" for made in left]
        if self.lock_file.read_text():
            self.wrong.append(f"The lock file says {self.lock_file.read_text()}")
        for hub in self.living:
            taken = hub.loop.create_task(hub.grants.stand("nobody"))
            self.calm_down()
            free = {device.uuid for device in taken.result()[0].free}
            works = {d.uuid for d in machine.inventory().devices if d.state is State.OK}
            if free != works:
                self.wrong.append(f"{works - free} got lost")

    def _stop_orphans(self) -> None:
        """Stop what Hubs that ended have left running, as the Hub does by its own list."""
        known = {attempt.server.object_id for attempt in self.attempts if attempt.is_up}
        for hub in self.living:
            for made in self.engine.containers.values():
                if made.container_id in known or made.labels.get("ds01.hub") != hub.hub_id:
                    continue
                if made.state == "running":
                    hub.loop.create_task(engine.remove(hub.client, made.container_id))

    def close(self) -> None:
        for hub in self._died + self.living:
            hub.client.dead = True
            hub.loop.end()

    # -- what must not happen ----------------------------------------------------------------

    def _hub_of(self, client: Client) -> Hub | None:
        return next((hub for hub in self.living if hub.client is client), None)

    def _listed(self, client: Client) -> None:
        hub = self._hub_of(client)
        if hub is not None:
            hub.listed_at = self.engine.last
            hub.listed = [replace(made) for made in self.engine.containers.values()]
            hub.in_the_dark = False

    def _failed(self, call: Call) -> None:
        """Note that a Hub was not told what a container has, which then may have everything."""
        hub = self._hub_of(call.client)
        if hub is not None and call.method == "inspect_container":
            hub.in_the_dark = True

    def _created(self, call: Call, name: str, body: dict[str, Any]) -> None:
        """Judge a grant at the moment when the engine begins to create."""
        uuids = [uuid for uuid in body["Labels"].get("ds01.gpu.uuids", "").split(",") if uuid]
        if not uuids:
            return
        start_, hub = body["Labels"]["ds01.start"], self._hub_of(call.client)
        if hub is None or not hub.lock.is_held or call.mark != hub.lock.holds:
            # Nobody waits for it, so nobody will start it; the next grant finds it.
            self.late.add(start_)
            return
        self.granted += 1
        wrong = [problem for uuid in uuids for problem in self._conflicts(hub, uuid, start_)]
        if len(set(uuids)) < len(uuids):
            wrong.append("one device twice")
        if hub.reading.inventory.problem:
            wrong.append("NVML has a problem")
        user = body["Labels"]["ds01.user"]
        most = LIMITS[user].gpu_equivalents
        bodies = [body, *(call.args[0] for call in self.engine.reserved.values())]
        bodies += [made.body for made in self.engine.containers.values()]
        used = {
            labels["ds01.start"]: float(labels["ds01.gpu.allocated"])
            for labels in (body["Labels"] for body in bodies if "Labels" in body)
            if labels.get("ds01.gpu.allocated")
            and (labels["ds01.user"], labels["ds01.hub"]) == (user, hub.hub_id)
            and labels["ds01.start"] not in self.late
        }
        if most is not None and sum(used.values()) > most + 1e-5:
            wrong.append(f"{user} has {used}")
        self.wrong += [f"{name} was given {uuids}: {problem}" for problem in wrong]

    def _conflicts(self, hub: Hub, uuid: str, start_: str) -> list[str]:
        inventory = hub.reading.inventory
        device = inventory.get(uuid)
        if device is None or device.state is not State.OK:
            return [f"it does not work: {device}"]
        related = relatives(uuid, inventory)
        found = []
        bodies = [(made.body, made.at) for made in self.engine.containers.values()]
        bodies += [(call.args[0], 0) for call in self.engine.reserved.values()]
        for body, at in bodies:
            labels: Any = body.get("Labels") or {}
            if "ds01.hub" not in labels or labels["ds01.start"] == start_:
                continue
            if labels["ds01.start"] in self.late and not 0 < at <= hub.listed_at:
                continue
            if related & opened(labels, inventory):
                found.append(f"{labels['ds01.user']} of {labels['ds01.hub']} has it")
        for made in hub.listed:
            still = self.engine.containers.get(made.container_id)
            if still is None or not self._counts(made) or not self._counts(still):
                continue
            if uuid in NOTATIONS[self.foreign[made.container_id]][1](inventory):
                found.append(f"a container with {made.body} has it")
        if related & {process.uuid for process in hub.reading.processes}:
            found.append("a process is on it")
        if related & set(hub.reading.unasked):
            found.append("its processes are not known")
        return found

    def _counts(self, made: Made) -> bool:
        """Tell whether it is somebody else's and has what it was made with."""
        return made.container_id in self.foreign and made.state in ("created", "running")

    def _removed(self, client: Client, made: Made) -> None:
        hub_id = made.labels.get("ds01.hub")
        if made.labels.get(engine.PROBE_LABEL):
            return
        if hub_id != client.name:
            self.wrong.append(f"{client.name} removes {made}")
        for attempt in self.attempts:
            if attempt.start._nonce != made.labels.get("ds01.start") or attempt.stopping:
                continue
            if attempt.start.undone is None:
                self.wrong.append(f"{client.name} removes a living server, {made}")

    def _judge_outcome(self, attempt: Attempt) -> None:
        if attempt.task.cancelled() or attempt.is_up:
            return
        refused = attempt.task.exception()
        if isinstance(refused, Refused) and isinstance(refused.__cause__, ImageNotFound):
            return
        if not isinstance(refused, Refused) or refused.reason == "error":
            self.wrong.append(f"{attempt.key} got {refused!r} after {refused.__cause__!r}")
        elif refused.reason in ("no-gpu", "quota"):
            would_do = self._would_do(attempt, held_too=refused.reason == "quota")
            assert attempt.request is not None
            if len(would_do) >= attempt.request.count:
                self.wrong.append(
                    f"{attempt.key} was refused {attempt.request}, and {would_do} would do: "
                    f"{refused.jupyterhub_message}"
                )

    def _would_do(self, attempt: Attempt, held_too: bool) -> list[Device]:
        """Return what would have done for a request, by what its Hub was told last."""
        hub, request = attempt.hub, attempt.request
        assert request is not None
        if hub.in_the_dark:
            return []
        user, limits = attempt.server.user.name, attempt.server.limits()
        inventory, used, taken = hub.reading.inventory, 0.0, set[str]()
        for made in hub.listed:
            labels = made.labels
            if self._counts(made):
                taken |= NOTATIONS[self.foreign[made.container_id]][1](inventory)
            elif labels.get("ds01.hub") and labels["ds01.gpu.uuids"]:
                granted = labels["ds01.gpu.uuids"].split(",")
                if labels["ds01.hub"] != hub.hub_id and not all(map(inventory.get, granted)):
                    # Another Hub's labels are not believed.
                    taken |= {device.uuid for device in inventory.devices}
                taken |= {
                    other
                    for uuid in opened(labels, inventory)
                    for other in relatives(uuid, inventory)
                }
                if (labels["ds01.hub"], labels["ds01.user"]) == (hub.hub_id, user):
                    used += float(labels["ds01.gpu.allocated"])
        busy = {process.uuid for process in hub.reading.processes} | set(hub.reading.unasked)
        taken |= {other for uuid in busy for other in relatives(uuid, inventory)}
        most = limits.gpu_equivalents
        return [
            device
            for device in inventory.devices
            if device.state is State.OK
            and (held_too or device.uuid not in taken)
            and suffices(device, request)
            and (device.kind == "mig" or (limits.full_gpu and not request.profile))
            and (most is None or device.weight * request.count <= most - used + 1e-6)
        ]
