"""Make the secrets of a Hub that are not there yet: ``make_secrets.py DIRECTORY``.

They are made once; delete a file and start the Hub again for a new one.
"""

import os
import secrets
import sys
from pathlib import Path

# Typed by a whole class: no letters and digits that look alike.
LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"


def password_to_type() -> str:
    """Return 16 random characters in groups of four: 80 bits."""
    return "-".join("".join(secrets.choice(LETTERS) for _ in range(4)) for _ in range(4))


MAKERS = {
    # JupyterHub wants at least 32 characters.
    "admin-password": lambda: secrets.token_urlsafe(32),
    "user-password": password_to_type,
    "cookie-secret": lambda: secrets.token_hex(32),
    "portal-token": lambda: secrets.token_hex(32),
    "culler-token": lambda: secrets.token_hex(32),
    "proxy-token": lambda: secrets.token_hex(32),
}


def make(directory: Path) -> None:
    """Write each missing secret, readable by its owner only, whole or not at all."""
    directory.mkdir(mode=0o700, exist_ok=True)
    for name, maker in MAKERS.items():
        if (directory / name).exists():
            continue
        new = directory / f".{name}.new"
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(maker() + "\n")
        new.replace(directory / name)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
