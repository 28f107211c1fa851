"""A site's own program is told of warnings and stops: each is sent to one address as JSON."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from datetime import datetime
from pathlib import Path

from tornado.httpclient import AsyncHTTPClient, HTTPClientError

from ..columns import printable
from . import words
from .message import Message, NotSent
from .secret import SecretError, read_secret
from .words import Links

#: Seconds for its answer.
ANSWER_S = 10.0
#: Of its answer, so much is read; only the status counts.
_MOST_READ = 64 * 1024
#: Tornado's status of a connection that gave none.
_NO_ANSWER = 599
SIGNATURE = "X-DS01-Signature"


class Webhook:
    """Sends messages to an address.

    Parameters
    ----------
    url
        Where to.
    secret_file
        With the key of the signature; empty for none.
    links
        See `words.Links`.
    """

    name = "webhook"

    def __init__(self, url: str, secret_file: str, links: Links) -> None:
        self._url = url
        self._secret_file = secret_file
        self._links = links

    async def send(self, message: Message, now: datetime) -> str:
        """See `message.Channel`."""
        body = json.dumps(self.said(message, now)).encode()
        headers = {"Content-Type": "application/json"}
        if self._secret_file:
            headers[SIGNATURE] = self._signature(body)
        client = AsyncHTTPClient(
            force_instance=True, max_body_size=_MOST_READ, max_header_size=_MOST_READ
        )
        try:
            await client.fetch(
                self._url,
                method="POST",
                body=body,
                headers=headers,
                request_timeout=ANSWER_S,
                follow_redirects=False,
            )
        except HTTPClientError as error:
            silent = error.code == _NO_ANSWER
            said = f"does not answer: {error.message}" if silent else f"answers {error.code}"
            raise NotSent(f"The webhook {printable(said)}.", for_all=error.code >= 500) from error
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            # The address itself may be a secret.
            raise NotSent(f"The webhook does not answer: {error!r:.200}.", for_all=True) from error
        finally:
            client.close()
        return "The webhook was told."

    def missed(self, message: Message) -> tuple[str, str, str]:
        """See `message.Channel`; owners know of no webhook."""
        return "", "", f"The webhook was not told of {message.user}/{message.project}."

    def said(self, message: Message, now: datetime) -> dict[str, str | None]:
        """Return what is sent."""
        stop_at = message.stop_at
        return {
            "id": message.key,
            "kind": message.kind,
            "user": message.user,
            "project": message.project,
            "why": words.why(message, now),
            "at": message.at.isoformat(timespec="seconds"),
            "stop_at": stop_at.isoformat(timespec="seconds") if stop_at else None,
            "sent_at": now.isoformat(timespec="seconds"),
            "link": self._links.home,
            # What chat programs show.
            "text": words.line(message, now),
        }

    def _signature(self, body: bytes) -> str:
        try:
            key = read_secret(Path(self._secret_file)).encode()
        except SecretError as error:
            raise NotSent(f"webhook_secret_file: {error}", for_all=True) from error
        return f"sha256={hmac.new(key, body, hashlib.sha256).hexdigest()}"
