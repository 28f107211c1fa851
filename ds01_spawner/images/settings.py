"""What an admin configures of image builds; who may build, and how much, is policy."""

from __future__ import annotations

from jupyterhub.traitlets import ByteSpecification
from traitlets import Float, Int, Unicode
from traitlets.config import Configurable


class ImageSettings(Configurable):
    """The traits of `DS01Spawner` for image builds."""

    package_index = Unicode(
        "",
        help="""
        Address of the package index that builds of images use, such as
        `https://pypi.example.org/simple`. Empty: the one that pip on this machine uses.
        """,
    ).tag(config=True)

    wheels_directory = Unicode(
        "",
        help="""
        Directory with wheels of the site's own. In builds of images, packages that are in it come
        from it, whatever versions the index has. It is read anew by each build.
        """,
    ).tag(config=True)

    builds_at_once = Int(
        1, min=1, help="Images that are built at the same time; of one user there is one."
    ).tag(config=True)

    build_cpus = Float(2.0, min=0.1, help="CPUs of all image builds together.").tag(config=True)

    build_memory = ByteSpecification(8 * 1024**3, help="Memory of all image builds together.").tag(
        config=True
    )

    build_pids = Int(4096, min=64, help="Processes and threads of all image builds together.").tag(
        config=True
    )

    lowest_free_disk = ByteSpecification(
        10 * 1024**3, help="With less free room than this where images lie, none is built."
    ).tag(config=True)

    build_cache_size = ByteSpecification(
        20 * 1024**3,
        help="""
        What builds of images may leave behind in Docker's cache, beyond what is in images. More is
        removed after each build, the least recently used first, so that it is built anew when it is
        needed.
        """,
    ).tag(config=True)
