"""What an admin may configure has an effect, or is said to have none."""

import time
from concurrent.futures import ThreadPoolExecutor

import docker
from dockerspawner import DockerSpawner

from ds01_spawner.settings import WITHOUT_EFFECT
from ds01_spawner.spawner import DS01Spawner

#: Traits of DockerSpawner itself that DS01Spawner leaves to it.
HEEDED = {"client_kwargs", "container_port", "hub_ip_connect", "port", "tls_config"}
#: Traits that DockerSpawner itself has given up.
GONE = {"tls", "tls_assert_hostname", "tls_ca", "tls_cert", "tls_key", "tls_verify"}
GONE |= {"use_docker_client_env"}


def test_every_trait_of_the_parent_is_heeded_or_said_to_have_no_effect():
    own = set(DockerSpawner.class_own_traits(config=True))
    redefined = set(DS01Spawner.__mro__[1].class_own_traits(config=True))
    assert own - redefined - HEEDED - GONE - WITHOUT_EFFECT.keys() == set()


def test_what_is_said_to_have_no_effect_is_a_trait():
    assert WITHOUT_EFFECT.keys() <= set(DockerSpawner.class_traits(config=True))


def test_threads_that_ask_at_once_get_one_client(monkeypatch):
    made = []

    def slow_client(**_):
        made.append(object())
        time.sleep(0.05)
        return made[-1]

    monkeypatch.setattr(DS01Spawner, "_client", None)
    monkeypatch.setattr(docker, "APIClient", slow_client)
    spawner = DS01Spawner()
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: spawner.client, range(8)))

    assert len(made) == 1
    assert set(got) == set(made)
