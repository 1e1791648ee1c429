"""Mappings: the meaning of the columns of a provider's bill."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from ledger.core.checks import check_path, check_text, check_type
from ledger.core.values import USAGE_FIELDS
from ledger.errors import InvalidInputError
from ledger.reconcile.moments import check_format
from ledger.reconcile.objects import LIST
from ledger.reports.buckets import zone_named

COST = "cost_micros_usd"
"""The axis that is money; the other axes are tokens."""


class CostUnit(StrEnum):
    """The unit of a cost."""

    USD = "usd"
    CENTS = "cents"
    MICROS_USD = "micros_usd"


class TokenCounting(StrEnum):
    """How input tokens are counted."""

    CACHE_INCLUDED = "cache_included"
    """Input tokens include those written to and read from a cache, as in the journal."""

    CACHE_EXCLUDED = "cache_excluded"
    """Cache tokens are billed in columns of their own; they are added to the input here."""


class Repeats(StrEnum):
    """What it means if several lines have the same request id."""

    REFUSE = "refuse"
    """The bill is refused if two of them have the same amount."""

    ADD = "add"
    """Each line is a part of what was billed: they are added up."""

    LAST = "last"
    """Each line says all that was used so far, as in logs of streams: the last one counts."""


class Identical(StrEnum):
    """What it means if two lines are identical, as where exports overlap."""

    REFUSE = "refuse"
    """They are added up and counted, and the bill cannot be applied."""

    ADD = "add"
    """Each of them was billed."""

    ONCE = "once"
    """They are one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BillMapping:
    """Which column of a bill holds which field.

    In JSON a column is a key. A key within an object is written with a dot: `amount.value`; one
    within the objects of a list as `credits[].amount`, which is the sum over the list. An amount
    may be the sum of several columns.

    Attributes:
        name: The mapping's name.
        request_id: The column of the provider's request id.
        at: The column of a day, a time (ISO 8601), or a number of seconds or milliseconds since
            1970.
        at_format: The form of the times: `seconds`, `milliseconds`, or a format of Python's
            `strptime` that has the day. Without it, the form is found out.
        end: The column of the time at which a line ends, which is not part of it.
        model: The column of the model.
        model_until: A text that ends the model's name in its column; it and the rest are dropped.
        models: The journal's names of models, by the bill's names, where they are different.
        currency: The column of the currency, which must be US dollars.
        input_tokens: Columns of input tokens.
        output_tokens: Columns of output tokens.
        total_tokens: Columns of all tokens; without any, input and output are added.
        cache_creation_tokens: Columns of tokens written to a cache.
        cache_read_tokens: Columns of tokens read from a cache.
        reasoning_tokens: Columns of reasoning tokens, which are among the output.
        cost: Columns of the cost.
        cost_unit: The unit of the cost.
        tokens: How input tokens are counted.
        zone: The time zone of days, and of times without one.
        rows: In JSON, the keys of the lists that hold the rows, from the outermost on.
        repeats: What it means if several lines have the same request id.
        identical: What it means if two lines are identical.
        optional: Fields that are left out if the file lacks their columns.
    """

    name: str = "mapping"
    request_id: str | None = None
    at: str | None = None
    at_format: str | None = None
    end: str | None = None
    model: str | None = None
    model_until: str | None = None
    models: Mapping[str, str] = field(default_factory=dict, hash=False)
    currency: str | None = None
    input_tokens: Sequence[str] = ()
    output_tokens: Sequence[str] = ()
    total_tokens: Sequence[str] = ()
    cache_creation_tokens: Sequence[str] = ()
    cache_read_tokens: Sequence[str] = ()
    reasoning_tokens: Sequence[str] = ()
    cost: Sequence[str] = ()
    cost_unit: CostUnit = CostUnit.USD
    tokens: TokenCounting = TokenCounting.CACHE_INCLUDED
    zone: str = "UTC"
    rows: Sequence[str] = ("data", "results")
    repeats: Repeats = Repeats.REFUSE
    identical: Identical = Identical.REFUSE
    optional: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in _TEXTS:
            value = getattr(self, name)
            if value is not None:
                check_text(name, value)
        if self.at_format is not None:
            check_format("at_format", self.at_format)
        for name in (*_SUMS, "rows", "optional"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        check_type("models", self.models, Mapping)
        for ours in (*self.models, *self.models.values()):
            check_text("models", ours)
        for name, kind in _CHOICES.items():
            object.__setattr__(self, name, _choice(name, getattr(self, name), kind))
        zone_named(self.zone)
        if self.request_id is None and self.at is None:
            raise InvalidInputError(self.name, "names no column for request_id or for at")
        if not self.amounts:
            raise InvalidInputError(self.name, f"names no column for any of {', '.join(_SUMS)}")
        self._check_columns()

    def _check_columns(self) -> None:
        for name in self.optional:
            if name not in COLUMN_FIELDS:
                raise InvalidInputError(
                    "optional", f"{name!r} is none of {', '.join(COLUMN_FIELDS)}"
                )
        if not self.rows:
            raise InvalidInputError("rows", "must name at least one key")
        for name in ("request_id", "at", "end", "model", "currency"):
            if LIST in (getattr(self, name) or ""):
                raise InvalidInputError(name, f"{LIST} is for amounts, which are added up")

    @property
    def amounts(self) -> dict[str, Sequence[str]]:
        """Return the columns of each amount that the bill has, by the journal's name for it."""
        named = {name: getattr(self, "cost" if name == COST else name) for name in USAGE_FIELDS}
        return {name: columns for name, columns in named.items() if columns}

    @property
    def columns(self) -> set[str]:
        """Return all columns that it reads."""
        named = [getattr(self, name) for name in COLUMN_FIELDS]
        return {
            column
            for value in named
            if value is not None
            for column in ([value] if isinstance(value, str) else value)
        }

    @property
    def axes(self) -> tuple[str, ...]:
        """Return the amounts that can be compared, with the total if it can be computed."""
        known = {*self.amounts}
        if {"input_tokens", "output_tokens"} <= known:
            known.add("total_tokens")
        return tuple(name for name in USAGE_FIELDS if name in known)

    def fitted(self, columns: Collection[str]) -> BillMapping:
        """Return the mapping without the optional fields that the file has no columns for.

        Raises:
            InvalidInputError: A required column is missing; the error names it and the file's own.
        """
        missing: dict[str, list[str]] = {}
        for name in COLUMN_FIELDS:
            value = getattr(self, name)
            named = [value] if isinstance(value, str) else value or []
            lacking = [column for column in named if column not in columns]
            if lacking:
                missing[name] = lacking
        needed = [
            repr(column)
            for name, lacking in missing.items()
            if name not in self.optional
            for column in lacking
        ]
        if needed:
            raise InvalidInputError(
                "columns",
                f"no {', '.join(needed)}, as mapping {self.name!r} wants; the file has "
                + ", ".join(map(repr, columns)),
            )
        without: dict[str, Any] = {name: () if name in _SUMS else None for name in missing}
        try:
            return replace(self, **without)
        except InvalidInputError as error:
            raise InvalidInputError(
                "columns",
                f"mapping {self.name!r} finds too little: {error}; the file has "
                + ", ".join(map(repr, columns)),
            ) from error


_TEXTS = ("name", "request_id", "at", "end", "model", "model_until", "currency", "zone")
_SUMS = (*(name for name in USAGE_FIELDS if name != COST), "cost")
COLUMN_FIELDS = ("request_id", "at", "end", "model", "currency", *_SUMS)
"""The fields that name columns."""
_CHOICES = {
    "cost_unit": CostUnit,
    "tokens": TokenCounting,
    "repeats": Repeats,
    "identical": Identical,
}


def read_mapping(path: str | Path) -> BillMapping:
    """Return the mapping that a TOML or JSON file describes.

    Raises:
        InvalidInputError: The file cannot be read or is no mapping; the error says why.
    """
    path = check_path("path", path)
    where = f"mapping {path}"
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise InvalidInputError(where, f"cannot be read: {error.strerror}") from error
    except ValueError as error:  # not JSON, not TOML, or not UTF-8
        raise InvalidInputError(where, f"not {path.suffix.removeprefix('.')}: {error}") from error
    known = [part.name for part in fields(BillMapping)]
    if not isinstance(found, dict):
        raise InvalidInputError(where, "must be a table of fields")
    for name in found:
        if name not in known:
            raise InvalidInputError(where, f"{name!r} is none of {', '.join(known)}")
    try:
        return BillMapping(**{"name": path.name, **found})
    except InvalidInputError as error:
        raise InvalidInputError(where, str(error)) from error


def _names(name: str, given: Any) -> tuple[str, ...]:  # noqa: ANN401 - whatever a file holds
    columns = (given,) if isinstance(given, str) else given
    if not isinstance(columns, list | tuple):
        raise InvalidInputError(name, "must be a column, or a list of them")
    return tuple(check_text(name, column) for column in columns)


def _choice(name: str, given: str, kind: type[StrEnum]) -> StrEnum:
    try:
        return kind(given)
    except ValueError as error:
        raise InvalidInputError(name, f"{given!r} is none of {', '.join(kind)}") from error
