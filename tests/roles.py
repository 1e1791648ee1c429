"""Logins for the roles that `ledger db roles` makes, and a worker's pools."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg
from sqlalchemy import make_url
from typer.testing import CliRunner

from ledger import Ledger, LedgerBudgetManager, SharedPoolBudgetOptions
from ledger.cli.database import app
from tests.shared import Shared

PASSWORD = "open-sesame"  # noqa: S105 - of logins that the tests make
NAMES = ("auditor", "worker", "holder", "owner")


@contextmanager
def role_logins(shared: Shared, prefix: str) -> Iterator[Mapping[str, str]]:
    """Make a store; give its address for its administrator ("admin") and a login of each role.

    Args:
        shared: Where the server is.
        prefix: How the roles' names begin: they are those of the whole server.
    """
    made = shared.create_database(template=shared.template)
    found = {"admin": made}
    at = ["roles", "--url", made, "--prefix", prefix, "--apply"]
    logins = [f"{prefix}{name}_login" for name in NAMES]
    with psycopg.connect(shared.server_url, autocommit=True) as connection:
        try:
            for _ in range(2):  # the second time changes nothing
                ended = CliRunner().invoke(app, at)
                assert 0 == ended.exit_code, ended.output
            for name, login in zip(NAMES, logins, strict=True):
                connection.execute(f"CREATE ROLE {login} LOGIN PASSWORD '{PASSWORD}'")
                connection.execute(f"GRANT {prefix}{name} TO {login}")
                url = make_url(made).set(username=login, password=PASSWORD)
                found[name] = url.render_as_string(hide_password=False)
            yield found
        finally:
            shared.drop_database(make_url(made).database)
            for role in (*logins, *(prefix + name for name in NAMES)):
                connection.execute(f"DROP ROLE IF EXISTS {role}")


@contextmanager
def worker_budgets(
    urls: Mapping[str, str],
    **options: Any,  # noqa: ANN401 - those of `Ledger.open`
) -> Iterator[Callable[..., LedgerBudgetManager]]:
    """Give a function that opens a pool of its own as the holder, and again as the worker."""
    prefix, names = uuid4().hex, list[str]()
    with (
        Ledger.open(urls["holder"], create=False, **options) as holder,
        Ledger.open(urls["worker"], create=False, **options) as book,
    ):

        def make(options: SharedPoolBudgetOptions, name: str = "pool") -> LedgerBudgetManager:
            names.append(f"{prefix} {name}")
            holder.pool(names[-1], options)
            return book.pool(names[-1])

        yield make
        for name in set(names):
            assert [None] == [found.damage for found in book.verify(name)]
