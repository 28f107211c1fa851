"""Dockerfiles of users: what is built is what was checked."""

from __future__ import annotations

import dockerfile as buildkit_parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01_spawner.images.dockerfile import LARGEST_BYTES, DockerfileError, parse
from ds01_spawner.images.recipe import dockerfile_text, read_recipe

ORDINARY = """\
# My image
FROM python AS build
ARG LEVEL=2
RUN echo $LEVEL \\
    # in the middle
 && make -j"$(nproc)" 'a b'
FROM ds01-alice/vision:experiment-42
ENV A=1 B="two words" C='three $x'
ENV OLD with spaces
WORKDIR /srv
COPY --from=build --chown=1000 /out /srv
COPY --from=0 /x /y
COPY src/*.py requirements.txt /srv/
SHELL ["/bin/bash", "-c"]
RUN ["python3", "-c", "print('hi')"]
LABEL maintainer="me@example.org" a=b
USER 1000
CMD python3 app.py
"""


def emitted(text: str) -> str:
    found = parse(text)
    return found.emit(
        {name: f"work:{at}" for at, name in enumerate(found.bases)}, ("--mount=m",)
    ).text


def test_an_ordinary_file_is_emitted_one_line_for_each_instruction():
    found = parse(ORDINARY)
    lines = emitted(ORDINARY).splitlines()

    assert found.bases == ("ds01-alice/vision:experiment-42", "python")
    assert found.sources == ("src/*.py", "requirements.txt")
    assert len(lines) == 15
    assert lines[0] == "FROM work:1 AS build"
    assert lines[3] == "FROM work:0"
    assert all(line.startswith("RUN --mount=m ") for line in lines if line.startswith("RUN"))
    assert "COPY --from=build --chown=1000 /out /srv" in lines
    assert any("CMD has no effect" in warning for warning in found.warnings)


def test_each_emitted_line_knows_the_users_line():
    found = parse(ORDINARY)
    text = found.emit(dict.fromkeys(found.bases, "x"))
    users = ORDINARY.splitlines()

    for line, number in zip(text.text.splitlines(), text.lines, strict=True):
        assert users[number - 1].split()[0] == line.split()[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "RUN id",
        "# syntax=docker/dockerfile:1\nFROM python",
        "#SYNTAX = x\nFROM python",
        "\ufeff# syntax=x\nFROM python",
        "# a comment\n# syntax=x\nFROM python",
        "\n\n# escape=`\nFROM python",
        "# check=skip=all\nFROM python",
        "// syntax=x\nFROM python",
        "ARG X=python\nFROM $X",
        "ARG X=python\nFROM python",
        "FROM --platform=linux/arm64 python",
        "FROM python\nRUN --mount=type=bind,from=other,target=/x ls",
        "FROM python\nRUN --mount=type=cache,target=/x ls",
        "FROM python\nRUN --network=host ls",
        "FROM python\nRUN --security=insecure ls",
        "FROM python\nRUN \\\n--mount=type=cache,target=/x ls",
        "FROM python\nrun --mount=type=ssh ls",
        "FROM python\nADD https://example.org/x /x",
        "FROM python\nADD a b.TAR.gz /x",
        "FROM python\nADD b.tgz /x",
        'FROM python\nADD ["b.txz", "/x"]',
        "FROM python\nADD git@github.com:a/b.git /x",
        "FROM python\nADD --checksum=sha256:x https://example.org/x /x",
        "FROM python\nCOPY https://x/y /z",
        "FROM python\nCOPY ../x /y",
        "FROM python\nCOPY a/../../x /y",
        "FROM python\nCOPY $X /y",
        "FROM python\nCOPY --from=$X / /",
        "FROM python\nCOPY --from=1 / /",
        "FROM python\nCOPY --from=other@sha256:aa / /",
        "FROM python\nCOPY --link a /b",
        "FROM python\nRUN <<EOF\nid\nEOF",
        "FROM python\nCOPY <<EOF /x\nFROM other\nEOF",
        "FROM python\nRUN cat <<-X",
        "FROM python\nONBUILD RUN id",
        "FROM python\nMAINTAINER x",
        "FROM python\nFOO bar",
        "FROM python\nLABEL ds01.image.owner=bob",
        "FROM python\nLABEL 'ds01.image.owner'=bob",
        'FROM python\nLABEL "ds01.x"=bob',
        "FROM python\nLABEL $X=bob",
        'FROM python\nLABEL d"s"01.user=bob',
        "FROM python\nLABEL d\\s01.managed=true",
        'FROM python\nLABEL "d"s01.user bob',
        "FROM python\nLABEL d''s01.user=bob",
        "FROM python\nLABEL DS01.user=bob",
        "FROM python\nLABEL a=b \"d\"'s01.'user=bob",
        "FROM python\n" + "".join(f"VOLUME /v{at}\n" for at in range(17)),
        "FROM python AS a\nVOLUME " + " ".join(f"/v{at}" for at in range(2000)) + "\nFROM a",
        "FROM python\nARG BUILDKIT_SYNTAX=x",
        "FROM python AS a\nFROM python AS a",
        "FROM python AS UPPER",
        "FROM python\nRUN echo \0",
        "FROM python\nRUN echo a\rRUN id",
        "FROM python\nRUN echo a\x85b",
        "FROM python\nRUN echo a\u2028b",
        "FROM python\n" + "RUN true\n" * 201,
        "FROM python\nRUN " + "a" * 20_000,
        "FROM python\n#" + "x" * LARGEST_BYTES,
        "FROM sha256@" + "a" * 64,
    ],
)
def test_what_would_reach_further_is_refused_in_words(text):
    with pytest.raises(DockerfileError) as refused:
        parse(text)

    assert 10 < len(str(refused.value)) < 2000


def test_add_unpacks_nothing():
    assert emitted("FROM python\nADD --chown=1 a* /b\n") == "FROM work:0\nCOPY --chown=1 a* /b\n"


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("FROM python\nCOPY a /a\nRUN b\nCOPY a /c\n", [1]),
        ("FROM python\nENV A=b\nWORKDIR /a\n", [1]),
        ("FROM python\nENV A=b\nRUN b\nADD a /c\n", []),
        ("FROM python AS one\nRUN a\nFROM one\nCOPY a /a\n", [3]),
        ("FROM python AS one\nCOPY a /a\nFROM scratch\nCOPY --from=one /a /a\n", [1, 4]),
        ("FROM python\n", []),
    ],
)
def test_a_stage_that_begins_with_files_begins_with_what_is_its_owners_own(text, marked):
    built = parse(text).emit({"python": "work:0"}, (), "COPY mine /mine")

    lines = built.text.splitlines()
    assert [at for at, line in enumerate(lines) if line == "COPY mine /mine"] == marked
    users = text.splitlines()
    for line, number in zip(lines, built.lines, strict=True):
        assert line == "COPY mine /mine" or users[number - 1].split()[0] in (line.split()[0], "ADD")


def test_carriage_returns_are_ends_of_lines():
    assert emitted("FROM python\r\nRUN a \\\r\n b\r\n") == "FROM work:0\nRUN --mount=m a  b\n"


def test_a_stage_is_no_image_even_if_an_image_has_its_name():
    found = parse("FROM python AS jax\nFROM jax\nCOPY --from=jax /a /b")

    assert found.bases == ("python",)
    assert "FROM jax\n" in found.emit({"python": "x"}).text


@pytest.mark.parametrize(
    ("text", "bases"),
    [
        ("FROM pytorch AS a\nFROM python AS b\nFROM a", ("pytorch", "python")),
        ("FROM pytorch AS a\nFROM a AS b\nFROM python AS c\nFROM b", ("pytorch", "python")),
        ("FROM pytorch AS a\nFROM python", ("python", "pytorch")),
        ("FROM python AS a\nFROM a\nCOPY --from=pytorch /a /b", ("python", "pytorch")),
        ("FROM scratch AS a\nFROM python AS b\nFROM a\nCOPY --from=b /a /b", ("python",)),
    ],
)
def test_the_first_base_is_what_the_last_stage_really_stands_on(text, bases):
    assert parse(text).bases == bases


@pytest.mark.parametrize(
    "line",
    [
        "HEALTHCHECK NONE",
        "HEALTHCHECK --interval=5s --retries=3 CMD curl -f http://localhost/ || exit 1",
        'HEALTHCHECK CMD ["true", "a b"]',
    ],
)
def test_a_health_check_is_taken_and_told_to_be_without_effect(line):
    text = f"FROM python\n{line}\n"

    assert emitted(text) == f"FROM work:0\n{line}\n"
    assert parse(text).warnings == ("Line 2: HEALTHCHECK has no effect on servers.",)


def test_labels_and_volumes_of_ones_own_are_kept():
    text = 'FROM python\nLABEL "org.example/a-b"="c d" x_y.z=1\nVOLUME /a /b\nVOLUME ["/c d"]\n'

    assert emitted(text) == text.replace("FROM python", "FROM work:0")


def test_every_recipe_comes_to_a_file_that_passes():
    recipe = read_recipe(
        {
            "base": "ds01-alice/vision:latest",
            "system": ["graphviz"],
            "sets": ["nlp", "cv"],
            "python": ["torch>=2.0", "numpy<2; python_version < '3.12'"],
            "environment": {"A": 'quotes " and $dollars and \\ strokes', "B": "é"},
        }
    )
    assert parse(dockerfile_text(recipe)).bases == ("ds01-alice/vision:latest",)


KEYWORDS = (
    *("RUN", "ENV A", "ENV A=", "LABEL k=", "LABEL", "WORKDIR", "ARG", "CMD", "VOLUME"),
    *("HEALTHCHECK", "HEALTHCHECK CMD"),
)
WORDS = st.text(
    st.sampled_from("abc $\"'\\<>&|;#=-_/.{}()[]*?!\t`~^%@:,+1EOF"), min_size=1, max_size=40
)


@given(
    st.lists(
        st.tuples(st.sampled_from(KEYWORDS), WORDS),
        max_size=6,
    )
)
def test_what_is_emitted_is_read_as_what_was_checked(lines):
    text = "\n".join(["FROM python", *(f"{keyword} {words}" for keyword, words in lines)])
    try:
        out = emitted(text)
    except DockerfileError:
        return
    original = buildkit_parser.parse_string(text)
    again = buildkit_parser.parse_string(out)
    assert [c.cmd.upper() for c in again] == [c.cmd.upper() for c in original]
    assert all(len(c.heredocs) == 0 for c in again)
    for command, before in zip(again, original, strict=True):
        flags = ("--mount=m",) if command.cmd.upper() == "RUN" else ()
        assert command.flags == flags
        if command.cmd.upper() in ("RUN", "CMD", "WORKDIR", "VOLUME", "HEALTHCHECK"):
            assert command.value == before.value
