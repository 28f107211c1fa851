"""What an admin configures of messages; whether owners want e-mail is theirs."""

from __future__ import annotations

from collections.abc import Iterator
from email.utils import parseaddr
from pathlib import Path
from urllib.parse import urlsplit

from traitlets import Callable, Enum, Int, Unicode, Union
from traitlets.config import Configurable

from .addresses import USERNAME, is_address
from .mail import Mail, MailServer
from .message import Channel
from .records import MessageRecords
from .secret import SecretError, read_secret
from .webhook import Webhook
from .words import Links

_PORTS = {"starttls": 587, "tls": 465, "none": 25}


class MessageSettings(Configurable):
    """The traits of `DS01Spawner` for e-mail and the webhook, and what is made from them."""

    smtp_host = Unicode(
        "",
        help="""
        Name of the mail server that takes e-mail to owners of servers. Empty: none is sent.
        """,
    ).tag(config=True)

    smtp_port = Int(
        0,
        min=0,
        max=65535,
        help="Its port; 0 for the usual one: 587 with STARTTLS, 465 with TLS, 25 with neither.",
    ).tag(config=True)

    smtp_security = Enum(
        list(_PORTS),
        "starttls",
        help="""
        How the connection to it is encrypted: `"starttls"`, `"tls"` from the first byte on, or
        `"none"`. Its certificate must be trusted by this machine.
        """,
    ).tag(config=True)

    smtp_user = Unicode("", help="What to log in to it with; empty for no log-in.").tag(config=True)

    smtp_password_file = Unicode(
        "",
        help="File with the password of `smtp_user`, for nobody but root to read.",
    ).tag(config=True)

    mail_sender = Unicode(
        "", help="From whom e-mail comes, such as `DS01 <ds01@uni.example>`."
    ).tag(config=True)

    mail_address = Union(
        [Unicode(), Callable()],
        default_value="",
        help="""
        Where e-mail to a user goes, such as `"{username}@uni.example"`, or `"{username}"` where
        people log in with their address. Or a function that is given the name and returns the
        address, or None for nobody's; it may take a few seconds.
        """,
    ).tag(config=True)

    webhook_url = Unicode(
        "",
        help="""
        Address of a program of the site's that is told of each warning and stop, such as a bridge
        to a chat: JSON is sent there. Empty: nothing is sent.
        """,
    ).tag(config=True)

    webhook_secret_file = Unicode(
        "",
        help="""
        File with the key that signs what is sent to `webhook_url`, for nobody but root to read.
        Empty: it is not signed.
        """,
    ).tag(config=True)

    def message_problems(self) -> Iterator[str]:
        """Give what is wrong in these settings, and what to do."""
        if self.smtp_host:
            yield from self._mail_problems()
        if self.webhook_url:
            try:
                found = urlsplit(self.webhook_url)
                is_usable = found.scheme in ("http", "https") and bool(found.hostname)
            except ValueError:
                is_usable = False
            if not is_usable:
                yield "c.DS01Spawner.webhook_url must begin with https:// or http:// and a name."
            if self.webhook_secret_file:
                yield from _unreadable("webhook_secret_file", self.webhook_secret_file)

    def channels(self, records: MessageRecords, links: Links) -> list[Channel]:
        """Return what messages go through."""
        found: list[Channel] = []
        if self.smtp_host:
            found.append(self._mail(records, links))
        if self.webhook_url:
            found.append(Webhook(self.webhook_url, self.webhook_secret_file, links))
        return found

    def _mail(self, records: MessageRecords, links: Links) -> Mail:
        server = MailServer(
            self.smtp_host,
            self.smtp_port or _PORTS[self.smtp_security],
            self.smtp_security,
            self.smtp_user,
            self.smtp_password_file,
        )
        return Mail(server, self.mail_sender, self.mail_address, links, records.wants_mail)

    def _mail_problems(self) -> Iterator[str]:
        is_plain = self.mail_sender.isprintable()
        if not (is_plain and is_address(parseaddr(self.mail_sender)[1])):
            yield (
                "c.DS01Spawner.smtp_host is set, so c.DS01Spawner.mail_sender must be an address, "
                "such as 'DS01 <ds01@uni.example>'."
            )
        if not callable(self.mail_address) and USERNAME not in self.mail_address:
            yield (
                "c.DS01Spawner.smtp_host is set, so c.DS01Spawner.mail_address must say where "
                "e-mail to a user goes, such as '{username}@uni.example'."
            )
        if bool(self.smtp_user) != bool(self.smtp_password_file):
            yield "c.DS01Spawner.smtp_user and c.DS01Spawner.smtp_password_file go together."
        elif self.smtp_user and self.smtp_security == "none":
            yield (
                "c.DS01Spawner.smtp_security is 'none': the password of smtp_user would cross the "
                "network unencrypted. Use 'starttls' or 'tls', or no smtp_user."
            )
        elif self.smtp_password_file:
            yield from _unreadable("smtp_password_file", self.smtp_password_file)


def _unreadable(trait: str, file: str) -> Iterator[str]:
    try:
        read_secret(Path(file))
    except SecretError as error:
        yield f"c.DS01Spawner.{trait}: {error}"
