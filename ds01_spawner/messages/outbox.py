"""What is to be sent: kept until it is, each channel in its own time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError

from ..blocking import to_its_end
from ..clock import utc_now
from ..lifecycle.events import NOT_SENT, Event
from ..lifecycle.records import LifeRecords
from ..lifecycle.told import told_to_owner
from .message import Channel, Message, NotSent
from .records import MessageRecords, Waiting

_LOG = logging.getLogger(__name__)

#: So many wait for a channel; with more, something is wrong, and they are not kept.
MOST_WAITING = 1000
#: After a failure it is tried again after these times. Mail servers that put off whom they do not
#: know take the same message after some minutes, and one that is put in order is back in an hour.
AGAIN_AFTER = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 60))
#: Nobody wants to be told of what happened before, as after a long stop of the service.
_TOO_OLD = timedelta(hours=24)
_PAUSE = timedelta(minutes=1)


class Outbox:
    """Keeps messages in the database and sends them: a restart neither loses nor repeats one.

    - Whoever puts in a message never waits, and nothing that fails here fails there.
    - What fails is tried again a few times; then there is a line in the log, and an event.
    - What fails as all would puts off the others, and is no try of theirs: each gets its own, and
      none that fails alone costs another one.
    - A warning that does not hold any more, or whose stop has come, is not sent.

    Parameters
    ----------
    records
        Where messages are kept.
    lives
        Where events are, and whether a warning still holds.
    channels
        What they go through; without any, nothing is kept.
    actor
        Who does it, in events.
    clock
        Gives the time.
    """

    def __init__(
        self,
        records: MessageRecords,
        lives: LifeRecords,
        channels: Sequence[Channel],
        actor: str,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._records = records
        self._lives = lives
        self._channels = channels
        self._actor = actor
        self._clock = clock
        self._put_in = {channel.name: asyncio.Event() for channel in channels}

    def put(self, message: Message) -> None:
        """Keep a message to be sent soon, unless it was kept before."""
        for channel in self._channels:
            try:
                if not self._records.add(message, channel.name, MOST_WAITING):
                    _LOG.error("Too much waits for %s; %s is not sent", channel.name, message.key)
            except SQLAlchemyError as error:
                _LOG.error("%s is not sent by %s: %s", message.key, channel.name, error)
            self._put_in[channel.name].set()

    async def run(self) -> None:
        """Send what there is, for ever."""
        await asyncio.gather(*map(self._serve, self._channels))

    async def _serve(self, channel: Channel) -> None:
        put_in = self._put_in[channel.name]
        while True:
            put_in.clear()
            try:
                await self.send_due(channel)
                due = self._records.next_due(channel.name)
                pause = due - self._clock() if due else None
            except Exception:  # noqa: BLE001
                # The database may be busy; what waits is in it.
                _LOG.exception("Messages were not sent by %s", channel.name)
                pause = _PAUSE
            try:
                seconds = max(0.0, pause.total_seconds()) if pause is not None else None
                await asyncio.wait_for(put_in.wait(), seconds)
            except asyncio.TimeoutError:
                pass

    async def send_due(self, channel: Channel) -> None:
        """Send what is due, one after the other, until one fails as all would."""
        waiting = self._records.due(channel.name, self._clock())
        for number, each in enumerate(waiting):
            if self._is_past(each):
                self._records.done(each.message.key, channel.name)
                continue
            sending = asyncio.ensure_future(self._send(channel, each))
            try:
                error = await asyncio.shield(sending)
            except asyncio.CancelledError:
                # Sent and not known to be, it would be sent again after a restart.
                await to_its_end(sending)
                raise
            if error is not None and error.for_all:
                # The next round begins with another one, as this may have failed alone after all.
                for other in waiting[number + 1 :]:
                    if not self._put_off(channel, other, other.tries, AGAIN_AFTER[0]):
                        self._give_up(channel, other, error)
                return

    async def _send(self, channel: Channel, waiting: Waiting) -> NotSent | None:
        """Send a message and keep that it was sent, or keep and return why it was not."""
        message = waiting.message
        try:
            if said := await channel.send(message, self._clock()):
                _LOG.info("%s", said)
        except NotSent as found:
            error = found
        except Exception as found:  # noqa: BLE001
            _LOG.exception("%s was not sent by %s", message.key, channel.name)
            error = NotSent(f"{found!r}.")
        else:
            self._records.done(message.key, channel.name)
            return None
        self._failed(channel, waiting, error)
        return error

    def _is_past(self, waiting: Waiting) -> bool:
        message, now = waiting.message, self._clock()
        if message.stop_at is None:
            return now - message.at > _TOO_OLD
        if now >= message.stop_at:
            return True
        if waiting.is_new:
            # Its look may not be over, after which it is known that the owner was warned.
            return False
        told = told_to_owner(self._lives, message.user, {}).get(message.project)
        return told is None or not told.notice

    def _failed(self, channel: Channel, waiting: Waiting, error: NotSent) -> None:
        tries = waiting.tries
        pause = None if error.for_good or tries >= len(AGAIN_AFTER) else AGAIN_AFTER[tries]
        if pause is not None and self._put_off(channel, waiting, tries + 1, pause):
            _LOG.warning("%s It is tried again at %s UTC", error, f"{self._clock() + pause:%H:%M}")
        else:
            self._give_up(channel, waiting, error)

    def _put_off(self, channel: Channel, waiting: Waiting, tries: int, time: timedelta) -> bool:
        """Keep when a message is tried again; tell whether that is before its stop."""
        message, again = waiting.message, self._clock() + time
        if message.stop_at is not None and again >= message.stop_at:
            return False
        self._records.tried(message.key, channel.name, tries, again)
        return True

    def _give_up(self, channel: Channel, waiting: Waiting, error: NotSent) -> None:
        message = waiting.message
        _LOG.error("%s It is not tried again: %s", error, message.key)
        self._records.done(message.key, channel.name)
        user, project, why = channel.missed(message)
        self._lives.tell(Event(NOT_SENT, user, project, self._actor, why))
