"""What boots the virtual machine of the slice tests, without booting it."""

from __future__ import annotations

import os
import subprocess
import time
import zipfile
from pathlib import Path

import pytest

from tests.vm import image, machine, payload

REPOSITORY = Path(__file__).parents[2]


# -- The image and its cache -----------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DS01_VM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_any_change_of_what_an_image_is_made_of_names_another_image(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    other.write_text("2")
    keys = [image.key([one, other])]
    one.write_text("12")
    keys.append(image.key([one, other]))
    one.chmod(0o755)
    keys.append(image.key([one, other]))
    keys.append(image.key([one]))
    assert image.key([one]) == keys[-1]
    assert len(set(keys)) == len(keys)


def test_an_image_is_made_of_the_locks_and_of_what_is_copied_into_it():
    names = {path.name for path in image.inputs()}
    assert {"image.py", "requirements.lock", "requirements-test.lock", "ds01-tests"} <= names


def test_an_image_is_built_once(cache, monkeypatch):
    built = []
    monkeypatch.setattr(image, "_build", lambda directory, run: built.append(directory))
    assert image.obtain(print).directory == image.obtain(print).directory
    assert len(built) == 1


def test_what_a_killed_build_left_is_no_image_and_goes(cache, monkeypatch):
    left = cache / "building-killed"
    left.mkdir(parents=True)
    monkeypatch.setattr(image, "_build", lambda directory, run: (directory / "new").touch())
    assert (image.obtain(print).directory / "new").exists()
    assert not left.exists()


def test_a_build_that_fails_shows_its_end_and_is_no_image(cache, monkeypatch):
    monkeypatch.setattr(image, "_build", lambda directory, run: run(["sh", "-c", "echo no; false"]))
    said = []
    with pytest.raises(subprocess.CalledProcessError):
        image.obtain(said.append)
    assert said[-1].endswith("no")
    assert not image.Image(cache / image.key(image.inputs())).directory.exists()


def test_the_locks_are_read_for_the_python_of_the_image(tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "# a comment\n"
        "new==1.0 ; python_full_version < '3.11' \\\n    --hash=sha256:a\n"
        "new==2.0 ; python_full_version >= '3.11' \\\n    --hash=sha256:b \\\n    --hash=sha256:c\n"
        "windows==1.0 ; sys_platform == 'win32' \\\n    --hash=sha256:d\n"
        "playwright==1.0 \\\n    --hash=sha256:e\n"
    )
    assert image.pinned([lock]) == ["new==2.0 --hash=sha256:b --hash=sha256:c"]


# -- What goes in ----------------------------------------------------------------------------


def test_the_wheel_has_every_file_of_the_package(tmp_path):
    wheel = payload.build_wheel(tmp_path)
    command = ["git", "-C", str(REPOSITORY), "ls-files", "ds01_spawner"]
    tracked = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    assert len(tracked) > 100
    missing = set(tracked) - set(zipfile.ZipFile(wheel).namelist())
    assert not {name for name in missing if (REPOSITORY / name).exists()}


# -- The machine -----------------------------------------------------------------------------


@pytest.fixture
def watch(tmp_path):
    """Return `machine.watch` for a shell script in place of a machine."""

    def run(script, *, boot_deadline_s=30, deadline_s=30):
        console, status, output = tmp_path / "console", tmp_path / "status", []
        words = ["sh", "-c", script, "sh", str(console), str(status), str(tmp_path / "pid")]
        result = machine.watch(
            words,
            console,
            status,
            boot_deadline_s=boot_deadline_s,
            deadline_s=deadline_s,
            output=output.append,
        )
        return result, b"".join(output)

    return run


@pytest.mark.parametrize("status", [0, 1, 5])
def test_output_and_exit_status_arrive_as_they_are(watch, status):
    assert watch(f'echo one; echo two; echo {status} >"$2"') == (status, b"one\ntwo\n")


def test_a_machine_that_never_comes_up_is_killed_in_time_and_its_console_shown(watch, tmp_path):
    began = time.monotonic()
    with pytest.raises(machine.MachineError, match=r"(?s)not come up within 0\.5 s.*Kernel panic"):
        watch('echo Kernel panic >"$1"; echo $$ >"$3"; exec sleep 60', boot_deadline_s=0.5)
    assert time.monotonic() - began < 20
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_machine_that_comes_to_no_end_is_killed_in_time(watch, tmp_path):
    with pytest.raises(machine.MachineError, match=r"not done within 0\.5 s"):
        watch('echo up; echo $$ >"$3"; exec sleep 60', deadline_s=0.5)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_machine_that_goes_off_without_a_status_has_not_passed(watch):
    with pytest.raises(machine.MachineError, match=r"(?s)without saying.*out of memory"):
        watch('echo up; echo out of memory >"$1"')
