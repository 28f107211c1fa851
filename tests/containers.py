"""Containers that tests run to their end."""

from __future__ import annotations

from typing import Any

import docker


def output_of(client: docker.DockerClient, image: str, command: list[str], **options: Any) -> bytes:
    """Run a container to its end and return what it printed; fail if it fails.

    Not ``containers.run``: it follows the log, and an engine sometimes has nothing to follow yet of
    a container that ends at once.
    """
    container = client.containers.create(image, command, **options)
    try:
        container.start()
        status = container.wait()["StatusCode"]
        assert status == 0, container.logs()
        printed: bytes = container.logs(stderr=False)
        return printed
    finally:
        container.remove(force=True, v=True)
