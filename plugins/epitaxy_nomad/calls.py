"""Requests to NOMAD's API, one by one or page by page, with its refusals explained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from epitaxy.errors import SourceError
from epitaxy.web import Client, RefusedError
from epitaxy_nomad.archive import section
from epitaxy_nomad.refusals import explained

PAGE = 100
"""Uploads, entries or files per request."""


def quoted(text: str) -> str:
    """Return an id as one part of an address, whatever it is made of."""
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


class Calls:
    """Asks one NOMAD.

    Args:
        url: address of the API.
        client: what sends the requests.
    """

    def __init__(self, url: str, client: Client):
        self.url = url
        self.client = client

    def ask(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        about: str = "",
        body: Any = None,
        stream: Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        once: bool = False,
    ) -> Any:
        """Return the parsed answer to one request; the arguments are those of `Client.ask`.

        Raises:
            NomadRefusalError: NOMAD refuses; the message says what `about` it was asked.
            SourceError: it cannot be reached, or answers nonsense.
        """
        try:
            return self.client.ask(
                method,
                path,
                params or {},
                body=body,
                stream=stream,
                headers=headers or {},
                once=once,
            )
        except RefusedError as error:
            raise explained(error, about) from error

    def pages(self, path: str, params: Mapping[str, Any], *, about: str = "") -> Iterator[Any]:
        """Yield what all pages of a list hold.

        Raises:
            NomadRefusalError: NOMAD refuses.
            SourceError: it cannot be reached, sends no list, or goes round in circles.
        """
        after: str | None = None
        seen: set[str] = set()
        while True:
            query = {**params, "page_size": PAGE, "page_after_value": after}
            answer = section(self.ask("GET", path, query, about=about))
            if not isinstance(answer.get("data", []), list):
                raise SourceError(f"{self.url}/{path}: NOMAD sent no list 'data'")
            yield from answer.get("data") or ()
            if (after := next_page(answer, seen, f"{self.url}/{path}")) is None:
                return


def next_page(answer: Any, seen: set[str], what: str) -> str | None:
    """Return where the next page of a list begins, None after the last one.

    Args:
        answer: the page before.
        seen: where pages began so far; the answer is added.
        what: the list, for messages.

    Raises:
        SourceError: the list goes round in circles, or NOMAD sends nonsense.
    """
    after = section(section(answer).get("pagination")).get("next_page_after_value")
    if after is None:
        return None
    text = str(after)
    if text in seen:
        raise SourceError(f"{what}: the pages go round in circles at {text[:80]!r}")
    if not text.isprintable():  # half a character of UTF-16 cannot be sent back
        raise SourceError(f"{what}: NOMAD names {text[:80]!r} as the next page")
    seen.add(text)
    return text
