"""Actors: who opens, adjusts or closes a pool or corrects an entry, as the entry's detail says."""

from __future__ import annotations

import getpass
import os
import sys
from dataclasses import asdict
from functools import cache
from typing import Any

from sqlalchemy import Connection, select

from ledger.core.checks import NAME_MAX_CHARS, check_text
from ledger.core.entries import Actor
from ledger.store.dialects.expressions import login_role
from ledger.store.statements import Prepared

_LOGIN_ROLE = Prepared(select(login_role().label("role")))


def named(name: str | None) -> Actor:
    """Return the actor as this process knows it: the name that was given, and its own user.

    Raises:
        InvalidInputError: The name is no text, empty or too long.
    """
    if name is not None:
        check_text("actor", name)
    return Actor(name=name, user=_user(os.geteuid() if sys.platform != "win32" else 0))


def detail(connection: Connection, actor: Actor, reason: str | None = None) -> dict[str, Any]:
    """Return the parts of a detail that say who asked for an entry, and why.

    Args:
        connection: The transaction that writes the entry; the database says by which role.
        actor: The actor as this process knows it.
        reason: The reason, if one was given.
    """
    (found,) = _LOGIN_ROLE.rows(connection, {})
    said = {**asdict(actor), **found}
    parts = {"actor": {part: value for part, value in said.items() if value is not None}}
    return parts if reason is None else {**parts, "reason": reason}


@cache
def _user(number: int) -> str:
    """Return the name of the operating system's user.

    Not by the environment, as far as the system has accounts: there anybody can be anybody.
    """
    if sys.platform == "win32":
        name = getpass.getuser()
    else:
        import pwd  # noqa: PLC0415 - Windows has no such module

        try:
            name = pwd.getpwuid(number).pw_name
        except KeyError:  # a container may run under a number without an account
            name = str(number)
    return name.encode(errors="replace").decode()[:NAME_MAX_CHARS]
