"""Pages of an API: a file must hold all pages of an answer, each of them once, in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ledger.errors import BillingFileError

_AROUND = ("pagination", "paging", "meta", "links", "_links")
"""Keys of objects in which APIs say which page it is and where the next one is."""

_NEXT = {
    *("next", "next_page", "next_cursor", "next_link", "next_token", "next_page_token"),
    *("nextPage", "nextCursor", "nextLink", "nextToken", "nextPageToken"),
    *("NextPageLink", "NextPageToken", "NextToken"),
}
"""Keys whose value, if there is one, leads to a further page."""

_NUMBER = ("page", "current_page", "currentPage", "page_number")
_COUNT = ("total_pages", "totalPages", "page_count", "pageCount", "last_page")

_BEGIN = ("start_time", "starting_at")
_END = ("end_time", "ending_at")
"""Keys of the times that a bucket lies between, at OpenAI and at Anthropic."""

Page = Mapping[str, Any]


def require_all_pages(path: str, pages: Sequence[Page], buckets: Sequence[Sequence[Page]]) -> None:
    """Refuse a file that lacks a page, or has one twice.

    Args:
        path: The file, for the error.
        pages: The file's pages, in its order.
        buckets: The objects in the list of each page.

    Raises:
        BillingFileError: A page is missing at the end or in between, or occurs twice.
    """
    seen: dict[str, int] = {}
    for number, (page, rows) in enumerate(zip(pages, buckets, strict=True), start=1):
        first = seen.setdefault(repr(page), number) if rows else number
        if first != number:
            raise _refused(path, f"pages {first} and {number} are the same")
    _require_no_gap(path, pages, buckets)
    numbered = [found for page in pages for found in _numbered(page)]
    if numbered and len(numbered) == len(pages):
        for run in _runs(numbered):
            _require_whole(path, run)
    elif pages and (key := _says_more(pages[-1])):
        raise _refused(path, f"the last page says that there are more ({key})")


def is_page(value: Page) -> bool:
    """Tell whether an object says that it is one of several pages, or could be."""
    return any(
        key in part for part in _parts(value) for key in ("has_more", *_NEXT, *_NUMBER, *_COUNT)
    )


def _refused(path: str, what: str) -> BillingFileError:
    return BillingFileError(
        path, line=None, reason=f"{what}; put all pages into the file, each once, in their order"
    )


def _parts(page: Page) -> Iterator[Page]:
    yield page
    for key in _AROUND:
        if isinstance(page.get(key), dict):
            yield page[key]


def _says_more(page: Page) -> str | None:
    """Return the key that says that a further page exists, None if none does."""
    for part in _parts(page):
        if part.get("has_more") is True:
            return "has_more"
        if part.get("has_more") is False:
            continue
        for key, value in part.items():
            if key in _NEXT and value not in (None, "", False):
                return key
    return None


def _numbered(page: Page) -> Iterator[tuple[int, int]]:
    """Yield a page's number and how many there are, if it says both."""
    for part in _parts(page):
        number = next((part[key] for key in _NUMBER if _is_count(part.get(key))), None)
        count = next((part[key] for key in _COUNT if _is_count(part.get(key))), None)
        if number is not None and count is not None:
            yield int(number), int(count)
            return


def _runs(numbered: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Yield the pages of each answer: a new answer begins where the number does not go up."""
    run: list[tuple[int, int]] = []
    for number, count in numbered:
        if run and number <= run[-1][0]:
            yield run
            run = []
        run.append((number, count))
    yield run


def _require_whole(path: str, run: Sequence[tuple[int, int]]) -> None:
    count = run[0][1]
    there = [number for number, _count in run]
    if there not in ([*range(1, count + 1)], [*range(count)]):
        numbers = ", ".join(map(str, there))
        raise _refused(path, f"of {count} pages the file has only {numbers}")


def _is_count(value: object) -> bool:
    # Numbers are still texts as the file has them.
    return isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10  # noqa: PLR2004 - fits an int of any platform


def _require_no_gap(path: str, pages: Sequence[Page], buckets: Sequence[Sequence[Page]]) -> None:
    """Refuse an answer whose pages do not follow each other; pages without rows say no time."""
    last: tuple[int, Page] | None = None
    for number, (page, rows) in enumerate(zip(pages, buckets, strict=True), start=1):
        if last is not None and rows:
            _require_next(path, *last, number, rows[0])
        if rows:
            last = number, rows[-1]
        if not _says_more(page):
            last = None


def _require_next(path: str, number: int, bucket: Page, later: int, following: Page) -> None:
    for begin, end in zip(_BEGIN, _END, strict=True):
        ended, began = bucket.get(end), following.get(begin)
        if ended is not None and began is not None and ended != began:
            raise _refused(
                path,
                f"a page is missing: page {number} ends at {ended}, and page {later} begins at "
                f"{began}",
            )
