"""The columns of exports: what a column is, and which ones an export of entries has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum, auto
from functools import cache
from operator import itemgetter
from typing import Any

from ledger.core.checks import from_micros
from ledger.core.entries import EntryFlag, Totals, actor_in
from ledger.core.values import ATTRIBUTION_TEXTS, ESTIMATE_FIELDS, USAGE_FIELDS
from ledger.store import rows
from ledger.store.amounts import BUDGET_FIELDS
from ledger.store.rows import Row

Value = str | int | Decimal | datetime | None
"""What stands in a cell; every format gives the same values back."""

PLACES = 6
"""How many decimal places a decimal has: a millionth of a US dollar needs six."""

DIGITS = 25
"""How many digits a decimal may have: 19 for any signed integer of 64 bits, and six places."""

_COST = "cost_micros_usd"


class Kind(Enum):
    """What the values of a column are."""

    TEXT = auto()
    JSON = auto()
    """Text that holds canonical JSON."""
    INTEGER = auto()
    """A whole number of 64 bits."""
    DECIMAL = auto()
    """A decimal with six places, of up to 25 digits."""
    MOMENT = auto()
    """A time in UTC, to the microsecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column.

    Attributes:
        name: Its name in the header.
        kind: What its values are.
        read: Returns the column's value, given a stored entry with its attribution and the name
            of its pool.
        personal: Whether its value comes from the attribution, which the owner of the books may
            have erased since.
    """

    name: str
    kind: Kind
    read: Callable[[Row], Value]
    personal: bool = False


def values_of(columns: Sequence[Column], row: Row) -> tuple[Value, ...]:
    """Return an entry as a row of an export."""
    return tuple([column.read(row) for column in columns])


def moment(micros: int | None) -> datetime | None:
    """Return microseconds since 1970 as a time in UTC."""
    return None if micros is None else from_micros(micros)


def dollars(micros: int | None) -> Decimal | None:
    """Return millionths of a US dollar as dollars, exactly."""
    return None if micros is None else Decimal(micros).scaleb(-PLACES)


def is_redacted(row: Row) -> bool:
    """Tell whether the attribution of an entry was erased."""
    return row["attribution_id"] is not None and row["salt"] is None


def _text(name: str, *, kind: Kind = Kind.TEXT, personal: bool = False) -> Column:
    return Column(name=name, kind=kind, read=itemgetter(name), personal=personal)


def _integer(name: str) -> Column:
    return Column(name=name, kind=Kind.INTEGER, read=itemgetter(name))


def _moment(name: str) -> Column:
    return Column(name=name, kind=Kind.MOMENT, read=lambda row: moment(row[name]))


def _amounts(
    prefix: str, names: Sequence[str], read: Callable[[Row, str], int | None] | None = None
) -> list[Column]:
    """Return the columns of a group of amounts; its cost also in US dollars.

    Args:
        prefix: What their names begin with.
        names: Their names.
        read: Returns one of them; without it, what its column stores.
    """
    if read is None:
        read = _stored(prefix)

    def integer(name: str) -> Column:
        return Column(name=f"{prefix}_{name}", kind=Kind.INTEGER, read=lambda row: read(row, name))

    return [
        *map(integer, names),
        Column(name=f"{prefix}_usd", kind=Kind.DECIMAL, read=lambda row: dollars(read(row, _COST))),
    ]


def _stored(prefix: str) -> Callable[[Row, str], int | None]:
    return lambda row, name: row[f"{prefix}_{name}"]


def _spent(row: Row, name: str) -> int | None:
    return None if row["usage_total_tokens"] is None else row[f"usage_{name}"] or 0


def _held(row: Row, name: str) -> int | None:
    return None if row["lease"] is None else getattr(rows.held_of(row), name)


def _used(row: Row, name: str) -> int | None:
    """Return what the lease has used: stored, or else what this entry alone records."""
    if row["lease"] is None:
        return None
    group = "usage" if row["used_total_tokens"] is None else "used"
    return row[f"{group}_{name}"] or 0


def _digest(name: str) -> Column:
    def read(row: Row) -> str | None:
        return None if row[name] is None else bytes(row[name]).hex()

    return Column(name=name, kind=Kind.TEXT, read=read)


@cache
def _flag_names(flags: int) -> str | None:
    return " ".join(str(flag.name).lower() for flag in EntryFlag if flag & flags) or None


def _reason(row: Row) -> str | None:
    if row["detail"] is None:
        return None
    detail: Mapping[str, Any] = rows.detail_of(row)
    found: str | None = detail.get("reason", detail.get("denial", {}).get("reason"))
    return found


def _actor(row: Row) -> str | None:
    if row["detail"] is None:
        return None
    actor = actor_in(rows.detail_of(row))
    return None if actor is None else str(actor)


ENTRY_COLUMNS: Sequence[Column] = (
    _text("pool"),
    _integer("seq"),
    _text("kind"),
    Column(name="flags", kind=Kind.TEXT, read=lambda row: _flag_names(row["flags"])),
    _moment("recorded_at"),
    _moment("occurred_at"),
    _integer("lease"),
    _moment("expires_at"),
    *(_text(name, personal=True) for name in ATTRIBUTION_TEXTS),
    _text("tags", kind=Kind.JSON, personal=True),
    _text("request_id"),
    _text("provenance"),
    _text("idempotency_key"),
    *_amounts("estimate", ESTIMATE_FIELDS),
    *_amounts("budget", BUDGET_FIELDS),
    *_amounts("usage", USAGE_FIELDS, _spent),
    *_amounts("held", Totals._fields, _held),
    *_amounts("used", USAGE_FIELDS, _used),
    *_amounts("committed", Totals._fields),
    *_amounts("reserved", Totals._fields),
    _integer("policy_seq"),
    _integer("window_seq"),
    _moment("swept_until"),
    _text("origin_pool"),
    _integer("origin_seq"),
    Column(name="reason", kind=Kind.TEXT, read=_reason),
    Column(name="actor", kind=Kind.TEXT, read=_actor),
    _text("detail", kind=Kind.JSON),
    _digest("payload_digest"),
    _integer("hash_version"),
    _digest("hash"),
)
"""One row for each entry, mirrors among them: the journal as people and programs read it."""
