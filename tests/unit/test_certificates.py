"""Builds and servers trust what this machine trusts, unless somebody says otherwise."""

import pytest

from ds01_spawner import certificates


@pytest.fixture
def system(tmp_path, monkeypatch):
    file = tmp_path / "system.crt"
    file.touch()
    monkeypatch.setattr(certificates, "SYSTEM", file)
    monkeypatch.delenv("DS01_CA_BUNDLE", raising=False)
    return file


def test_the_systems_certificates_are_the_default(system):
    assert certificates.ca_bundle() == system
    system.unlink()
    assert certificates.ca_bundle() is None


def test_another_file_or_none_can_be_named(system, tmp_path, monkeypatch):
    other = tmp_path / "other.crt"
    other.touch()
    monkeypatch.setenv("DS01_CA_BUNDLE", str(other))
    assert certificates.ca_bundle() == other
    monkeypatch.setenv("DS01_CA_BUNDLE", "")
    assert certificates.ca_bundle() is None
    assert certificates.ca_bundle(str(system)) == system


def test_a_file_that_was_named_and_is_not_there_is_an_error(system):
    with pytest.raises(FileNotFoundError, match="no certificate bundle"):
        certificates.ca_bundle("/nowhere.crt")
