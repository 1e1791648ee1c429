"""Reports as JSON and CSV for programs, written row by row."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TextIO, get_args, get_origin, get_type_hints

from ledger.core.axes import AXES, CAPACITIES, CARRY_CAPS
from ledger.core.calendar import Window
from ledger.core.checks import U64_MAX
from ledger.core.limits import Limit
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.values import Remaining
from ledger.reports.render.text_formats import Figure, csv_row, escaped_json
from ledger.reports.render.values import decimal

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_RATIO_PLACES = 6
_MICROSECOND = timedelta(microseconds=1)


def as_json(
    rows: Iterable[DataclassInstance], out: TextIO, *, within: DataclassInstance | None = None
) -> None:
    """Write rows as one JSON array: the fields' own names, integers as integers, ISO times.

    Lengths of time are in microseconds, as in the journal.

    Args:
        rows: The rows.
        out: Where to write.
        within: What the rows are the `lines` of, if they are: the array then has it alone.
    """
    if within is None:
        _write_array(rows, out, "")
    else:
        begun = _json(within, "  ").removesuffix("\n  }")
        out.write(f'[\n  {begun},\n    "lines": ')
        _write_array(rows, out, "    ")
        out.write("  }\n]\n")


def _write_array(rows: Iterable[DataclassInstance], out: TextIO, margin: str) -> None:
    before = "[\n"
    for row in rows:
        out.write(f"{before}{margin}  {_json(row, f'{margin}  ')}")
        before = ",\n"
    out.write("[]\n" if before == "[\n" else f"\n{margin}]\n")


def _json(row: DataclassInstance, margin: str) -> str:
    """Return a row as JSON, with a margin before each line but the first."""
    plain = json.dumps(_plain(row), indent=2, ensure_ascii=False, default=dict)
    return escaped_json(plain).replace("\n", f"\n{margin}")


def as_csv(
    rows: Iterable[DataclassInstance],
    kind: type[DataclassInstance],
    out: TextIO,
    *,
    dimensions: Sequence[str] = (),
) -> None:
    """Write rows as CSV with a header of the fields' own names; None is an empty cell.

    The fields of a value within a row are named after the value and the field: `p50_estimate`.

    Args:
        rows: The rows.
        kind: The type of the rows, which gives the header even if there are no rows.
        out: Where to write.
        dimensions: The names of the dimensions in a row's group.
    """
    # The first row is computed before the header is written: an error then leaves the pipe empty.
    waiting = iter(rows)
    first = list(itertools.islice(waiting, 1))
    header = list(_header(kind, dimensions))
    out.write(csv_row(map(_heading, header), end="\n"))
    for row in itertools.chain(first, waiting):
        cells = dict(_flat(_plain(row)))
        out.write(csv_row([cells.pop(name, None) for name in header], end="\n"))
        assert not cells, f"no columns for {', '.join(cells)}"  # noqa: S101 - a field forgotten


def _heading(name: str) -> str:
    """Return a heading: a field's name is not quoted, a caller's text such as a tag's name is."""
    return Figure(name) if name.isidentifier() else name


def _ordered(kind: Any) -> list[str]:  # noqa: ANN401 - a dataclass, as type or value
    """Return the fields' names, a class's own before those it inherits."""
    names = [part.name for part in fields(kind)]
    own = [name for name in names if name in vars(kind).get("__annotations__", {})]
    return own + [name for name in names if name not in own]


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a row holds
    if is_dataclass(value) and not isinstance(value, type):
        found: dict[str, Any] = {}
        for name in _ordered(type(value)):
            part = getattr(value, name)
            # A group's dimensions are columns like any other.
            found |= part if name == "group" else {name: _plain(part)}
        return _limited(value, found)
    if isinstance(value, datetime | timedelta):
        return Figure(value.isoformat()) if isinstance(value, datetime) else value // _MICROSECOND
    if isinstance(value, Fraction):
        return Figure(decimal(value, _RATIO_PLACES).replace(",", ""))
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def _limited(value: object, found: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a value, with None for the amount of an axis that has no limit."""
    if isinstance(value, Remaining):
        del found["unlimited"]
        return found | {axis.name: axis.left(value) for axis in AXES}
    if isinstance(value, SharedPoolBudgetOptions | Limit | Window):
        names = CARRY_CAPS if isinstance(value, Window) else CAPACITIES
        return found | {name: None for name in names if found[name] == U64_MAX}
    return found


def _flat(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, dict):  # but thresholds are one cell, not a column each
            yield from _flat(value, f"{prefix}{name}_")
        elif isinstance(value, list):  # the limits of a pool are one cell, too
            yield f"{prefix}{name}", json.dumps(value, ensure_ascii=False) if value else None
        elif value is not None:
            yield f"{prefix}{name}", value


def _header(kind: Any, dimensions: Sequence[str], prefix: str = "") -> Iterator[str]:  # noqa: ANN401 - a dataclass or a named tuple
    hints = get_type_hints(kind)
    for name in _ordered(kind) if is_dataclass(kind) else kind._fields:
        if kind is Remaining and name == "unlimited":
            continue  # an amount of None says the same
        parts = () if get_origin(hints[name]) is Sequence else get_args(hints[name])
        within = [
            part for part in (hints[name], *parts) if is_dataclass(part) or hasattr(part, "_fields")
        ]
        if name == "group":
            yield from dimensions
        elif within:
            yield from _header(within[0], dimensions, f"{prefix}{name}_")
        else:
            yield f"{prefix}{name}"
