"""SQL expressions that each database writes in its own way, and errors of failed queries."""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import Boolean, ColumnElement, String, literal_column, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from ledger.store.statements import Prepared


class TagValue(FunctionElement[str]):
    """The value of one tag in a column of tags as JSON text, NULL if there is no such tag.

    The text is always parsed, since a tag's value may contain text that looks like another tag.
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
def _postgresql(element: TagValue, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - the compiler's own
    tags, name = (compiler.process(part, **options) for part in element.clauses)
    return f"(CAST({tags} AS jsonb) ->> {name})"


class LoginRole(FunctionElement[str]):
    """The role that the session logged in with, NULL if the database has no roles."""

    name = "login_role"
    type = String()
    inherit_cache = True


@compiles(LoginRole)
def _no_roles(_element: LoginRole, _compiler: SQLCompiler, **_options: Any) -> str:  # noqa: ANN401 - the compiler's own
    return "NULL"


@compiles(LoginRole, "postgresql")
def _roles(_element: LoginRole, _compiler: SQLCompiler, **_options: Any) -> str:  # noqa: ANN401 - the compiler's own
    return "CAST(session_user AS text)"


class MayInsert(FunctionElement[bool]):
    """Whether the current role may insert into a table; true if the database has no roles."""

    name = "may_insert"
    type = Boolean()
    inherit_cache = True


@compiles(MayInsert)
def _everybody_may(_element: MayInsert, _compiler: SQLCompiler, **_options: Any) -> str:  # noqa: ANN401 - the compiler's own
    return "1"


@compiles(MayInsert, "postgresql")
def _role_may(element: MayInsert, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - the compiler's own
    (table,) = (compiler.process(part, **options) for part in element.clauses)
    return f"has_table_privilege({table}, 'INSERT')"


LOGIN_ROLE = Prepared(
    select(LoginRole().label("role"), MayInsert(literal_column("'pools'")).label("may_manage"))
)
"""The role that the session logged in with, and whether it may open, adjust, close and correct.

The right to insert pools stands for all four, so that one GRANT gives it; see `roles`.
"""


def may_be_overflow(error: OperationalError) -> bool:
    """Tell whether a sum may have been too large for the database; PostgreSQL has no such limit.

    SQLite has no separate code for overflow. The same code stands for other errors of a statement,
    but then the next statement fails with it, too.
    """
    return getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
