"""Prepared statements: built with SQLAlchemy Core, compiled once, and run on the driver's cursor.

The statements of every call run this way, since SQLAlchemy spends more time on one execution of a
wide statement than SQLite does. They are the same on both databases. A PostgreSQL session gets
values as literals, so that several statements can share one message.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.sql import ClauseElement

_TYPES: dict[type, str] = {int: "bigint", bytes: "bytea"}
"""The server's types of the parameters in which sets may differ."""


class Prepared:
    """One statement; every parameter is an int, str, bytes or None, and so is every column."""

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement
        self._compiled: dict[str, tuple[str, list[str] | None, dict[str, Any]]] = {}
        self._columns: tuple[str, ...] = ()

    def rows(self, connection: Connection, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Run a SELECT and return its rows, each by column name."""
        if not connection.dialect.positional:
            return rows_of_each(connection, [(self, parameters)])[0]
        driver = driver_of(connection)
        try:
            self.run(connection, driver.shared, parameters)
            return self.rows_on(driver.shared)
        except BaseException:
            driver.end_statement()
            raise

    def run(self, connection: Connection, cursor: Any, parameters: Mapping[str, Any]) -> None:  # noqa: ANN401 - either driver's cursor
        """Run the statement on a cursor, where parameters are numbered."""
        known = self._compiled.get(connection.dialect.name)
        text, names, defaults = known or self._for(connection)
        values = {**defaults, **parameters} if defaults else parameters
        cursor.execute(text, list(map(values.__getitem__, names or ())))

    def rows_on(self, cursor: Any, *before: str) -> list[dict[str, Any]]:  # noqa: ANN401 - either driver's cursor
        """Return the rows that a cursor has, each by column name.

        Args:
            cursor: The cursor on which the statement was run.
            before: The names of columns in front of those of the statement.
        """
        # The names are taken once: a driver makes them again for each cursor, and each is hashed
        # again as a row's key, which took a tenth of the time of `remaining`.
        if not self._columns:
            own = cursor.description[len(before) :]
            self._columns = tuple(sys.intern(column[0]) for column in own)
        names = before + self._columns
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def text(self, connection: Connection, parameters: Mapping[str, Any]) -> str:
        """Return the statement with values in place of its named parameters."""
        text, _, defaults = self._for(connection)
        literal = driver_of(connection).literal
        return text % {name: literal(value) for name, value in {**defaults, **parameters}.items()}

    def text_of_each(self, connection: Connection, given: Sequence[Mapping[str, Any]]) -> str:
        """Return one statement for several sets of named parameters.

        A server then plans it once, not once for each set. Each row begins with the number of its
        set, from 0.
        """
        text, _, defaults = self._for(connection)
        literal = driver_of(connection).literal
        first, *others = given
        names = [name for name in first if any(one[name] != first[name] for one in others)]
        rows = [
            [str(number), *(f"{literal(one[name])}::{_TYPES[type(one[name])]}" for name in names)]
            for number, one in enumerate(given)
        ]
        sets = ", ".join(f"({', '.join(row)})" for row in rows)
        same = {name: literal(value) for name, value in {**defaults, **first}.items()}
        # OFFSET makes the server search for each set separately, in its order. Without OFFSET, the
        # server might join and read the whole table.
        one = text % {**same, **{name: f"given_{name}" for name in names}}
        columns = ", ".join(["given_set", *(f"given_{name}" for name in names)])
        table = f"(VALUES {sets}) AS given ({columns})"
        return f"SELECT given_set, found.* FROM {table}, LATERAL ({one} OFFSET 0) AS found"  # noqa: S608 - numbers, and our own statement

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


ReadEach = Callable[[Sequence[tuple[Prepared, Mapping[str, Any]]]], list[list[dict[str, Any]]]]
"""Runs several queries, and returns the rows of each."""


def rows_of_each(
    connection: Connection, selects: Sequence[tuple[Prepared, Mapping[str, Any]]]
) -> list[list[dict[str, Any]]]:
    """Run several SELECTs and return the rows of each. They are sent to a server in one message."""
    found: list[list[dict[str, Any]]] = []
    if connection.dialect.positional or not selects:
        for select, parameters in selects:
            found.append(select.rows(connection, parameters))
        return found
    cursor = driver_of(connection).cursor()
    try:
        alike = [
            (select, [given for _, given in some])
            for select, some in groupby(selects, key=itemgetter(0))
        ]
        cursor.execute(
            ";".join(
                select.text(connection, given[0])
                if len(given) == 1
                else select.text_of_each(connection, given)
                for select, given in alike
            )
        )
        for select, given in alike:
            if len(given) == 1:
                found.append(select.rows_on(cursor))
            else:
                by_set: list[list[dict[str, Any]]] = [[] for _ in given]
                for row in select.rows_on(cursor, "given_set"):
                    by_set[row.pop("given_set")].append(row)
                found += by_set
            cursor.nextset()
        return found
    finally:
        cursor.close()


driver_of: Callable[[Connection], Any] = attrgetter("connection.dbapi_connection")
"""Returns the driver's connection inside, which follows PEP 249 for both drivers."""
