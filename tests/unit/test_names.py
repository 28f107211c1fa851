"""Names of any shape, and nobody shares anything by accident."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyterhub.slugs import safe_slug

from ds01_spawner import names


def test_a_plain_name_stays_as_it_is():
    assert names.user_slug("alice") == "alice"
    assert names.container_name("alice", "default") == "default._.alice"


@pytest.mark.parametrize(
    ("one", "other"), [("a.b", "a-b"), ("Alice", "alice"), ("a b", "a_b"), ("ü", "u"), ("a", "a.")]
)
def test_names_that_look_alike_share_nothing(one, other):
    assert names.user_slug(one) != names.user_slug(other)


def test_a_slug_cannot_be_searched_for():
    # Two names that share their readable part and JupyterHub's short hash.
    one, other = "anna.schmidt.@!+.__..x0", "anna.schmidt.~@~~_!..x0"
    assert safe_slug(one) == safe_slug(other)
    assert names.user_slug(one) != names.user_slug(other)


@given(st.text(min_size=1))
def test_a_slug_is_safe_as_a_path_and_a_container_name(name):
    slug = names.user_slug(name)
    assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", slug)
    assert len(slug) <= 54


@given(st.text(min_size=1))
def test_a_login_name_cannot_forge_a_passwd_entry(name):
    assert not set(names.login_name(name)) & set(":\n\r/ \0")


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "a\0b", "x" * 300, "proj€t", "", "-a", "A", "a--b", "a.b", "1a"]
)
def test_what_is_no_project_name(name):
    assert not names.is_project_name(name)


def test_the_unnamed_server_is_the_default_project():
    assert names.project_of("") == "default"
    assert names.server_of(names.project_of("")) == ""
    assert names.server_of(names.project_of("thesis")) == "thesis"
