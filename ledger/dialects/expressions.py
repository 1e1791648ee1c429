"""Expressions that each database writes in its own way."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class TagValue(FunctionElement[str]):
    """The value of one tag in a column of tags as JSON text, NULL where there is none.

    Never by the text alone: a tag's value may hold what looks like another tag.
    """

    name = "tag_value"
    type = String()
    inherit_cache = True


def tag_value(tags: ColumnElement[Any], name: str) -> ColumnElement[str]:
    """Return the value of the tag `name`."""
    return TagValue(tags, name)


@compiles(TagValue, "sqlite")
def _sqlite(element: TagValue, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - the compiler's own
    tags, name = (compiler.process(part, **options) for part in element.clauses)
    return f"(SELECT value FROM json_each({tags}) WHERE key = {name})"


@compiles(TagValue, "postgresql")
def _postgresql(element: TagValue, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - likewise
    tags, name = (compiler.process(part, **options) for part in element.clauses)
    return f"(CAST({tags} AS jsonb) ->> {name})"
