"""``ds01 image``: one's images, from a terminal."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from . import installed
from .ask import Failure, Portal
from .columns import aligned


def add_to(commands: Any) -> None:
    """Add the sub-commands to the parser of ``ds01``."""
    image = commands.add_parser("image", help="make and keep images of your own")
    verbs = image.add_subparsers(metavar="COMMAND", required=True)

    def verb(name: str, run: Callable[[argparse.Namespace, Portal], int]) -> Any:
        parser = verbs.add_parser(name, help=run.__doc__, description=run.__doc__)
        parser.set_defaults(run=run)
        return parser

    def with_project(name: str, run: Callable[[argparse.Namespace, Portal], int]) -> Any:
        parser = verb(name, run)
        parser.add_argument(
            "project", metavar="PROJECT", nargs="?", help="by default this server's"
        )
        return parser

    create = with_project("create", _create)
    create.add_argument("--base", help="what it stands on (python)")
    create.add_argument(
        "--like",
        metavar="USER/PROJECT",
        help="begin with the recipe of one's own or a shared image",
    )
    create.add_argument("--set", action="append", default=[], help="a set of packages")
    create.add_argument("--add", action="append", default=[], metavar="PACKAGE")
    create.add_argument("--system", action="append", default=[], metavar="DEBIAN_PACKAGE")
    create.add_argument("-r", "--requirements", type=Path, metavar="FILE")
    create.add_argument("--tag", default="", help="a name for an experiment")
    update = with_project("update", _update)
    update.add_argument("--add", action="append", default=[], metavar="PACKAGE")
    update.add_argument("--remove", action="append", default=[], metavar="PACKAGE")
    rebuild = with_project("rebuild", _rebuild)
    rebuild.add_argument("--tag", default="", help="a name for an experiment")
    with_project("save", _save)
    tag = with_project("tag", _tag)
    which = tag.add_mutually_exclusive_group(required=True)
    which.add_argument("--version", type=int, help="which version gets it")
    which.add_argument("--remove", action="store_true", help="remove the tag; the version stays")
    tag.add_argument("--tag", default="latest", help="by default it becomes the current one")
    with_project("delete", _delete)
    verb("list", _list).add_argument("--json", action="store_true")
    with_project("show", _show).add_argument("--json", action="store_true")
    log = verb("log", _log)
    log.add_argument("build", type=int, help="the number of a build")


def _create(asked: argparse.Namespace, portal: Portal) -> int:
    """make an image from a base and packages"""
    recipe = _recipe_of(asked.like, portal) if asked.like else {"base": "python"}
    body = {
        **recipe,
        "project": asked.project or portal.project,
        "base": asked.base or recipe["base"],
        "sets": [*recipe.get("sets", ()), *asked.set],
        "python": [*recipe.get("python", ()), *asked.add],
        "system": [*recipe.get("system", ()), *asked.system],
        "tag": asked.tag,
    }
    if asked.requirements is not None:
        try:
            body["requirements"] = asked.requirements.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Failure(f"{asked.requirements} cannot be read: {error}") from error
    return _follow(portal, portal.ask("POST", "api/images", body))


def _recipe_of(name: str, portal: Portal) -> dict[str, Any]:
    owner, _, project = name.partition("/")
    if not project:
        raise Failure(f"{name!r} is no image; write its owner and project, such as alice/vision.")
    found = portal.ask("GET", f"api/images/{quote(owner, safe='')}/{quote(project, safe='')}")
    if found["recipe"] is None:
        raise Failure(f"{name} comes from a Dockerfile that was written by hand: copy that.")
    return dict(found["recipe"])


def _update(asked: argparse.Namespace, portal: Portal) -> int:
    """add packages to an image, or remove some, and build it"""
    body = {"add": asked.add, "remove": asked.remove}
    return _follow(portal, portal.ask("POST", _path(asked, portal, "/update"), body))


def _rebuild(asked: argparse.Namespace, portal: Portal) -> int:
    """build an image anew, from its recipe or the Dockerfile in the project"""
    body = {"tag": asked.tag}
    return _follow(portal, portal.ask("POST", _path(asked, portal, "/rebuild"), body))


def _save(asked: argparse.Namespace, portal: Portal) -> int:
    """add what was installed in this server to its image, and build that"""
    found = [f"{p['name']}=={p['version']}" for p in installed.found() if p["requested"]]
    if not found:
        print("Nothing was installed in this server since it started.")
        return 0
    print(f"Adding {', '.join(found)}.")
    body = {"packages": found}
    return _follow(portal, portal.ask("POST", f"api/servers/{portal.project}/save", body))


def _tag(asked: argparse.Namespace, portal: Portal) -> int:
    """give a version a tag, make it the current one, or remove a tag"""
    if asked.remove:
        portal.ask("DELETE", _path(asked, portal, f"/tags/{quote(asked.tag, safe='')}"))
        return 0
    body = {"version": asked.version, "tag": asked.tag}
    portal.ask("POST", _path(asked, portal, "/tags"), body)
    return 0


def _delete(asked: argparse.Namespace, portal: Portal) -> int:
    """delete an image with all of its versions; the recipe stays"""
    portal.ask("DELETE", _path(asked, portal))
    return 0


def _list(asked: argparse.Namespace, portal: Portal) -> int:
    """list the images that you can start from"""
    found = portal.ask("GET", "api/images")
    if asked.json:
        print(json.dumps(found, indent=2))
        return 0
    rows = [(i["name"], f"version {i['version']}", i["base"]) for i in found["own"] if i["tags"]]
    rows += [(i["name"], f"of {i['owner']}", i["base"]) for i in found["shared"]]
    rows += [(i["name"], "base", i["framework"]) for i in found["bases"]]
    for line in aligned(rows):
        print(line)
    return 0


def _show(asked: argparse.Namespace, portal: Portal) -> int:
    """show an image's versions and what it is made of"""
    found = portal.ask("GET", _path(asked, portal))
    if asked.json:
        print(json.dumps(found, indent=2))
        return 0
    for version in found["versions"]:
        tags = ", ".join(version["tags"]) or "kept"
        used = ", ".join(version["used_by"])
        print(f"version {version['version']}  {tags}" + (f"  used by {used}" if used else ""))
    for layer in found["layers"]:
        shared = "base" if layer["shared"] else "own"
        print(f"{layer['size_bytes'] / 1e6:9.1f} MB  {shared:4}  {layer['command'][:80]}")
    return 0


def _log(asked: argparse.Namespace, portal: Portal) -> int:
    """show what a build says, until it is over"""
    return _watch(portal, asked.build)


def _follow(portal: Portal, answer: Any) -> int:
    for line in answer.get("not_used", ()):
        print(f"ds01: {line}", file=sys.stderr)
    return _watch(portal, answer["build"]["id"])


def _watch(portal: Portal, build: int) -> int:
    """Print a build's log; return 1 unless it succeeded."""
    for name, event in portal.events(f"api/builds/{build}/log"):
        if name == "end":
            return 0 if event["state"] == "succeeded" else 1
        step = f"[{event['step']}/{event['of']}] " if event["begins"] else ""
        print(step + event["text"], flush=True)
    raise Failure(f"the log broke off; 'ds01 image log {build}' shows the rest.")


def _path(asked: argparse.Namespace, portal: Portal, more: str = "") -> str:
    project = asked.project or portal.project
    return f"api/images/{quote(portal.user, safe='')}/{quote(project, safe='')}{more}"
