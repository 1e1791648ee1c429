"""Mappings: the meaning of the columns of a bill, a log or a trace."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from ledger.core.calendar import zone_named
from ledger.core.checks import check_amount, check_text, check_type
from ledger.core.errors import InvalidInputError
from ledger.core.values import USAGE_FIELDS
from ledger.files.moments import ISO, check_format, moment
from ledger.files.numbers import unit_of
from ledger.files.rows import LIST

COST_FIELD = "cost_micros_usd"
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
    """Cache tokens are billed in separate columns, and are added to the input here."""


class Repeats(StrEnum):
    """What it means if several lines have the same request id."""

    REFUSE = "refuse"
    """The bill is refused if two of them have the same amount."""

    ADD = "add"
    """Each line is a part of what was billed; the lines are added up."""

    LAST = "last"
    """Each line says all usage so far, as in logs of streams; the last line counts."""


class Identical(StrEnum):
    """What it means if two lines are identical, as in overlapping exports."""

    REFUSE = "refuse"
    """They are added up and reported, and the bill cannot be applied."""

    ADD = "add"
    """Each of them was billed."""

    ONCE = "once"
    """They are one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BillMapping:
    """Which column of a file holds which field.

    In JSON a column is a key. A key within an object is written with a dot: `amount.value`; one
    within the objects of a list is written `credits[].amount`, and is the sum over the list. An
    amount may be the sum of several columns.

    Attributes:
        name: The mapping's name.
        request_id: The column of the provider's request id.
        within: The column of the request id of the line that a line is a part of, as of the span
            around it. A line with the same tokens as that one, and not none, is the same call, told
            twice: it is left out, one for each line around.
        at: The column of a day, a time (ISO 8601), or a number of seconds or milliseconds since
            1970.
        at_format: The form of the times: `iso`; `seconds`, `milliseconds` or `microseconds` since
            1970; the same with `elapsed_` before it, counted from `start`; or a format of Python's
            `strptime` that has the day. Several forms are tried in order. By default the form is
            detected.
        start: The time from which elapsed times are counted, in ISO 8601.
        end: The column of the time at which a line ends, exclusive.
        model: The column of the model.
        model_until: A text that ends the model's name in its column; it and the rest are dropped.
        models: The journal's names of models, by the bill's names, if they differ. A `*` in the
            bill's name stands for any text. The first name that fits counts.
        run: The column of the run that a call was made for. This and the next three are read for
            imports and back-tests, not for comparing a bill.
        provider: The column of the provider.
        tenant: The column of the tenant.
        agent: The column of the agent.
        currency: The column of the currency, which must be US dollars.
        input_tokens: Columns of input tokens.
        output_tokens: Columns of output tokens.
        total_tokens: Columns of all tokens; without any, input and output are added.
        cache_creation_tokens: Columns of tokens written to a cache.
        cache_read_tokens: Columns of tokens read from a cache.
        reasoning_tokens: Columns of reasoning tokens, which are among the output.
        kind: The column of the kind of token that a line is about, where each kind has a line.
        quantity: The column of how many tokens of that kind they are.
        kinds: What each kind is: one of the amounts, such as `input_tokens`. A `*` in the kind
            stands for any text; the first that fits counts. Other kinds are counted and named.
        token_unit: How many tokens a unit has, as `1K` or `1M`; or the column that says so.
        cost: Columns of the cost.
        cost_unit: The unit of the cost.
        tokens: How input tokens are counted.
        zone: The time zone of days, and of times without one.
        identity: The columns that identify a line, for logs that repeat a line with other values
            elsewhere, such as the time. By default lines are identical if all their cells are.
        aliases: The mapping's names of columns, by other names in lower case. A column may have
            either name, in any case.
        begins: By column, the values with which a row begins a session. Lines are identical only
            within one session.
        only: By column, the values that a row must have to be read. A `*` stands for any text.
        empty: Texts that a cell without a value has, such as `-` or `Included`.
        decimal: The decimal sign, `.` or `,`; by default it must be clear from each number.
        delimiter: In CSV, the sign between cells; by default it is detected.
        skip_lines: In CSV and workbooks, how many lines are above the header; by default it is
            detected.
        rows: In JSON, the keys of the lists that hold the rows, from the outermost on.
        repeats: What it means if several lines have the same request id.
        identical: What it means if two lines are identical.
        optional: Fields that are left out if the file lacks their columns.
    """

    name: str = "mapping"
    request_id: str | None = None
    within: str | None = None
    at: str | None = None
    at_format: Sequence[str] = ()
    start: str | None = None
    end: str | None = None
    model: str | None = None
    model_until: str | None = None
    models: Mapping[str, str] = field(default_factory=dict, hash=False)
    run: str | None = None
    provider: str | None = None
    tenant: str | None = None
    agent: str | None = None
    currency: str | None = None
    input_tokens: Sequence[str] = ()
    output_tokens: Sequence[str] = ()
    total_tokens: Sequence[str] = ()
    cache_creation_tokens: Sequence[str] = ()
    cache_read_tokens: Sequence[str] = ()
    reasoning_tokens: Sequence[str] = ()
    kind: str | None = None
    quantity: str | None = None
    kinds: Mapping[str, str] = field(default_factory=dict, hash=False)
    token_unit: str | None = None
    cost: Sequence[str] = ()
    cost_unit: CostUnit = CostUnit.USD
    tokens: TokenCounting = TokenCounting.CACHE_INCLUDED
    zone: str = "UTC"
    identity: Sequence[str] = ()
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)
    begins: Mapping[str, Sequence[str]] = field(default_factory=dict, hash=False)
    only: Mapping[str, Sequence[str]] = field(default_factory=dict, hash=False)
    empty: Sequence[str] = ()
    decimal: str | None = None
    delimiter: str | None = None
    skip_lines: int | None = None
    rows: Sequence[str] = ("data", "results")
    repeats: Repeats = Repeats.REFUSE
    identical: Identical = Identical.REFUSE
    optional: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in _TEXTS:
            value = getattr(self, name)
            if value is not None:
                check_text(name, value)
        for name in (*_SUMS, "at_format", "empty", "identity", "rows", "optional"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        for form in self.at_format:
            check_format("at_format", form)
        self._check_tables()
        for name, kind in _CHOICES.items():
            object.__setattr__(self, name, _choice(name, getattr(self, name), kind))
        zone = zone_named(self.zone)
        if self.start is not None:
            moment("start", self.start, (ISO,), zone)
        if self.request_id is None and self.at is None:
            raise InvalidInputError(self.name, "names no column for request_id or for at")
        if not self.amounts:
            raise InvalidInputError(self.name, f"names no column for any of {', '.join(_SUMS)}")
        self._check_columns()
        self._check_text_form()

    def _check_tables(self) -> None:
        for name in ("models", "kinds", "aliases", "begins", "only"):
            check_type(name, getattr(self, name), Mapping)
        for name in ("models", "kinds", "aliases"):
            for text in (*getattr(self, name), *getattr(self, name).values()):
                check_text(name, text)
        for name in ("begins", "only"):
            rows = {
                check_text(name, column): _names(name, texts)
                for column, texts in getattr(self, name).items()
            }
            object.__setattr__(self, name, rows)
        if (self.kind is None) != (self.quantity is None) or (self.kind is None) != (
            not self.kinds
        ):
            raise InvalidInputError("kind", "kind, quantity and kinds belong together: name all")
        for axis in self.kinds.values():
            if axis not in USAGE_FIELDS or axis == COST_FIELD:
                tokens = [name for name in USAGE_FIELDS if name != COST_FIELD]
                raise InvalidInputError("kinds", f"{axis!r} is none of {', '.join(tokens)}")

    def _check_columns(self) -> None:
        for name in self.optional:
            if name not in COLUMN_FIELDS:
                raise InvalidInputError(
                    "optional", f"{name!r} is none of {', '.join(COLUMN_FIELDS)}"
                )
        if not self.rows:
            raise InvalidInputError("rows", "must name at least one key")
        for name in _SINGLE:
            if LIST in (getattr(self, name) or ""):
                raise InvalidInputError(name, f"{LIST} is for amounts, which are added up")

    def _check_text_form(self) -> None:
        if self.decimal not in {None, ".", ","}:
            raise InvalidInputError("decimal", f"{self.decimal!r} is neither '.' nor ','")
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n\0'):
            raise InvalidInputError("delimiter", "must be one character, and no quote")
        if self.skip_lines is not None:
            check_amount("skip_lines", self.skip_lines, ceiling=_SKIPPED_MAX)

    @property
    def amounts(self) -> dict[str, Sequence[str]]:
        """Return the columns of each amount that the bill has, by the journal's name for it."""
        named = {
            name: getattr(self, "cost" if name == COST_FIELD else name) for name in USAGE_FIELDS
        }
        for axis in self.kinds.values():
            named[axis] = (*named[axis], f"{self.quantity}")
        return {name: columns for name, columns in named.items() if columns}

    @property
    def unit_column(self) -> str | None:
        """Return the column that says how many tokens a unit has, None if no column says it."""
        try:
            unit_of("token_unit", self.token_unit or "1")
        except InvalidInputError:
            return self.token_unit
        return None

    @property
    def columns(self) -> set[str]:
        """Return all columns that the mapping reads."""
        named = [
            *(getattr(self, name) for name in COLUMN_FIELDS),
            self.unit_column,
            [*self.begins, *self.only],
            self.identity,
        ]
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
            InvalidInputError: A required column is missing. The error names it and the file's
                columns.
        """
        if self.aliases:
            return self._unaliased(columns).fitted(columns)
        missing: dict[str, list[str]] = {}
        for name in COLUMN_FIELDS:
            value = getattr(self, name)
            named = [value] if isinstance(value, str) else value or []
            lacking = [column for column in named if column not in columns]
            if lacking:
                missing[name] = lacking
        others = [*self.only, *self.identity, *([self.unit_column] if self.unit_column else [])]
        missing["only"] = [column for column in others if column not in columns]
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
        without: dict[str, Any] = {
            name: () if name in _SUMS else None for name in missing if name != "only"
        }
        try:
            return replace(self, **without)
        except InvalidInputError as error:
            raise InvalidInputError(
                "columns",
                f"mapping {self.name!r} finds too little: {error}; the file has "
                + ", ".join(map(repr, columns)),
            ) from error

    def _unaliased(self, columns: Collection[str]) -> BillMapping:
        """Return the mapping with the names that the file has for its columns."""
        asked = self.columns
        theirs: dict[str, str] = {}
        for column in columns:
            ours = self.aliases.get(column.lower(), column.lower())
            if ours in asked and theirs.setdefault(ours, column) != column:
                raise InvalidInputError(
                    "columns", f"{theirs[ours]!r} and {column!r} are the same column"
                )
        named: dict[str, Any] = {}
        for name in COLUMN_FIELDS:
            value = getattr(self, name)
            if isinstance(value, str):
                named[name] = theirs.get(value, value)
            elif value:
                named[name] = [theirs.get(column, column) for column in value]
        return replace(self, aliases={}, **named)


_SKIPPED_MAX = 10_000
"""How many lines may stand above a header."""

ATTRIBUTION = ("run", "provider", "tenant", "agent")
"""The fields of columns that say for whom a call was made."""

_SINGLE = (
    "request_id",
    "within",
    "at",
    "end",
    "model",
    *ATTRIBUTION,
    "currency",
    "kind",
    "quantity",
)
_TEXTS = ("name", *_SINGLE, "start", "model_until", "token_unit", "decimal", "delimiter", "zone")
_SUMS = (*(name for name in USAGE_FIELDS if name != COST_FIELD), "cost")
COLUMN_FIELDS = (*_SINGLE, *_SUMS)
"""The fields that name columns."""
_CHOICES = {
    "cost_unit": CostUnit,
    "tokens": TokenCounting,
    "repeats": Repeats,
    "identical": Identical,
}


def _names(name: str, given: Any) -> tuple[str, ...]:  # noqa: ANN401 - whatever a file holds
    columns = (given,) if isinstance(given, str) else given or ()
    if not isinstance(columns, list | tuple):
        raise InvalidInputError(name, "must be a column, or a list of them")
    return tuple(
        "" if column == "" and name == "only" else check_text(name, column) for column in columns
    )


def _choice(name: str, given: str, kind: type[StrEnum]) -> StrEnum:
    try:
        return kind(given)
    except ValueError as error:
        raise InvalidInputError(name, f"{given!r} is none of {', '.join(kind)}") from error
