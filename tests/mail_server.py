"""A real mail server on loopback, in the test's own loop or in a thread."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from threading import Thread

from aiosmtpd.smtp import SMTP, AuthResult

from ds01_spawner.messages.mail import MailServer


class Postbox:
    """Keeps what arrives.

    Attributes
    ----------
    letters
        Envelopes, in the order in which they came.
    answers
        What it says to the next messages instead of taking them; the last is said for ever.
    """

    def __init__(self):
        self.letters = []
        self.answers = []
        self.unknown = ""

    async def handle_RCPT(self, server, session, envelope, address, options):
        if self.unknown:
            return self.unknown
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if self.answers:
            return self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        self.letters.append(envelope)
        return "250 Taken"


def certificate(directory):
    """Make a certificate for 127.0.0.1 that nobody has signed, with its key beside it."""
    file = directory / "mail.pem"
    made = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-subj /CN=mail -addext subjectAltName=IP:127.0.0.1"
    )
    files = ["-keyout", str(file.with_suffix(".key")), "-out", str(file)]
    subprocess.run([*made.split(), *files], check=True, capture_output=True)
    return file


@asynccontextmanager
async def serving(postbox, *, tls=None, at_once=False, login=None):
    """Serve, and give the `MailServer` that leads there.

    Parameters
    ----------
    tls
        A certificate's file; without it there is no encryption.
    at_once
        Whether TLS comes from the first byte on.
    login
        The name and the password that it takes.
    """
    context = None
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls, tls.with_suffix(".key"))

    def check(server, session, envelope, mechanism, data):
        given = (data.login.decode(), data.password.decode())
        return AuthResult(success=given == login, handled=False)

    def made():
        return SMTP(
            postbox,
            tls_context=None if at_once else context,
            require_starttls=tls is not None and not at_once,
            authenticator=check if login else None,
            auth_required=login is not None,
            # What it means is "encrypted", which it does not see of a connection that began so.
            auth_require_tls=not at_once,
        )

    listening = await asyncio.get_running_loop().create_server(
        made, "127.0.0.1", 0, ssl=context if at_once else None
    )
    port = listening.sockets[0].getsockname()[1]
    security = "none" if tls is None else "tls" if at_once else "starttls"
    try:
        yield MailServer("127.0.0.1", port, security)
    finally:
        listening.close()


@contextmanager
def serving_in_thread(postbox: Postbox) -> Iterator[MailServer]:
    """Serve without encryption for a test that has no loop, and give the `MailServer`."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    served = serving(postbox)
    try:
        yield asyncio.run_coroutine_threadsafe(served.__aenter__(), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(served.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
