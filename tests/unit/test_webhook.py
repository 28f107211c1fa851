"""The webhook, with a program on loopback that is told: signed, bounded, and never waited for."""

from __future__ import annotations

import hashlib
import hmac
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from tornado import web
from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets

from ds01_spawner.messages import webhook as webhook_module
from ds01_spawner.messages.message import Message, NotSent
from ds01_spawner.messages.webhook import SIGNATURE, Webhook
from ds01_spawner.messages.words import Links

NOW = datetime(2026, 6, 1, 13, 55, tzinfo=timezone.utc)
LINKS = Links.below("https://hub.uni.example/", "ds01")
WARNING = Message(
    *("c1 idle 1", "warned", "ada", "thesis", "It will be stopped.", NOW),
    reason="idle",
    stop_at=NOW + timedelta(minutes=10),
)


@asynccontextmanager
async def told(answer):
    """Serve a program that answers so, and give its address and what it is told."""
    got = []

    class Told(web.RequestHandler):
        async def post(self):
            got.append((self.request.headers, self.request.body))
            await answer(self)

    (listener,) = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(web.Application([("/told", Told)]))
    server.add_socket(listener)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/told", got
    finally:
        server.stop()
        await server.close_all_connections()


async def nothing(handler):
    handler.set_status(204)


@pytest.fixture
def secret(tmp_path):
    file = tmp_path / "webhook"
    file.write_text("a key\n")
    file.chmod(0o600)
    return file


async def test_it_is_told_all_of_a_warning_and_can_check_who_tells_it(secret):
    async with told(nothing) as (url, got):
        await Webhook(url, str(secret), LINKS).send(WARNING, NOW + timedelta(minutes=2))
    ((headers, body),) = got
    signed = hmac.new(b"a key", body, hashlib.sha256).hexdigest()
    assert headers[SIGNATURE] == f"sha256={signed}"
    assert headers["Content-Type"] == "application/json"
    why = "It will be stopped in 8 minutes if nothing runs in it. An open page does not count."
    assert json.loads(body) == {
        "id": "c1 idle 1",
        "kind": "warned",
        "user": "ada",
        "project": "thesis",
        "why": why,
        "at": "2026-06-01T13:55:00+00:00",
        "stop_at": "2026-06-01T14:05:00+00:00",
        "sent_at": "2026-06-01T13:57:00+00:00",
        "link": "https://hub.uni.example/hub/home",
        "text": f"ada, thesis: {why}",
    }


async def test_a_name_calls_nobody_in_a_chat():
    async with told(nothing) as (url, got):
        await Webhook(url, "", Links()).send(replace(WARNING, user="@all <!channel>\n"), NOW)
    ((headers, body),) = got
    assert SIGNATURE not in headers
    said = json.loads(body)
    assert "@all" not in said["text"]
    assert not {"<", ">", "\n"} & set(said["text"])
    assert said["user"] == "@all <!channel>\n"


async def refuse(handler):
    handler.set_status(403)


async def fall(handler):
    handler.set_status(500)


async def lead_away(handler):
    handler.redirect("http://127.0.0.1:9/")


async def flood(handler):
    try:
        for _ in range(1000):
            handler.write(b"x" * 65536)
            await handler.flush()
    except StreamClosedError:
        pass


async def hang(handler):
    await handler.request.connection.stream.read_until_close()


@pytest.mark.parametrize(
    ("answer", "says", "for_all"),
    [
        (refuse, "answers 403", False),
        (fall, "answers 500", True),
        (lead_away, "answers 302", False),
        (flood, "does not answer", True),
        (hang, "does not answer", True),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_program_that_fails_is_an_error_in_words(monkeypatch, answer, says, for_all):
    monkeypatch.setattr(webhook_module, "ANSWER_S", 0.5 if answer is hang else 20)
    async with told(answer) as (url, got):
        with pytest.raises(NotSent, match=says) as error:
            await Webhook(url, "", LINKS).send(WARNING, NOW)
    assert len(got) == 1
    assert (error.value.for_all, error.value.for_good) == (for_all, False)


async def test_a_program_that_is_away_or_a_key_that_others_can_read(secret):
    with pytest.raises(NotSent, match="does not answer"):
        await Webhook("http://127.0.0.1:9/", "", LINKS).send(WARNING, NOW)
    secret.chmod(0o640)
    async with told(nothing) as (url, got):
        with pytest.raises(NotSent, match="for nobody but root"):
            await Webhook(url, str(secret), LINKS).send(WARNING, NOW)
    assert got == []
