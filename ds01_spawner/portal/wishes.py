"""Who wants e-mail before a server stops, and where it goes."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from ..errors import Refused
from ..lone_thread import LoneThread
from ..messages.addresses import address_of
from ..settings import DS01Settings
from .lately import Lately

_LOG = logging.getLogger(__name__)

#: Seconds for the site to say where somebody's e-mail goes, and for which that counts.
_PATIENCE_S = 2.0
_AGE_S = 60.0


@dataclass(frozen=True)
class Wish:
    """Whether somebody wants e-mail, and where it goes.

    Attributes
    ----------
    address
        Empty if they have none, None if that cannot be found out.
    """

    wanted: bool
    address: str | None


class Wishes:
    """Keeps who wants e-mail, and finds where it goes.

    Parameters
    ----------
    settings
        The spawner's settings.
    """

    def __init__(self, settings: DS01Settings) -> None:
        self._settings = settings
        self._thread = LoneThread("addresses")
        self._lately: Lately[str | None] = Lately(_AGE_S)

    async def of(self, user: str) -> Wish | None:
        """Return what somebody wants; None if the site sends no e-mail."""
        if not self._settings.smtp_host:
            return None
        address = await self._lately.get(user, lambda: self._address(user))
        return Wish(self._settings.message_records.wants_mail(user), address)

    def change(self, user: str, wanted: bool) -> None:
        """Keep what somebody wants.

        Raises
        ------
        Refused
            409 if the site sends no e-mail.
        """
        if not self._settings.smtp_host:
            raise Refused("This site sends no e-mail.", reason="mail", status_code=409)
        self._settings.message_records.set_wants_mail(user, wanted)

    async def _address(self, user: str) -> str | None:
        try:
            finding = self._thread.run(address_of, user, self._settings.mail_address)
            return str(await asyncio.wait_for(finding, _PATIENCE_S))
        except Exception as error:  # noqa: BLE001
            # The site's own function may raise anything; the page is there without it.
            _LOG.warning("c.DS01Spawner.mail_address fails for %.80r: %.200r", user, error)
            return None
