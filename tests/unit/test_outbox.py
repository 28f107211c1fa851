"""What is to be sent is sent once, in time or not at all, whatever fails and is restarted."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy.exc import OperationalError

from ds01_spawner.lifecycle import told
from ds01_spawner.lifecycle.life import Memory
from ds01_spawner.lifecycle.records import Course, LifeRecords
from ds01_spawner.messages import outbox as module
from ds01_spawner.messages.message import Message, NotSent
from ds01_spawner.messages.outbox import AGAIN_AFTER, Outbox
from ds01_spawner.messages.records import MessageRecords

NOW = datetime(2026, 6, 1, 13, 0, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)
STOPPED = Message("c1 stopped", "stopped", "ada", "thesis", "Stopped after a while.", NOW)
WARNED = replace(STOPPED, key="c1 idle 1", kind="warned", reason="idle", stop_at=NOW + 10 * MINUTE)


class Channel:
    """Takes messages, or fails."""

    def __init__(self, name="mail"):
        self.name = name
        self.sent = []
        self.tries = 0
        self.fails = None
        self.hangs = False

    async def send(self, message, now):
        self.tries += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails:
            raise self.fails
        self.sent.append(message)
        return f"Sent {message.key}."

    def missed(self, message):
        return message.user, message.project, f"No {self.name}."


class Post:
    """An outbox with a clock that nobody waits for."""

    def __init__(self, file, *channels):
        self.now = NOW
        self.file = file
        self.lives = LifeRecords(file)
        self.channels = channels or (Channel(),)
        self.mail = self.channels[0]
        self.restart()

    def restart(self):
        self.records = MessageRecords(self.file)
        self.outbox = Outbox(
            self.records, self.lives, self.channels, "ds01-culler", lambda: self.now
        )

    def deliver(self, minutes=0):
        """Send what is due, each minute."""
        for minute in range(minutes + 1):
            self.now += MINUTE if minute else timedelta(0)
            for channel in self.channels:
                asyncio.run(self.outbox.send_due(channel))

    def warn(self, is_warned=True):
        """Let the owner be warned, as pages have it."""
        memory = Memory(NOW, NOW, NOW, (NOW,))
        course = Course("c1", "ada", "thesis", memory, WARNED.stop_at, "idle", is_warned)
        self.lives.keep_courses([course])

    @property
    def events(self):
        return [(e.kind, e.user, e.project, e.why, e.by) for e in self.lives.events()]


@pytest.fixture
def post(tmp_path, monkeypatch):
    made = Post(tmp_path / "ds01.sqlite")
    monkeypatch.setattr(told, "utc_now", lambda: made.now)
    return made


def test_a_message_is_sent_once_also_if_it_comes_again_after_a_restart(post):
    post.outbox.put(WARNED)
    post.outbox.put(WARNED)
    post.deliver()
    post.restart()
    post.outbox.put(WARNED)
    post.deliver(5)
    assert post.mail.sent == [WARNED]
    post.outbox.put(replace(WARNED, key="c1 idle 2"))
    post.deliver()
    assert len(post.mail.sent) == 2


def test_what_was_not_sent_before_a_restart_is_sent_after_it(post):
    post.outbox.put(STOPPED)
    post.restart()
    post.deliver()
    assert post.mail.sent == [STOPPED]


def test_a_failure_is_tried_again_some_times_and_then_told(post, caplog):
    post.mail.fails = NotSent("The mail server is away.", for_all=True)
    post.outbox.put(STOPPED)
    post.deliver(90)
    assert post.mail.tries == 1 + len(AGAIN_AFTER)
    assert post.events == [("not-sent", "ada", "thesis", "No mail.", "ds01-culler")]
    assert "It is not tried again" in caplog.text


def test_what_works_again_in_time_is_sent_and_no_failure(post):
    post.mail.fails = NotSent("Later.")
    post.outbox.put(STOPPED)
    post.deliver(3)
    post.mail.fails = None
    post.deliver(10)
    assert post.mail.sent == [STOPPED]
    assert post.events == []


def test_what_would_fail_again_is_not_tried_again(post):
    post.mail.fails = NotSent("Unknown.", for_good=True)
    post.outbox.put(STOPPED)
    post.deliver(90)
    assert post.mail.tries == 1
    assert len(post.events) == 1


def test_a_bug_in_a_channel_is_a_failure_like_others(post, caplog):
    post.mail.fails = RuntimeError("odd")
    post.outbox.put(STOPPED)
    post.outbox.put(replace(STOPPED, key="c2 stopped"))
    post.deliver(90)
    assert post.mail.tries == 2 * (1 + len(AGAIN_AFTER))
    assert len(post.events) == 2


def test_a_server_that_is_away_is_not_asked_for_each_message(post):
    post.mail.fails = NotSent("Away.", for_all=True)
    for number in range(50):
        post.outbox.put(replace(STOPPED, key=f"c{number} stopped"))
    post.deliver()
    assert post.mail.tries == 1
    post.mail.fails = None
    post.deliver(2)
    assert len(post.mail.sent) == 50


def test_one_that_fails_as_all_would_costs_no_other_one(post):
    first = replace(STOPPED, key="c0 stopped", at=NOW - MINUTE)
    others = [replace(STOPPED, key=f"c{number} stopped") for number in range(1, 6)]
    send = post.mail.send

    async def falls(message, now):
        if message.key == first.key:
            raise NotSent("The webhook answers 500.", for_all=True)
        return await send(message, now)

    post.mail.send = falls
    for message in (first, *others):
        post.outbox.put(message)
    post.deliver(1)
    assert post.mail.sent == others
    post.deliver(90)
    assert len(post.events) == 1


@pytest.mark.parametrize("number", [1, 10])
def test_a_server_that_is_away_for_an_hour_loses_nothing(post, number):
    post.mail.fails = NotSent("Away.", for_all=True)
    for each in range(number):
        post.outbox.put(replace(STOPPED, key=f"c{each} stopped"))
    post.deliver(60)
    # No more than once a minute.
    assert post.mail.tries <= 61
    post.mail.fails = None
    post.deliver(60)
    assert len(post.mail.sent) == number
    assert post.events == []


def test_a_warning_that_another_one_put_off_is_not_sent_when_it_holds_no_more(post):
    first = replace(STOPPED, at=NOW - MINUTE)
    post.mail.fails = NotSent("Away.", for_all=True)
    post.warn(is_warned=False)
    post.outbox.put(first)
    post.outbox.put(WARNED)
    post.deliver()
    assert post.mail.tries == 1
    post.mail.fails = None
    post.deliver(5)
    assert (post.mail.sent, post.events) == ([first], [])


def test_a_warning_that_cannot_be_put_off_until_after_its_stop_is_told(post):
    post.mail.fails = NotSent("Away.", for_all=True)
    post.outbox.put(STOPPED)
    post.outbox.put(replace(WARNED, stop_at=NOW + MINUTE))
    post.deliver()
    assert len(post.events) == 1


def test_a_warning_is_not_sent_after_its_stop_or_when_it_holds_no_more(post):
    post.outbox.put(WARNED)
    post.now = WARNED.stop_at
    post.deliver(5)
    assert post.mail.tries == 0
    assert post.events == []

    post.now = NOW
    again = replace(WARNED, key="c1 idle 2")
    post.warn(is_warned=False)
    post.mail.fails = NotSent("Later.")
    post.outbox.put(again)
    # Its look is not over: that is not known yet.
    post.deliver()
    assert post.mail.tries == 1
    post.mail.fails = None
    post.deliver(5)
    assert (post.mail.tries, post.mail.sent, post.events) == (1, [], [])


def test_a_warning_that_holds_is_tried_again_until_its_stop(post):
    post.warn()
    post.mail.fails = NotSent("Later.")
    post.outbox.put(WARNED)
    post.deliver(3)
    assert post.mail.tries == 2
    post.deliver(20)
    # The next time would have been after the stop.
    assert post.mail.tries == 3
    assert len(post.events) == 1


def test_what_is_a_day_old_is_not_sent(post):
    post.outbox.put(STOPPED)
    post.now += timedelta(hours=25)
    post.deliver()
    assert (post.mail.sent, post.events) == ([], [])


def test_more_than_can_wait_is_not_kept(post, monkeypatch, caplog):
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    for number in range(5):
        post.outbox.put(replace(STOPPED, key=f"c{number} stopped"))
    assert caplog.text.count("Too much waits for mail") == 2
    post.deliver()
    assert len(post.mail.sent) == 3
    post.outbox.put(replace(STOPPED, key="later"))
    post.deliver()
    assert len(post.mail.sent) == 4


def test_a_database_that_is_busy_fails_nobody(post, monkeypatch, caplog):
    def busy(*_):
        raise OperationalError("INSERT", {}, Exception("database is locked"))

    monkeypatch.setattr(MessageRecords, "add", busy)
    post.outbox.put(STOPPED)
    assert "database is locked" in caplog.text


async def test_a_channel_that_hangs_holds_up_no_other_and_no_failure_ends_the_sending(
    tmp_path, caplog
):
    mail, webhook = Channel("mail"), Channel("webhook")
    post = Post(tmp_path / "ds01.sqlite", mail, webhook)
    mail.hangs = True
    sending = asyncio.ensure_future(post.outbox.run())
    post.outbox.put(STOPPED)
    await until(lambda: webhook.sent == [STOPPED] and mail.tries == 1)

    due = post.records.due
    post.records.due = lambda *_: 1 / 0
    post.outbox.put(replace(STOPPED, key="c2 stopped"))
    await until(lambda: "Messages were not sent by webhook" in caplog.text)
    post.records.due = due
    post.outbox.put(replace(STOPPED, key="c3 stopped"))
    await until(lambda: len(webhook.sent) == 3)
    assert not sending.done()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending


async def until(condition):
    async def look():
        while not condition():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(look(), 10)


async def test_a_service_that_ends_while_it_sends_knows_that_it_did(tmp_path):
    post = Post(tmp_path / "ds01.sqlite")
    begun, taken = asyncio.Event(), asyncio.Event()
    send = post.mail.send

    async def slow(message, now):
        begun.set()
        await taken.wait()
        return await send(message, now)

    post.mail.send = slow
    sending = asyncio.ensure_future(post.outbox.run())
    post.outbox.put(STOPPED)
    post.outbox.put(replace(STOPPED, key="c2 stopped"))
    await asyncio.wait_for(begun.wait(), 10)
    sending.cancel()
    # It hears of it before the message is taken.
    await asyncio.sleep(0)
    taken.set()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert post.mail.sent == [STOPPED]
    assert [waiting.message.key for waiting in post.records.due("mail", NOW)] == ["c2 stopped"]


# -- wishes ----------------------------------------------------------------------------------------


def test_who_has_not_said_so_wants_mail_and_a_wish_lasts(post):
    assert post.records.wants_mail("ada")
    post.records.set_wants_mail("ada", False)
    post.restart()
    assert not post.records.wants_mail("ada")
    assert post.records.wants_mail("bob")
    post.records.set_wants_mail("ada", True)
    assert post.records.wants_mail("ada")
