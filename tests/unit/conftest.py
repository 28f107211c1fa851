"""What the unit tests share: a small catalogue and limits."""

import pytest
from hypothesis import HealthCheck, settings

from ds01_spawner.images.catalogue import Catalogue
from ds01_spawner.options import Choices
from ds01_spawner.policy import GIB, Limits
from ds01_spawner.pretend.machine import Machine

# Two busy cores are slow at times; that says nothing about the code.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

CATALOGUE = """
images:
  - name: python
    image: ds01/python:3.11
    framework: Python
    version: "3.11"
    description: Python and nothing else.
    contents: [pip]
  - name: datascience
    image: ds01/datascience:1
    framework: pandas
    version: "1"
    description: Tables and plots.
    contents: [pandas]
"""


@pytest.fixture
def catalogue(tmp_path):
    file = tmp_path / "catalogue.yaml"
    file.write_text(CATALOGUE)
    return Catalogue.load(file)


@pytest.fixture
def limits():
    return Limits(
        cpus=8,
        memory_bytes=16 * GIB,
        memory_swap_bytes=16 * GIB,
        shm_bytes=4 * GIB,
        pids=512,
    )


@pytest.fixture
def choices(catalogue, limits):
    return Choices(catalogue=catalogue, limits=limits)


@pytest.fixture
def pretend(tmp_path, monkeypatch):
    """Return a function that makes a machine of a spec, which this process then finds."""

    def make(spec: str) -> Machine:
        machine = Machine(tmp_path / "gpus", spec)
        for name, value in machine.environment().items():
            monkeypatch.setenv(name, value)
        return machine

    return make
