"""E-mail to owners of servers, through the site's mail server."""

from __future__ import annotations

import asyncio
import hashlib
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from pathlib import Path
from threading import Timer
from time import monotonic

from ..columns import printable
from ..lone_thread import LoneThread
from . import words
from .addresses import Rule, address_of
from .message import Message, NotSent
from .secret import SecretError, read_secret
from .words import Links

#: Seconds for each answer of the mail server's before it is given the e-mail, until nothing is sent
#: to it any more, and for a message as a whole: what was given up is not delivered later.
ANSWER_S, TALK_S, MESSAGE_S = 10.0, 25.0, 30.0
#: Of what a mail server says, so much is passed on.
_MOST_SAID = 200


@dataclass(frozen=True)
class MailServer:
    """The site's mail server.

    Attributes
    ----------
    security
        ``starttls``, ``tls`` from the first byte on, or ``none``.
    user, password_file
        What to log in with; both empty for no log-in.
    """

    host: str
    port: int
    security: str = "starttls"
    user: str = ""
    password_file: str = ""

    def __str__(self) -> str:
        return f"{self.host}, port {self.port}"

    def send(self, mail: EmailMessage, sender: str, receiver: str, until: float) -> None:
        """Send an e-mail; blocks.

        Parameters
        ----------
        until
            When nothing more is sent, in seconds of the monotonic clock.

        Raises
        ------
        NotSent
            If it could not be sent.
        """
        try:
            with self._connected(until) as server:
                server.send_message(mail, sender, [receiver])
        except smtplib.SMTPRecipientsRefused as error:
            code, said = next(iter(error.recipients.values()))
            raise NotSent(
                f"The mail server {self} does not take e-mail for {receiver}: {_said(code, said)}",
                for_good=code >= 500,
            ) from error
        except smtplib.SMTPDataError as error:
            raise NotSent(
                f"The mail server {self} refuses the e-mail to {receiver}: "
                f"{_said(error.smtp_code, error.smtp_error)}",
                for_good=error.smtp_code >= 500,
            ) from error
        except smtplib.SMTPSenderRefused as error:
            raise NotSent(
                f"The mail server {self} does not take e-mail from mail_sender, {sender}: "
                f"{_said(error.smtp_code, error.smtp_error)}",
                for_all=True,
            ) from error
        except (OSError, smtplib.SMTPException, UnicodeError, SecretError) as error:
            why = _too_long(self) if monotonic() >= until else self._in_words(error)
            raise NotSent(why, for_all=True) from error

    @contextmanager
    def _connected(self, until: float) -> Iterator[smtplib.SMTP]:
        """Give a server that is ready for e-mail; cut off in time, however slow it is."""
        context = ssl.create_default_context()
        server: smtplib.SMTP
        if self.security == "tls":
            server = smtplib.SMTP_SSL(self.host, self.port, timeout=ANSWER_S, context=context)
        else:
            server = smtplib.SMTP(self.host, self.port, timeout=ANSWER_S)
        end = Timer(until - monotonic(), _cut_off, [server])
        end.daemon = True
        end.start()
        try:
            if self.security == "starttls":
                server.starttls(context=context)
            if monotonic() >= until:
                raise TimeoutError
            if self.user:
                server.login(self.user, read_secret(Path(self.password_file)))
            server.ehlo_or_helo_if_needed()
            if server.sock is not None:
                # One that looks for viruses before it takes an e-mail has all the time there is.
                server.sock.settimeout(TALK_S)
            yield server
        finally:
            # What it has taken is sent, whatever it says to this.
            with suppress(OSError):
                server.quit()
            server.close()
            end.cancel()

    def _in_words(self, error: Exception) -> str:
        match error:
            case SecretError():
                return f"smtp_password_file: {error}"
            case smtplib.SMTPAuthenticationError():
                said = _said(error.smtp_code, error.smtp_error)
                return f"The mail server {self} does not take smtp_user and the password: {said}"
            case smtplib.SMTPNotSupportedError():
                return (
                    f"The mail server {self} cannot do what smtp_security and smtp_user ask "
                    f"for: {str(error).rstrip('.')}."
                )
            case smtplib.SMTPResponseException():
                said = _said(error.smtp_code, error.smtp_error)
                return f"The mail server {self} says: {said}"
            case ssl.SSLCertVerificationError():
                return (
                    f"The certificate of the mail server {self} is not trusted: "
                    f"{error.verify_message}."
                )
            case ssl.SSLError():
                return (
                    f"No TLS with the mail server {self}: {error.reason}. Do smtp_security and "
                    "smtp_port go together?"
                )
            case socket.gaierror():
                return f"The name of the mail server {self.host} is not found."
            case TimeoutError():
                return f"The mail server {self} does not answer in {ANSWER_S:g} s."
            case ConnectionRefusedError():
                return f"Nothing listens at the mail server {self}."
        return f"The mail server {self} does not answer: {printable(str(error))[:_MOST_SAID]}."


#: What an e-mail that could not be sent was about.
_ABOUT = {"warned": "about a warning", "stopped": "about a stop", "test": "to try it"}


class Mail:
    """Sends e-mail to who wants it.

    Parameters
    ----------
    server, sender
        Through which, and from whom: an address, with a name before it if there is one.
    rule
        Where a user's e-mail goes, see `address_of`.
    links
        See `words.Links`.
    is_wanted
        Tells whether a user wants any.
    """

    name = "mail"

    def __init__(
        self,
        server: MailServer,
        sender: str,
        rule: Rule,
        links: Links,
        is_wanted: Callable[[str], bool],
    ) -> None:
        self.server = server
        self._sender = sender
        self._rule = rule
        self._links = links
        self._is_wanted = is_wanted
        self._thread = LoneThread("mail")

    async def send(self, message: Message, now: datetime) -> str:
        """See `message.Channel`."""
        if message.kind != "test" and not self._is_wanted(message.user):
            return ""
        try:
            sending = self._thread.run(self._send, message, now, monotonic() + TALK_S)
            receiver = await asyncio.wait_for(sending, MESSAGE_S)
        except asyncio.TimeoutError:
            raise NotSent(_too_long(self.server), for_all=True) from None
        return f"The mail server {self.server} has taken an e-mail to {receiver}."

    def missed(self, message: Message) -> tuple[str, str, str]:
        """See `message.Channel`."""
        return message.user, message.project, f"An e-mail {_ABOUT[message.kind]} could not be sent."

    def receiver(self, username: str) -> str:
        """Return a user's address; may block.

        Raises
        ------
        NotSent
            If there is none.
        """
        try:
            found = address_of(username, self._rule)
        except Exception as error:
            raise NotSent(
                f"c.DS01Spawner.mail_address fails for {username!r:.80}: {error!r:.200}."
            ) from error
        if not found:
            raise NotSent(
                f"c.DS01Spawner.mail_address gives no address for {username!r:.80}.", for_good=True
            )
        return found

    def _send(self, message: Message, now: datetime, until: float) -> str:
        receiver = self.receiver(message.user)
        mail = self.written(message, receiver, now)
        self.server.send(mail, parseaddr(self._sender)[1], receiver, until)
        return receiver

    def written(self, message: Message, receiver: str, now: datetime) -> EmailMessage:
        """Return the e-mail; a header cannot hold what would make another one."""
        name, address = parseaddr(self._sender)
        mail = EmailMessage(policy=SMTP)
        mail["From"] = Address(name, addr_spec=address)
        mail["To"] = Address(addr_spec=receiver)
        mail["Subject"] = words.subject(message)
        mail["Date"] = format_datetime(now)
        # The same at each try: of one that arrives twice, mailboxes can show one.
        same = hashlib.sha256(message.key.encode()).hexdigest()[:32]
        mail["Message-ID"] = f"<{same}@{address.partition('@')[2]}>"
        # No absence note is sent in reply. Source: RFC 3834.
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(words.text(message, self._links, now))
        return mail


def _cut_off(server: smtplib.SMTP) -> None:
    connection = server.sock
    if connection is not None:
        with suppress(OSError):
            # Not TLS's own, which another thread is using.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _too_long(server: MailServer) -> str:
    return f"The mail server {server}, or mail_address, takes longer than {TALK_S:g} s."


def _said(code: int, text: bytes | str) -> str:
    said = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    return f"{code} {printable(' '.join(said.split()))[:_MOST_SAID]}."
