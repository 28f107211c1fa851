"""Where e-mail to a user goes: by a rule of the site's."""

from __future__ import annotations

import re
from collections.abc import Callable

#: In a rule, where the name of the user comes.
USERNAME = "{username}"
#: Nothing that a mail server takes for a second address, a route or a comment.
_ADDRESS = re.compile(r"[\w.+'-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)*[A-Za-z0-9-]{1,63}", re.ASCII)
_LONGEST = 254

Rule = str | Callable[[str], str | None]


def is_address(text: str) -> bool:
    """Tell whether something is one plain address."""
    return len(text) <= _LONGEST and bool(_ADDRESS.fullmatch(text))


def address_of(username: str, rule: Rule) -> str:
    """Return a user's address; empty if the rule gives none, or none that is one.

    Parameters
    ----------
    rule
        With ``{username}`` in it, or called with the name. It may block.

    Raises
    ------
    Exception
        Whatever a rule that is called raises.
    """
    made = rule(username) if callable(rule) else rule.replace(USERNAME, username)
    return made if isinstance(made, str) and is_address(made) else ""
