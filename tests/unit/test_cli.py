"""The command ds01 as an admin meets it: usage, and failures in one line."""

from __future__ import annotations

from types import SimpleNamespace

import docker
import pytest

from ds01_spawner import cli, network
from ds01_spawner.buildkit import BuildError
from ds01_spawner.images import bases


@pytest.fixture
def engine(monkeypatch):
    """Stand in for an engine that answers."""
    client = object()
    monkeypatch.setattr(cli, "_engine", lambda: client)
    return client


@pytest.mark.parametrize("entry", cli.COMMANDS, ids=lambda entry: entry.words)
def test_every_command_has_help(entry, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*entry.words.split(), "--help"])

    assert ended.value.code == 0
    assert entry.run.__doc__ in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "words", [[], ["images"], ["images", "paint"], ["network", "setup", "--hub-port", "99999"]]
)
def test_wrong_usage_ends_with_status_two(words, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)

    assert ended.value.code == 2
    assert "usage: ds01" in capsys.readouterr().err


def test_an_engine_that_is_down_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")

    assert cli.main(["images", "list"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "The Docker engine at unix:///nowhere/docker.sock does not answer" in captured.err


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (BuildError("pip could not be reached"), "ds01: pip could not be reached"),
        (network.NetworkError("no iptables"), "ds01: no iptables"),
        (
            docker.errors.APIError("500", explanation="disk full"),
            "the Docker engine says: disk full",
        ),
    ],
)
def test_an_expected_failure_is_no_traceback(engine, monkeypatch, capsys, failure, says):
    def fail(*args, **kwargs):
        raise failure

    monkeypatch.setattr(cli.bases, "build_bases", fail)

    assert cli.main(["images", "build"]) == 1
    assert says in capsys.readouterr().err


def test_a_fault_of_ours_keeps_its_traceback(engine, monkeypatch):
    def fail(*args, **kwargs):
        raise KeyError("a bug")

    monkeypatch.setattr(cli.bases, "build_bases", fail)

    with pytest.raises(KeyError):
        cli.main(["images", "build"])


def test_a_certificate_bundle_that_is_not_there_is_refused(engine, capsys):
    assert cli.main(["images", "build", "--ca-bundle", "/nowhere/ca.pem"]) == 1
    assert "There is no certificate bundle /nowhere/ca.pem" in capsys.readouterr().err


def test_the_check_only_prints_what_would_be_built(engine, monkeypatch, capsys):
    monkeypatch.setattr(cli.bases, "stale", lambda client, only: ("ds01/debian:12",))
    monkeypatch.setattr(cli.bases, "build_bases", None)

    assert cli.main(["images", "build", "--check"]) == 0
    assert capsys.readouterr().out == "ds01/debian:12\n"


@pytest.mark.parametrize("build", [bases.build_bases, bases.stale, bases.missing_packages])
def test_without_a_checkout_there_is_nothing_to_build_from(engine, tmp_path, build):
    with pytest.raises(BuildError, match="built from a checkout of the project"):
        build(engine, images=tmp_path / "images")


def test_each_network_has_an_interface_of_its_own_that_linux_takes():
    names = ["ds01", "ds01-laboratory", "ds01-laboratory-2", "ds01-laborat"]
    interfaces = [cli._interface(name) for name in names]

    assert interfaces[0] == "ds01br0"
    assert len(set(interfaces)) == len(names)
    assert max(map(len, interfaces)) <= 15


def test_removing_a_network_names_the_interface_whose_rules_may_be_left(monkeypatch, capsys):
    removed = []
    engine = SimpleNamespace(api=object())
    monkeypatch.setattr(cli, "_engine", lambda: engine)
    monkeypatch.setattr(cli.network, "remove", lambda *words: removed.append(words))

    assert cli.main(["network", "remove", "--name", "ds01"]) == 0
    assert removed == [(engine.api, "ds01", "ds01br0")]
