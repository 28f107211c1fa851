"""The servers' own network, and the fence between it and the machine.

A server reaches the Hub's API, the portal and the internet. It reaches no other server (the bridge
has no inter-container traffic) and nothing else on this machine, on none of its addresses: whatever
comes in from the bridge's interface meets a chain of our own first. Cloud machines' metadata
address is closed too.
"""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker.errors

#: Where clouds hand out credentials to whoever asks from a machine of theirs: link-local in most,
#: and addresses of their own in Azure, Alibaba and Oracle.
METADATA = ("169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32")

#: Without it, what passes from server to server on the bridge meets no rule at all.
_BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_FIRST_IN_FORWARD = "-j DOCKER-USER"

_PROGRAMS = ("iptables", "ip6tables")
_ISOLATED = "com.docker.network.bridge.enable_icc"
_INTERFACE = "com.docker.network.bridge.name"

#: Held while a fence is looked at and changed. In root's own directory: nobody else can hold it.
_LOCK = Path("/run/ds01-network.lock")


class NetworkError(Exception):
    """The network or its fence cannot be made or is not as it must be; the text says what to do."""


@dataclass(frozen=True)
class Network:
    """A servers' network: Docker's `name`, the Linux `interface`, the host's address `gateway`."""

    name: str
    interface: str
    gateway: str


def ensure(client: Any, name: str, interface: str, ports: Sequence[int]) -> Network:
    """Make the network and its fence, or find them as they should be.

    Parameters
    ----------
    client
        A low-level Docker client.
    interface
        Name of the Linux bridge, at most 15 characters.
    ports
        The TCP ports of this machine that servers may open: the Hub's, and the portal's if there
        is one.

    Raises
    ------
    NetworkError
        If there is a network of this name that lets servers see each other, or if the rules
        cannot be set (root is needed).
    """
    with _one_at_a_time():
        return _ensure(client, name, interface, ports)


def find(client: Any, name: str) -> Network:
    """Return the network as Docker has it.

    Raises
    ------
    NetworkError
        If it is missing or is not isolated.
    """
    network = _find(client, name)
    if network is None:
        raise NetworkError(f"There is no Docker network {name!r}: run 'ds01 network setup'.")
    return network


def problems(network: Network, ports: Sequence[int]) -> list[str]:
    """Say what is wrong with the fence; an empty list is a fence that stands.

    Raises
    ------
    NetworkError
        If the rules cannot be read.
    """
    found = []
    chains = {program: _chains(program) for program in _PROGRAMS}
    for fence in _fences(network, ports):
        now = chains[fence.program]
        if not _jumps_first(now, fence):
            found.append(f"{fence.program}: {fence.entry} does not begin with '{fence.jump}'")
        # In order and with nothing between: one rule more may open what ours close.
        if now.get(fence.chain) != fence.rules:
            found.append(
                f"{fence.program}: {fence.chain} is not exactly '{'; '.join(fence.rules)}'"
            )
    if not _forwards_by_us(chains["iptables"]):
        found.append(f"iptables: FORWARD does not begin with '{_FIRST_IN_FORWARD}'")
    if not _filters_bridges():
        found.append(f"{_BRIDGE_FILTER} is not 1")
    return found


def stand(client: Any, name: str, ports: Sequence[int]) -> None:
    """See to it that the fence of an existing network stands; a reloaded firewall drops it.

    Raises
    ------
    NetworkError
        If it does not stand and cannot be mended.
    """
    with _one_at_a_time():
        network = find(client, name)
        if problems(network, ports):
            _ensure(client, name, network.interface, ports)


def remove(client: Any, name: str, interface: str | None = None) -> None:
    """Remove the network and its rules; what is not there is no error.

    Parameters
    ----------
    interface
        Whose rules to remove where the network itself is gone already.

    Raises
    ------
    NetworkError
        If servers still use the network, or if the rules cannot be removed.
    """
    with _one_at_a_time():
        network = _find(client, name)
        if network is not None:
            interface = network.interface
            # First of all: as long as a server uses the network, its fence stays.
            _remove_network(client, name)
        if interface is not None:
            for fence in _fences(Network(name, interface, gateway=""), ports=()):
                _remove_rules(fence)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Keep other processes and threads of this machine from changing a fence meanwhile."""
    try:
        lock = _LOCK.open("a")
    except OSError as error:
        raise NetworkError(f"{_LOCK} cannot be used: {error} (the fence needs root)") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _ensure(client: Any, name: str, interface: str, ports: Sequence[int]) -> Network:
    network = _find(client, name) or _create(client, name, interface)
    for fence in _fences(network, ports):
        _set_chain(fence.program, fence.chain, fence.rules)
        if not _jumps_first(_chains(fence.program), fence):
            _run(fence.program, "-I", fence.entry, "1", *fence.jump.split())
    if not _forwards_by_us(_chains("iptables")):
        _run("iptables", "-I", "FORWARD", "1", *_FIRST_IN_FORWARD.split())
    if not _filters_bridges():
        _filter_bridges()
    return network


def _remove_network(client: Any, name: str) -> None:
    try:
        client.remove_network(name)
    except docker.errors.NotFound:
        return
    except docker.errors.APIError as error:
        raise NetworkError(
            f"The network {name!r} is in use: stop its containers first ({error.explanation})."
        ) from error


def _remove_rules(fence: _Fence) -> None:
    """Remove a fence; each rule as often as it is there."""
    chains = _chains(fence.program)
    for _ in range(chains.get(fence.entry, []).count(fence.jump)):
        _run(fence.program, "-D", fence.entry, *fence.jump.split())
    if fence.chain in chains:
        _run(fence.program, "-F", fence.chain)
        _run(fence.program, "-X", fence.chain)


def _find(client: Any, name: str) -> Network | None:
    try:
        found = client.inspect_network(name)
    except docker.errors.NotFound:
        return None
    options = found["Options"] or {}
    if found["Driver"] != "bridge" or options.get(_ISOLATED) != "false":
        raise NetworkError(
            f"The Docker network {name!r} lets containers see each other, so it is not one of "
            f"ours. Remove it ('docker network rm {name}') or choose another name."
        )
    return Network(
        name=name,
        interface=options.get(_INTERFACE) or f"br-{found['Id'][:12]}",
        gateway=found["IPAM"]["Config"][0]["Gateway"],
    )


def _create(client: Any, name: str, interface: str) -> Network:
    try:
        client.create_network(
            name,
            driver="bridge",
            options={_ISOLATED: "false", _INTERFACE: interface},
            labels={"ds01.managed": "true"},
        )
    except docker.errors.APIError as error:
        raise NetworkError(f"The network {name!r} cannot be made: {error.explanation}") from error
    return find(client, name)


@dataclass(frozen=True)
class _Fence:
    """A chain of ours, and from where traffic of the servers' interface is led to it."""

    program: str
    entry: str
    chain: str
    interface: str
    rules: list[str]

    @property
    def jump(self) -> str:
        """The rule in `entry` that leads here."""
        return f"-i {self.interface} -j {self.chain}"


def _fences(network: Network, ports: Sequence[int]) -> tuple[_Fence, ...]:
    """Return our chains, with rules in the words in which they are listed."""
    interface = network.interface
    answers = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    here_for_servers = [
        f"-d {network.gateway}/32 -p tcp -m tcp --dport {port} -j ACCEPT" for port in ports
    ]
    # Rejected and not dropped: a student's mistyped address fails at once.
    reject, reject6 = (
        f"-j REJECT --reject-with {kind}-port-unreachable" for kind in ("icmp", "icmp6")
    )
    # The engine keeps servers apart too; this is ours, whatever is set there.
    beyond = [f"-o {interface} -j DROP", *(f"-d {address} -j DROP" for address in METADATA)]
    here = f"DS01-{interface}"
    return (
        _Fence("iptables", "INPUT", here, interface, [answers, *here_for_servers, reject]),
        _Fence("ip6tables", "INPUT", here, interface, [answers, reject6]),
        _Fence("iptables", "DOCKER-USER", f"DS01-F-{interface}", interface, beyond),
    )


def _jumps_first(chains: dict[str, list[str]], fence: _Fence) -> bool:
    """Tell whether traffic meets our chain before any rule that is not a fence of ours."""
    for rule in chains.get(fence.entry, []):
        if rule == fence.jump:
            return True
        if "-j DS01-" not in rule:
            return False
    return False


def _forwards_by_us(chains: dict[str, list[str]]) -> bool:
    """Tell whether what passes on meets DOCKER-USER before any rule that may accept it."""
    for rule in chains.get("FORWARD", []):
        if rule == _FIRST_IN_FORWARD:
            return True
        # A restarted engine puts this one first; it drops or returns.
        if not rule.startswith("-j DOCKER-ISOLATION-"):
            return False
    return False


def _filters_bridges() -> bool:
    try:
        return _BRIDGE_FILTER.read_text().strip() == "1"
    except FileNotFoundError:
        return False


def _filter_bridges() -> None:
    try:
        _BRIDGE_FILTER.write_text("1")
    except OSError as error:
        raise NetworkError(
            f"{_BRIDGE_FILTER} cannot be set to 1, so servers would see each other: {error} "
            "(load the kernel module br_netfilter)"
        ) from error


def _chains(program: str) -> dict[str, list[str]]:
    """Return every chain with its rules in order, in the program's own words.

    All at once, as asking for one rule or chain tells "not there" by an exit status that other
    failures have too.
    """
    chains: dict[str, list[str]] = {}
    for line in _run(program, "-S").splitlines():
        # "-P INPUT ACCEPT", "-N DS01-ds01br0", "-A INPUT -i ds01br0 -j DS01-ds01br0"
        option, chain, *rest = line.split(" ", 2)
        rules = chains.setdefault(chain, [])
        if option == "-A":
            rules += rest
    return chains


def _set_chain(program: str, chain: str, rules: list[str]) -> None:
    """Fill our chain in one transaction, so that it is never open or half made."""
    lines = ["*filter", f":{chain} - [0:0]"]
    lines += [f"-A {chain} {rule}" for rule in rules]
    text = "\n".join([*lines, "COMMIT", ""])
    _run(f"{program}-restore", "--wait", "10", "--noflush", stdin=text)


def _run(program: str, *arguments: str, stdin: str = "") -> str:
    # --wait: Docker changes the tables at the same time.
    wait = () if program.endswith("-restore") else ("--wait", "10")
    try:
        done = subprocess.run(
            [program, *wait, *arguments], input=stdin, capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"{program} cannot be run: {error}") from error
    if done.returncode != 0:
        raise NetworkError(
            f"'{program} {' '.join(arguments)}' failed: {done.stderr.strip()} "
            "(the servers' fence needs root and the package iptables)"
        )
    return done.stdout
