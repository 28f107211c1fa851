"""The frameworks' images: built on request, offered once they are here, and they compute."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import docker
import pytest
import requests

from ds01_spawner import buildkit
from ds01_spawner.certificates import ca_bundle
from ds01_spawner.images import bases
from tests.hub import Hub, User

CPU = "ds01-test/jax:cpu"
JAX = bases.IMAGES / "jax"
#: What the image of PyTorch takes while it is built.
_LARGE_BYTES = 25 * 1024**3


@pytest.fixture(scope="module")
def hub(built, tmp_path_factory) -> Iterator[Hub]:
    deployment = Hub(tmp_path_factory.mktemp("hub"), "frameworks", portal=True)
    deployment.add_image("asked-for", "ds01-test/never:1", on_request=True)
    deployment.configure("c.DS01Spawner.lowest_free_disk = '1G'\n")
    try:
        deployment.start()
        yield deployment
    finally:
        deployment.close()


@pytest.fixture(scope="module")
def user(hub) -> User:
    return hub.user("ada")


def bases_of(user: User) -> list[str]:
    answer = requests.get(
        f"{user.hub.url}/services/ds01/api/images",
        headers={"Authorization": f"token {user.token}"},
        timeout=30,
    )
    return [base["name"] for base in answer.json()["bases"]]


def test_what_is_not_here_is_not_offered_and_says_how_it_comes(user):
    refused = user.ask(image="asked-for")
    build = requests.post(
        f"{user.hub.url}/services/ds01/api/images",
        headers={"Authorization": f"token {user.token}"},
        json={"project": "new", "base": "asked-for"},
        timeout=30,
    )

    for answer in (refused, build):
        assert answer.status_code in (400, 409)
        assert "'ds01 images build asked-for' brings it" in answer.json()["message"]
    assert "asked-for" not in bases_of(user)


def test_jax_takes_a_gradient_in_a_notebook(hub, user):
    # The smaller form of the same image, without NVIDIA's libraries.
    with buildkit.site_secrets(ca_bundle()) as secrets:
        lock = {"LOCK": "requirements-cpu.lock"}
        buildkit.build(JAX, CPU, secrets=secrets, arguments=lock, log=print)
    hub.add_image("jax-cpu", CPU, on_request=True)
    assert "jax-cpu" in bases_of(user)

    server = user.start("jax", image="jax-cpu", memory="2g")
    try:
        printed = server.run(
            "import jax, optax, flax\nprint(jax.__version__, float(jax.grad(lambda x: x**3)(2.0)))",
            within_s=180,
        )
    finally:
        user.stop("jax")
    assert "0.10.2 12.0" in printed


@pytest.mark.long
def test_pytorch_takes_a_gradient_in_a_notebook(hub, user):
    client = docker.from_env()
    tag = next(entry.image for entry in bases.catalogue() if entry.name == "pytorch")
    if tag not in {name for image in client.images.list() for name in image.tags}:
        free = shutil.disk_usage(client.info()["DockerRootDir"]).free
        assert free > _LARGE_BYTES, "PyTorch's image needs 25 GiB of free disk to be built"
        assert bases.build_bases(client, ca_bundle(), only=[tag], details=print) == (tag,)

    server = user.start("torch", image="pytorch", memory="4g")
    try:
        printed = server.run(
            "import torch\n"
            "x = torch.tensor(2.0, requires_grad=True)\n"
            "(x**3).backward()\n"
            "print(torch.__version__, x.grad.item(), torch.cuda.is_available())",
            within_s=300,
        )
    finally:
        user.stop("torch")
    assert "12.0 False" in printed
