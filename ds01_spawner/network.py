"""The servers' own network, and the fence between it and the machine.

A server reaches the Hub's API and the internet. It reaches no other server (the bridge has no
inter-container traffic) and nothing else on this machine, on none of its addresses: whatever
comes in from the bridge's interface meets a chain of our own first. Cloud machines' metadata
address is closed too.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import Any

import docker.errors

#: Link-local: clouds hand out credentials at 169.254.169.254.
METADATA = "169.254.0.0/16"

_ISOLATED = "com.docker.network.bridge.enable_icc"
_INTERFACE = "com.docker.network.bridge.name"


class NetworkError(Exception):
    """The network or its fence cannot be made or is not as it must be; the text says what to do."""


@dataclass(frozen=True)
class Network:
    """A servers' network: Docker's `name`, the Linux `interface`, the host's address `gateway`."""

    name: str
    interface: str
    gateway: str


def ensure(client: Any, name: str, interface: str, hub_port: int) -> Network:
    """Make the network and its fence, or find them as they should be.

    Parameters
    ----------
    client
        A low-level Docker client.
    interface
        Name of the Linux bridge, at most 15 characters.
    hub_port
        The one TCP port of this machine that servers may open.

    Raises
    ------
    NetworkError
        If there is a network of this name that lets servers see each other, or if the rules
        cannot be set (root is needed).
    """
    network = _find(client, name) or _create(client, name, interface)
    for program, rules in _fence(network, hub_port).items():
        _set_chain(program, _chain(network), rules)
        if not _jumps_first(program, network):
            _run(program, "-I", "INPUT", "1", *_jump(network))
    if not _has("iptables", "DOCKER-USER", _metadata_rule(network)):
        _run("iptables", "-I", "DOCKER-USER", "1", *_metadata_rule(network))
    return network


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


def problems(network: Network, hub_port: int) -> list[str]:
    """Say what is missing in the fence; an empty list is a fence that stands.

    Raises
    ------
    NetworkError
        If the rules cannot be read.
    """
    missing = []
    for program, rules in _fence(network, hub_port).items():
        if not _jumps_first(program, network):
            missing.append(f"{program}: INPUT does not begin with a jump to {_chain(network)}")
        missing += [
            f"{program}: {_chain(network)} lacks '{' '.join(rule)}'"
            for rule in rules
            if not _has(program, _chain(network), rule)
        ]
    if not _has("iptables", "DOCKER-USER", _metadata_rule(network)):
        missing.append("iptables: DOCKER-USER does not close the metadata address")
    return missing


def stand(client: Any, name: str, hub_port: int) -> None:
    """See to it that the fence of an existing network stands; a reloaded firewall drops it.

    Raises
    ------
    NetworkError
        If it does not stand and cannot be mended.
    """
    network = find(client, name)
    if problems(network, hub_port):
        ensure(client, name, network.interface, hub_port)


def remove(client: Any, name: str) -> None:
    """Remove the network and its rules; what is not there is no error.

    Raises
    ------
    NetworkError
        If servers still use the network.
    """
    network = _find(client, name)
    if network is None:
        return
    try:
        client.remove_network(name)
    except docker.errors.APIError as error:
        raise NetworkError(
            f"The network {name!r} is in use: stop its containers first ({error.explanation})."
        ) from error
    for program in ("iptables", "ip6tables"):
        while _has(program, "INPUT", _jump(network)):
            _run(program, "-D", "INPUT", *_jump(network))
        _run(program, "-F", _chain(network), missing_ok=True)
        _run(program, "-X", _chain(network), missing_ok=True)
    _run("iptables", "-D", "DOCKER-USER", *_metadata_rule(network), missing_ok=True)


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


def _chain(network: Network) -> str:
    return f"DS01-{network.interface}"


def _jump(network: Network) -> list[str]:
    return ["-i", network.interface, "-j", _chain(network)]


def _jumps_first(program: str, network: Network) -> bool:
    """Tell whether traffic meets our chain before any rule that is not a fence of ours."""
    ours = f"-A INPUT {' '.join(_jump(network))}"
    for rule in _run(program, "-S", "INPUT").splitlines():
        if rule == ours:
            return True
        if rule.startswith("-A ") and " -j DS01-" not in rule:
            return False
    return False


def _metadata_rule(network: Network) -> list[str]:
    return ["-d", METADATA, "-i", network.interface, "-j", "DROP"]


def _fence(network: Network, hub_port: int) -> dict[str, list[list[str]]]:
    """Return the rules of our chain for each program, in the words in which they are listed."""
    answers = ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT"]
    hub = ["-d", f"{network.gateway}/32", "-p", "tcp", "-m", "tcp", "--dport", str(hub_port)]
    # Rejected and not dropped: a student's mistyped address fails at once.
    return {
        "iptables": [
            answers,
            [*hub, "-j", "ACCEPT"],
            ["-j", "REJECT", "--reject-with", "icmp-port-unreachable"],
        ],
        "ip6tables": [answers, ["-j", "REJECT", "--reject-with", "icmp6-port-unreachable"]],
    }


def _set_chain(program: str, chain: str, rules: list[list[str]]) -> None:
    """Fill our chain in one transaction, so that it is never open or half made."""
    lines = ["*filter", f":{chain} - [0:0]"]
    lines += [f"-A {chain} {' '.join(rule)}" for rule in rules]
    text = "\n".join([*lines, "COMMIT", ""])
    _run(f"{program}-restore", "--wait", "10", "--noflush", stdin=text)


def _has(program: str, chain: str, rule: list[str]) -> bool:
    return _call(program, "-C", chain, *rule).returncode == 0


def _run(program: str, *arguments: str, stdin: str = "", missing_ok: bool = False) -> str:
    done = _call(program, *arguments, stdin=stdin)
    if done.returncode != 0 and not missing_ok:
        raise NetworkError(
            f"'{program} {' '.join(arguments)}' failed: {done.stderr.strip()} "
            "(the servers' fence needs root and the package iptables)"
        )
    return done.stdout


def _call(program: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    # --wait: Docker changes the tables at the same time.
    wait = () if program.endswith("-restore") else ("--wait", "10")
    try:
        return subprocess.run(
            [program, *wait, *arguments], input=stdin, capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"{program} cannot be run: {error}") from error
