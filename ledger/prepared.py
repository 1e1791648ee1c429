"""Core statements compiled once and handed straight to the driver: what runs with every call.

SQLAlchemy spends more time on one execution of a wide statement than SQLite does. The statements
are still built with Core and are the same on both databases; only the way to the cursor is short.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.sql import ClauseElement


class Prepared:
    """One statement; every parameter is an int, str, bytes or None, and so is every column."""

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement
        self._compiled: dict[str, tuple[str, list[str] | None, dict[str, Any]]] = {}

    def rows(self, connection: Connection, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Run a SELECT and return its rows, each by column name."""
        text, names, defaults = self._for(connection)
        cursor = _driver(connection).cursor()
        try:
            cursor.execute(text, _bind(names, {**defaults, **parameters}))
            return rows_of(cursor)
        finally:
            cursor.close()

    def with_integers(self, connection: Connection, parameters: Mapping[str, int]) -> str:
        """Return the text of a `%(name)s` statement with integers in place of its parameters."""
        text, _, defaults = self._for(connection)
        return text % {name: int(value) for name, value in {**defaults, **parameters}.items()}

    def write(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run an INSERT for every row, in one go."""
        text, names, defaults = self._for(connection)
        cursor = _driver(connection).cursor()
        bound = [_bind(names, {**defaults, **row}) for row in rows]
        try:
            if len(bound) == 1:
                cursor.execute(text, bound[0])
            elif bound:
                cursor.executemany(text, bound)
        finally:
            cursor.close()

    def _for(self, connection: Connection) -> tuple[str, list[str] | None, dict[str, Any]]:
        dialect = connection.dialect
        if dialect.name not in self._compiled:
            compiled: Any = self._statement.compile(dialect=dialect)
            self._compiled[dialect.name] = (
                str(compiled),
                compiled.positiontup if dialect.positional else None,
                {name: value for name, value in compiled.params.items() if value is not None},
            )
        return self._compiled[dialect.name]


def rows_of(cursor: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - either driver's cursor
    """Return the rows of a cursor, each by column name."""
    columns = [column[0] for column in cursor.description]
    return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]


def _bind(names: list[str] | None, values: dict[str, Any]) -> Sequence[Any] | dict[str, Any]:
    return values if names is None else [values[name] for name in names]


def _driver(connection: Connection) -> Any:  # noqa: ANN401 - either driver's connection
    return connection.connection.driver_connection
