"""The command ``ds01`` in a server: its owner's limits and images, as the portal has them."""

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from . import image_command
from .ask import Failure, Portal
from .columns import aligned

_UNITS = ((1024**4, "TiB"), (1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 1 if there is no answer."""
    parser = argparse.ArgumentParser(prog="ds01", description="Tells about this server.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    limits = commands.add_parser("limits", help="what you may have, and what you use of it")
    limits.add_argument("--json", action="store_true", help="print the portal's whole answer")
    limits.set_defaults(run=_limits)
    keep = commands.add_parser("keep", help="keep this server although nothing runs in it")
    keep.add_argument(
        "time", nargs="?", default="4h", help="for how long, such as 90m or 4h (%(default)s)"
    )
    keep.add_argument("--end", action="store_true", help="keep it no longer")
    keep.set_defaults(run=_keep)
    events = commands.add_parser("events", help="what has happened to your servers, and why")
    events.add_argument("--json", action="store_true", help="print the portal's whole answer")
    events.set_defaults(run=_events)
    image_command.add_to(commands)
    asked = parser.parse_args(arguments)
    try:
        return int(asked.run(asked, Portal(os.environ)))
    except Failure as failure:
        print(f"ds01: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _limits(asked: argparse.Namespace, portal: Portal) -> int:
    answer = portal.ask("GET", "api/limits")
    print(json.dumps(answer, indent=2) if asked.json else "\n".join(told(answer)))
    return 0


def _keep(asked: argparse.Namespace, portal: Portal) -> int:
    address = f"api/servers/{quote(portal.project, safe='')}/keep"
    if asked.end:
        portal.ask("DELETE", address)
        print("This server is kept no longer: it is stopped when nothing runs in it.")
        return 0
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mh]?)", asked.time)
    if found is None or not float(found[1]):
        raise Failure(f"{asked.time!r} is no time; write for example 90m or 4h.")
    hours = float(found[1]) / (60 if found[2] == "m" else 1)
    answer = portal.ask("POST", address, {"hours": hours})
    print(f"This server is kept until {_moment(answer['keep_until'])}, even if nothing runs in it.")
    if answer["keep_until"] == answer["keep_most_until"]:
        print("That is the longest that it can be kept.")
    return 0


def _events(asked: argparse.Namespace, portal: Portal) -> int:
    answer = portal.ask("GET", "api/events")
    if asked.json:
        print(json.dumps(answer, indent=2))
        return 0
    rows = [
        (_moment(event["at"]), event["project"], event["kind"], event["why"])
        for event in reversed(answer["events"])
    ]
    print("\n".join(aligned([("when", "project", "what", "why"), *rows])))
    return 0


def _moment(text: str) -> str:
    """Return a time of the portal's as the clock here has it."""
    at = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone()
    return at.strftime("%d %b %H:%M %Z")


def told(answer: Mapping[str, Any]) -> list[str]:
    """Return the answer in lines for people."""
    rows = [("", "used", "limit", "from")]
    for limit in answer["limits"]:
        used, most = limit["used"], limit["limit"]
        rows.append(
            (
                limit["label"],
                "not known" if used is None else _in_words(used, limit["unit"]),
                "none" if most is None else _in_words(most, limit["unit"]),
                "" if most is None else limit["source"],
            )
        )
    group = f" (group {answer['group']})" if answer["group"] else ""
    lines = [f"All servers of {answer['user']}{group}:", *aligned(rows)]
    heading = ("project", "GPU", "CPU", "memory", "processes")
    lines += ["", *aligned([heading, *map(_server, answer["servers"])])]
    notes = [note for note in (answer.get("life"), answer.get("files")) if note]
    return [*lines, "", *notes] if notes else lines


def _server(server: Mapping[str, Any]) -> tuple[str, ...]:
    cpus, memory, processes = server["cpus"], server["memory"], server["processes"]
    sizes = [gpu["size"] for gpu in server["gpus"]]
    return (
        server["project"],
        ", ".join(sizes) or "none",
        _of(cpus["used"], cpus["limit"], ""),
        _of(memory["used_bytes"], memory["limit_bytes"], "B"),
        _of(processes["used"], processes["limit"], ""),
    )


def _of(used: float | None, most: float, unit: str) -> str:
    shown = "?" if used is None else _in_words(used, unit)
    return f"{shown} of {_in_words(most, unit)}"


def _in_words(number: float, unit: str) -> str:
    if unit == "B":
        for size, name in _UNITS:
            if number >= size:
                return f"{number / size:.3g} {name}"
    return f"{number:.2f}".rstrip("0").rstrip(".")
