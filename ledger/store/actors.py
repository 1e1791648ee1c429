"""Actors: who opens, adjusts or closes a pool or corrects an entry, as the entry's detail says."""

from __future__ import annotations

import getpass
import os
import sys
from dataclasses import asdict
from functools import cache
from typing import Any

from sqlalchemy import Connection

from ledger.core.checks import NAME_MAX_CHARS, check_text
from ledger.core.entries import Actor
from ledger.core.errors import NotPermittedError
from ledger.store.dialects.expressions import LOGIN_ROLE


def named(name: str | None) -> Actor:
    """Return the actor as this process knows it: the name that was given, and its own user.

    Raises:
        InvalidInputError: The name is no text, empty or too long.
    """
    if name is not None:
        check_text("actor", name)
    return Actor(name=name, user=_user(os.geteuid() if sys.platform != "win32" else 0))


def detail(
    connection: Connection, actor: Actor, operation: str, reason: str | None = None
) -> dict[str, Any]:
    """Return the parts of a detail that say who asked for an entry, and why.

    Args:
        connection: The transaction that writes the entry; the database says by which role.
        actor: The actor as this process knows it.
        operation: What is asked for.
        reason: The reason, if one was given.

    Raises:
        NotPermittedError: The role may not write such entries. The database would refuse the whole
            transaction, with the calls of others in it.
    """
    (found,) = LOGIN_ROLE.rows(connection, {})
    if not found["may_manage"]:
        raise NotPermittedError(role=found["role"], operation=operation)
    said = {**asdict(actor), "role": found["role"]}
    parts = {"actor": {part: value for part, value in said.items() if value is not None}}
    return parts if reason is None else {**parts, "reason": reason}


@cache
def _user(number: int) -> str:
    """Return the name of the operating system's user.

    The environment is not asked if the system has accounts, since a program can set it to any name.
    """
    if sys.platform == "win32":
        name = getpass.getuser()
    else:
        import pwd  # noqa: PLC0415 - Windows has no such module

        try:
            name = pwd.getpwuid(number).pw_name
        except KeyError:  # a container may run under a user id without an account
            name = str(number)
    return name.encode(errors="replace").decode()[:NAME_MAX_CHARS]
