"""The columns of exports: what a column is, and which ones an export of entries has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from typing import Any

from ledger.core.columns import each_once
from ledger.core.entries import EntryFlag, Totals, actor_in, reason_in
from ledger.core.extensions import ATTRIBUTION_TEXTS
from ledger.core.values import ESTIMATE_FIELDS, USAGE_FIELDS
from ledger.store import rows
from ledger.store.amounts import BUDGET_FIELDS
from ledger.store.rows import Row

ExportCell = str | int | None
"""The value of a cell: a decimal in millionths, a time in microseconds since 1970.

Every format gives the same values back.
"""

Stored = Mapping[str, Sequence[Any]]
"""Several entries as they are stored: the values of each column by its name."""

RowGroup = Sequence[Sequence[ExportCell]]
"""Rows of an export, column by column."""

PLACES = 6
"""How many decimal places a decimal has: a millionth of a US dollar needs six."""

UNIT = 1_000_000
"""The number 1 in millionths, as decimals are given."""

DIGITS = 25
"""How many digits a decimal may have: 19 for any signed integer of 64 bits, and six places."""

_COST = "cost_micros_usd"
_HELD = "held"
_HELD_OF = (
    "kind",
    *(f"held_{name}" for name in Totals._fields),
    *(f"estimate_{name}" for name in ESTIMATE_FIELDS),
)

_ESTIMATED = 1 + len(Totals._fields)


class ColumnType(Enum):
    """The type of a column's values."""

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
class ExportColumn:
    """A column.

    Attributes:
        name: Its name in the header.
        kind: The type of its values.
        of: The columns from which it is made: of a stored entry, its attribution and its pool's
            name.
        made: Takes the values of these columns for several entries, and returns its own. Without
            it, they are the values of the only column.
        personal: Whether its value comes from the attribution, which the owner may have erased
            since.
    """

    name: str
    kind: ColumnType
    of: Sequence[str]
    made: Callable[..., Sequence[ExportCell]] | None = None
    personal: bool = False

    def values(self, found: Stored) -> Sequence[ExportCell]:
        """Return its values for several entries.

        It raises one of `UNREADABLE` if an entry cannot be read.
        """
        given = [found[name] for name in self.of]
        return given[0] if self.made is None else self.made(*given)


def each(convert: Callable[..., ExportCell]) -> Callable[..., Sequence[ExportCell]]:
    """Return a function that makes a column by applying `convert` to each entry's values."""

    def made(*given: Sequence[Any]) -> Sequence[ExportCell]:
        if len(given) == 1:
            return each_once(convert, given[0])
        return each_once(lambda values: convert(*values), zip(*given, strict=True))

    return made


def with_held(found: Stored) -> Stored:
    """Return entries with one more column: the amounts that the lease of each still holds.

    It raises one of `UNREADABLE` if an entry does not say it.
    """
    given = zip(*[found[name] for name in _HELD_OF], strict=True)
    said = [
        None if lease is None else one for lease, one in zip(found["lease"], given, strict=True)
    ]
    return {**found, _HELD: each_once(_held_of, said)}


def _held_of(said: Sequence[Any] | None) -> Totals | None:
    if said is None:
        return None
    return rows.held_in(said[0], said[1:_ESTIMATED], said[_ESTIMATED:])


def is_redacted(row: Row) -> bool:
    """Tell whether the attribution of an entry was erased."""
    return row["attribution_id"] is not None and row["salt"] is None


def _text(name: str, *, kind: ColumnType = ColumnType.TEXT, personal: bool = False) -> ExportColumn:
    return ExportColumn(name=name, kind=kind, of=[name], personal=personal)


def _integer(name: str) -> ExportColumn:
    return ExportColumn(name=name, kind=ColumnType.INTEGER, of=[name])


def _moment(name: str) -> ExportColumn:
    return ExportColumn(name=name, kind=ColumnType.MOMENT, of=[name])


MadeOf = tuple[Sequence[str], Callable[..., Sequence[ExportCell]] | None]
"""The stored columns from which a column is made, and the function that makes it."""


def _amounts(
    prefix: str, names: Sequence[str], reader: Callable[[str], MadeOf] | None = None
) -> list[ExportColumn]:
    """Return the columns of a group of amounts; its cost also in US dollars.

    Args:
        prefix: The prefix of their names.
        names: Their names.
        reader: Returns how one of them is made; by default it is the stored column.
    """

    def column(name: str, kind: ColumnType, amount: str) -> ExportColumn:
        stored = [f"{prefix}_{amount}"]
        of, made = (stored, None) if reader is None else reader(amount)
        return ExportColumn(name=f"{prefix}_{name}", kind=kind, of=of, made=made)

    found = [column(name, ColumnType.INTEGER, name) for name in names]
    return [*found, column("usd", ColumnType.DECIMAL, _COST)]


def _spent(name: str) -> MadeOf:
    def made(totals: Sequence[int | None], amounts: Sequence[int | None]) -> Sequence[int | None]:
        pairs = zip(totals, amounts, strict=True)
        return [None if total is None else amount or 0 for total, amount in pairs]

    return ["usage_total_tokens", f"usage_{name}"], made


def _held(name: str) -> MadeOf:
    place = Totals._fields.index(name)

    def made(held: Sequence[Totals | None]) -> Sequence[int | None]:
        return [None if one is None else one[place] for one in held]

    return [_HELD], made


def _used(name: str) -> MadeOf:
    """Return how to make what the lease has used: as stored, or else the entry's own usage."""

    def made(*given: Sequence[int | None]) -> Sequence[int | None]:
        leases, totals, _, usages = given
        if totals.count(None) == len(totals):
            pairs = zip(leases, usages, strict=True)
            return [None if lease is None else usage or 0 for lease, usage in pairs]
        return [
            None if lease is None else (usage if total is None else used) or 0
            for lease, total, used, usage in zip(*given, strict=True)
        ]

    return ["lease", "used_total_tokens", f"used_{name}", f"usage_{name}"], made


def _digest(name: str) -> ExportColumn:
    return ExportColumn(name=name, kind=ColumnType.TEXT, of=[name], made=each(_hexadecimal))


def _hexadecimal(digest: bytes | None) -> str | None:
    return None if digest is None else digest.hex()


@cache
def _flag_names(flags: int) -> str | None:
    return " ".join(str(flag.name).lower() for flag in EntryFlag if flag & flags) or None


def _reason(text: str | None) -> str | None:
    detail = rows.detail_of({"detail": text})
    denied: str | None = detail.get("denial", {}).get("reason")
    return denied or reason_in(detail)


def _actor(text: str | None) -> str | None:
    actor = actor_in(rows.detail_of({"detail": text}))
    return None if actor is None else str(actor)


EXPORT_COLUMNS: Sequence[ExportColumn] = (
    _text("pool"),
    _integer("seq"),
    _text("kind"),
    ExportColumn(name="flags", kind=ColumnType.TEXT, of=["flags"], made=each(_flag_names)),
    _moment("recorded_at"),
    _moment("occurred_at"),
    _integer("lease"),
    _moment("expires_at"),
    *(_text(name, personal=True) for name in ATTRIBUTION_TEXTS),
    _text("tags", kind=ColumnType.JSON, personal=True),
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
    ExportColumn(name="reason", kind=ColumnType.TEXT, of=["detail"], made=each(_reason)),
    ExportColumn(name="actor", kind=ColumnType.TEXT, of=["detail"], made=each(_actor)),
    _text("detail", kind=ColumnType.JSON),
    _digest("payload_digest"),
    _integer("hash_version"),
    _digest("hash"),
)
"""One row for each entry, mirrors included: the journal in readable form."""
