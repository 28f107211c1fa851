"""The command ``ds01`` in a server: what its owner may have and uses, as the portal tells it."""

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

#: Seconds for the portal, which may take two readings half a second apart.
_PATIENCE_S = 15
_UNITS = ((1024**4, "TiB"), (1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))


class Failure(Exception):
    """There is no answer; the text says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 1 if there is no answer."""
    parser = argparse.ArgumentParser(prog="ds01", description="Tells about this server.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    limits = commands.add_parser("limits", help="what you may have, and what you use of it")
    limits.add_argument("--json", action="store_true", help="print the portal's whole answer")
    asked = parser.parse_args(arguments)
    try:
        answer = ask("api/limits", os.environ)
    except Failure as failure:
        print(f"ds01: {failure}", file=sys.stderr)
        return 1
    print(json.dumps(answer, indent=2) if asked.json else "\n".join(told(answer)))
    return 0


def ask(path: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the portal's answer, asked with the server's own token.

    Raises
    ------
    Failure
        If there is none.
    """
    url, token = environment.get("DS01_URL"), environment.get("JUPYTERHUB_API_TOKEN")
    if not url or not token:
        raise Failure("this server knows of no portal to ask.")
    request = urllib.request.Request(url + path, headers={"Authorization": f"token {token}"})
    # No web proxy is between a server and its own machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_PATIENCE_S) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise Failure(_message(error)) from error
    except (OSError, ValueError) as error:
        raise Failure(f"the portal does not answer ({error}); try again in a minute.") from error


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
    lines = [f"All servers of {answer['user']}{group}:", *_aligned(rows)]
    heading = ("project", "GPU", "CPU", "memory", "processes")
    return [*lines, "", *_aligned([heading, *map(_server, answer["servers"])])]


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


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _message(error: urllib.error.HTTPError) -> str:
    """Return what the portal says against it."""
    try:
        return str(json.load(error)["message"])
    except (ValueError, LookupError, TypeError):
        return f"the portal says {error.code} {error.reason}."
