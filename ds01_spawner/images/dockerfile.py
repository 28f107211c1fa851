"""Dockerfiles that users write: what may stand in them, and how they are written anew for a build.

They are read with BuildKit's own parser, checked against a list of what is allowed, and emitted as
one line for each instruction. So what is built is what was checked, whatever another version of the
engine would read into the original.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

import dockerfile as buildkit_parser

LARGEST_BYTES = 64 * 1024
_MOST_INSTRUCTIONS = 200
_LONGEST_INSTRUCTION = 16 * 1024
_MOST_NAMED = 5
#: As many as an image may have for a server to start from it.
_MOST_VOLUMES = 16

#: Instruction -> options that it may have.
_ALLOWED: dict[str, frozenset[str]] = {
    "FROM": frozenset(),
    "RUN": frozenset(),
    "COPY": frozenset({"from", "chown", "chmod"}),
    "ADD": frozenset({"chown", "chmod"}),
    **dict.fromkeys(
        (
            *("ENV", "ARG", "WORKDIR", "USER", "LABEL", "SHELL", "EXPOSE"),
            *("VOLUME", "ENTRYPOINT", "CMD", "STOPSIGNAL"),
        ),
        frozenset(),
    ),
    "HEALTHCHECK": frozenset({"interval", "timeout", "start-period", "retries"}),
}
#: At each start these are ours, whatever an image says.
_WITHOUT_EFFECT = ("ENTRYPOINT", "CMD", "USER", "STOPSIGNAL", "HEALTHCHECK", "EXPOSE")

# Source: BuildKit, parser/directives.go: only before the first instruction, and in any case.
_DIRECTIVE = re.compile(r"^\s*(?:#|//)\s*([A-Za-z][A-Za-z0-9]*)\s*=", re.MULTILINE)
_HEREDOC = re.compile(r"(^|\s)\d*<<-?[^<\s]")
_NAME = re.compile(r"[a-z0-9][A-Za-z0-9._/:-]{0,254}")
_STAGE = re.compile(r"[a-z][a-z0-9_-]{0,62}")
#: BuildKit takes quotes and strokes out of a label's name wherever they are, and puts variables in.
_LABEL = re.compile(r'[A-Za-z0-9._/-]+|"[A-Za-z0-9._/-]+"')
#: What ADD unpacks, outside of all limits.
_ARCHIVE = re.compile(r"\.(tar(\.\w+)?|t[gbx]z2?|tzst)$", re.IGNORECASE)
_REMOTE = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:|^git@|\.git(#|$)")
#: Anything by which some program would see an end of line or nothing at all.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\u200b-\u200f\u202a-\u202e]")


class DockerfileError(ValueError):
    """A Dockerfile that is not built; the text has a line for each problem, of a few."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems[:_MOST_NAMED])
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes
    ----------
    keyword
        In capitals.
    line
        Where it begins in the user's file, counted from 1.
    options
        Option -> value, without ``--``.
    words
        What follows; the command of a shell is one word.
    is_json
        Whether they were written as a JSON list.
    """

    keyword: str
    line: int
    options: Mapping[str, str]
    words: tuple[str, ...]
    is_json: bool


@dataclass(frozen=True)
class Emitted:
    """A Dockerfile to build: the `text`, and for each line of it the user's line."""

    text: str
    lines: tuple[int, ...]


@dataclass(frozen=True)
class Dockerfile:
    """A Dockerfile that may be built.

    Attributes
    ----------
    bases
        Images that it stands on or copies from, each once; first the one that the last stage
        stands on, also through other stages.
    sources
        What it copies from the project's folder.
    warnings
        What its author should know.
    """

    instructions: tuple[Instruction, ...]
    bases: tuple[str, ...]
    sources: tuple[str, ...]
    warnings: tuple[str, ...]

    def emit(
        self, references: Mapping[str, str], run_options: Sequence[str] = (), mark: str = ""
    ) -> Emitted:
        """Return what is to be built.

        Parameters
        ----------
        references
            What stands for each of `bases`.
        run_options
            Options of every RUN.
        mark
            Instruction that comes first in each stage that begins with another step than RUN.

        Raises
        ------
        DockerfileError
            If the result would be read as something else.
        """
        stages: set[str] = set()
        lines: list[tuple[int, str]] = []
        for at, instruction in enumerate(self.instructions):
            written = _renamed(instruction, references, stages)
            text = _line(written, run_options if written.keyword == "RUN" else ())
            _check_same(written, text, run_options)
            lines.append((instruction.line, text))
            if mark and instruction.keyword == "FROM" and self._begins_with_files(at + 1):
                lines.append((instruction.line, mark))
            stages |= _stage_names(instruction)
        return Emitted("".join(f"{text}\n" for _, text in lines), tuple(line for line, _ in lines))

    def _begins_with_files(self, at: int) -> bool:
        """Tell whether what comes from there on has a step before its first RUN."""
        for instruction in self.instructions[at:]:
            if instruction.keyword in ("RUN", "FROM"):
                return False
            if instruction.keyword in ("COPY", "ADD", "WORKDIR"):
                return True
        return False


def parse(text: str) -> Dockerfile:
    """Read and check a Dockerfile.

    Raises
    ------
    DockerfileError
        With what to change, line by line.
    """
    text = _plain(text)
    try:
        commands = buildkit_parser.parse_string(text)
    except (ValueError, buildkit_parser.GoParseError) as error:
        raise DockerfileError([f"This is no Dockerfile: {error!s:.200}."]) from None
    if len(commands) > _MOST_INSTRUCTIONS:
        raise DockerfileError([f"More than {_MOST_INSTRUCTIONS} instructions are too many."])
    problems: list[str] = []
    instructions = []
    for command in commands:
        found, problem = _instruction(command)
        if problem:
            problems.append(f"Line {command.start_line}: {problem}")
        instructions.append(found)
    problems = problems or [*_of_stages(instructions), *_of_volumes(instructions)]
    if problems:
        raise DockerfileError(problems)
    return Dockerfile(
        tuple(instructions), _bases(instructions), _sources(instructions), _warnings(instructions)
    )


def _plain(text: str) -> str:
    """Return the text with ends of lines as we write them.

    Raises
    ------
    DockerfileError
        If there is too much of it, or what nobody sees.
    """
    if len(text.encode()) > LARGEST_BYTES:
        raise DockerfileError(
            [f"It is larger than the {LARGEST_BYTES // 1024} KiB that it may be."]
        )
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if unseen := _UNSEEN.search(text):
        line = text.count("\n", 0, unseen.start()) + 1
        raise DockerfileError(
            [f"Line {line}: the character U+{ord(unseen[0]):04X} cannot be seen; remove it."]
        )
    for line, content in enumerate(text.split("\n"), 1):
        if content.strip() and not content.lstrip().startswith(("#", "//")):
            break
        if found := _DIRECTIVE.match(content):
            raise DockerfileError(
                [
                    f"Line {line}: {found[1]!r:.40} at the head would change how the file is read. "
                    "Remove the line."
                ]
            )
    return text


def _instruction(command: buildkit_parser.Command) -> tuple[Instruction, str]:
    keyword = command.cmd.upper()
    flags = [flag.removeprefix("--").partition("=") for flag in command.flags]
    options = {name: value for name, _, value in flags}
    found = Instruction(
        keyword, command.start_line, options, tuple(command.value), bool(command.json)
    )
    return found, _objection(command, found, len(options) != len(flags))


def _objection(command: buildkit_parser.Command, found: Instruction, twice: bool) -> str:
    """Return what is wrong with one instruction by itself; empty if nothing is."""
    keyword, words = found.keyword, found.words
    if keyword not in _ALLOWED:
        return f"{keyword:.20} cannot be used here."
    if unknown := sorted(found.options.keys() - _ALLOWED[keyword]):
        return f"{keyword} cannot have --{unknown[0]:.20} here."
    if twice or any(not value or re.search(r"[\s$]", value) for value in found.options.values()):
        return f"an option of {keyword} is empty, comes twice, or has a variable in it."
    if command.heredocs or any(_HEREDOC.search(word) for word in words if not found.is_json):
        return "a here-document (<<) cannot be used here; use printf, or COPY a file."
    if not words or sum(map(len, words)) > _LONGEST_INSTRUCTION:
        return f"{keyword} is empty, or far too long."
    if any("\n" in word for word in words):
        return f"{keyword} has a line break within a word."
    if keyword == "FROM":
        return _from_objection(words)
    if keyword in ("COPY", "ADD"):
        return _copy_objection(found)
    if keyword == "LABEL":
        return _label_objection(words[0::2])
    if keyword in ("ENV", "ARG") and any(
        name.upper().startswith(("BUILDKIT_", "SOURCE_DATE_EPOCH")) for name in words[0::2]
    ):
        return "variables that steer the builder cannot be set here."
    if keyword == "SHELL" and not found.is_json:
        return f"{keyword} cannot be used like this here."
    return ""


def _label_objection(names: Sequence[str]) -> str:
    for name in names:
        if not _LABEL.fullmatch(name):
            return (
                f"{name!r:.80} is no name of a label here; use letters, digits, dots, strokes "
                "and hyphens."
            )
        if name.strip('"').lower().startswith("ds01."):
            return "labels that begin with ds01. are set by the builder."
    return ""


def _from_objection(words: tuple[str, ...]) -> str:
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        return "write FROM image, or FROM image AS name."
    if not _NAME.fullmatch(words[0]):
        return f"{words[0]!r:.80} is no name of an image that you may use."
    if len(words) == 3 and not _STAGE.fullmatch(words[2]):
        return f"{words[2]!r:.40} is no name of a stage; use lower-case letters and digits."
    return ""


def _copy_objection(found: Instruction) -> str:
    if len(found.words) < 2:
        return f"{found.keyword} needs what to copy, and where to."
    name = found.options.get("from", "")
    if name and not _NAME.fullmatch(name):
        return f"{name!r:.80} is no name of an image or a stage."
    for source in found.words[:-1]:
        if _REMOTE.search(source):
            return f"{source!r:.80} is somewhere else; fetch it with RUN, or copy a file."
        if found.keyword == "ADD" and _ARCHIVE.search(source):
            return f"ADD unpacks nothing here; COPY {source!r:.80}, and unpack it with RUN tar."
        if not name and ("$" in source or "\\" in source or ".." in source.split("/")):
            return f"{source!r:.80} must be a path below the project's folder."
    return ""


def _of_stages(instructions: Sequence[Instruction]) -> list[str]:
    """Return what is wrong with the order of instructions, and with the names of stages."""
    if not instructions or instructions[0].keyword != "FROM":
        line = instructions[0].line if instructions else 1
        return [f"Line {line}: the first instruction must be FROM, with the image to stand on."]
    problems, names, count = [], set[str](), 0
    for instruction in instructions:
        new = _stage_names(instruction)
        if new & names:
            problems.append(f"Line {instruction.line}: there are two stages of this name.")
        copied = instruction.options.get("from", "")
        if copied.isdigit() and int(copied) >= count - 1:
            problems.append(f"Line {instruction.line}: there is no stage {copied} before this one.")
        names |= new
        count += instruction.keyword == "FROM"
    return problems


def _of_volumes(instructions: Sequence[Instruction]) -> list[str]:
    count = 0
    for instruction in instructions:
        count += len(instruction.words) if instruction.keyword == "VOLUME" else 0
        if count > _MOST_VOLUMES:
            return [f"Line {instruction.line}: more than {_MOST_VOLUMES} volumes are too many."]
    return []


def _stage_names(instruction: Instruction) -> set[str]:
    is_named = instruction.keyword == "FROM" and len(instruction.words) == 3
    return {instruction.words[2]} if is_named else set()


def _external(instruction: Instruction, stages: Container[str]) -> str:
    """Return the image that an instruction names; empty for a stage, and for none."""
    if instruction.keyword == "FROM":
        name = instruction.words[0]
        return "" if name in stages or name == "scratch" else name
    name = instruction.options.get("from", "") if instruction.keyword == "COPY" else ""
    return "" if name in stages or name.isdigit() else name


def _bases(instructions: Sequence[Instruction]) -> tuple[str, ...]:
    # Stage -> the image that it stands on, through whatever other stages; empty for none.
    stages: dict[str, str] = {}
    found: list[str] = []
    last = ""
    for instruction in instructions:
        if name := _external(instruction, stages):
            found.append(name)
        if instruction.keyword == "FROM":
            last = name or stages.get(instruction.words[0], "")
            stages |= dict.fromkeys(_stage_names(instruction), last)
    return tuple(dict.fromkeys([last, *found] if last else found))


def _sources(instructions: Sequence[Instruction]) -> tuple[str, ...]:
    copies = (i for i in instructions if i.keyword in ("COPY", "ADD") and "from" not in i.options)
    return tuple(dict.fromkeys(source for copy in copies for source in copy.words[:-1]))


def _warnings(instructions: Sequence[Instruction]) -> tuple[str, ...]:
    found = [
        f"Line {i.line}: {i.keyword} has no effect on servers."
        for i in instructions
        if i.keyword in _WITHOUT_EFFECT
    ]
    for i in instructions:
        if i.keyword == "ENV" and any(name.startswith("NVIDIA_") for name in i.words[0::2]):
            found.append(f"Line {i.line}: which GPU a server has is decided when it starts.")
    return tuple(found[:_MOST_NAMED])


def _renamed(
    instruction: Instruction, references: Mapping[str, str], stages: set[str]
) -> Instruction:
    """Return the instruction with the name of an image replaced by what stands for it.

    ADD becomes COPY, which unpacks nothing.
    """
    if instruction.keyword == "ADD":
        return replace(instruction, keyword="COPY")
    name = _external(instruction, stages)
    if not name:
        return instruction
    if instruction.keyword == "FROM":
        return replace(instruction, words=(references[name], *instruction.words[1:]))
    return replace(instruction, options={**instruction.options, "from": references[name]})


def _line(instruction: Instruction, more: Sequence[str]) -> str:
    options = [*more, *(f"--{name}={value}" for name, value in instruction.options.items())]
    words = instruction.words
    if instruction.is_json and instruction.keyword == "HEALTHCHECK":
        # Only what follows CMD is the list.
        rest = f"{words[0]} {json.dumps(list(words[1:]))}"
    elif instruction.is_json:
        rest = json.dumps(list(words))
    elif instruction.keyword in ("ENV", "LABEL"):
        # The parser gives names and values in turn, values as they were quoted.
        pairs = zip(words[0::2], words[1::2], strict=True)
        rest = " ".join(f"{name}={_pair_value(value)}" for name, value in pairs)
    else:
        rest = " ".join(words)
    return " ".join([instruction.keyword, *options, rest])


def _pair_value(value: str) -> str:
    """Write a value so that it stays one: the form ``ENV a b c`` has spaces without quotes."""
    if not re.search(r"\s", re.sub(r'"(\\.|[^"\\])*"|\'[^\']*\'|\\.', "", value)):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def _check_same(instruction: Instruction, text: str, run_options: Sequence[str]) -> None:
    """See that a line is read as what it was written for, and as one line.

    Raises
    ------
    DockerfileError
        If it is not.
    """
    problem = DockerfileError(
        [
            f"Line {instruction.line}: {instruction.keyword} cannot be read in one way only; "
            "write it more simply."
        ]
    )
    if "\n" in text or text.endswith("\\"):
        raise problem
    try:
        found = buildkit_parser.parse_string(f"{text}\nWORKDIR /end\n")
    except (ValueError, buildkit_parser.GoParseError):
        raise problem from None
    if len(found) != 2 or found[0].heredocs or found[0].cmd.upper() != instruction.keyword:
        raise problem
    more = run_options if instruction.keyword == "RUN" else ()
    options = [*more, *(f"--{name}={value}" for name, value in instruction.options.items())]
    if list(found[0].flags) != options:
        raise problem
    read = tuple(found[0].value)
    pairs = instruction.keyword in ("ENV", "LABEL")
    expected = _pairs_read(instruction.words) if pairs else instruction.words
    got = _pairs_read(read) if pairs else read
    if got != expected or bool(found[0].json) != instruction.is_json:
        raise problem


def _pairs_read(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word if at % 2 == 0 else _pair_value(word) for at, word in enumerate(words))
