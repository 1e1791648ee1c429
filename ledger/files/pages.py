"""Pages of an API: a file must hold all pages of an answer, each once, in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from ledger.files.source import Refuse

_AROUND = ("pagination", "paging", "meta", "links", "_links")
"""Keys of objects in which APIs give the page's number and the next page."""

_NEXT = {
    *("next", "next_page", "next_cursor", "next_link", "next_token", "next_page_token"),
    *("nextPage", "nextCursor", "nextLink", "nextToken", "nextPageToken"),
    *("NextPageLink", "NextPageToken", "NextToken"),
}
"""Keys whose value, if present, leads to a further page."""

_NUMBER = ("page", "current_page", "currentPage", "page_number")
_COUNT = ("total_pages", "totalPages", "page_count", "pageCount", "last_page")

_BEGIN = ("start_time", "starting_at")
_END = ("end_time", "ending_at")
"""Keys of the beginning and the end of a bucket, at OpenAI and at Anthropic."""

JsonPage = Mapping[str, Any]


class Pages:
    """The check of a file's pages, while they are read."""

    def __init__(self, refuse: Refuse) -> None:
        self._refuse = refuse
        self._seen: dict[bytes, int] = {}
        self._number = 0
        self._numbered: list[tuple[int, int]] = []
        self._last: tuple[int, JsonPage] | None = None
        """The last bucket of an unfinished answer, and the number of its page."""
        self._more: str | None = None
        self.begin()

    def begin(self) -> None:
        """Begin with a page's rows."""
        self._rows = blake2b(digest_size=16)
        self._first_row: JsonPage | None = None
        self._last_row: JsonPage | None = None

    def add(self, chain: Sequence[JsonPage]) -> None:
        """Add a row, with the objects around it in the page, from the innermost on."""
        self._rows.update(repr(chain).encode(errors="surrogatepass"))
        self._last_row = chain[-1]
        if self._first_row is None:
            self._first_row = chain[-1]

    def end(self, page: JsonPage) -> None:
        """End a page, given its object without the rows.

        Raises:
            LedgerError: The page occurred before, or pages before it are missing.
        """
        self._number += 1
        number = self._number
        if self._first_row is not None and self._last_row is not None:
            self._rows.update(repr(page).encode(errors="surrogatepass"))
            first = self._seen.setdefault(self._rows.digest(), number)
            if first != number:
                raise self._refused(f"pages {first} and {number} are the same")
            if self._last is not None:
                self._require_next(*self._last, number, self._first_row)
            self._last = number, self._last_row
        self._numbered += _numbered(page)
        self._more = _says_more(page)
        if self._more is None:
            self._last = None

    def require_end(self) -> None:
        """Refuse a file that lacks a page.

        Raises:
            LedgerError: One is missing.
        """
        if self._numbered and len(self._numbered) == self._number:
            for run in _runs(self._numbered):
                self._require_whole(run)
        elif self._more is not None:
            raise self._refused(f"the last page says that there are more ({self._more})")

    def _require_next(self, number: int, bucket: JsonPage, later: int, following: JsonPage) -> None:
        for begin, end in zip(_BEGIN, _END, strict=True):
            ended, began = bucket.get(end), following.get(begin)
            if ended is not None and began is not None and ended != began:
                raise self._refused(
                    f"a page is missing: page {number} ends at {ended}, and page {later} begins at "
                    f"{began}"
                )

    def _require_whole(self, run: Sequence[tuple[int, int]]) -> None:
        count = run[0][1]
        there = [number for number, _count in run]
        if there not in ([*range(1, count + 1)], [*range(count)]):
            numbers = ", ".join(map(str, there))
            raise self._refused(f"of {count} pages the file has only {numbers}")

    def _refused(self, what: str) -> Exception:
        return self._refuse(None, f"{what}; put all pages into the file, each once, in their order")


def is_page(value: JsonPage) -> bool:
    """Tell whether an object says that it is one of several pages, or could be."""
    return any(
        key in part for part in _parts(value) for key in ("has_more", *_NEXT, *_NUMBER, *_COUNT)
    )


def _parts(page: JsonPage) -> Iterator[JsonPage]:
    yield page
    for key in _AROUND:
        if isinstance(page.get(key), dict):
            yield page[key]


def _says_more(page: JsonPage) -> str | None:
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


def _numbered(page: JsonPage) -> Iterator[tuple[int, int]]:
    """Yield a page's number and the count of pages, if it has both."""
    for part in _parts(page):
        number = next((part[key] for key in _NUMBER if _is_count(part.get(key))), None)
        count = next((part[key] for key in _COUNT if _is_count(part.get(key))), None)
        if number is not None and count is not None:
            yield int(number), int(count)
            return


def _runs(numbered: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Yield the pages of each answer. A new answer begins where the number does not increase."""
    run: list[tuple[int, int]] = []
    for number, count in numbered:
        if run and number <= run[-1][0]:
            yield run
            run = []
        run.append((number, count))
    yield run


def _is_count(value: object) -> bool:
    # Numbers are still texts, as in the file.
    return isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10  # noqa: PLR2004 - fits an int of any platform
