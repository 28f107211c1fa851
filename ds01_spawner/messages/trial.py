"""A message that an admin sends to see whether messages arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from ..clock import utc_now
from ..deployment import Deployment, read_deployment
from .message import Message, NotSent


def send(configuration: Path, user: str, say: Callable[[str], None]) -> list[str]:
    """Send a user a test through each channel, whether they want e-mail or not.

    Parameters
    ----------
    configuration
        The Hub's configuration file.
    say
        Is told what was done.

    Returns
    -------
    list of str
        What went wrong.

    Raises
    ------
    Exception
        Whatever goes wrong in the file, which is a program.
    """
    deployment = read_deployment(configuration)
    return list(deployment.settings.message_problems()) or asyncio.run(_send(deployment, user, say))


async def _send(deployment: Deployment, user: str, say: Callable[[str], None]) -> list[str]:
    records = deployment.settings.message_records
    channels = deployment.settings.channels(records, deployment.links)
    if not channels:
        return ["Nothing is set: c.DS01Spawner.smtp_host or c.DS01Spawner.webhook_url."]
    now = utc_now()
    why = "An admin has sent this to see whether it arrives. There is nothing to do."
    message = Message(f"test {user} {now.isoformat()}", "test", user, "default", why, now)
    problems = []
    for channel in channels:
        try:
            said = await channel.send(message, now)
            say(said)
        except NotSent as error:
            problems.append(str(error))
    if not records.wants_mail(user):
        say(f"{user} has switched e-mail off, and gets this one only.")
    if not deployment.links.home:
        say("Messages name no page: set c.JupyterHub.public_url.")
    return problems
