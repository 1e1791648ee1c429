"""`ledger simulate`: the figures are the trace's own, whatever the prices, runs and workers."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ledger import Entry, EntryKind, Ledger, SharedPoolBudgetOptions, Verification, reports
from ledger.files.cells import CellReader, ReadRows
from ledger.files.lines import BillLine
from ledger.files.lines import Lines as KeptLines
from ledger.files.rows import FileRows
from ledger.reconcile import READY, read_bill
from ledger.simulate import Backtest, RunRule
from tests.fixtures import Lines, Run

AZURE = Path(__file__).parents[2] / "examples" / "azure_code_2023.csv"


class Call(NamedTuple):
    """A row of a trace, read here and not by the library."""

    at: str
    input_tokens: int
    output_tokens: int
    request_id: str | None

    def cost_micros_usd(self, input_price: str, output_price: str) -> int:
        """Return the exact cost, rounded up once; a USD per million is a micro-USD each."""
        exact = self.input_tokens * Fraction(input_price) + self.output_tokens * Fraction(
            output_price
        )
        return math.ceil(exact)


def read(path: Path) -> list[Call]:
    """Return the rows of a trace with the plain header."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Call(
                row["TIMESTAMP"],
                int(row["ContextTokens"]),
                int(row["GeneratedTokens"]),
                row.get("request_id"),
            )
            for row in csv.DictReader(file)
        ]


def totals(calls: Iterable[Call], prices: tuple[str, str] = ("0", "0")) -> dict[str, int]:
    """Return the sums over some rows, as the report names them."""
    listed = list(calls)
    return {
        "requests": len(listed),
        "input_tokens": sum(call.input_tokens for call in listed),
        "output_tokens": sum(call.output_tokens for call in listed),
        "total_tokens": sum(call.input_tokens + call.output_tokens for call in listed),
        "cost_micros_usd": sum(call.cost_micros_usd(*prices) for call in listed),
    }


def added(rows: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Return the sums over the rows of a report that was printed as JSON."""
    listed = list(rows)
    return {name: sum(row[name] for row in listed) for name in totals([])}


def admit(calls: list[Call], capacity: int, output_held: int | None) -> list[bool]:
    """Return which rows a pool of so many tokens admits, one after the other."""
    left, verdicts = capacity, []
    for call in calls:
        output = call.output_tokens if output_held is None else output_held
        verdicts.append(call.input_tokens + output <= left)
        if verdicts[-1]:
            left -= call.input_tokens + call.output_tokens
    return verdicts


def entries(url: str = "sqlite:///ledger.db", pool: str = "trace") -> list[Entry]:
    """Return a pool's entries, of books that verify."""
    with Ledger.open(url, create=False) as book:
        found: list[Verification] = book.verify()
        assert all(one.ok for one in found)
        return list(book.entries(pool))


@pytest.mark.long
def test_an_hour_of_production(program: Run, lines: Lines) -> None:
    """Every run, the totals and the statement are the real trace's own sums, costs exact."""
    prices = ("0.15", "0.6")
    calls = read(AZURE)
    assert 8_819 == len(calls)
    ended = program("simulate", AZURE, "--input-price", prices[0], "--output-price", prices[1])
    assert "" == ended.err
    runs = defaultdict(list)
    for call in calls:
        runs[f"{call.at[:10]}T{call.at[11:15]}0:00Z"].append(call)
    found = json.loads(program("report", "runs", "--format", "json").out)
    assert sorted(runs) == [row["run_id"] for row in found]
    for row in found:
        own = runs[row["run_id"]]
        assert totals(own, prices) == added([row])
        assert (0, 0) == (row["denied"], row["open_leases"])
        assert row["estimated_cost_micros_usd"] == row["cost_micros_usd"]
        for name, pick in (("first_at", min), ("last_at", max)):
            at = pick(call.at for call in own)
            assert datetime.fromisoformat(f"{at[:26]}+00:00") == datetime.fromisoformat(row[name])
    whole = totals(calls, prices)
    cost = f"{whole['cost_micros_usd'] // 1_000_000}.{whole['cost_micros_usd'] % 1_000_000:06}"
    shown = lines(ended.out)
    total = (
        f"Total 8,819 0 {whole['input_tokens']:,} {whole['output_tokens']:,} "
        f"{whole['total_tokens']:,} {whole['total_tokens']:,} {cost} {cost} "
        "2023-11-16T18:17:03Z 2023-11-16T19:14:19Z"
    )
    assert total in shown
    assert f"Closing balance 17,639 {whole['total_tokens']:,} {cost} 0 0.000000" in shown
    assert "8,819 rows: 8,819 admitted, 0 denied; pool azure_code_2023 in sqlite:///ledger.db" in (
        shown
    )
    assert program("verify").out.startswith("ok       azure_code_2023: 17,639 entries")


@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers(
    ledger: Run, traffic: Callable[..., Path], store_url: str, workers: int
) -> None:
    """With nothing denied the totals are the trace's own; rows run at once where that is asked."""
    path = traffic(120)
    prices = ("2.5", "10.1")
    ledger(
        *("simulate", path, "--url", store_url, "--workers", workers),
        *("--input-price", prices[0], "--output-price", prices[1], "--runs", "50"),
    )
    found = json.loads(ledger("report", "runs", "--url", store_url, "--format", "json").out)
    assert [50, 50, 20] == [row["requests"] for row in found]
    assert totals(read(path), prices) == added(found)
    kinds = [entry.kind for entry in entries(store_url)]
    one_by_one = ["opening", *["reservation", "settlement"] * 120]
    assert sorted(one_by_one) == sorted(kinds)
    assert (workers == 1) == (one_by_one == kinds)


@pytest.mark.parametrize(("workers", "held"), [(1, None), (1, 500), (4, 500)])
def test_sums_are_those_of_admitted_rows(
    ledger: Run, traffic: Callable[..., Path], workers: int, held: int | None
) -> None:
    """What was refused is charged nowhere; what was admitted is charged in full."""
    path = traffic(120)
    calls = {call.request_id: call for call in read(path)}
    capacity = sum(call.input_tokens + call.output_tokens for call in calls.values()) // 2
    ended = ledger(
        *("simulate", path, "--capacity-tokens", capacity, "--workers", workers),
        *(() if held is None else ("--estimate-output", held)),
    )
    written = entries()
    admitted = {e.request_id for e in written if e.kind == EntryKind.SETTLEMENT}
    denied = {e.request_id for e in written if e.kind == EntryKind.DENIAL}
    assert set(calls) == admitted | denied
    assert set() == admitted & denied
    assert admitted
    assert denied
    found = json.loads(ledger("report", "runs", "--format", "json").out)
    assert totals(calls[name] for name in admitted) == added(found)
    assert len(denied) == sum(row["denied"] for row in found)
    assert f"120 rows: {len(admitted)} admitted, {len(denied)} denied;" in ended.out
    if workers == 1:
        verdicts = admit(list(calls.values()), capacity, held)
        assert {name for name, ok in zip(calls, verdicts, strict=True) if ok} == admitted


def test_one_worker_denies_the_same_every_time(
    ledger: Run, traffic: Callable[..., Path], lines: Lines
) -> None:
    """Two stores, one trace: the same denials with the same figures, and the same output."""
    path = traffic(100)
    seen = []
    for store in ("sqlite:///one.db", "sqlite:///two.db"):
        command = ("simulate", path, "--capacity-tokens", 30_000, "--estimate-output", 400)
        ended = ledger(*command, "--url", store)
        with Ledger.open(store, create=False) as book:
            seen.append((list(reports.denials(book, "trace")), lines(ended.out)[:-1]))
    assert seen[0][0]
    assert seen[0] == seen[1]


def test_denials_are_kept_and_shown(
    ledger: Run, trace: Callable[..., Path], lines: Lines, store_url: str
) -> None:
    """Each refusal is an entry with its row's time, and a line with what was asked and left."""
    path = trace(
        "2024-02-29 10:00:00,60,5",
        "2024-02-29 10:00:01.5,40,5",
        "2024-02-29 10:20:02,5,5",
        "2024-02-29 10:30:03,20,9",
    )
    ended = ledger("simulate", path, "--capacity-tokens", 100, "--url", store_url)
    denied = [entry for entry in entries(store_url) if entry.kind == EntryKind.DENIAL]
    assert ["2024-02-29T10:00:01.500000+00:00", "2024-02-29T10:30:03+00:00"] == [
        entry.at.isoformat() for entry in denied
    ]
    shown = lines(ended.out)
    assert "Denied: 2" in shown
    for line in (
        "2024-02-29T10:00:00Z 2024-02-29T10:00:01Z capacity, tokens 45 35 0.000000 unlimited",
        "2024-02-29T10:30:00Z 2024-02-29T10:30:03Z capacity, tokens 29 25 0.000000 unlimited",
        "denial 2 0 0.000000 0 0.000000",
        "Closing balance 7 75 0.000000 0 0.000000",
        "Capacity 100 unlimited",
        "Remaining 25 unlimited",
    ):
        assert line in shown
    assert shown[-1].startswith("4 rows: 2 admitted, 2 denied; pool trace in ")


def test_many_denials_are_counted_and_the_first_shown(
    ledger: Run, traffic: Callable[..., Path], lines: Lines
) -> None:
    """The table stays short, its title says how many there are, and the journal has them all."""
    ended = ledger("simulate", traffic(40), "--capacity-tokens", 0)
    shown = lines(ended.out)
    assert "Denied: 40, of which the first 10" in shown
    assert 10 == sum(" capacity, tokens " in line for line in shown)
    assert 40 == sum(entry.kind == EntryKind.DENIAL for entry in entries())


def test_denials_of_an_earlier_trace_are_not_shown_again(
    ledger: Run, traffic: Callable[..., Path], lines: Lines
) -> None:
    """The table holds as many lines as its title says, and they are this trace's."""
    ledger("simulate", traffic(3, name="first.csv"), "--pool", "p", "--capacity-tokens", 0)
    ended = ledger("simulate", traffic(2), "--pool", "p", "--capacity-tokens", 0)
    shown = lines(ended.out)
    assert "Denied: 2" in shown
    assert 2 == sum(" capacity, tokens " in line for line in shown)


def test_capacity_in_usd(ledger: Run, trace: Callable[..., Path], lines: Lines) -> None:
    """A pool of dollars is spent to its last millionth, and not beyond."""
    path = trace("2024-02-29,1000,0", "2024-02-29,1000,0", "2024-02-29,1,0", name="usd.csv")
    ended = ledger("simulate", path, "--capacity-usd", "0.006", "--input-price", 3)
    shown = lines(ended.out)
    assert "Closing balance 6 2,000 0.006000 0 0.000000" in shown
    assert "Remaining unlimited 0.000000" in shown
    assert "Denied: 1" in shown


def test_stop_thresholds_are_kept_back(ledger: Run, trace: Callable[..., Path]) -> None:
    """A row that would leave less than the threshold is denied; exactly the threshold is not."""
    path = trace("2024-02-29,60,0", "2024-02-29,21,0", "2024-02-29,20,0")
    ledger("simulate", path, "--capacity-tokens", 100, "--stop-threshold-tokens", 20)
    (found,) = json.loads(ledger("report", "runs", "--format", "json").out)
    assert (2, 1, 80) == (found["requests"], found["denied"], found["total_tokens"])


def test_every_entry_of_a_row_is_dated(ledger: Run, trace: Callable[..., Path]) -> None:
    """`occurred_at` is the row's time, to the microsecond, in its own zone or else in UTC."""
    path = trace(
        "2024-02-29 10:00:00.1234567,1,1",
        "2024-02-29T10:00:00+02:00,1,1",
        "2024-02-29T10:00:00Z,1,1",
    )
    ledger("simulate", path)
    expected = ["2024-02-29T10:00:00.123456", "2024-02-29T08:00:00", "2024-02-29T10:00:00"]
    dated = entries()[1:]
    assert [f"{at}+00:00" for at in expected for _ in range(2)] == [
        entry.at.isoformat() for entry in dated
    ]
    assert all(entry.occurred_at is not None for entry in dated)
    assert ["reservation", "settlement"] * 3 == [entry.kind for entry in dated]


@pytest.mark.parametrize(
    ("option", "estimated"),
    [
        ((), [(10, 3, 13), (20, 90, 110)]),
        (("--estimate-output", "actual"), [(10, 3, 13), (20, 90, 110)]),
        (("--estimate-output", "40"), [(10, 40, 50), (20, 40, 60)]),
        (("--estimate-output", "0"), [(10, 0, 10), (20, 0, 20)]),
    ],
)
def test_how_the_output_is_estimated(
    ledger: Run,
    trace: Callable[..., Path],
    option: tuple[str, ...],
    estimated: list[tuple[int, ...]],
) -> None:
    """The trace's own output, or a fixed one; what was used is recorded in any case."""
    path = trace("2024-02-29,10,3", "2024-02-29,20,90")
    prices = ("--input-price", "2", "--output-price", "5")
    ledger("simulate", path, *prices, *option)
    held = [e.estimate for e in entries() if e.kind == EntryKind.RESERVATION]
    spent = [e.usage for e in entries() if e.kind == EntryKind.SETTLEMENT]
    in_tokens = [(h.input_tokens, h.output_tokens, h.total_tokens) for h in held if h]
    assert estimated == in_tokens
    assert [2 * i + 5 * o for i, o, _total in in_tokens] == [h.cost_micros_usd for h in held if h]
    assert [(13, 35), (110, 490)] == [(u.total_tokens, u.cost_micros_usd) for u in spent if u]


@pytest.mark.parametrize(
    ("prices", "cost"),
    [
        (("0.000001", "0"), 1),
        (("0.1", "0.2"), 2),
        (("0.3333333333333333333333333333333333", "0"), 3),
        (("1", "0.0000000000000000000000000000000001"), 8),
        (("3", "15"), 66),
    ],
)
def test_costs_are_exact_and_rounded_up_once(
    ledger: Run, trace: Callable[..., Path], prices: tuple[str, str], cost: int
) -> None:
    """Of 7 input and 3 output tokens: no float, no limit of digits, one rounding a row."""
    ledger(
        *("simulate", trace("2024-02-29,7,3", "2024-02-29,7,3", "2024-02-29,0,0")),
        *("--input-price", prices[0], "--output-price", prices[1]),
    )
    (found,) = json.loads(ledger("report", "runs", "--format", "json").out)
    assert 2 * cost == found["cost_micros_usd"]


def cached_session(folder: Path, *calls: tuple[int, int, int, int]) -> Path:
    """Write a session of Claude Code: input, written to the cache, read from it, output."""
    path = folder / "session.jsonl"
    names = ("input", "cache_creation_input", "cache_read_input", "output")
    lines = [
        {
            "type": "assistant",
            "timestamp": f"2026-03-01T10:00:{number:02}.000Z",
            "message": {
                "id": f"msg_{number}",
                "model": "claude-sonnet-4-5",
                "usage": {f"{name}_tokens": n for name, n in zip(names, counts, strict=True)},
            },
        }
        for number, counts in enumerate(calls)
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path


CACHED_CALLS = ((5, 1_201, 0, 11), (7, 0, 15_003, 90), (9, 17, 15_020, 0))
PRICED = ("--mapping", "claude-code", "--input-price", 3, "--output-price", 15)


@pytest.mark.parametrize(
    ("read_price", "write_price", "said"),
    [
        ("0.3", "3.75", []),
        ("0.3", None, ["1,218 tokens written to a cache were priced as input"]),
        (None, "3.75", ["30,023 tokens read from a cache were priced as input"]),
        (
            None,
            None,
            [
                "30,023 tokens read from a cache were priced as input",
                "1,218 tokens written to a cache were priced as input",
            ],
        ),
    ],
)
def test_cached_input_has_prices_of_its_own(
    ledger: Run, folder: Path, read_price: str | None, write_price: str | None, said: list[str]
) -> None:
    """What was read from a cache or written to it costs its own price; without one, as input."""
    path = cached_session(folder, *CACHED_CALLS)
    options = {"--cache-read-price": read_price, "--cache-write-price": write_price}
    given = [word for one in options.items() if one[1] is not None for word in one]
    ended = ledger("simulate", path, *PRICED, *given)
    assert said == [line.partition(":")[0] for line in ended.err.splitlines()]
    (found,) = json.loads(ledger("report", "runs", "--format", "json").out)
    read, written = Fraction(read_price or 3), Fraction(write_price or 3)
    exact = [a * 3 + w * written + r * read + out * 15 for a, w, r, out in CACHED_CALLS]
    assert sum(map(math.ceil, exact)) == found["cost_micros_usd"]


def test_cached_input_that_is_more_than_the_input_has_no_price(
    ledger: Run, folder: Path, refused: Callable[..., str]
) -> None:
    """A row is refused by its line, where what was cached is to have a price of its own."""
    path = folder / "trace.csv"
    path.write_text("when,in,out,hits\n2026-03-01,10,3,4\n2026-03-01,10,3,11\n")
    mapping = folder / "own.toml"
    mapping.write_text(
        'name = "own"\nat = "when"\ninput_tokens = ["in"]\noutput_tokens = ["out"]\n'
        'cache_read_tokens = ["hits"]\n'
    )
    words = ("simulate", path, "--mapping", mapping, "--input-price", 3)
    said = refused(*words, "--cache-read-price", "0.3")
    assert "line 3: 11 tokens of a cache are more than the input, 10" in said
    assert "2 rows: 2 admitted" in ledger(*words).out


def test_a_cached_row_of_no_cost_is_refused_where_cost_is_limited(
    folder: Path, refused: Callable[..., str]
) -> None:
    """A price of 0 for what a cache gives is no price, for a pool that limits what calls cost."""
    path = cached_session(folder, (0, 0, 70, 0))
    said = refused("simulate", path, *PRICED, "--cache-read-price", 0, "--capacity-usd", 1)
    assert "no cost" in said


def test_a_trace_that_is_ahead_of_the_clock_is_refused_before_a_pool_is_made(
    refused: Callable[..., str], tmp_path: Path, store_url: str
) -> None:
    """Its first rows are not, and are not run either."""
    path = tmp_path / "trace.csv"
    rows = "2024-02-29,7,3\n2999-12-31,7,3\n"
    path.write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}", encoding="utf-8")
    said = refused("simulate", path, "--url", store_url)
    assert "line 3: time: 2999-12-31T00:00:00+00:00 is ahead of the clock" in said
    with Ledger.open(store_url) as book:
        assert [] == book.pools()


@pytest.mark.parametrize(
    ("header", "row", "prices", "times"),
    [
        ("TIMESTAMP,ContextTokens,GeneratedTokens", "2024-02-29,7,3", (), 1),
        ("TIMESTAMP,ContextTokens,GeneratedTokens", "2024-02-29,7,3", ("--input-price", 1), 0),
        ("at,input_tokens,output_tokens,cost_usd", "2024-02-29,7,3,0.5", (), 0),
    ],
    ids=["nothing", "prices", "costs"],
)
def test_costs_of_nothing_are_said_to_be_so(
    ledger: Run, tmp_path: Path, header: str, row: str, prices: tuple[object, ...], times: int
) -> None:
    """Where neither the trace nor an option says what calls cost."""
    path = tmp_path / "trace.csv"
    path.write_text(f"{header}\n{row}\n")
    out = ledger("simulate", path, *prices).out
    assert times == out.count("Every cost is 0: the trace says none")


@pytest.mark.parametrize(
    ("limit", "cost"), [("capacity_cost_micros_usd", "0.5"), ("capacity_tokens", "0")]
)
def test_no_row_is_looked_at_to_see_that_calls_have_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, cost: str
) -> None:
    """Where every call has one, or the pool limits none: a long trace is not gone through again."""
    path = tmp_path / "trace.csv"
    path.write_text(f"at,input_tokens,output_tokens,cost_usd\n2024-02-29,7,3,{cost}\n")
    made = Backtest(trace=read_bill(path, READY["trace"]), runs=RunRule(every_s=600))

    def refuse(_lines: KeptLines) -> Iterator[BillLine]:
        raise AssertionError("the trace is gone through")

    monkeypatch.setattr(KeptLines, "__iter__", refuse)
    made.check_priced(SharedPoolBudgetOptions(**{limit: 100}))


def test_a_row_is_read_once(
    ledger: Run, trace: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first call is written, and not again when calls are made of the rows."""
    read: list[int] = []
    lines = CellReader.lines

    def counted(reader: CellReader, rows: FileRows, *times: Any) -> ReadRows:  # noqa: ANN401 - as given
        read.extend(rows.lines)
        return lines(reader, rows, *times)

    monkeypatch.setattr(CellReader, "lines", counted)
    ledger("simulate", trace(*[f"2024-02-29,{number},1" for number in range(1, 1_501)]))
    assert [*range(2, 1_502)] == read


def test_a_trace_s_costs_are_no_estimates(ledger: Run, trace: Callable[..., Path]) -> None:
    """A cost is known after the call: where output is estimated, so is what it costs, by prices."""
    path = trace("2024-02-29,10,3,0.5", header="at,input_tokens,output_tokens,cost_usd")
    held = ("--estimate-output", "40")
    refused = ledger("simulate", path, *held, code=2).err
    assert "give the prices of tokens" in " ".join(refused.split())
    ledger("simulate", path, *held, "--input-price", "2", "--output-price", "5")
    (reservation,) = [e for e in entries() if e.kind == EntryKind.RESERVATION]
    (settlement,) = [e for e in entries() if e.kind == EntryKind.SETTLEMENT]
    assert reservation.estimate is not None
    assert settlement.usage is not None
    costs = (reservation.estimate.cost_micros_usd, settlement.usage.cost_micros_usd)
    assert (2 * 10 + 5 * 40, 500_000) == costs


TIMES = ("2024-02-28 23:59:59.9", "2024-02-29 00:00:00", "2024-02-29 00:59:59", "2024-02-29 01:00")


@pytest.mark.parametrize(
    ("rule", "runs"),
    [
        (None, ["02-28T23:50:00Z", "02-29T00:00:00Z", "02-29T00:50:00Z", "02-29T01:00:00Z"]),
        ("10m", ["02-28T23:50:00Z", "02-29T00:00:00Z", "02-29T00:50:00Z", "02-29T01:00:00Z"]),
        ("1h", ["02-28T23:00:00Z", "02-29T00:00:00Z", "02-29T00:00:00Z", "02-29T01:00:00Z"]),
        ("1d", ["02-28T00:00:00Z", "02-29T00:00:00Z", "02-29T00:00:00Z", "02-29T00:00:00Z"]),
        ("1s", ["02-28T23:59:59Z", "02-29T00:00:00Z", "02-29T00:59:59Z", "02-29T01:00:00Z"]),
        ("7d", ["02-22T00:00:00Z", "02-29T00:00:00Z", "02-29T00:00:00Z", "02-29T00:00:00Z"]),
    ],
)
def test_runs_by_time(
    ledger: Run, trace: Callable[..., Path], rule: str | None, runs: list[str]
) -> None:
    """A run begins at whole multiples of its length, in UTC, and is named by its beginning."""
    ledger(
        *("simulate", trace(*(f"{at},1,1" for at in TIMES))),
        *(() if rule is None else ("--runs", rule)),
    )
    named = [e.attribution.run_id for e in entries() if e.kind == "settlement" and e.attribution]
    assert [f"2024-{run}" for run in runs] == named


@pytest.mark.parametrize(("rule", "sizes"), [("1", [1] * 12), ("5", [5, 5, 2]), ("99", [12])])
def test_runs_by_number(
    ledger: Run, traffic: Callable[..., Path], rule: str, sizes: list[int]
) -> None:
    """So many rows are a run, the last may be shorter; names sort as the runs follow."""
    ledger("simulate", traffic(12), "--runs", rule)
    found = json.loads(ledger("report", "runs", "--format", "json").out)
    assert sizes == [row["requests"] for row in found]
    assert sorted(row["run_id"] for row in found) == [row["run_id"] for row in found]


@pytest.mark.parametrize("rule", [(), ("--runs", "column")])
def test_runs_by_column(ledger: Run, trace: Callable[..., Path], rule: tuple[str, ...]) -> None:
    """The trace's own runs, which are the default where there are any; empty is no run."""
    header = "TIMESTAMP,ContextTokens,GeneratedTokens,run"
    path = trace("2024-02-29,1,0,b", "2024-02-29,2,0,a", "2024-02-29,4,0,b", "2024-02-29,8,0,")
    path = trace(*path.read_text().splitlines()[1:], header=header)
    ledger("simulate", path, *rule)
    found = json.loads(ledger("report", "runs", "--format", "json").out)
    assert {"b": 5, "a": 2, None: 8} == {row["run_id"]: row["total_tokens"] for row in found}


def test_a_run_column_can_be_left_aside(ledger: Run, trace: Callable[..., Path]) -> None:
    """Another rule wins over the column."""
    path = trace("2024-02-29,1,0,b", header="TIMESTAMP,ContextTokens,GeneratedTokens,run")
    ledger("simulate", path, "--runs", "1h")
    (found,) = json.loads(ledger("report", "runs", "--format", "json").out)
    assert "2024-02-29T00:00:00Z" == found["run_id"]


def test_the_pool_has_the_name_of_the_file_unless_it_is_given(
    ledger: Run, traffic: Callable[..., Path]
) -> None:
    """`--pool` names the pool that pays; without it the trace's file does."""
    ledger("simulate", traffic(2, name="monday.csv"))
    ledger("simulate", traffic(3, name="tuesday.csv"), "--pool", "week")
    with Ledger.open(create=False) as book:
        assert ["monday", "week"] == [info.name for info in book.pools()]


def test_a_trace_may_follow_another_into_its_pool(
    ledger: Run, traffic: Callable[..., Path]
) -> None:
    """A week of traces is spent from one budget, which has to be given alike each time."""
    for number, name in ((2, "monday.csv"), (3, "tuesday.csv")):
        path = traffic(number, name=name)
        ledger("simulate", path, "--pool", "week", "--capacity-tokens", 10_000)
    found = json.loads(ledger("report", "runs", "--pool", "week", "--format", "json").out)
    assert 5 == sum(row["requests"] for row in found)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--input-price", "abc"], "--input-price: 'abc'"),
        (["--input-price", ""], "--input-price: ''"),
        (["--output-price", "-1"], "--output-price: '-1'"),
        (["--output-price", "NaN"], "--output-price: 'NaN'"),
        (["--output-price", "inf"], "--output-price: 'inf'"),
        (["--input-price", "3 USD"], "--input-price: '3 USD'"),
        (["--input-price", "1e400"], "--input-price: '1e400'"),
        (["--input-price", "1e99999999"], "--input-price: '1e99999999'"),
        (["--input-price", "1e-99999999"], "--input-price: '1e-99999999'"),
        (["--estimate-output", "lots"], "--estimate-output: 'lots'"),
        (["--estimate-output", "-1"], "--estimate-output: '-1'"),
        (["--estimate-output", "9" * 5_000], "--estimate-output"),
        (["--estimate-output", "9223372036854775807"], "line 2"),
        (["--runs", "soon"], "runs: 'soon'"),
        (["--runs", "0"], "runs: '0'"),
        (["--runs", "-3"], "runs: '-3'"),
        (["--runs", "10 m"], "runs: '10 m'"),
        (["--capacity-usd", "1e99999999"], "decimal"),
        (["--capacity-tokens", "-5"], "-5"),
        (["--pool", "x" * 256], "1 to 255 characters"),
        (["--url", "nonsense"], "not a database URL"),
    ],
)
def test_options_that_make_no_sense(
    refused: Run, traffic: Callable[..., Path], folder: Path, words: list[str], said: str
) -> None:
    """One line names the option and what is wrong; nothing is written, not even a store."""
    path = traffic(2)
    assert said in refused("simulate", path, *words)
    assert [path] == list(folder.iterdir())


@pytest.mark.parametrize("workers", ["0", "-1", "two"])
def test_workers_that_make_no_sense(
    ledger: Run, traffic: Callable[..., Path], folder: Path, workers: str
) -> None:
    """At least one thread has to work; nothing is written."""
    path = traffic(2)
    ended = ledger("simulate", path, "--workers", workers, code=2)
    assert "--workers" in ended.err
    assert "Traceback" not in ended.err
    assert "" == ended.out
    assert [path] == list(folder.iterdir())


def test_no_estimate_knows_what_a_call_will_cost(
    ledger: Run, refused: Run, trace: Callable[..., Path]
) -> None:
    """With a maximum of output, the recorded cost is settled, and prices say what is held."""
    path = trace("2024-02-29,10,2,0.5", header="at,input_tokens,output_tokens,cost_usd")
    assert "--output-price" in refused("simulate", path, "--estimate-output", 100)
    ledger("simulate", path, "--estimate-output", 100, "--input-price", 1, "--output-price", 3)
    _opening, reservation, settlement = entries()
    assert reservation.estimate is not None
    assert settlement.usage is not None
    assert 310 == reservation.estimate.cost_micros_usd
    assert 500_000 == settlement.usage.cost_micros_usd
