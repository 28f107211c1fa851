"""Recipes: what is taken, what is refused in words, and the Dockerfile that they come to."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01_spawner.images.recipe import (
    PACKAGE_SETS,
    Recipe,
    RecipeError,
    dockerfile_text,
    is_edited,
    read_recipe,
    read_requirements,
    recipe_text,
)


def made(**more: Any) -> Recipe:
    return read_recipe({"base": "python", **more})


def test_a_version_bound_reaches_the_shell_as_one_word():
    text = dockerfile_text(made(python=["torch>=2.0", "numpy<2; python_version < '3.12'"]))

    assert "'torch>=2.0'" in text
    command = text.replace("\\\n", " ").split("install", 1)[1]
    assert shlex.split(command) == ["torch>=2.0", 'numpy<2; python_version < "3.12"']


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("python", ["a; rm -rf /"]),
        ("python", ["$(id)"]),
        ("python", ["--index-url=http://evil"]),
        ("python", ["a @ https://evil/a.whl"]),
        ("python", ["a\nRUN id"]),
        ("python", ["a\0"]),
        ("python", ["../a"]),
        ("python", ["a" * 1000]),
        ("python", ["a"] * 501),
        ("system", ["graphviz; id"]),
        ("system", ["-o=x"]),
        ("system", ["a b"]),
        ("sets", ["everything"]),
        ("base", "python\nRUN id"),
        ("base", "--platform=x y"),
        ("environment", {"A B": "1"}),
        ("environment", {"NVIDIA_VISIBLE_DEVICES": "all"}),
        ("environment", {"LD_PRELOAD": "/x"}),
        ("environment", {"A": "1\n2"}),
        ("surprise", 1),
    ],
)
def test_what_is_no_package_or_variable_is_refused_with_its_field(field, value):
    with pytest.raises(RecipeError) as refused:
        read_recipe({"base": "python", **{field: value}})

    assert str(refused.value).startswith(field)
    assert len(str(refused.value)) < 2000


def test_every_line_of_a_requirements_file_is_used_or_reported():
    text = (
        "# science\r\nnumpy==2.0 --hash=sha256:aa\r\n-r more.txt\n\n  pandas[excel]>=2 # tables\n"
        "-e .\ngit+https://x/y\nscipy; python_version > '3'\nnot a package\n"
    )
    found = read_requirements(text)

    assert found.used == ("numpy==2.0", "pandas[excel]>=2", 'scipy; python_version > "3"')
    assert found.remarks == ("Line 2 is used without its hashes: numpy==2.0.",)
    assert [line.split()[1] for line in found.refused] == ["3", "6", "7", "9"]


def test_lines_that_go_on_are_told_by_the_number_that_an_editor_shows():
    found = read_requirements(
        "numpy==2.0 \\\n  --hash=sha256:aa \\\n  --hash=sha256:bb\n"
        "# a comment ends here \\\nscipy\n-r more.txt\n\nno package \\"
    )

    assert found.used == ("numpy==2.0", "scipy")
    assert found.remarks == ("Line 1 is used without its hashes: numpy==2.0.",)
    assert [line.split()[1] for line in found.refused] == ["6", "8"]


@pytest.mark.parametrize("text", ["a\0b", "x\n" * 10_000])
def test_a_requirements_file_that_is_none_or_endless_is_refused(text):
    with pytest.raises(RecipeError):
        read_requirements(text)


def test_a_dockerfile_knows_whether_it_was_edited():
    text = dockerfile_text(made(python=["numpy"]))

    assert not is_edited(text)
    assert not is_edited(text.replace("\n", "\r\n"))
    assert is_edited(text + "RUN true\n")
    assert is_edited("FROM python\n")


def test_sets_come_in_one_order_and_each_in_a_layer_of_its_own():
    one, other = made(sets=["cv", "ml"]), made(sets=["ml", "cv", "ml"])

    assert dockerfile_text(one) == dockerfile_text(other)
    assert dockerfile_text(one).count("\nRUN ") == 2
    assert set(PACKAGE_SETS["cv"]) <= set(one.distributions)


def test_packages_are_added_replaced_and_removed_by_name():
    recipe = made(python=["Torch>=2", "numpy"]).with_python(["torch==2.1"], ["NumPy"])

    assert recipe.python == ("torch==2.1",)
    with pytest.raises(RecipeError, match="scipy"):
        recipe.with_python(remove=["scipy"])


def test_a_package_with_a_line_for_each_python_keeps_all_of_them():
    lines = ('numpy<2; python_version < "3.12"', 'numpy>=2; python_version >= "3.12"')
    recipe = made(python=lines)

    assert recipe.with_python(["six"]).python == (*lines, "six")
    assert made(python=["numpy"]).with_python(lines).python == lines
    assert recipe.with_python(["numpy"]).python == ("numpy",)
    assert recipe.with_python(["six"], ["numpy"]).python == ("six",)


def test_what_only_some_pythons_get_is_named_with_its_marker():
    recipe = made(
        sets=["rl"],
        python=[
            "pywin32; sys_platform == 'win32'",
            *("numpy<2; python_version < '3.12'", "numpy>=2; python_version >= '3.12'"),
            *("six; python_version < '3'", "six"),
            *("toolz", "toolz; python_version > '3'"),
            "gymnasium; python_version > '3'",
        ],
    )

    assert recipe.distributions == (
        *("gymnasium", "stable-baselines3"),
        'pywin32; sys_platform == "win32"',
        'numpy; python_version < "3.12"',
        *("six", "toolz"),
    )


@given(st.text(max_size=60))
def test_a_value_of_a_variable_stays_one_value(value):
    try:
        recipe = made(environment={"A": value})
    except RecipeError:
        assert not value.isprintable()
        return
    line = next(line for line in dockerfile_text(recipe).split("\n") if line.startswith("ENV"))
    # As Docker's shell reads it, with no variable in it left alone.
    quoted = line.removeprefix("ENV A=")
    assert quoted[0] == quoted[-1] == '"'
    inner = quoted[1:-1]
    assert inner.replace("\\\\", "").replace('\\"', "").replace("\\$", "").count("$") == 0


def test_the_file_and_the_recipe_are_the_same():
    import yaml

    recipe = made(python=["numpy"], system=["graphviz"], environment={"A": "é"})
    assert read_recipe(yaml.safe_load(recipe_text(recipe))) == recipe
