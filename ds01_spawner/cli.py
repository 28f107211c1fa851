"""The command ``ds01``: what an admin does to the machine, one function for each sub-command."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import docker
import requests
from docker.errors import DockerException

from . import __version__, event_list, network, pretend
from .arguments import DATA, Argument, Failure, argument
from .buildkit import BuildError
from .certificates import ca_bundle
from .clock import utc_now
from .columns import aligned
from .gpus import report
from .gpus.attachment import AttachmentError, choose_backend
from .gpus.devices import Snapshot
from .gpus.nodes import capabilities_here
from .gpus.nvml import Nvml
from .gpus.snapshot import Taken, take_now
from .images import bases
from .images.catalogue import CatalogueError
from .network import NetworkError
from .policy import PolicyError, explain, format_bytes, load_policy, load_storage_beside, share_of
from .runtime import build as runtime
from .runtime import version, volume_name
from .store import Store

#: An import of a whole Debian gives no sign of life for this long on a slow disk, in seconds.
_ENGINE_TIMEOUT = 600
_CERTIFICATES_HELP = "certificates for package registries, where the site has its own"


#: Failures that are the machine's or the input's and not ours: one message, no traceback.
EXPECTED = (
    Failure,
    BuildError,
    CatalogueError,
    NetworkError,
    DockerException,
    requests.RequestException,
    PermissionError,
    PolicyError,
)


class Command(NamedTuple):
    """A sub-command: its one or two words, its function, and the arguments that it takes."""

    words: str
    run: Callable[[argparse.Namespace], int]
    arguments: tuple[Argument, ...]


COMMANDS: list[Command] = []


def command(words: str, *arguments: Argument) -> Any:
    """Register a function as ``ds01 <words>``; its docstring is the help, its result the status."""

    def register(run: Callable[[argparse.Namespace], int]) -> Any:
        COMMANDS.append(Command(words, run, arguments))
        return run

    return register


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, a number from 1 to 65535")
    return int(text)


def _port_or_none(text: str) -> int:
    return 0 if text == "0" else _port(text)


_BUILD_ARGUMENTS = (
    argument("--ca-bundle", metavar="FILE", type=Path, help=_CERTIFICATES_HELP),
    argument("--check", action="store_true", help="build nothing, print what would be built"),
    argument("-v", "--verbose", action="store_true", help="show all that the builds print"),
)
_NETWORK = argument(
    "--name",
    default=os.environ.get("DS01_NETWORK") or "ds01",
    help="Docker's name of the network (%(default)s)",
)
_HUB_PORT = argument(
    "--hub-port",
    type=_port,
    default=os.environ.get("DS01_HUB_PORT") or "8081",
    help="a port of this machine that servers may open, the Hub's API (%(default)s)",
)
_PORTAL_PORT = argument(
    "--portal-port",
    type=_port_or_none,
    default=os.environ.get("DS01_PORTAL_PORT") or "8082",
    help="the other one, the portal (%(default)s; 0 if there is no portal)",
)


_IMAGE_NAMES = argument(
    "names",
    metavar="NAME",
    nargs="*",
    help="an image of the catalogue, also one that is there only on request",
)


@command("images build", *_BUILD_ARGUMENTS, _IMAGE_NAMES)
def images_build(args: argparse.Namespace) -> int:
    """build what is missing or has changed among the catalogue's own images, or what is named"""
    client = _engine()
    known = {entry.name: entry for entry in bases.catalogue()}
    if unknown := [name for name in args.names if name not in known]:
        _say(f"ds01: there is no image {unknown[0]!r}; the images are {', '.join(known)}.")
        return 1
    asked = {known[name].image for name in args.names}
    if args.check:
        return _list(bases.stale(client, only=asked))
    here = {recipe.tag for recipe in bases.recipes()}
    for entry in (known[name] for name in args.names):
        if entry.image not in here:
            _say(f"Fetching {entry.image}, which may take a long time ...")
            bases.fetch(client, entry)
    if asked and not asked & here:
        return 0
    built = bases.build_bases(
        *(client, _ca_bundle(args), _say),
        only=asked & here,
        details=_say if args.verbose else _hush,
    )
    _say(f"Built {', '.join(built)}." if built else "All images are up to date.")
    return 0


@command("images needs")
def images_needs(args: argparse.Namespace) -> int:
    """print the system's packages that 'images build' needs and does not find"""
    why = "makes Debian's image, as the engine reaches no image registry"
    return _list(f"{package}\t{why}" for package in bases.missing_packages(_engine()))


@command("images list")
def images_list(args: argparse.Namespace) -> int:
    """list the catalogue, and what of it is on this machine"""
    client = _engine()
    stale = set(bases.stale(client))
    rows = [("NAME", "IMAGE", "SIZE", "STATE")]
    for entry in bases.catalogue():
        try:
            size = format_bytes(client.images.get(entry.image).attrs["Size"])
            state = "changed, run 'ds01 images build'" if entry.image in stale else "here"
        except docker.errors.ImageNotFound:
            size = "-"
            state = "run 'ds01 images build'" if entry.image in stale else "pulled when first used"
            if entry.on_request:
                state = f"not offered; 'ds01 images build {entry.name}' brings it"
        rows.append((entry.name, entry.image, size, state))
    _table(rows)
    return 0


@command("runtime build", *_BUILD_ARGUMENTS)
def runtime_build(args: argparse.Namespace) -> int:
    """build the JupyterLab that is mounted into every server, unless this version is here"""
    client = _engine()
    here = runtime.is_complete(client, volume_name(), f"ds01/runtime:{version()}")
    if args.check:
        return _list([] if here else [volume_name()])
    if not here:
        details = _say if args.verbose else _hush
        bases.build_bases(client, _ca_bundle(args), _say, only=[bases.DEBIAN], details=details)
        _say(f"Building {volume_name()} ...")
        runtime.build(client, bases.DEBIAN, ca_bundle=_ca_bundle(args), log=details)
    _say(f"The runtime is {volume_name()}.")
    return 0


@command("runtime list")
def runtime_list(args: argparse.Namespace) -> int:
    """list the versions of the runtime that are on this machine"""
    rows = [("VOLUME", "CREATED", "CURRENT", "USED BY")]
    for entry in runtime.list_runtimes(_engine()):
        used_by = ", ".join(entry.containers) or "-"
        rows.append((entry.volume, entry.created, "yes" if entry.current else "", used_by))
    _table(rows)
    return 0


@command("runtime prune")
def runtime_prune(args: argparse.Namespace) -> int:
    """remove the versions that no container uses, except the current one"""
    removed = runtime.prune(_engine())
    _say(f"Removed {', '.join(removed)}." if removed else "There is nothing to remove.")
    return 0


@command("network setup", _NETWORK, _HUB_PORT, _PORTAL_PORT)
def network_setup(args: argparse.Namespace) -> int:
    """make the servers' network and its fence"""
    made = network.ensure(_engine().api, args.name, _interface(args.name), _ports(args))
    _say(f"The network {made.name} is ready: interface {made.interface}, host {made.gateway}.")
    return 0


@command("network check", _NETWORK, _HUB_PORT, _PORTAL_PORT)
def network_check(args: argparse.Namespace) -> int:
    """say what is missing in the fence; ends with status 1 if anything is"""
    problems = network.problems(network.find(_engine().api, args.name), _ports(args))
    for problem in problems:
        _say(problem)
    _say("Run 'ds01 network setup' to repair it." if problems else "The fence stands.")
    return 1 if problems else 0


def _ports(args: argparse.Namespace) -> tuple[int, ...]:
    return (args.hub_port, args.portal_port) if args.portal_port else (args.hub_port,)


@command("network remove", _NETWORK)
def network_remove(args: argparse.Namespace) -> int:
    """remove the servers' network and its rules"""
    network.remove(_engine().api, args.name, _interface(args.name))
    _say(f"The network {args.name} is gone.")
    return 0


@command(
    "gpus",
    DATA,
    argument(
        "--watcher",
        metavar="NAME",
        action="append",
        default=[],
        help="a container that only watches GPUs, as in the setting gpu_watchers",
    ),
    argument("--json", action="store_true", help="print a list of objects"),
    argument(
        "--recovered",
        metavar="UUID",
        help="give a device out again that reported an Xid and is repaired",
    ),
)
def gpus(args: argparse.Namespace) -> int:
    """list the GPUs, and who holds them; ends with status 1 if they cannot be read"""
    if args.recovered:
        return _forget_fault(args.data, args.recovered)
    # What the Hub on this directory pretends, this command sees too.
    if (args.data / "pretended-gpus").is_dir():
        os.environ.setdefault(pretend.VARIABLE, str(args.data / "pretended-gpus"))
    nvml = _nvml(args.data)
    hub_id = args.data / "hub-id"
    taken = take_now(
        _engine().api,
        nvml.read,
        hub_id.read_text().strip() if hub_id.exists() else "",
        args.watcher,
        capabilities_here(),
    )
    snapshot = _attachable(taken)
    inventory = snapshot.inventory
    # A driver that hangs would keep this command, too.
    utilisation = {} if inventory.problem else nvml.utilisation()
    if args.json:
        _say(json.dumps(report.objects(snapshot, utilisation), indent=2))
    else:
        if pretend.directory() is not None:
            _say("These GPUs are pretended: there is nothing behind them.")
        if inventory.devices:
            _table(report.table(snapshot, utilisation))
            _say(f"Driver {inventory.driver or 'unknown'}")
        elif not inventory.problem:
            _say("There is no GPU on this server.")
        _list(report.remarks(snapshot))
        if not hub_id.exists():
            _say(
                f"No Hub has run on {args.data}: its servers would be shown as containers (--data)."
            )
    if inventory.problem:
        raise Failure(inventory.problem)
    return 0


command("events", *event_list.ARGUMENTS)(event_list.events)

_POLICY_FILE = argument(
    "--file",
    metavar="FILE",
    type=Path,
    help="the policy, with the other files beside it (policy/resource-limits.yaml in --data)",
)


@command("policy validate", argument("file", metavar="FILE", type=Path))
def policy_validate(args: argparse.Namespace) -> int:
    """check a policy and the files beside it; ends with status 1 and a line for each mistake"""
    problems: list[str] = []
    for read in (load_policy, load_storage_beside):
        try:
            read(args.file)
        except PolicyError as error:
            problems += error.problems
    if problems:
        _list(problems)
        return 1
    _list(f"Note: {warning}" for warning in load_policy(args.file).warnings)
    _say(f"{args.file} is valid.")
    return 0


@command(
    "policy explain",
    argument("user", metavar="USER"),
    argument(
        "--group",
        metavar="GROUP",
        action="append",
        default=[],
        help="a group of the user's on the Hub; may be given several times",
    ),
    _POLICY_FILE,
    DATA,
    argument("--json", action="store_true", help="print an object with a value and source a key"),
)
def policy_explain(args: argparse.Namespace) -> int:
    """show what a user may have, and where each value comes from"""
    file = args.file or args.data / "policy/resource-limits.yaml"
    share = share_of(load_policy(file), load_storage_beside(file), args.user, args.group, utc_now())
    resolved = share.resolved
    if args.json:
        _say(json.dumps(explain.as_objects(resolved), indent=2))
        return 0
    group = f"group {resolved.group}" if resolved.group else "no group"
    _say(f"{args.user}: {group}, {resolved.why}.")
    _table([("KEY", "VALUE", "FROM"), *explain.rows(resolved)])
    return _list(f"{folder.target} is {folder.path}" for folder in share.folders)


@command(
    "messages test",
    argument("user", metavar="USER"),
    argument(
        "--configuration",
        metavar="FILE",
        type=Path,
        default=Path(__file__).resolve().parents[1] / "jupyterhub_config.py",
        help="the Hub's (%(default)s)",
    ),
    DATA,
)
def messages_test(args: argparse.Namespace) -> int:
    """send a user a test by e-mail and the webhook, as the site has set them"""
    # It brings all of the Hub along, for which no other command should wait.
    from .messages import trial

    os.environ["DS01_DATA"] = str(args.data)
    try:
        problems = trial.send(args.configuration.resolve(), args.user, _say)
    except FileNotFoundError as error:
        raise Failure(f"There is no {error.filename}: has a Hub run on {args.data}?") from error
    for problem in problems:
        print(f"ds01: {problem}", file=sys.stderr)
    return 1 if problems else 0


@command("policy schema")
def policy_schema(args: argparse.Namespace) -> int:
    """print the JSON Schema of the policy, for editors"""
    _say(json.dumps(explain.schema(), indent=2))
    return 0


def _attachable(taken: Taken) -> Snapshot:
    """Return the snapshot with what the engine cannot attach, in whichever way, marked so."""
    snapshot = taken.snapshot
    try:
        backend = choose_backend(taken.info, snapshot.inventory)
    except AttachmentError as error:
        return replace(snapshot, warnings=(*snapshot.warnings, str(error)))
    return replace(snapshot, inventory=backend.attachable(snapshot.inventory))


def _forget_fault(data: Path, uuid: str) -> int:
    file = data / "ds01.sqlite"
    if not file.exists() or not Store(file).forget_gpu_fault(uuid):
        raise Failure(f"{uuid} has reported no Xid since the machine started.")
    _say(f"{uuid} is given out again.")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0, 1 for a failure, 2 for wrong usage, 130 for Ctrl-C."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except EXPECTED as error:
        print(f"ds01: {_in_words(error)}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read the output has seen enough; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ds01", description="Runs a DS01 machine.")
    parser.add_argument("--version", action="version", version=f"ds01 {__version__}")
    groups = parser.add_subparsers(metavar="COMMAND", required=True)
    subparsers: dict[str, Any] = {}
    for entry in COMMANDS:
        group, _, verb = entry.words.partition(" ")
        text = entry.run.__doc__
        if not verb:
            _complete(groups.add_parser(group, help=text, description=text), entry)
            continue
        if group not in subparsers:
            verbs = [c.words.partition(" ")[2] for c in COMMANDS if c.words.startswith(f"{group} ")]
            described = groups.add_parser(group, help=", ".join(verbs))
            subparsers[group] = described.add_subparsers(metavar="COMMAND", required=True)
        _complete(subparsers[group].add_parser(verb, help=text, description=text), entry)
    return parser


def _complete(parser: argparse.ArgumentParser, entry: Command) -> None:
    for flags, settings in entry.arguments:
        parser.add_argument(*flags, **settings)
    parser.set_defaults(run=entry.run)


def _engine() -> docker.DockerClient:
    """Return a client of an engine that answers.

    Raises
    ------
    Failure
        If none does.
    """
    try:
        client = docker.from_env(timeout=_ENGINE_TIMEOUT)
        client.ping()
    except (DockerException, requests.RequestException) as error:
        where = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        reason = (
            "may not be used by you" if "Permission denied" in str(error) else "does not answer"
        )
        raise Failure(
            f"The Docker engine at {where} {reason}: start it ('systemctl start docker', or "
            "./run.sh does it) and run this as root."
        ) from error
    return client


def _nvml(data: Path) -> Nvml:
    """Return what reads the GPUs, with the errors that a Hub has seen on them."""
    file = data / "ds01.sqlite"
    return Nvml(Store(file).gpu_faults) if file.exists() else Nvml()


def _ca_bundle(args: argparse.Namespace) -> Path | None:
    try:
        return ca_bundle(args.ca_bundle)
    except FileNotFoundError as error:
        raise Failure(str(error)) from error


def _interface(network_name: str) -> str:
    """Return the bridge's name, one of its own for each network: Linux allows 15 characters."""
    if len(network_name) > 12:
        tail = hashlib.sha256(network_name.encode()).hexdigest()[:7]
        network_name = f"{network_name[:4]}-{tail}"
    return f"{network_name}br0"


def _list(items: Iterable[str]) -> int:
    for item in items:
        _say(item)
    return 0


def _table(rows: Iterable[Sequence[str]]) -> None:
    _list(aligned(rows))


def _in_words(error: BaseException) -> str:
    if isinstance(error, docker.errors.APIError) and error.explanation:
        return f"the Docker engine says: {error.explanation}"
    return str(error)


def _say(line: str) -> None:
    print(line, flush=True)


def _hush(line: str) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
