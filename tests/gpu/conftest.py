"""A second engine with a stand-in for NVIDIA's toolkit, a pretended machine, a Hub on both."""

import contextlib
import os
from pathlib import Path

import pytest

from ds01_spawner import runtime
from ds01_spawner.images.bases import DEBIAN

from .engine import GpuEngine
from .hub import GpuHub
from .machine import SPEC, Pretended

#: The catalogue's first image, for servers that name none.
PYTHON = "ds01/python:3.11"


def pytest_collection_modifyitems(items):
    """Mark what lies here; pytest hands over the tests of other folders too."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def gpu_engine():
    """Return an engine of the tests' own; everything in this process speaks to it from now on."""
    with GpuEngine() as engine, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", engine.url)
        # Back ends look for the hook where the Hub runs.
        patch.setenv("PATH", f"{engine.toolkit.bin}:{os.environ['PATH']}")
        engine.borrow_images(DEBIAN, PYTHON)
        engine.borrow_volume(runtime.volume_name())
        yield engine


@pytest.fixture(scope="session")
def engine(gpu_engine):
    """Return a low-level client of the tests' own engine."""
    return gpu_engine.client


@pytest.fixture(scope="session")
def built(gpu_engine):
    """See to it that Hubs here find the base images and the runtime, which are borrowed."""


@pytest.fixture
def on_machine(gpu_engine, tmp_path):
    """Return a function that pretends a machine, on which the engine's toolkit then is.

    The same machine is given again for the same spec; the toolkit behaves until a test says
    otherwise.
    """
    made = {}

    def pretend(spec=SPEC):
        if spec not in made:
            made[spec] = Pretended(tmp_path / f"machine-{len(made)}", spec)
        gpu_engine.toolkit.knows(made[spec].devices, made[spec].capabilities)
        return made[spec]

    gpu_engine.toolkit.behave()
    yield pretend
    gpu_engine.toolkit.behave()


@pytest.fixture
def machine(on_machine):
    """Return a machine with a whole GPU and one that is cut into seven."""
    return on_machine()


@pytest.fixture
def partition(gpu_engine):
    """Return a function that cuts a GPU of a Hub's machine anew, as its toolkit sees at once."""

    def cut(hub, gpu, text):
        hub.machine.partition(gpu, text)
        gpu_engine.toolkit.knows(hub.machine.devices, hub.machine.capabilities)

    return cut


@pytest.fixture
def make_gpu_hub(on_machine, built, tmp_path):
    """Return a function that makes Hubs, not started: to configure, kill and start again.

    Parameters of the function
    --------------------------
    spec
        The machine; see docs/pretended-gpus.md.
    name
        Two Hubs in a test need two.
    backend
        How devices are attached; by default with the stand-in for NVIDIA's toolkit.
    services
        Which of `portal` and `culler` run beside it.
    """
    with contextlib.ExitStack() as closing:

        def make(spec=SPEC, name="gpu", backend="device-requests", **services):
            machine = on_machine(spec)
            deployment = GpuHub(tmp_path / f"hub-{name}", name, machine, backend, **services)
            closing.callback(deployment.close)
            return deployment

        yield make


@pytest.fixture
def gpu_hub(make_gpu_hub):
    """Return a Hub on `machine`, not started."""
    return make_gpu_hub()
