"""A server reaches the Hub's API and the internet, and nothing and nobody else here."""

import json
import socket
import threading

import pytest

from ds01_spawner import network

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
    printed = servers[0].run("import socket; print(socket.gethostbyname('ftp.debian.org'))")
    socket.inet_aton(printed.strip())


def test_a_fence_that_was_taken_down_stands_again_before_the_next_start(hub, gateway):
    found = network.find(hub.docker, hub.network_name)
    network._run("iptables", "-D", "INPUT", *network._jump(found))
    assert network.problems(found, hub.hub_port)
    server = hub.user("net-c").start(image="python", memory="1g")
    assert network.problems(found, hub.hub_port) == []
    assert reaches(server, (gateway, hub.proxy_api_port)) == [False]


def test_a_network_that_lets_servers_see_each_other_is_refused(engine):
    engine.create_network("ds01-open-for-a-test")
    try:
        with pytest.raises(network.NetworkError, match="see each other"):
            network.ensure(engine, "ds01-open-for-a-test", "ds01open", 1)
    finally:
        engine.remove_network("ds01-open-for-a-test")


def test_two_setups_at_once_leave_one_whole_fence(engine):
    name, interface, port = "ds01-twice-for-a-test", "ds01twice", 12345
    network.ensure(engine, name, interface, port)
    try:
        threads = [
            threading.Thread(target=network.ensure, args=(engine, name, interface, port))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert network.problems(network.find(engine, name), port) == []
    finally:
        network.remove(engine, name)


def _own_address() -> str:
    """Return the address of this machine's first interface that is not the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Nothing is sent: connecting a datagram socket only looks up the route.
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
