"""E-mail before a server stops: the switch on My limits, and the same over the API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, StrictBool

from .answers import Api, Page
from .operations import WRITE, operation
from .wishes import Wish


class Wanted(BaseModel):
    """Whether you want e-mail before a server of yours is stopped."""

    model_config = ConfigDict(extra="forbid")

    wanted: StrictBool


class Mail(BaseModel):
    """Whether the site sends e-mail before a server is stopped, whether you want it, and where to.

    The address is null if none is known.
    """

    sent_here: bool
    wanted: bool
    address: str | None

    @classmethod
    def of(cls, wish: Wish | None) -> Mail:
        """Return what is told of a wish."""
        if wish is None:
            return cls(sent_here=False, wanted=False, address=None)
        return cls(sent_here=True, wanted=wish.wanted, address=wish.address or None)


class OwnMail(Api):
    """``api/mail``."""

    @operation("Show whether you get e-mail before a server of yours is stopped", answer=Mail)
    async def get(self) -> None:
        """Answer it."""
        person = await self.answered(self.person())
        self.answer(Mail.of(await self.look.wishes.of(person.name)))

    @operation("Switch that e-mail on or off", scope=WRITE, body=Wanted, answer=Mail)
    async def put(self) -> None:
        """Switch it, and answer how it is."""
        wanted = self.sent(Wanted).wanted
        person = await self.answered(self.person())

        async def change() -> Wish | None:
            self.look.wishes.change(person.name, wanted)
            return await self.look.wishes.of(person.name)

        self.answer(Mail.of(await self.answered(change())))


class MailSwitch(Page):
    """``mail``: the switch on My limits."""

    async def post(self) -> None:
        """Keep what the viewer wants, and go back."""
        person = await self.answered(self.person())

        async def change() -> None:
            # A switch that is off is not sent.
            self.look.wishes.change(person.name, self.get_body_argument("wanted", "") == "yes")

        await self.answered(change())
        self.redirect(f"{self.site.prefix}#mail", status=303)


def routes(prefix: str, arguments: dict[str, Any]) -> Iterable[tuple[str, type[Api], Any]]:
    """Return the address of the answer above."""
    return [(rf"{prefix}api/mail", OwnMail, arguments)]


def page_routes(prefix: str, arguments: dict[str, Any]) -> Iterable[tuple[str, type[Page], Any]]:
    """Return the address of the page above."""
    return [(rf"{prefix}mail", MailSwitch, arguments)]
