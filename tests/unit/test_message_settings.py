"""What an admin sets of messages: mistakes are said early, and a test message tells the rest."""

from __future__ import annotations

import asyncio
from threading import Thread

import pytest
from traitlets.config import Config

from ds01_spawner import cli
from ds01_spawner.deployment import DeploymentError, read_deployment
from ds01_spawner.lifecycle.__main__ import make_outbox
from ds01_spawner.messages.addresses import address_of
from ds01_spawner.messages.secret import SecretError, read_secret
from ds01_spawner.messages.words import Links
from ds01_spawner.startup import ConfigurationError, check, settings_of
from tests.mail_server import Postbox, serving

GOOD = {
    "smtp_host": "mail.uni.example",
    "mail_sender": "DS01 <ds01@uni.example>",
    "mail_address": "{username}@uni.example",
}


@pytest.fixture
def secret(tmp_path):
    file = tmp_path / "secret"
    file.write_text("a secret\n")
    file.chmod(0o600)
    return file


def problems(**traits):
    return list(settings_of(Config(DS01Spawner=traits)).message_problems())


def test_nothing_set_is_nothing_sent(tmp_path):
    settings = settings_of(Config(DS01Spawner={"data_dir": str(tmp_path)}))
    assert list(settings.message_problems()) == []
    assert settings.channels(settings.message_records, Links()) == []


def test_what_is_set_is_what_is_sent_through(tmp_path, secret):
    traits = {
        **GOOD,
        "data_dir": str(tmp_path),
        "smtp_user": "hub",
        "smtp_password_file": str(secret),
        "webhook_url": "https://chat.uni.example/hook",
        "webhook_secret_file": str(secret),
    }
    assert problems(**traits) == []
    settings = settings_of(Config(DS01Spawner=traits))
    mail, webhook = settings.channels(settings.message_records, Links())
    assert (mail.name, str(mail.server)) == ("mail", "mail.uni.example, port 587")
    assert webhook.name == "webhook"
    assert problems(**{**GOOD, "mail_address": lambda name: None}) == []


@pytest.mark.parametrize(
    ("traits", "says"),
    [
        ({"mail_sender": ""}, "mail_sender must be an address"),
        ({"mail_sender": "x@y.z\nBcc: a@b.c"}, "mail_sender must be an address"),
        ({"mail_address": ""}, "mail_address must say where"),
        ({"mail_address": "all@uni.example"}, "mail_address must say where"),
        ({"smtp_user": "hub"}, "go together"),
        ({"smtp_password_file": "/nowhere"}, "go together"),
        ({"smtp_user": "hub", "smtp_password_file": "/nowhere"}, "/nowhere cannot be read"),
        (
            {"smtp_user": "a", "smtp_password_file": "/nowhere", "smtp_security": "none"},
            "unencrypted",
        ),
        ({"webhook_url": "chat.uni.example"}, "webhook_url must begin with"),
        ({"webhook_url": "file:///etc/passwd"}, "webhook_url must begin with"),
        ({"webhook_url": "https://[x/"}, "webhook_url must begin with"),
        ({"webhook_url": "https://x/", "webhook_secret_file": "/nowhere"}, "webhook_secret_file"),
    ],
)
def test_a_mistake_keeps_the_hub_and_the_service_from_starting(tmp_path, traits, says):
    traits = {**GOOD, **traits, "data_dir": str(tmp_path)}
    (problem,) = problems(**traits)
    assert says in problem
    with pytest.raises(ConfigurationError, match=r"c\.DS01Spawner"):
        check(Config(DS01Spawner=traits))
    with pytest.raises(DeploymentError, match=r"c\.DS01Spawner"):
        make_outbox(read_deployment(configuration(tmp_path, traits)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.chmod(0o640),
        lambda file: file.unlink(),
        lambda file: file.write_text("\n"),
        lambda file: file.write_text("two\nlines"),
        lambda file: file.write_bytes(b"\xff"),
        lambda file: file.write_text("x" * 5000),
        lambda file: (file.unlink(), file.mkdir()),
    ],
)
def test_a_secret_that_others_can_read_or_is_none_is_not_used(secret, spoil):
    assert read_secret(secret) == "a secret"
    spoil(secret)
    with pytest.raises(SecretError, match="secret") as error:
        read_secret(secret)
    assert "a secret" not in str(error.value)


def test_a_rule_makes_an_address_or_none():
    assert address_of("ada", "{username}@uni.example") == "ada@uni.example"
    assert address_of("ada@uni.example", "{username}") == "ada@uni.example"
    assert address_of("a{username}", "{username}@uni.example") == ""
    assert address_of("ada", "{username}@") == ""
    assert address_of("a" * 65, "{username}@uni.example") == ""


# -- the test of an admin's ------------------------------------------------------------------------


def configuration(directory, traits):
    file = directory / "hub_config.py"
    lines = [f"c.DS01Spawner.{name} = {value!r}" for name, value in traits.items()]
    file.write_text("\n".join(["c = get_config()", *lines]))
    return file


def run(*words):
    """Run the command beside the loop, which serves."""
    statuses = []
    thread = Thread(target=lambda: statuses.append(cli.main(["messages", "test", *words])))
    thread.start()
    return asyncio.to_thread(lambda: (thread.join(), statuses[0])[1])


async def test_an_admin_sends_a_test_and_reads_what_went_wrong(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DS01_DATA", "")
    postbox = Postbox()
    async with serving(postbox) as server:
        traits = {
            **GOOD,
            "data_dir": str(tmp_path),
            "smtp_host": server.host,
            "smtp_port": server.port,
            "smtp_security": "none",
        }
        words = ["--configuration", str(configuration(tmp_path, traits)), "--data", str(tmp_path)]
        assert await run("ada", *words) == 0
        said = capsys.readouterr().out
        assert f"port {server.port} has taken an e-mail to ada@uni.example." in said
        assert "set c.JupyterHub.public_url" in said

        postbox.unknown = "550 no such user"
        assert await run("ada", *words) == 1
        assert "does not take e-mail for ada@uni.example: 550 no such user" in (
            capsys.readouterr().err
        )
    assert await run("ada", *words) == 1
    assert "Nothing listens" in capsys.readouterr().err
    assert len(postbox.letters) == 1

    configuration(tmp_path, {**traits, "mail_sender": ""})
    assert await run("ada", *words) == 1
    assert "mail_sender must be an address" in capsys.readouterr().err
    configuration(tmp_path, {"data_dir": str(tmp_path)})
    assert await run("ada", *words) == 1
    assert "Nothing is set" in capsys.readouterr().err
    (tmp_path / "hub_config.py").write_text("open('/nowhere/proxy-token')")
    assert await run("ada", *words) == 1
    assert "There is no /nowhere/proxy-token: has a Hub run on" in capsys.readouterr().err
