"""``ds01 events``: what has happened to everybody's servers, for who administers the machine."""

from __future__ import annotations

import argparse
import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta, timezone

from sqlalchemy.exc import SQLAlchemyError

from .arguments import DATA, Argument, Failure, argument
from .clock import utc_now
from .columns import aligned, printable
from .lifecycle.events import Event, EventRecords

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGO = re.compile(r"([0-9]{1,4})([mhdw])")


def moment(text: str) -> datetime:
    """Read a time: so long ago, such as ``2h`` or ``7d``, or a date in UTC, also with a time.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is neither.
    """
    if found := _AGO.fullmatch(text):
        return utc_now() - timedelta(**{_UNITS[found[2]]: int(found[1])})
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: write 30m, 2h, 7d or 2w for so long ago, or a date such as "
            "2026-06-01 or '2026-06-01 14:30'"
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=timezone.utc)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


ARGUMENTS: Sequence[Argument] = (
    argument("--user", help="only of this user's servers"),
    argument("--project", help="only of this project"),
    argument("--kind", help="only of this kind, such as started, warned or stopped"),
    argument(
        "--since", type=moment, metavar="TIME", help="only from then on: 2h, 7d, or 2026-06-01"
    ),
    argument(
        *("-n", "--lines"),
        type=_number,
        default=100,
        help="only the newest so many (%(default)s)",
    ),
    argument("--json", action="store_true", help="print a list of objects"),
    DATA,
)


def events(args: argparse.Namespace) -> int:
    """list what has happened to servers, and why; the newest comes last"""
    found = _find(args)
    if args.json:
        print(
            json.dumps([asdict(event) for event in found], indent=2, default=datetime.isoformat),
            flush=True,
        )
        return 0
    for line in _lines(found):
        print(line, flush=True)
    return 0


def _find(args: argparse.Namespace) -> list[Event]:
    file = args.data / "ds01.sqlite"
    if not file.exists():
        raise Failure(f"No Hub has run on {args.data}: name its directory with --data.")
    try:
        records = EventRecords(file)
        found = records.events(
            *(args.user, args.lines),
            project=args.project,
            kind=args.kind,
            since=args.since,
        )
        kinds = [] if found or not args.kind else records.event_kinds()
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise Failure(f"{file} cannot be read: {error}") from error
    if args.kind and not found and args.kind not in kinds:
        raise Failure(f"There is no event {args.kind!r}; there are: {', '.join(kinds) or 'none'}.")
    return found[::-1]


def _lines(found: Sequence[Event]) -> Iterator[str]:
    """Give the lines of the table, without what could act on the admin's terminal."""
    rows = [("WHEN (UTC)", "WHAT", "SERVER", "BY", "WHY")]
    for event in found:
        when, server = f"{event.at:%Y-%m-%d %H:%M:%S}", f"{event.user}/{event.project}"
        rows.append((when, event.kind, server, event.by, event.why))
    return aligned([list(map(printable, row)) for row in rows])
