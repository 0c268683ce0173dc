"""Page after page of a database, with an eye on services that go round in circles."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from epitaxy.errors import SourceError
from epitaxy.web.secrets import shown


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing.

    Attributes:
        items: the entries on the page, as the service sends them.
        next: what `fetch` needs for the next page; None on the last one.
        total: number of entries in the whole listing, where the service says it.
        retrieved: date, YYYY-MM-DD.
        address: of the page, without secrets; for messages.
        forget: drops the page from the cache; called if the page turns out to be wrong.
    """

    items: Sequence[Any]
    next: Any = None
    total: int | None = None
    retrieved: str = ""
    address: str = ""
    forget: Callable[[], None] = _nothing


def pages(
    fetch: Callable[[Any], Page],
    *,
    first: Any = None,
    limit: int | None = None,
    name_of: Callable[[Any], str | None] | None = None,
) -> Iterator[Page]:
    """Yield the pages of a listing, the last one cut to `limit` entries in all.

    Args:
        fetch: gets the page for a token (`first`, then each page's `next`).
        first: token of the first page.
        limit: largest number of entries; None for all.
        name_of: gives the id of an entry, so that one that is listed twice is found; an entry
            without one (None) is not looked for.

    Raises:
        SourceError: a page or its token comes a second time, an entry is listed twice, a page is
            empty though more are promised, or fewer entries come than were announced.
    """
    token = first
    tokens = {_digest(token)}
    contents: dict[bytes, int] = {}
    names: set[int] = set()
    n_before = 0
    number = 0
    while limit is None or n_before < limit:
        page = fetch(token)
        number += 1
        try:
            _check_content(page, number, contents, name_of)
            _check_names(page, names, name_of)
            _check_next(page, number, tokens)
        except SourceError:
            page.forget()
            raise
        n_items = len(page.items)
        if limit is not None and n_before + n_items >= limit:
            yield replace(page, items=page.items[: limit - n_before], next=None)
            return
        if n_items:
            yield page
        n_before += n_items
        if page.next is None:
            if page.total is not None and n_before < page.total:
                page.forget()
                raise SourceError(
                    f"{_where(page)}: the service announced {page.total:,} entries and ended "
                    f"after {n_before:,}; what was read is incomplete. Start again later, with "
                    "refresh=true to drop the cached pages"
                )
            return
        token = page.next


def _check_content(
    page: Page,
    number: int,
    contents: dict[bytes, int],
    name_of: Callable[[Any], str | None] | None,
) -> None:
    if not page.items:
        if page.next is not None:
            raise SourceError(
                f"{_where(page)}: page {number} is empty, though the service promises more pages. "
                "Start again later with refresh=true"
            )
        return
    listed = [item if name_of is None else name_of(item) for item in page.items]
    digest = _digest(page.items if None in listed else listed)
    earlier = contents.setdefault(digest, number)
    if earlier != number:
        raise SourceError(
            f"{_where(page)}: page {number} repeats page {earlier}: the service goes round in "
            "circles and would never end. Nothing was written; start again later with "
            "refresh=true, or report it to the service"
        )


def _check_names(page: Page, names: set[int], name_of: Callable[[Any], str | None] | None) -> None:
    if name_of is None:
        return
    for item in page.items:
        name = name_of(item)
        if name is None:
            continue
        # 64 bits: one false alarm in a million listings of ten million entries, at 1/3 the memory.
        key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
        if key in names:
            raise SourceError(
                f"{_where(page)}: {name} is listed twice: the listing changed while it was read, "
                "so that other entries may be missing. Start again with refresh=true"
            )
        names.add(key)


def _check_next(page: Page, number: int, tokens: set[bytes]) -> None:
    if page.next is None:
        return
    digest = _digest(page.next)
    if digest in tokens:
        raise SourceError(
            f"{_where(page)}: page {number} names a next page that was read already "
            f"({str(page.next)[:100]!r}): the service goes round in circles and would never end. "
            "Nothing was written; start again later with refresh=true, or report it to the service"
        )
    tokens.add(digest)


def _digest(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, default=repr)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _where(page: Page) -> str:
    return shown(page.address) or "the service"
