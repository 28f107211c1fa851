"""E-mail through real mail servers on loopback: good ones, and ones that fail in each way."""

from __future__ import annotations

import asyncio
import email
import email.policy
import socket
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from threading import Event

import pytest

from ds01_spawner.messages import mail as mail_module
from ds01_spawner.messages import words
from ds01_spawner.messages.mail import Mail, MailServer
from ds01_spawner.messages.message import Message, NotSent
from ds01_spawner.messages.words import Links
from tests.mail_server import Postbox, certificate, serving

NOW = datetime(2026, 6, 1, 13, 55, tzinfo=timezone.utc)
LINKS = Links.below("https://hub.uni.example/", "ds01")
WARNING = Message(
    *("c1 idle 1", "warned", "ada", "thesis", "It will be stopped.", NOW),
    reason="idle",
    stop_at=NOW + timedelta(minutes=10),
)


def mail(server, rule="{username}@uni.example", wanted=True):
    sender = "DS01 at Uni <ds01@uni.example>"
    return Mail(server, sender, rule, LINKS, lambda user: wanted)


def read(letter):
    return email.message_from_bytes(letter.content, policy=email.policy.default)


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("tls"))


async def test_a_warning_arrives_and_says_what_to_do():
    postbox = Postbox()
    async with serving(postbox) as server:
        said = await mail(server).send(WARNING, NOW + timedelta(minutes=2))
    assert "ada@uni.example" in said

    (letter,) = postbox.letters
    assert (letter.mail_from, letter.rcpt_tos) == ("ds01@uni.example", ["ada@uni.example"])
    got = read(letter)
    assert got["From"] == "DS01 at Uni <ds01@uni.example>"
    assert got["Subject"] == "Your server thesis will be stopped at 14:05 UTC"
    assert got["Auto-Submitted"] == "auto-generated"
    text = got.get_content().replace("\r\n", "\n")
    # The time that is left when it is sent.
    assert "It will be stopped in 8 minutes if nothing runs in it." in text
    assert "14:05 UTC on 1 June" in text
    assert '"Keep it running" on the home page:\nhttps://hub.uni.example/hub/home\n' in text
    assert "https://hub.uni.example/services/ds01/" in text


async def test_who_wants_none_gets_none():
    postbox = Postbox()
    async with serving(postbox) as server:
        assert await mail(server, wanted=False).send(WARNING, NOW) == ""
    assert postbox.letters == []


@pytest.mark.parametrize("at_once", [False, True], ids=["starttls", "tls"])
@pytest.mark.filterwarnings("ignore:Requiring AUTH")
async def test_it_is_sent_encrypted_and_with_a_log_in(tls, tmp_path, monkeypatch, at_once):
    monkeypatch.setenv("SSL_CERT_FILE", str(tls))
    password = tmp_path / "password"
    password.write_text("pass word\n")
    password.chmod(0o600)
    postbox = Postbox()
    async with serving(postbox, tls=tls, at_once=at_once, login=("hub", "pass word")) as server:
        known = replace(server, user="hub", password_file=str(password))
        await mail(known).send(WARNING, NOW)
        password.write_text("another")
        with pytest.raises(NotSent, match="does not take smtp_user and the password") as wrong:
            await mail(known).send(WARNING, NOW)
        password.chmod(0o644)
        with pytest.raises(NotSent, match="for nobody but root"):
            await mail(known).send(WARNING, NOW)
    assert len(postbox.letters) == 1
    assert wrong.value.for_all
    assert "another" not in str(wrong.value)


async def test_a_server_that_shows_a_strange_certificate_gets_no_mail(tls):
    postbox = Postbox()
    async with serving(postbox, tls=tls) as server:
        with pytest.raises(NotSent, match=r"certificate of the mail server .* is not trusted"):
            await mail(server).send(WARNING, NOW)
    assert postbox.letters == []


async def test_a_server_without_encryption_gets_none_unless_the_admin_says_so():
    postbox = Postbox()
    async with serving(postbox) as server:
        with pytest.raises(NotSent, match="smtp_security"):
            await mail(replace(server, security="starttls")).send(WARNING, NOW)
        with pytest.raises(NotSent, match="smtp_security and smtp_port go together"):
            await mail(replace(server, security="tls")).send(WARNING, NOW)
    assert postbox.letters == []


@pytest.mark.parametrize(
    ("answer", "for_good"), [("550 5.7.1 no\nsuch\x1b[2J", True), ("451 4.7.1 later", False)]
)
@pytest.mark.parametrize("where", ["receiver", "content"])
async def test_what_a_server_refuses_is_told_and_only_tried_again_if_it_may_help(
    where, answer, for_good
):
    postbox = Postbox()
    if where == "receiver":
        postbox.unknown = answer.replace("\n", " ")
    else:
        postbox.answers = [answer.replace("\n", " ")]
    async with serving(postbox) as server:
        with pytest.raises(NotSent, match=answer[:3]) as refused:
            await mail(server).send(WARNING, NOW)
    assert (refused.value.for_good, refused.value.for_all) == (for_good, False)
    assert str(refused.value).isprintable()


@asynccontextmanager
async def talking(talk):
    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield MailServer("127.0.0.1", listening.sockets[0].getsockname()[1], "none")
    finally:
        listening.close()


def silent(greeting=b""):
    async def hang(reader, writer):
        writer.write(greeting)
        await reader.read()
        writer.close()

    return talking(hang)


@pytest.mark.parametrize("greeting", [b"", b"220 here\r\n"], ids=["from the start", "later"])
async def test_a_server_that_hangs_is_given_up(monkeypatch, greeting):
    monkeypatch.setattr(mail_module, "ANSWER_S", 0.3)
    async with silent(greeting) as server:
        with pytest.raises(NotSent, match=r"does not answer") as error:
            await asyncio.wait_for(mail(server).send(WARNING, NOW), 10)
    assert error.value.for_all


async def test_what_takes_too_long_as_a_whole_is_given_up(monkeypatch):
    monkeypatch.setattr(mail_module, "MESSAGE_S", 0.3)
    async with silent() as server:
        with pytest.raises(NotSent, match="takes longer than") as error:
            await asyncio.wait_for(mail(server).send(WARNING, NOW), 5)
    assert error.value.for_all


async def test_a_server_that_talks_slowly_is_cut_off_and_given_no_e_mail_later(monkeypatch):
    monkeypatch.setattr(mail_module, "TALK_S", 0.5)
    got, is_over = [], asyncio.Event()

    async def stutter(reader, writer):
        writer.write(b"220 here\r\n")
        got.append(await reader.readline())
        try:
            while not reader.at_eof():
                writer.write(b"250-more\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            pass
        got.append(await reader.read())
        is_over.set()
        writer.close()

    async with talking(stutter) as server:
        with pytest.raises(NotSent, match="takes longer than") as error:
            await asyncio.wait_for(mail(server).send(WARNING, NOW), 10)
        await asyncio.wait_for(is_over.wait(), 10)
    assert error.value.for_all
    assert got[0].startswith(b"ehlo")
    assert got[1:] == [b""]


async def test_what_an_address_was_too_late_for_is_not_sent_later(monkeypatch):
    monkeypatch.setattr(mail_module, "TALK_S", 0.2)
    monkeypatch.setattr(mail_module, "MESSAGE_S", 0.3)
    found = Event()
    rule = {"ada": "ada@uni.example", "bob": "bob@uni.example"}

    def slow(user):
        if user == "ada":
            found.wait(10)
        return rule[user]

    postbox = Postbox()
    async with serving(postbox) as server:
        channel = mail(server, slow)
        with pytest.raises(NotSent, match="takes longer than"):
            await channel.send(WARNING, NOW)
        found.set()
        monkeypatch.setattr(mail_module, "TALK_S", 10)
        monkeypatch.setattr(mail_module, "MESSAGE_S", 10)
        # Behind the first in the same thread.
        await channel.send(replace(WARNING, user="bob"), NOW)
    assert [letter.rcpt_tos for letter in postbox.letters] == [["bob@uni.example"]]


async def test_what_was_taken_is_sent_whatever_the_server_says_to_the_farewell():
    answers = {b"data": b"354 go", b"quit": b"421 busy"}

    async def talk(reader, writer):
        writer.write(b"220 here\r\n")
        while line := await reader.readline():
            word = line[:4].lower().strip()
            writer.write(answers.get(word, b"250 fine") + b"\r\n")
            if word == b"data":
                await reader.readuntil(b"\r\n.\r\n")
                writer.write(b"250 taken\r\n")
        writer.close()

    async with talking(talk) as server:
        assert "has taken" in await mail(server).send(WARNING, NOW)


async def test_a_second_try_is_the_same_e_mail_to_whoever_gets_both():
    postbox = Postbox()
    async with serving(postbox) as server:
        for message in (WARNING, WARNING, replace(WARNING, key="c1 idle 2")):
            await mail(server).send(message, NOW)
    first, second, other = (read(letter)["Message-ID"] for letter in postbox.letters)
    assert first == second != other
    assert first.endswith("@uni.example>")


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"kind": "stopped", "stop_at": None, "reason": ""}, "your home are safe"),
        ({"reason": "runtime"}, "Save your work before"),
        ({"reason": "container-full"}, "Delete some"),
        ({"reason": "workspace-full"}, "Delete some"),
    ],
    ids=["stop", "runtime", "container-full", "workspace-full"],
)
def test_only_who_can_keep_a_server_is_told_to(message, says):
    text = words.text(replace(WARNING, **message), LINKS, NOW)
    assert says in text
    assert "https://hub.uni.example/hub/home" in text
    assert "Keep it running" not in text
    assert "Keep it running" in words.text(WARNING, LINKS, NOW)


async def test_a_server_that_is_away_is_told():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NotSent, match="Nothing listens") as error:
        await mail(MailServer("127.0.0.1", port, "none")).send(WARNING, NOW)
    assert error.value.for_all
    with pytest.raises(NotSent, match=r"name of the mail server nowhere\.invalid is not found"):
        await mail(MailServer("nowhere.invalid", port, "none")).send(WARNING, NOW)


@pytest.mark.parametrize(
    "project",
    ["x\r\nBcc: eve@evil.example", "x\nBcc: eve@evil.example\n\nHello", "x\x00y", "ü" * 300],
)
async def test_no_name_makes_a_header_or_another_receiver(project):
    postbox = Postbox()
    async with serving(postbox) as server:
        await mail(server).send(replace(WARNING, project=project), NOW)
    (letter,) = postbox.letters
    assert letter.rcpt_tos == ["ada@uni.example"]
    got = read(letter)
    assert got["Bcc"] is None
    assert got["Subject"].strip().startswith("Your server ")
    assert "stopped in 10 minutes" in got.get_content()


@pytest.mark.parametrize(
    "user",
    [
        "eve@evil.example",
        "a,b",
        "a b",
        "a\r\nRCPT TO:<x>",
        "",
        "<a>",
        "a%evil.example",
        "jörg",
        '"a"',
    ],
)
async def test_a_name_that_makes_no_address_gets_no_mail(user):
    postbox = Postbox()
    async with serving(postbox) as server:
        with pytest.raises(NotSent, match="gives no address") as none:
            await mail(server).send(replace(WARNING, user=user), NOW)
    assert none.value.for_good
    assert postbox.letters == []


async def test_a_site_can_find_addresses_by_a_function_of_its_own():
    postbox = Postbox()
    async with serving(postbox) as server:
        rule = {"jörg": "joerg.meier@uni.example", "kim": "no address"}.get
        await mail(server, rule).send(replace(WARNING, user="jörg"), NOW)
        for user in ("kim", "nobody"):
            with pytest.raises(NotSent, match="gives no address"):
                await mail(server, rule).send(replace(WARNING, user=user), NOW)

        def broken(user):
            raise LookupError("no directory")

        with pytest.raises(NotSent, match="no directory") as error:
            await mail(server, broken).send(WARNING, NOW)
    assert [letter.rcpt_tos for letter in postbox.letters] == [["joerg.meier@uni.example"]]
    assert not error.value.for_good
