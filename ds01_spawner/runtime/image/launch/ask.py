"""Asks the portal, with the server's own token."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

#: Seconds for an answer; a log's next line may take as long as a build's step.
_PATIENCE_S = 60
_LONG_PATIENCE_S = 3600


class Failure(Exception):
    """There is no answer, or it is no; the text says why.

    Attributes
    ----------
    status
        The portal's, such as 409; 0 if it did not answer.
    """

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class Portal:
    """The portal, as a server reaches it.

    Parameters
    ----------
    environment
        The server's variables, with the portal's address and the token.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._url = environment.get("DS01_URL", "")
        self._token = environment.get("JUPYTERHUB_API_TOKEN", "")
        self.user = environment.get("JUPYTERHUB_USER") or environment.get("DS01_USER", "")
        self.project = environment.get("DS01_PROJECT", "")

    def ask(self, method: str, path: str, body: Any = None, patience_s: float = _PATIENCE_S) -> Any:
        """Return the portal's answer, None where it has nothing to say; blocks.

        Raises
        ------
        Failure
            If there is none, or it is no.
        """
        with self._open(method, path, body, patience_s) as answer:
            content = answer.read()
        try:
            return json.loads(content) if content else None
        except ValueError as error:
            raise _silent(error) from error

    def events(self, path: str) -> Iterator[tuple[str, Any]]:
        """Yield the name and content of each server-sent event.

        Raises
        ------
        Failure
            If there is no answer, or it breaks off.
        """
        name = "message"
        with self._open("GET", path, None, _LONG_PATIENCE_S) as answer:
            try:
                for raw in answer:
                    key, _, value = raw.decode("utf-8", "replace").rstrip("\n").partition(": ")
                    if key == "event":
                        name = value
                    elif key == "data":
                        yield name, json.loads(value)
                        name = "message"
            except (OSError, ValueError) as error:
                raise _silent(error) from error

    def _open(self, method: str, path: str, body: Any, patience_s: float) -> Any:
        if not self._url or not self._token:
            raise Failure("this server knows of no portal to ask.")
        request = urllib.request.Request(
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {self._token}", "Content-Type": "application/json"},
        )
        # No web proxy is between a server and its own machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            return opener.open(request, timeout=patience_s)
        except urllib.error.HTTPError as error:
            raise Failure(_message(error), error.code) from error
        except (OSError, ValueError) as error:
            raise _silent(error) from error


def _silent(error: Exception) -> Failure:
    return Failure(f"the portal does not answer ({error}); try again in a minute.")


def _message(error: urllib.error.HTTPError) -> str:
    """Return what the portal says against it."""
    try:
        return str(json.load(error)["message"])
    except (ValueError, LookupError, TypeError):
        return f"the portal says {error.code} {error.reason}."
