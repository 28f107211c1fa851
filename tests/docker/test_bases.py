"""Building the catalogue's images on a real engine: once, again when something changed."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import docker.errors
import pytest

from ds01_spawner.buildkit import BuildError
from ds01_spawner.images import bases
from tests.containers import output_of

ENTRY = """
  - name: {name}
    image: {tag}
    framework: test
    version: "1"
    description: For a test.
"""


@pytest.fixture
def client():
    return docker.from_env()


class Lab:
    """A catalogue of images that are built in a moment, on the project's own Debian."""

    def __init__(self, directory: Path, client: docker.DockerClient) -> None:
        self.directory = directory
        self.client = client
        self.prefix = f"ds01-test-{uuid.uuid4().hex[:8]}"
        (directory / "catalogue.yaml").write_text("images:")
        # The real one, so that it counts as built.
        (directory / "debian").symlink_to(bases.IMAGES / "debian")

    def tag(self, name: str) -> str:
        return f"{self.prefix}/{name}:1"

    def add(self, name: str, parent: str, lines: str = "", more: str = "") -> None:
        (self.directory / name).mkdir()
        (self.directory / name / "Dockerfile").write_text(f"FROM {parent}\n{lines}\n")
        with (self.directory / "catalogue.yaml").open("a") as catalogue:
            catalogue.write(ENTRY.format(name=name, tag=self.tag(name)) + more)

    def build(self, **options) -> tuple[str, ...]:
        return bases.build_bases(self.client, log=print, images=self.directory, **options)

    def stale(self) -> tuple[str, ...]:
        return bases.stale(self.client, self.directory)

    def image(self, name: str):
        return self.client.images.get(self.tag(name))

    def read(self, name: str, path: str) -> str:
        return output_of(self.client, self.tag(name), ["cat", path]).decode()


@pytest.fixture
def lab(built, client, tmp_path):
    lab = Lab(tmp_path, client)
    yield lab
    for image in client.images.list(filters={"reference": f"{lab.prefix}/*"}):
        client.images.remove(image.id, force=True)


def test_the_bases_are_there_and_have_no_jupyter(built, client):
    assert bases.stale(client) == ()
    for tag in ("ds01/python:3.11", "ds01/datascience:2026.11"):
        listed = output_of(client, tag, ["pip", "list", "--format=freeze"])
        assert b"pip==" in listed
        assert b"jupyter" not in listed.lower()
        assert b"ipykernel" not in listed.lower()


def test_the_data_science_set_can_be_imported(built, client):
    program = "import pandas, scipy, sklearn, matplotlib.pyplot, seaborn; print(pandas.__name__)"
    printed = output_of(
        client,
        "ds01/datascience:2026.11",
        ["python", "-c", program],
        network_mode="none",
    )
    assert printed == b"pandas\n"


def test_the_sites_certificates_and_settings_stay_out_of_the_bases(built, client):
    for tag in ("ds01/python:3.11", "ds01/datascience:2026.11"):
        find = ["find", "/run", "-name", "ca", "-o", "-name", "pip"]
        found = output_of(client, tag, find)
        assert found == b""


def test_a_second_build_does_nothing(lab):
    lab.add("one", bases.DEBIAN, "RUN echo 1 > /made")

    assert lab.stale() == (lab.tag("one"),)
    assert lab.build() == (lab.tag("one"),)
    first = lab.image("one").id
    assert lab.stale() == ()
    assert lab.build() == ()
    assert lab.image("one").id == first


def test_what_is_on_request_is_built_when_it_is_named_and_then_kept_up_to_date(lab):
    lab.add("one", bases.DEBIAN, "RUN echo 1 > /made")
    lab.add("large", lab.tag("one"), "RUN echo 2 > /made", "    on_request: true\n")

    assert lab.build() == (lab.tag("one"),)
    assert lab.stale() == ()
    assert lab.build(only=[lab.tag("large")]) == (lab.tag("large"),)
    (lab.directory / "large" / "Dockerfile").write_text(f"FROM {lab.tag('one')}\nRUN echo 3\n")
    assert lab.stale() == (lab.tag("large"),)
    assert lab.build() == (lab.tag("large"),)


def test_two_builds_at_once_build_everything_once(lab):
    lab.add("parent", bases.DEBIAN, "RUN sleep 1")
    lab.add("child", lab.tag("parent"), "RUN true")

    with ThreadPoolExecutor() as pool:
        built = [future.result() for future in [pool.submit(lab.build) for _ in range(2)]]

    assert sorted(built) == [(), (lab.tag("parent"), lab.tag("child"))]
    assert lab.stale() == ()


def test_a_change_rebuilds_the_image_and_what_builds_on_it(lab):
    # The child comes first in the catalogue: the order there is the form's, not the builds'.
    lab.add("child", lab.tag("parent"), "RUN cat /made > /copied")
    lab.add("parent", bases.DEBIAN, "COPY made /made")
    lab.add("other", bases.DEBIAN, "RUN true")
    (lab.directory / "parent" / "made").write_text("first")
    assert lab.build() == (lab.tag("parent"), lab.tag("child"), lab.tag("other"))

    replaced = [lab.image(name).id for name in ("parent", "child")]
    (lab.directory / "parent" / "made").write_text("second")
    assert lab.build() == (lab.tag("parent"), lab.tag("child"))

    assert lab.read("child", "/copied") == "second"
    for image_id in replaced:
        with pytest.raises(docker.errors.ImageNotFound):
            lab.client.images.get(image_id)


def test_an_image_in_use_survives_its_replacement(lab):
    lab.add("one", bases.DEBIAN, "RUN echo 1 > /made")
    lab.build()
    before = lab.image("one").id
    container = lab.client.containers.create(lab.tag("one"), ["cat", "/made"])
    try:
        (lab.directory / "one" / "Dockerfile").write_text(f"FROM {bases.DEBIAN}\nRUN true\n")
        lab.build()

        assert lab.image("one").id != before
        container.start()
        assert container.wait()["StatusCode"] == 0
        assert container.logs() == b"1\n"
    finally:
        container.remove(force=True)
        lab.client.images.remove(before, force=True)


def test_a_failed_build_keeps_the_image_that_worked(lab):
    lab.add("one", bases.DEBIAN, "RUN echo 1 > /made")
    lab.build()
    before = lab.image("one").id
    (lab.directory / "one" / "Dockerfile").write_text(f"FROM {bases.DEBIAN}\nRUN echo no; exit 7\n")

    with pytest.raises(BuildError, match=r"(?s)Building .* failed.*exit code: 7"):
        lab.build()
    assert lab.image("one").id == before


def test_images_that_build_on_each_other_are_refused(lab):
    lab.add("hen", lab.tag("egg"))
    lab.add("egg", lab.tag("hen"))

    with pytest.raises(BuildError, match="build on each other"):
        lab.build()


def test_a_dockerfile_without_from_is_refused(lab):
    lab.add("one", bases.DEBIAN)
    (lab.directory / "one" / "Dockerfile").write_text("RUN true\n")

    with pytest.raises(BuildError, match="has no FROM line"):
        lab.build()


def test_only_what_was_asked_for_is_built(lab):
    lab.add("one", bases.DEBIAN, "RUN true")
    lab.add("two", bases.DEBIAN, "RUN true")

    assert lab.build(only=[lab.tag("two")]) == (lab.tag("two"),)
    assert lab.stale() == (lab.tag("one"),)


def test_secrets_reach_the_build_and_not_the_image(lab, tmp_path):
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("-- the site's own --")
    lab.add(
        "one", bases.DEBIAN, "RUN --mount=type=secret,id=ca grep -c site /run/secrets/ca > /seen"
    )
    lab.build(ca_bundle=bundle)

    assert lab.read("one", "/seen") == "1\n"
    found = output_of(
        lab.client,
        lab.tag("one"),
        ["grep", "-rl", "the site's own --", "/run", "/etc", "/tmp"],
        entrypoint=["sh", "-c", '"$0" "$@" || echo none'],
    )
    assert found == b"none\n"
