"""Page after page, and services that go round in circles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epitaxy.errors import SourceError
from epitaxy.web import Page, pages


def listing(*contents, total=None, tokens=None):
    """Return a fetch function over fixed pages; the token is the number of the page."""

    def fetch(token):
        number = token or 0
        following = number + 1 if number + 1 < len(contents) else None
        if tokens is not None:
            following = tokens[number]
        return Page(
            items=contents[number], next=following, total=total, address=f"https://host/?p={number}"
        )

    return fetch


@given(st.lists(st.integers(1, 7), max_size=8), st.integers(1, 40))
def test_any_listing_is_read_once_in_order_and_cut_at_the_limit(sizes, limit):
    names = iter(range(1000))
    contents = [[{"id": str(next(names))} for _ in range(size)] for size in sizes] or [[]]
    everything = [item for page in contents for item in page]
    total = len(everything)
    fetch = listing(*contents, total=total)
    found = [x for p in pages(fetch, name_of=lambda item: item["id"]) for x in p.items]
    assert found == everything
    cut = [x for p in pages(fetch, limit=limit) for x in p.items]
    assert cut == everything[:limit]


def test_no_page_is_fetched_beyond_the_limit():
    asked = []
    fetch = listing([1, 2], [3, 4], [5, 6])

    def counting(token):
        asked.append(token)
        return fetch(token)

    assert [p.items for p in pages(counting, limit=4)] == [[1, 2], [3, 4]]
    assert len(asked) == 2


def test_a_repeated_page_is_named():
    with pytest.raises(SourceError, match=r"https://host/\?p=2: page 3 repeats page 1"):
        list(pages(listing(["a"], ["b"], ["a"], ["d"])))


def test_a_page_that_names_itself_as_the_next_one_is_named():
    with pytest.raises(SourceError, match="names a next page that was read already"):
        list(pages(listing(["a"], ["b"], tokens=[1, 1])))


def test_an_entry_that_comes_twice_is_named():
    with pytest.raises(SourceError, match="b is listed twice"):
        list(pages(listing(["a", "b"], ["b", "c"]), name_of=str))


def test_entries_without_a_name_are_not_compared():
    assert len(list(pages(listing([1, 1], [1, 2]), name_of=lambda item: None))) == 2


def test_an_empty_page_that_promises_more_is_named():
    with pytest.raises(SourceError, match="page 2 is empty"):
        list(pages(listing(["a"], [], ["b"])))


def test_an_empty_last_page_and_an_empty_listing_are_no_errors():
    assert [p.items for p in pages(listing(["a"], []))] == [["a"]]
    assert list(pages(listing([]))) == []


def test_fewer_entries_than_announced_are_named():
    with pytest.raises(SourceError, match="announced 5 entries and ended after 2"):
        list(pages(listing(["a"], ["b"], total=5)))


def test_a_wrong_page_is_forgotten_so_that_it_is_asked_for_again():
    forgotten = []

    def fetch(token):
        return Page(items=["a"], next=(token or 0) + 1, forget=lambda: forgotten.append(token))

    with pytest.raises(SourceError):
        list(pages(fetch))
    assert forgotten == [1]
