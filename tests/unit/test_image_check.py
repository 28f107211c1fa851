"""The trial of a finished image, with code run in this process instead of in a kernel."""

from __future__ import annotations

import contextlib
import io

from ds01_spawner.runtime.image.launch.check import Check, Failed


class Here(Check):
    """Runs code here."""

    def __init__(self) -> None:
        super().__init__(0)

    def _execute(self, code):
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                exec(code, {})
        except Exception as error:  # noqa: BLE001
            raise Failed(f"{type(error).__name__}: {error}") from None
        return printed.getvalue()


def test_what_another_system_would_get_need_not_be_there():
    tried = Here().tried(
        ["packaging", 'no-such-7; sys_platform == "win32"', 'PyYAML; python_version > "3"']
    )

    assert [(found["package"], found["ok"]) for found in tried] == [
        ("packaging", True),
        ("PyYAML", True),
    ]


def test_what_must_be_there_and_is_not_is_told():
    (found,) = Here().tried(["no-such-7"])

    assert not found["ok"]
    assert "not installed" in found["error"]


def test_what_is_there_must_be_importable_marker_or_not(tmp_path, monkeypatch):
    (tmp_path / "broken_7.py").write_text("import no_such_module_7")
    information = tmp_path / "broken_7-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Name: broken-7\nVersion: 1\n")
    (information / "top_level.txt").write_text("broken_7\n")
    monkeypatch.syspath_prepend(tmp_path)

    (found,) = Here().tried(['broken-7; python_version > "3"'])

    assert "no_such_module_7" in found["error"]
