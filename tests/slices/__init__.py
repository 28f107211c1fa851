"""What a user's slice does on a real kernel, with nothing of the Hub.

Needs a Docker engine, root, `docker` and `pytest`; it may run alone in a virtual machine:

- ``DS01_SLICE_IMAGE``: an image with a shell, coreutils and perl, instead of our own Debian.
- ``DS01_SLOW``: how many times slower than usual the machine is.
"""
