"""How figures are shown."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from ledger import I64_MAX, U64_MAX, Balance, Remaining, SharedPoolBudgetOptions, Totals
from ledger.core.axes import TOKENS
from ledger.reports import Denied, Movement, RunCost, Statement
from ledger.reports.render import (
    Column,
    Sheet,
    as_csv,
    as_json,
    counted,
    decimal,
    denials_sheet,
    duration,
    figure,
    moment,
    runs_sheet,
    statement_sheet,
    usd,
)

FIRST = datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC)
LAST = datetime(2024, 3, 1, tzinfo=UTC)
FIELDS = [
    "run_id",
    "requests",
    "denied",
    "open_leases",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cost_micros_usd",
    "estimated_input_tokens",
    "estimated_output_tokens",
    "estimated_total_tokens",
    "estimated_cost_micros_usd",
    "first_at",
    "last_at",
    "attempts",
    "releases",
    "expiries",
    "late",
    "corrections",
    "imports",
    "unpriced",
    "cache_creation_tokens",
    "cache_read_tokens",
    "reasoning_tokens",
    *(
        f"{amount}_{part}"
        for amount in ("total_tokens", "cost_micros_usd")
        for part in ("reported", "recovered", "estimated", "unknown")
    ),
]


def row(run_id: str | None, *, times: int = 1) -> RunCost:
    """Return a line of a report whose figures are all different."""
    return RunCost(
        run_id=run_id,
        requests=1_001 * times,
        denied=2 * times,
        open_leases=3 * times,
        input_tokens=4_004 * times,
        output_tokens=5_005 * times,
        total_tokens=(2**64) * times,
        cost_micros_usd=7_000_007 * times,
        estimated_input_tokens=8 * times,
        estimated_output_tokens=9 * times,
        estimated_total_tokens=10_010 * times,
        estimated_cost_micros_usd=11 * times,
        first_at=FIRST,
        last_at=LAST,
    )


def printed(sheet: Sheet, *, width: int = 250) -> list[list[str]]:
    """Return a table's lines as words."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(sheet.fitted())
    return [line.split() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("micros", "shown"),
    [
        (0, "0.000000"),
        (1, "0.000001"),
        (999_999, "0.999999"),
        (1_000_000, "1.000000"),
        (1_234_567_890, "1,234.567890"),
        (-1, "-0.000001"),
        (-1_500_000, "-1.500000"),
        (I64_MAX, "9,223,372,036,854.775807"),
        (3 * I64_MAX, "27,670,116,110,564.327421"),
    ],
)
def test_usd(micros: int, shown: str) -> None:
    """Dollars have every digit, at any size and on both sides of 0."""
    assert shown == usd(micros)


@pytest.mark.parametrize(
    ("amount", "shown"),
    [(0, "0"), (I64_MAX, f"{I64_MAX:,}"), (I64_MAX + 1, f"{I64_MAX + 1:,}"), (None, "unlimited")],
)
def test_figures_on_an_axis(amount: int | None, shown: str) -> None:
    """Only what has no limit is called unlimited: what memory can hold is a figure, too."""
    assert shown == figure(TOKENS, amount)


def test_moment() -> None:
    """Times are shown in UTC to the second, never rounded up."""
    assert "2024-02-29T23:59:59Z" == moment(FIRST)


def test_json() -> None:
    """Integers are integers of any size, None is null, times are ISO 8601, text is as it is."""
    out = io.StringIO()
    as_json([row("ä\n"), row(None)], out)
    text = out.getvalue()
    assert text.endswith("]\n")
    assert "ä" in text
    first, second = json.loads(text)
    assert FIELDS == list(first)
    assert ("ä\n", None) == (first["run_id"], second["run_id"])
    assert 2**64 == first["total_tokens"]
    assert {int} == {type(first[name]) for name in set(FIELDS) - {"run_id", "first_at", "last_at"}}
    assert FIRST == datetime.fromisoformat(first["first_at"])
    assert LAST == datetime.fromisoformat(first["last_at"])


def test_json_of_nothing() -> None:
    """No rows are an empty array."""
    out = io.StringIO()
    as_json([], out)
    assert [] == json.loads(out.getvalue())


def test_csv() -> None:
    """The header is the fields' names, None is an empty cell, figures have no separators."""
    out = io.StringIO()
    as_csv([row('a, "b"\n[c]'), row(None)], RunCost, out)
    assert "\r" not in out.getvalue()
    header, first, second = csv.reader(io.StringIO(out.getvalue()))
    assert FIELDS == header
    assert 'a, "b"\n[c]' == first[0]
    assert "" == second[0]
    assert ["1001", "2", "3", "4004", "5005", "18446744073709551616", "7000007"] == first[1:8]
    assert FIRST.isoformat() == first[FIELDS.index("first_at")]


def test_csv_of_nothing() -> None:
    """No rows are a header alone."""
    out = io.StringIO()
    as_csv([], RunCost, out)
    assert [FIELDS] == list(csv.reader(io.StringIO(out.getvalue())))


def test_runs_sheet() -> None:
    """Each run is a line, and the last line adds them up."""
    lines = printed(runs_sheet([row("a"), row(None, times=2)]))
    figures = [line for line in lines if line and line[0] in {"a", "(none)", "Total"}]
    expected = [
        "a 1,001 2 4,004 5,005 18,446,744,073,709,551,616 10,010 7.000007 0.000011",
        "(none) 2,002 4 8,008 10,010 36,893,488,147,419,103,232 20,020 14.000014 0.000022",
        "Total 3,003 6 12,012 15,015 55,340,232,221,128,654,848 30,030 21.000021 0.000033",
    ]
    times = ["2024-02-29T23:59:59Z", "2024-03-01T00:00:00Z"]
    assert [[*line.split(), *times] for line in expected] == figures


def test_one_run_needs_no_total() -> None:
    """A table of one line, or of none, has no line of totals."""
    for rows in ([row("a")], []):
        assert not any("Total" == line[0] for line in printed(runs_sheet(rows)) if line)


@pytest.mark.parametrize("name", ["[red]a[/red]", "[/b]", "a[0]", ":key:", "[link=x]y"])
def test_names_are_not_markup(name: str) -> None:
    """Square brackets and colons in a name are shown as they are."""
    assert name in [line[0] for line in printed(runs_sheet([row(name)])) if line]
    denied = Denied(
        pool="p",
        seq=1,
        at=FIRST,
        run_id=name,
        reason="request_budget",
        requested_tokens=1_234,
        requested_cost_micros_usd=5,
        remaining_tokens=None,
        remaining_cost_micros_usd=None,
        refusal=f"capacity of {name}",
    )
    line = [name, "2024-02-29T23:59:59Z", "capacity", "of", name, "1,234", "0.000005"]
    assert line in printed(denials_sheet([denied]))


def test_denials_sheet() -> None:
    """What was left is shown beside what was asked, and unlimited where it means nothing."""
    denied = Denied(
        pool="p",
        seq=1,
        at=FIRST,
        run_id=None,
        reason="threshold",
        requested_tokens=1_234,
        requested_cost_micros_usd=5,
        remaining_tokens=1_233,
        remaining_cost_micros_usd=None,
        refused_by="p",
        refusal="capacity",
    )
    line = ["(none)", "2024-02-29T23:59:59Z", "capacity", "1,234", "1,233", "0.000005"]
    shown = printed(denials_sheet([denied]))
    assert [*line, "unlimited"] in shown
    # Named as in JSON and CSV, where `refused_by` is a pool.
    assert any(["Run", "At", "Refusal"] == one[:3] for one in shown)


def test_statement_sheet() -> None:
    """Opening, movements, closing, capacity and remaining are a line each."""
    moved = Totals(1_000, 2_000_000, 1)
    found = Statement(
        pool="p",
        opening=Balance(),
        movements=[
            Movement(kind="settlement", entries=1_500, committed=moved, reserved=Totals(-5, -6, -1))
        ],
        closing=Balance(moved, Totals(7, 8, 1)),
        seq=1_500,
        recorded_at=LAST,
        policy=SharedPoolBudgetOptions(capacity_tokens=9_999),
        balance=Balance(moved, Totals(7, 8, 1)),
        remaining=Remaining(
            8_992, U64_MAX - 2_000_008, False, unlimited=frozenset({"cost_micros_usd", "requests"})
        ),
    )
    lines = [line for line in printed(statement_sheet(found)) if line]
    for expected in (
        ["Opening", "balance", "0", "0.000000", "0", "0.000000"],
        ["settlement", "1,500", "1,000", "2.000000", "-5", "-0.000006"],
        ["Closing", "balance", "1,500", "1,000", "2.000000", "7", "0.000008"],
        ["Capacity", "9,999", "unlimited"],
        ["Remaining", "8,992", "unlimited"],
    ):
        assert expected in lines


def test_a_narrow_terminal_leaves_columns_out_by_rank() -> None:
    """What matters least goes first, what always matters stays, and what is gone is named."""
    sheet = runs_sheet([row("a"), row(None)])
    headings = [column.heading for column in sheet.columns]
    assert "Attempts" not in [headings[number] for number in sheet.shown()]
    assert list(range(len(headings))) == sheet.shown(wide=True, width=10)
    kept = [headings[number] for number in sheet.shown(width=1)]
    assert ["Run", "Total\ntokens", "Cost\nUSD"] == kept
    assert [] == sheet.left_out()
    narrow = [sheet.left_out(width=width) for width in range(250, 60, -1)]
    assert ["First", "First Last", "Estimated USD First Last"] == [
        " ".join(gone) for gone in {tuple(gone): None for gone in narrow} if gone
    ][:3]
    for width in range(70, 240, 7):
        table = sheet.fitted(width=width)
        out = io.StringIO()
        Console(file=out, width=500, color_system=None).print(table)
        assert max(len(line.rstrip()) for line in out.getvalue().splitlines()) <= width


def test_a_column_that_is_too_wide_leaves_its_room_to_others() -> None:
    """A long remark does not take the figures with it, of which those on the right go first."""
    ranks = {"Entry": 0, "Tokens": 2, "USD": 2, "Held": 3, "Of it": 3, "Remarks": 1}
    sheet = Sheet(columns=[Column(heading=name, rank=rank) for name, rank in ranks.items()])
    sheet.add("1", "2", "3", "4", "5", "remark " * 20)
    assert ["Remarks"] == sheet.left_out(width=40)
    assert ["Of it", "Remarks"] == sheet.left_out(width=30)
    assert [] == sheet.left_out(width=180)


_CELLS = st.one_of(
    st.text("ab字🙂é", max_size=6),
    st.text("ab字🙂é", max_size=6).map(Text),
    st.text("ab字", min_size=1, max_size=6).map(lambda word: Text(word, style="red")),
    st.text("ab字", min_size=1, max_size=6).map(lambda word: Text(word) + Text("!", style="bold")),
)


@given(data=st.data())
def test_lines_are_those_of_richs_own_tables(data: st.DataObject) -> None:
    """Wide characters, styles, headings of two lines, sections: the same characters come out.

    Blanks at the end of a line are left out.
    """
    number = data.draw(st.integers(1, 4))
    headings = [data.draw(st.sampled_from(["", "A", "One\nTwo", "字\nA"])) for _ in range(number)]
    left = [data.draw(st.booleans()) for _ in range(number)]
    sheet = Sheet(
        columns=[Column(heading=h, left=one) for h, one in zip(headings, left, strict=True)]
    )
    expected = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for place, heading in enumerate(headings):
        justify = "left" if place == 0 or left[place] else "right"
        expected.add_column(Text(heading), justify=justify, no_wrap=True)
    for row in data.draw(st.lists(st.none() | st.tuples(*[_CELLS] * number), max_size=6)):
        if row is None:
            sheet.add_section()
            expected.add_section()
        else:
            sheet.add(*row)
            expected.add_row(*row)
    theirs = "".join(f"{line.rstrip(' ')}\n" for line in drawn(expected).splitlines())
    assert theirs == drawn(sheet.fitted())


def drawn(table: RenderableType) -> str:
    """Return what is printed, without styles."""
    out = io.StringIO()
    Console(file=out, width=500, color_system=None, markup=False, emoji=False).print(table)
    return out.getvalue()


def test_a_style_reaches_a_terminal() -> None:
    """What a cell has of colour is drawn, and headings are bold."""
    sheet = Sheet(columns=[Column(heading="Pool")])
    sheet.add(Text("red", style="red"))
    out = io.StringIO()
    Console(file=out, width=80, force_terminal=True, color_system="standard").print(sheet.fitted())
    assert "\x1b[1mPool" in out.getvalue()
    assert "\x1b[31mred\x1b[0m" in out.getvalue()


@pytest.mark.parametrize(
    ("value", "places", "shown"),
    [
        (Fraction(1, 3), 6, "0.333333"),
        (Fraction(-1, 2), 2, "-0.50"),
        (Fraction(2_000_001, 2), 0, "1,000,000"),
        (Fraction(5), 1, "5.0"),
    ],
)
def test_decimal(value: Fraction, places: int, shown: str) -> None:
    """A fraction is rounded half to even, once, and never through a float."""
    assert shown == decimal(value, places)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (59, "59s"),
        (60, "1m"),
        (3_601, "1h 1s"),
        (93_784, "1d 2h"),
        (10**9, "11,574d 1h"),
    ],
)
def test_duration(seconds: int, shown: str) -> None:
    """The two largest units of a length of time."""
    assert shown == duration(seconds)


@pytest.mark.parametrize(("count", "shown"), [(0, "0 rows"), (1, "1 row"), (1_000, "1,000 rows")])
def test_counted(count: int, shown: str) -> None:
    """One is singular, all else is plural."""
    assert shown == counted(count, "row")
