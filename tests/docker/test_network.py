"""A server reaches the Hub's API and the internet, and nothing and nobody else here."""

import json
import multiprocessing
import socket
import subprocess
import threading
from urllib.parse import urlparse

import docker
import pytest

from ds01_spawner import network
from ds01_spawner.images import debootstrap

NAME, INTERFACE, PORTS = "ds01-fence-for-a-test", "ds01fence", (12345, 12346)

TRY = """
import json, socket
def reach(host, port):
    try:
        socket.create_connection((host, port), timeout=3).close()
        return True
    except OSError:
        return False
print(json.dumps([reach(*target) for target in {targets}]))
"""


def reaches(server, *targets):
    return json.loads(server.run(TRY.replace("{targets}", json.dumps(targets))))


@pytest.fixture(scope="module")
def servers(hub):
    return [hub.user(name).start(image="python", memory="1g") for name in ("net-a", "net-b")]


@pytest.fixture(scope="module")
def gateway(hub):
    return network.find(hub.docker, hub.network_name).gateway


@pytest.fixture
def listener():
    """Listen on all addresses of this machine, as a careless service does."""
    with socket.create_server(("0.0.0.0", 0)) as open_to_all:
        yield open_to_all.getsockname()[1]


def test_the_hubs_api_is_reached(servers, hub, gateway):
    assert reaches(servers[0], (gateway, hub.hub_port)) == [True]


def test_nothing_else_of_this_machine_is_reached(servers, hub, gateway, listener):
    own = _own_address()
    targets = [
        (gateway, listener),
        (own, listener),
        (own, hub.hub_port),
        (gateway, hub.port),
        (gateway, hub.proxy_api_port),
        ("172.17.0.1", listener),
        ("169.254.169.254", 80),
    ]
    # The listener is there: from here it can be reached.
    socket.create_connection((own, listener), timeout=3).close()
    assert reaches(servers[0], *targets) == [False] * len(targets)


def test_no_other_server_is_reached(servers, hub):
    other = servers[1].owner.container()["NetworkSettings"]["Networks"][hub.network_name]
    address = other["IPAddress"]
    # It is there: the host, where the proxy runs, reaches it.
    socket.create_connection((address, 8888), timeout=3).close()
    assert reaches(servers[0], (address, 8888)) == [False]


def test_names_of_the_internet_are_found(servers):
    # The one name that every machine finds which has been set up: where its packages are.
    somewhere = urlparse(debootstrap.mirrors()[0]).hostname
    printed = servers[0].run(f"import socket; print(socket.gethostbyname({somewhere!r}))")
    socket.inet_aton(printed.strip())


def test_a_fence_that_was_taken_down_stands_again_before_the_next_start(hub, gateway):
    found = network.find(hub.docker, hub.network_name)
    _iptables("-D", "INPUT", "-i", found.interface, "-j", f"DS01-{found.interface}")
    assert network.problems(found, hub.ports)
    server = hub.user("net-c").start(image="python", memory="1g")
    assert network.problems(found, hub.ports) == []
    assert reaches(server, (gateway, hub.proxy_api_port)) == [False]


def test_a_network_that_lets_servers_see_each_other_is_refused(engine):
    engine.create_network("ds01-open-for-a-test")
    try:
        with pytest.raises(network.NetworkError, match="see each other"):
            network.ensure(engine, "ds01-open-for-a-test", "ds01open", (1,))
    finally:
        engine.remove_network("ds01-open-for-a-test")


@pytest.fixture
def fenced(engine):
    """Return a network of the test's own, fenced."""
    yield network.ensure(engine, NAME, INTERFACE, PORTS)
    network.remove(engine, NAME, INTERFACE)
    assert _rules() == {"iptables": [], "ip6tables": []}


def test_two_setups_at_once_leave_one_whole_fence(engine, fenced):
    whole = _rules()
    _iptables("-D", "INPUT", "-i", INTERFACE, "-j", f"DS01-{INTERFACE}")
    _iptables("-D", "DOCKER-USER", "-i", INTERFACE, "-j", f"DS01-F-{INTERFACE}")
    processes = multiprocessing.get_context("spawn")
    setups = [
        *(threading.Thread(target=_set_up) for _ in range(4)),
        *(processes.Process(target=_set_up) for _ in range(2)),
    ]
    for setup in setups:
        setup.start()
    for setup in setups:
        setup.join()
    assert network.problems(fenced, PORTS) == []
    assert _rules() == whole


@pytest.mark.parametrize("chain", [f"DS01-{INTERFACE}", f"DS01-F-{INTERFACE}"])
def test_a_rule_that_opens_the_fence_is_found_and_taken_out(engine, fenced, chain):
    whole = _rules()
    _iptables("-I", chain, "1", "-j", "ACCEPT")
    (problem,) = network.problems(fenced, PORTS)
    assert f"iptables: {chain} is not exactly" in problem
    network.stand(engine, NAME, PORTS)
    assert network.problems(fenced, PORTS) == []
    assert _rules() == whole


def test_a_rule_before_our_fence_is_overtaken(engine, fenced):
    before = ["DOCKER-USER", "-i", INTERFACE, "-m", "comment", "--comment", "test", "-j", "ACCEPT"]
    _iptables("-I", *before)
    try:
        (problem,) = network.problems(fenced, PORTS)
        assert "DOCKER-USER does not begin with" in problem
        network.stand(engine, NAME, PORTS)
        assert network.problems(fenced, PORTS) == []
    finally:
        _iptables("-D", *before)


def test_rules_that_outlived_their_network_are_removed_as_often_as_they_are_there(engine, fenced):
    _iptables("-I", "DOCKER-USER", "-i", INTERFACE, "-j", f"DS01-F-{INTERFACE}")
    engine.remove_network(NAME)
    network.remove(engine, NAME, INTERFACE)
    assert _rules() == {"iptables": [], "ip6tables": []}
    # Again, with nothing there.
    network.remove(engine, NAME, INTERFACE)


def test_a_network_in_use_keeps_its_fence(engine, fenced, built):
    container = engine.create_container("ds01/debian:12", ["sleep", "60"])["Id"]
    try:
        engine.connect_container_to_network(container, NAME)
        engine.start(container)
        with pytest.raises(network.NetworkError, match="in use"):
            network.remove(engine, NAME)
        assert network.problems(fenced, PORTS) == []
    finally:
        engine.remove_container(container, force=True)


def test_rules_that_cannot_be_read_are_not_taken_for_absent(engine, fenced, monkeypatch):
    def denied(command, **settings):
        return subprocess.CompletedProcess(command, 4, "", "Permission denied (you must be root)")

    with monkeypatch.context() as patched:
        patched.setattr(network.subprocess, "run", denied)
        for look in (
            lambda: network.problems(fenced, PORTS),
            lambda: network.stand(engine, NAME, PORTS),
            lambda: network.remove(engine, "ds01-none-of-this-name", INTERFACE),
        ):
            with pytest.raises(network.NetworkError, match="you must be root"):
                look()


def _set_up() -> None:
    client = docker.APIClient(timeout=60)
    network.ensure(client, NAME, INTERFACE, PORTS)
    client.close()


def _iptables(*arguments: str) -> None:
    subprocess.run(["iptables", "--wait", "10", *arguments], check=True)


def _rules() -> dict[str, list[str]]:
    """Return all rules and chains of the test's own interface, in order."""
    return {
        program: [
            line
            for line in subprocess.check_output([program, "-S"], text=True).splitlines()
            if line.startswith(("-N DS01", "-A DS01", "-A INPUT", "-A DOCKER-USER"))
            and INTERFACE in line
        ]
        for program in ("iptables", "ip6tables")
    }


def _own_address() -> str:
    """Return the address of this machine's first interface that is not the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Nothing is sent: connecting a datagram socket only looks up the route.
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
