"""Asks a notebook server what its kernels do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPClientError

from .history import Kernels

_PATIENCE_S = 10.0
_LARGEST_ANSWER = 1024**2


async def ask(url: str, token: str) -> Kernels | None:
    """Return what a server says of its kernels.

    Parameters
    ----------
    url
        Where the server is, with its prefix and a slash at the end.
    token
        One that may access it, and nothing else: whoever runs in the server reads it.

    Returns
    -------
    Kernels or None
        None if it gives no usable answer.
    """
    # Of its own: it waits behind no other, and takes no more than it should of a server that is
    # anybody's program.
    client = AsyncHTTPClient(force_instance=True, max_body_size=_LARGEST_ANSWER)
    try:
        answer = await client.fetch(
            # To be asked is no activity of the server.
            f"{url}api/kernels?no_track_activity=1",
            headers={"Authorization": f"token {token}"},
            request_timeout=_PATIENCE_S,
            follow_redirects=False,
            decompress_response=False,
        )
        return read(json.loads(answer.body))
    except (
        *(HTTPClientError, OSError, asyncio.TimeoutError),
        *(ValueError, TypeError, LookupError, ArithmeticError, RecursionError),
    ):
        return None
    finally:
        client.close()


def read(models: list[Mapping[str, Any]]) -> Kernels:
    """Read the answer of ``GET /api/kernels``.

    Source: jupyter_server, services/kernels. A kernel's ``last_activity`` is that of its last
    message: the request that it executes, or what that has printed since.

    Raises
    ------
    ValueError, TypeError, LookupError
        If this is no such answer.
    """
    if not isinstance(models, list):
        raise TypeError(f"no list: {models!r}")
    activity = {True: list[datetime](), False: list[datetime]()}
    for model in models:
        at = _moment(str(model["last_activity"]))
        activity[model["execution_state"] not in ("idle", "starting", "dead")].append(at)
    return Kernels(
        executing_since=max(activity[True], default=None),
        last_activity=max(activity[False], default=None),
    )


def _moment(text: str) -> datetime:
    """Read a time; one that names no zone is in UTC."""
    at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return at.astimezone(timezone.utc) if at.tzinfo else at.replace(tzinfo=timezone.utc)
