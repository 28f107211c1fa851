"""An old toolkit, by which an image could take over the machine, is pointed out."""

import pytest

from ds01_spawner.gpus import toolkit


def printing(**printed):
    """Return a machine on which these commands print this."""

    def run(command):
        try:
            return printed[command[0].replace("-", "_")]
        except KeyError:
            raise FileNotFoundError(command[0]) from None

    return run


@pytest.mark.parametrize("version", ["1.17.8", "1.18.0", "1.18.0-rc.1", "2.0.0"])
def test_a_toolkit_that_was_mended_is_fine(version):
    text = f"NVIDIA Container Toolkit CLI version {version}\ncommit: f202b80a\n"
    assert toolkit.warning(printing(nvidia_ctk=text)) == ""


@pytest.mark.parametrize("version", ["1.17.7", "1.9.0", "1.16.2"])
def test_an_older_one_is_named_with_what_to_do(version):
    text = f"NVIDIA Container Toolkit CLI version {version}\ncommit: 1234\n"
    found = toolkit.warning(printing(nvidia_ctk=text))
    assert f"here is {version}" in found
    assert "Upgrade nvidia-container-toolkit" in found


def test_a_machine_with_the_hook_alone_is_asked_too():
    text = "NVIDIA Container Runtime Hook version 1.14.3\ncommit: 53b24618\n"
    assert "1.14.3" in toolkit.warning(printing(nvidia_container_runtime_hook=text))


def test_a_machine_without_the_toolkit_has_nothing_to_be_warned_of():
    assert toolkit.warning(printing()) == ""


def test_a_toolkit_that_does_not_tell_its_version_is_not_taken_for_a_good_one():
    assert "does not tell" in toolkit.warning(printing(nvidia_ctk="segmentation fault"))


def test_the_machines_own_commands_are_run(tmp_path, monkeypatch):
    command = tmp_path / "nvidia-ctk"
    command.write_text("#!/bin/sh\necho NVIDIA Container Toolkit CLI version 1.13.5\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert "1.13.5" in toolkit.warning()
