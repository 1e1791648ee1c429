"""What a trace may look like, and what is said of one that cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from ledger import I64_MAX, Attribution, Entry, EntryKind, Ledger
from tests.fixtures import Run
from tests.reconcile.samples import SAMPLES

PLAIN = "TIMESTAMP,ContextTokens,GeneratedTokens"
GOOD = "2024-02-29 10:00:00,10,2"


def settled(pool: str = "trace") -> list[Entry]:
    """Return a pool's settlements, of books that verify."""
    with Ledger.open(create=False) as book:
        assert all(found.ok for found in book.verify())
        return list(book.entries(pool, kind=EntryKind.SETTLEMENT))


def figures(entry: Entry) -> tuple[int, int, int]:
    """Return a settlement's input and output tokens and its cost."""
    assert entry.usage is not None
    return entry.usage.input_tokens, entry.usage.output_tokens, entry.usage.cost_micros_usd


def test_everything_a_row_may_say(ledger: Run, trace: Callable[..., Path]) -> None:
    """Run, model, provider, tenant, agent and request id become the entries' attribution."""
    path = trace(
        '2024-02-29T10:00:00Z,10,2,"nightly, 1",gpt-5,openai,acme,planner,req-1,0.5',
        header="time,prompt_tokens,completion_tokens,run_id,model,provider,tenant,agent,"
        "request_id,cost_usd",
    )
    ledger("simulate", path)
    (entry,) = settled()
    assert entry.attribution == Attribution(
        run_id="nightly, 1", model="gpt-5", provider="openai", tenant="acme", agent="planner"
    )
    assert "req-1" == entry.request_id
    assert (10, 2, 500_000) == figures(entry)


@pytest.mark.parametrize(
    "header",
    [
        "TIMESTAMP,ContextTokens,GeneratedTokens",
        "timestamp,contexttokens,generatedtokens",
        "Time,Input_Tokens,OUTPUT_TOKENS",
        "at,prompt_tokens,completion_tokens",
        "occurred_at, ContextTokens , GeneratedTokens",
        '"created_at","ContextTokens","GeneratedTokens"',
    ],
)
def test_headings_have_several_names(ledger: Run, trace: Callable[..., Path], header: str) -> None:
    """Each column is known by its usual names, in any case, quoted or padded."""
    ledger("simulate", trace(GOOD, header=header))
    assert [(10, 2, 0)] == [figures(entry) for entry in settled()]


def test_columns_in_any_order(ledger: Run, trace: Callable[..., Path]) -> None:
    """What counts is the heading, not the place; what is not used is named."""
    path = trace("2,x[b],10,2024-02-29", header="GeneratedTokens,note,ContextTokens,TIMESTAMP")
    assert "Columns not used: note" in ledger("simulate", path).out
    assert [(10, 2, 0)] == [figures(entry) for entry in settled()]


@pytest.mark.parametrize(
    ("prefix", "newline", "last"),
    [
        (b"", b"\n", b"\n"),
        (b"\xef\xbb\xbf", b"\n", b"\n"),
        (b"", b"\r\n", b"\r\n"),
        (b"\xef\xbb\xbf", b"\r\n", b""),
        (b"", b"\n\n", b"\n\n\n"),
    ],
    ids=["plain", "bom", "crlf", "excel", "blank-lines"],
)
def test_files_as_other_programs_write_them(
    ledger: Run, folder: Path, prefix: bytes, newline: bytes, last: bytes
) -> None:
    """A byte order mark, Windows line ends, no last line end, blank lines: the same figures."""
    lines = (PLAIN, '"2024-02-29 10:00:00","10","2"', GOOD)
    path = folder / "trace.csv"
    path.write_bytes(prefix + newline.join(line.encode() for line in lines) + last)
    ledger("simulate", path)
    assert [(10, 2, 0), (10, 2, 0)] == [figures(entry) for entry in settled()]


@pytest.mark.parametrize(
    ("name", "cell", "cost"),
    [
        ("cost", "1.25", 1_250_000),
        ("cost", "0.0000001", 1),
        ("cost", "0.0000019", 2),
        ("cost", "0", 0),
        ("Cost_USD", "2", 2_000_000),
        ("cost_micros_usd", "1234567", 1_234_567),
        ("cost", "", 30),
        ("cost_micros_usd", "", 30),
    ],
)
def test_a_rows_own_cost_wins(
    ledger: Run, trace: Callable[..., Path], name: str, cell: str, cost: int
) -> None:
    """A recorded cost is taken as it is, rounded up to a millionth; without one prices are."""
    ledger("simulate", trace(f"{GOOD},{cell}", header=f"{PLAIN},{name}"), "--input-price", "3")
    assert [(10, 2, cost)] == [figures(entry) for entry in settled()]


def test_names_survive_unchanged(ledger: Run, trace: Callable[..., Path]) -> None:
    """Runs with brackets, commas, quotes and other alphabets come out as they went in."""
    names = ["[b]x[/b]", ":key:", "a, b", 'say "hi"', "naïve 実行"]
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    path = trace(*(f"{GOOD},{name}" for name in quoted), header=f"{PLAIN},run")
    ended = ledger("simulate", path)
    found = json.loads(ledger("report", "runs", "--format", "json").out)
    assert set(names) == {row["run_id"] for row in found}
    for name in names:
        assert name in ended.out


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("2024-02-29 10:00:01,-8,2", "below 0"),
        ("2024-02-29 10:00:01,8.5,2", "ContextTokens: '8.5'"),
        ("2024-02-29 10:00:01,8,2,5", "4 cells, where the header has 3"),
        ('2024-02-29 10:00:01,"1,000",2', "ContextTokens: '1,000'"),
        (",8,2", "neither a request id nor a day"),
        ("yesterday,8,2", "TIMESTAMP: 'yesterday'"),
        ("45.5,8,2", "elapsed_seconds"),
        ("1700000,8,2", "elapsed_seconds"),
        ("1000-02-28 10:00:00,8,2", "outside the years 1900 to 2999"),
        ("0001-01-01T00:00:00+14:00,8,2", "outside the years 1 to 9999"),
        (f"2024-02-29,{I64_MAX + 1},0", str(I64_MAX + 1)),
        (f"2024-02-29,{I64_MAX},1", "2^63-1"),
        (f"2024-02-29,{'9' * 200_000},1", "field"),
        ('2024-02-29,8,"2', "CSV"),
    ],
)
def test_a_bad_row_is_named(
    refused: Run, trace: Callable[..., Path], folder: Path, row: str, said: str
) -> None:
    """The line's number and what is wrong with it; nothing is written, not even a store."""
    path = trace(GOOD, row, *[GOOD] * 3)
    line = refused("simulate", path)
    assert "trace.csv, line " in line
    assert said in line
    # A quote that is never closed is only found out at the end of the file.
    assert "trace.csv, line 3: " in line or row.endswith('"2')
    assert len(line) < 1_000
    assert [path] == list(folder.iterdir())


@pytest.mark.parametrize(
    ("name", "cell", "said"),
    [
        ("cost", "-0.5", "below 0"),
        ("cost", "$3", "cost: '$3'"),
        ("cost", "9223372036854.775808", str(I64_MAX)),
        ("run", "x" * 256, "has 256"),
        ("model", "a\0b", "NUL"),
    ],
)
def test_a_bad_cell_is_named(
    refused: Run, trace: Callable[..., Path], folder: Path, name: str, cell: str, said: str
) -> None:
    """The richer columns are held to the same: line, reason, nothing written."""
    path = trace(f"{GOOD},", f"{GOOD},{cell}", header=f"{PLAIN},{name}")
    line = refused("simulate", path)
    assert "trace.csv, line 3: " in line
    assert said in line
    assert [path] == list(folder.iterdir())


def test_a_cost_that_prices_make_too_large(
    refused: Run, trace: Callable[..., Path], folder: Path
) -> None:
    """A row whose computed cost no store can hold is found before anything is written."""
    path = trace(GOOD, f"2024-02-29,{I64_MAX},0")
    assert refused("simulate", path, "--input-price", 2).startswith("trace.csv, line 3: ")
    assert [path] == list(folder.iterdir())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "empty"),
        (f"{PLAIN}\n\n", "no rows"),
        (f"{GOOD}\n", "no 'at'"),
        ("TIMESTAMP,ContextTokens\n2024-02-29,1\n", "no 'output_tokens'"),
        (f"{PLAIN},input_tokens\n{GOOD},1\n", "'ContextTokens' and 'input_tokens' are the same"),
    ],
)
def test_a_file_that_is_no_trace(refused: Run, folder: Path, content: str, said: str) -> None:
    """Empty, without rows, without a needed column, with one twice: said at once, in one line."""
    path = folder / "trace.csv"
    path.write_text(content, encoding="utf-8")
    told = refused("simulate", path)
    assert "trace.csv: " in told
    assert said in told
    assert [path] == list(folder.iterdir())


def test_a_bill_without_calls_is_no_trace(refused: Run, folder: Path) -> None:
    """A mapping of another kind of file is taken only if it has the tokens of calls."""
    path = folder / "trace.csv"
    path.write_text("date,model,net_amount\n2024-02-29,gpt-5,0.5\n", encoding="utf-8")
    assert "no input_tokens, output_tokens" in refused("simulate", path, "--mapping", "copilot")


TIMES = {
    "BurstGPT": ["00:00:45", "00:00:45"],
    "Mooncake": ["00:00:00", "00:00:27.482000"],
    "splitwise-sim": ["00:00:00.000075", "00:00:00.501900"],
    "vidur": ["00:00:00.041999"],
    "vLLM requests": ["00:00:00.250000", "00:00:03.500000"],
    "ShareGPT with lengths": ["00:01:01"],
    "vLLM spans": ["00:00:00"],
    "Claude Code": None,
}


@pytest.mark.parametrize("kind", TIMES)
def test_traces_as_people_have_them(ledger: Run, folder: Path, kind: str) -> None:
    """Every call of a sample once; times from 0 are counted from --start, to the microsecond."""
    sample = SAMPLES[kind]
    path = folder / "trace"
    path.write_text(sample.content, encoding="utf-8")
    mapping = sample.mapping if kind in {"Claude Code", "vLLM spans"} else "trace"
    ledger("simulate", path, "--mapping", mapping, "--start", "2026-03-01")
    found = settled()
    assert [
        (amounts["input_tokens"], amounts["output_tokens"], 0)
        for _request_id, _model, _day, amounts in sample.lines
    ] == [figures(entry) for entry in found]
    assert TIMES[kind] in (None, [str(entry.at.time()) for entry in found])


def test_seconds_from_0_need_a_beginning(refused: Run, folder: Path) -> None:
    """A time is not guessed: the error names the option that says when the trace began."""
    path = folder / "trace"
    path.write_text(SAMPLES["BurstGPT"].content, encoding="utf-8")
    assert "--start" in refused("simulate", path)


@pytest.mark.parametrize("rows_before", [1, 3_000])
def test_bytes_that_are_no_text(refused: Run, folder: Path, rows_before: int) -> None:
    """A row that is not UTF-8 is named by its line, near the file's beginning or far from it."""
    path = folder / "trace.csv"
    rows = [PLAIN, *[GOOD] * rows_before]
    path.write_bytes("\n".join(rows).encode() + b"\n2024-02-29,8,\xff2\n" + GOOD.encode())
    told = refused("simulate", path)
    assert "UTF-8" in told
    assert f"trace.csv, line {rows_before + 2}: " in told
    assert [path] == list(folder.iterdir())


def test_a_missing_file(refused: Run, folder: Path) -> None:
    """The file is named; nothing is written."""
    told = refused("simulate", "nowhere.csv")
    assert "nowhere.csv" in told
    assert "No such file" in told
    assert [] == list(folder.iterdir())


def test_a_folder_is_no_trace(refused: Run, folder: Path) -> None:
    """So is a folder that is given for a file."""
    (folder / "traces").mkdir()
    assert "traces" in refused("simulate", "traces")


def test_a_bad_row_leaves_an_existing_store_alone(
    ledger: Run, refused: Run, trace: Callable[..., Path], store_url: str
) -> None:
    """No pool and no entry is made for a trace that cannot be read to its end."""
    ledger("pool", "open", "team", "--url", store_url)
    path = trace(*[GOOD] * 50, "2024-02-29,x,1")
    assert "line 52" in refused("simulate", path, "--url", store_url)
    with Ledger.open(store_url, create=False) as book:
        assert ["team"] == [info.name for info in book.pools()]
        assert 1 == len(list(book.entries("team")))


@pytest.mark.parametrize(
    ("at", "rule"),
    [
        ("0001-01-01", "10m"),
        ("0001-01-01", "7d"),
        ("1969-12-31T23:59:59.5", "10m"),
        ("9999-12-31T23:59:59.999999", "1h"),
    ],
)
def test_times_at_the_ends_of_the_calendar(
    ledger: Run, trace: Callable[..., Path], at: str, rule: str
) -> None:
    """Any time that can be read is run, or refused in one line; no run begins after its calls."""
    path = trace(f"{at},1,1")
    ended = ledger("simulate", path, "--runs", rule, code=None)
    if ended.code == 2:
        assert ended.err.startswith("Error: trace.csv, line 2: ")
        return
    (run,) = json.loads(ledger("report", "runs", "--format", "json").out)
    assert datetime.fromisoformat(run["run_id"]) <= datetime.fromisoformat(run["first_at"])
