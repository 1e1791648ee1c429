"""The document of a page, with sections of pictures and tables, and how it becomes HTML.

Names come from callers and are not trusted. The template escapes them, and the data of pictures
is escaped JSON. The page allows its own two scripts by their hashes and forbids all others.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from rich.text import Text

import ledger
from ledger.core.checks import check_type
from ledger.reports.charts.canvas import Picture, needed
from ledger.reports.output_file import GENERATOR, Target, output_file
from ledger.reports.render import Sheet, moment, printable

_SELDOM = 5
"""A column of this rank or a higher one is left out when the page is printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One figure at the top of a page.

    Attributes:
        name: What the figure is.
        figure: The figure.
        note: A remark on it.
        bad: Whether it is shown as a warning.
    """

    name: str
    figure: str
    note: str = ""
    bad: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a page.

    Attributes:
        title: Its heading.
        notes: Its paragraphs of text.
        pictures: Its pictures.
        sheets: Its tables.
    """

    title: str
    notes: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    sheets: Sequence[Sheet] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A page.

    Attributes:
        title: Its heading.
        store: The store's address, without its password.
        at: When it was made.
        about: Which entries it is about, in words.
        tiles: The figures at its top.
        sections: Its parts.
    """

    title: str
    store: str
    at: datetime
    about: str = ""
    tiles: Sequence[Tile] = ()
    sections: Sequence[Section] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _HtmlTable:
    """A sheet as an HTML table: its lines in groups, those of totals as the foot."""

    caption: str
    columns: list[dict[str, Any]]
    bodies: list[list[list[str]]]
    foot: list[list[str]]
    sortable: bool


def write_page(
    document: Document, file: Target, *, force: bool = False, keep: Iterable[Path] = ()
) -> None:
    """Write a page into a file, which is there as a whole or not at all.

    Args:
        document: The page.
        file: The file's name, or an open binary stream. An existing file is replaced if it is
            empty, or a page or picture of this library.
        force: Replace any other file too. A database is never replaced.
        keep: Files that are never replaced: the `files` of the ledger that the page is of.

    Raises:
        InvalidInputError: An argument of another type.
        ExportError: The file cannot be written, or must not be replaced.
        MissingExtraError: The extra `html` is not installed.
    """
    check_type("document", document, Document)
    with output_file(file, force=force, keep=keep) as out:
        out.write(to_html(document).encode())


def to_html(document: Document) -> str:
    """Return a page as text.

    Raises:
        MissingExtraError: The extra `html` is not installed.
    """
    jinja2 = needed("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ledger.reports", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_spelled,
    )
    drawn = any(section.pictures for section in document.sections)
    scripts = [*([_library()] if drawn else []), _own("page.js")]
    hashes = " ".join(f"'sha256-{_hash(script)}'" for script in scripts)
    text: str = environment.get_template("page.html.j2").render(
        page=document,
        generator=f"{GENERATOR} {ledger.__version__}",
        style=_own("page.css"),
        scripts=scripts,
        policy=f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'",
        table=_table,
        moment=moment,
    )
    return text


def _spelled(value: object) -> object:
    """Return the text that the template prints: names without controls, our own markup."""
    is_plain = isinstance(value, str) and not hasattr(value, "__html__")
    return printable(str(value)) if is_plain else value


def _table(sheet: Sheet) -> _HtmlTable:
    shown = sheet.shown()
    groups: list[list[list[str]]] = [[]]
    for row in sheet.rows:
        if row is None:
            groups.append([])
        else:
            cells = [row[number] for number in shown]
            groups[-1].append([cell.plain if isinstance(cell, Text) else cell for cell in cells])
    # A single gap is above the totals. A sheet with more gaps is a statement, which has an order.
    total = len(groups) == 2  # noqa: PLR2004 - see above
    return _HtmlTable(
        caption=printable(sheet.title or ""),
        columns=[
            {
                "heading": " ".join(sheet.columns[number].heading.split("\n")),
                "left": sheet.columns[number].left or number == 0,
                "seldom": sheet.columns[number].rank >= _SELDOM,
            }
            for number in shown
        ],
        bodies=groups[:1] if total else groups,
        foot=groups[1] if total else [],
        sortable=len(groups) <= 2 and len(groups[0]) > 1,  # noqa: PLR2004 - see above
    )


@cache
def _library() -> str:
    """Return the scripts that draw: Vega, Vega-Lite, Vega-Embed. The first call takes seconds."""
    found: str = needed("vl_convert").javascript_bundle()
    # Inside a script element, `</script` would end it and `<!--` would begin a comment.
    return found.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _own(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
