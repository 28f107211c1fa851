"""A server that is not under its user's slice is stopped, and one that has ended is told so."""

from __future__ import annotations

import os

import pytest

from ds01_spawner import comparison
from ds01_spawner.comparison import Meant, compare
from ds01_spawner.errors import Refused

MEANT = Meant("ann:thesis", "python", (), (), (), (), "ds01-ann.slice")


def test_a_container_somewhere_else_is_refused_and_the_log_says_where(monkeypatch, caplog):
    monkeypatch.setattr(comparison, "slice_of", lambda pid: "ds01-ben.slice")
    with pytest.raises(Refused, match="limits over all of your servers") as refused:
        compare(MEANT, os.getpid())
    assert refused.value.status_code == 503
    assert "ann:thesis" in caplog.text
    assert "it is under ds01-ben.slice, not ds01-ann.slice" in caplog.text


def test_a_container_that_has_ended_is_no_container_somewhere_else(monkeypatch):
    monkeypatch.setattr(comparison, "slice_of", lambda pid: None)
    with pytest.raises(ProcessLookupError):
        compare(MEANT, 2**22 + 1)
