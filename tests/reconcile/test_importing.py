"""Files of history become entries: each call once, where it belongs, and nothing of a bad file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from ledger import (
    Attribution,
    BillingFileError,
    EntryKind,
    IdempotencyConflictError,
    InvalidInputError,
    Ledger,
    LedgerBudgetManager,
    PastCall,
    RequestExtensions,
    SharedPoolBudgetOptions,
    UnknownPoolError,
    Usage,
    UsageEstimate,
    UsageReport,
)
from ledger.importing import Calls, Changed, Imported, import_calls, record_call
from ledger.prices import exact_cost
from ledger.reconcile import (
    READY,
    BillMapping,
    Identical,
    Repeats,
    apply,
    read_bill,
    reconcile,
)
from ledger.testing.calls import UNLIMITED

from .conftest import NOON
from .samples import SAMPLES

Bring = Callable[..., Imported]

NAMED = BillMapping(
    request_id="id", at="at", model="model", input_tokens="in", output_tokens="out", cost="usd"
)
"""A log whose lines have request ids."""
DAILY = replace(NAMED, request_id=None)
"""An export with a line for each model and day."""
HEAD = "id,at,model,in,out,usd\n"


@pytest.fixture
def bring(book: Ledger, team: LedgerBudgetManager, write: Callable[..., Any]) -> Bring:
    """Return a function that imports a file's content into the pool `team`."""

    def make(
        content: str,
        mapping: str | BillMapping = NAMED,
        *,
        name: str = "log.csv",
        changed: Changed = Changed.REFUSE,
        dry_run: bool = False,
        **how: Any,  # noqa: ANN401 - as `Calls` takes
    ) -> Imported:
        mappings = READY[mapping] if isinstance(mapping, str) else [mapping]
        bill = read_bill(write(content, name), mappings, attributed=True)
        calls = Calls(bill=bill, **how)
        return import_calls(book, team.name, calls, changed=changed, dry_run=dry_run)

    return make


def counts(found: Imported) -> tuple[int, int, int, int, int]:
    """Return how many calls are new, known, corrected, kept and left out."""
    return found.new, found.known, found.corrected, found.kept, found.recorded


def used(book: Ledger) -> list[tuple[str | None, int]]:
    """Return the request id and the tokens of every entry that records usage."""
    return [
        (one.request_id, one.usage.total_tokens)
        for one in book.entries("team")
        if one.usage is not None
    ]


def test_a_log_is_imported_once_however_it_has_grown(book: Ledger, bring: Bring) -> None:
    """Nothing is doubled by a file that comes again, with new lines, or in another order."""
    lines = [
        f"q{number},2024-02-{number:02}T10:00:00Z,m,10,{number},0.0000015\n" for number in (1, 2, 3)
    ]
    first = bring(HEAD + "".join(lines[:2]))
    assert (2, 0, 0, 0, 0) == counts(first)
    assert first.agrees
    assert (23, 4, Fraction(1)) == (
        first.journal.total_tokens,
        first.journal.cost_micros_usd,
        first.rounded_up_micros_usd,
    )
    assert (0, 2, 0, 0, 0) == counts(bring(HEAD + "".join(lines[:2])))
    grown = bring(HEAD + "".join(reversed(lines)))
    assert (1, 2, 0, 0, 0) == counts(grown)
    assert grown.agrees
    assert [("q1", 11), ("q2", 12), ("q3", 13)] == used(book)
    (entry, *_) = book.entries("team", kind=EntryKind.IMPORT)
    assert f"imported: log.csv, SHA-256 {first.sha256}" == entry.detail["reason"]
    assert datetime(2024, 2, 1, 10, tzinfo=UTC) == entry.at
    assert all(one.ok for one in book.verify())


def test_a_store_that_keeps_exact_costs_adds_up_to_the_bill(
    store_url: str, write: Callable[..., Any]
) -> None:
    """Whole micros are charged; the exact costs are in the hashed entries, on every store."""
    bill = HEAD + "".join(f"q{one},2024-02-01,m,1,0,0.00000015\n" for one in range(20))
    more = "q20,2024-02-01,m,1,0,0.000003\nq21,2024-02-02,m,1,0,3e-7\n"
    calls = Calls(bill=read_bill(write(bill + more), [NAMED], attributed=True))
    with Ledger.open(store_url, exact_costs=True) as book:
        budget = book.pool("team", SharedPoolBudgetOptions())
        assert import_calls(book, "team", calls).agrees
        assert 22 == import_calls(book, "team", calls).known
        assert [None] == [one.damage for one in book.verify()]
        kept = [one.detail.get("report") for one in book.entries("team", kind=EntryKind.IMPORT)]
        assert [{"cost_usd": "0.00000015"}] * 20 + [None, {"cost_usd": "0.0000003"}] == kept
        assert Decimal("0.0000063") == spent(book)
        # Corrections move from the micro that was charged, not from 0.15: each takes 0.85 too much.
        budget.correct(2, replace(budget.usage_of(2), cost_micros_usd=3), "billed")
        due = Decimal("0.0000063") - Decimal("0.00000015") + Decimal("0.000003")
        assert due - Decimal("0.00000085") == spent(book)
        budget.correct(3, replace(budget.usage_of(3), cost_micros_usd=0), "never made")
        due -= Decimal("0.00000015")
        assert due - 2 * Decimal("0.00000085") == spent(book)
        assert 24 + (3 - 1) - 1 == budget.status().balance.committed.cost_micros_usd


def test_a_store_keeps_whole_micros_by_itself(book: Ledger, bring: Bring) -> None:
    """Without the option an entry has no exact cost, and what it says is its micro-USD."""
    bring(HEAD + "q1,2024-02-01,m,1,0,0.00000015\n")
    (entry,) = book.entries("team", kind=EntryKind.IMPORT)
    assert "report" not in entry.detail
    assert Decimal("0.000001") == spent(book)


def spent(book: Ledger) -> Decimal:
    """Return what the pool's entries say that was spent, in US dollars."""
    return sum((exact_cost(one) or Decimal(0) for one in book.entries("team")), Decimal(0))


@pytest.mark.parametrize(
    ("micros", "cost"),
    [
        (1, "0.000002"),
        (1, "0.0000011"),
        (1, "-0.00000015"),
        (0, "-0.0000009"),
        (1, "NaN"),
        (1, "Infinity"),
        (1, "1E-999999999"),
        (1, "1E+999999999"),
        (1, 0.15),
    ],
)
def test_an_exact_cost_is_that_of_the_call(micros: int, cost: Any) -> None:  # noqa: ANN401 - of any type
    """One below 0 or that does not round up to what is charged is refused, and so is a float."""
    given, usage = Decimal(cost) if isinstance(cost, str) else cost, Usage(cost_micros_usd=micros)
    with pytest.raises(InvalidInputError, match="cost_usd"):
        PastCall(usage=usage, occurred_at=NOON, idempotency_key="k", cost_usd=given)


@pytest.mark.parametrize(
    ("micros", "detail", "found"),
    [
        (2, {"cost_usd": "0.0000015"}, "0.0000015"),
        (2, {"cost_usd": "0.0000025"}, "0.000002"),
        (0, {"cost_usd": "-0.0000009"}, "0"),
        (2, {"cost_usd": "much"}, "0.000002"),
        (2, {"cost_usd": "Infinity"}, "0.000002"),
        (2, {"cost_usd": 2}, "0.000002"),
        (2, {"price": "none"}, "0.000002"),
        (2, {"price": {"cost_usd": "0.0000019"}}, "0.0000019"),
    ],
)
def test_what_a_callers_detail_says_counts_if_it_rounds_up_to_what_is_charged(
    team: LedgerBudgetManager, book: Ledger, micros: int, detail: dict[str, Any], found: str
) -> None:
    """Any other text, number or amount there is the caller's own matter."""
    lease = team.reserve(RequestExtensions(), UsageEstimate(), UNLIMITED)
    team.record_used(lease, Usage(cost_micros_usd=micros), report=UsageReport(detail=detail))
    assert [None, None, Decimal(found)] == [exact_cost(one) for one in book.entries("team")]


def test_what_changed_in_a_log_is_corrected_once(
    book: Ledger, bring: Bring, team: LedgerBudgetManager
) -> None:
    """By the amounts that the file has; and what was corrected otherwise since stays so."""
    without_cost = replace(NAMED, cost=())
    content = HEAD + "q1,2024-02-01,m,10,1,\nq2,2024-02-01,m,10,2,\n"
    bring(content, without_cost)
    team.correct(
        2, Usage(input_tokens=10, output_tokens=1, total_tokens=11, cost_micros_usd=9), "bill"
    )
    grown = content.replace("10,1,", "10,5,")
    assert (0, 1, 1, 0, 0) == counts(bring(grown, without_cost))
    now = Usage(input_tokens=10, output_tokens=5, total_tokens=15, cost_micros_usd=9)
    assert now == team.usage_of(2)
    assert (0, 2, 0, 0, 0) == counts(bring(grown, without_cost))
    team.correct(2, replace(now, output_tokens=6, total_tokens=16), "by hand")
    found = bring(grown, without_cost)
    assert (0, 1, 0, 1, 0) == counts(found)
    assert not found.agrees
    assert -1 == found.difference.total_tokens
    assert 6 == book.size("team")
    assert all(one.ok for one in book.verify())


def test_an_older_file_changes_nothing_back(bring: Bring, team: LedgerBudgetManager) -> None:
    """What it says was imported, and has been corrected since by a newer one."""
    older = HEAD + "q1,2024-02-01,m,10,1,1\n"
    bring(older)
    bring(older.replace("10,1", "10,2"))
    for dry_run in (True, False):
        found = bring(older, dry_run=dry_run)
        assert (0, 0, 0, 1, 0) == counts(found)
    assert not found.agrees
    assert 12 == team.status().balance.committed.tokens


def test_what_was_said_before_is_not_said_anew(bring: Bring, team: LedgerBudgetManager) -> None:
    """A file with amounts of an earlier one may be that one: they are corrected by hand."""
    line = HEAD + "q1,2024-02-01,m,10,{},1\n"
    changes = [bring(line.format(tokens)).corrected for tokens in (1, 2, 1, 3, 2)]
    assert [0, 1, 0, 1, 0] == changes
    assert 13 == team.status().balance.committed.tokens
    team.correct(2, replace(team.usage_of(2), output_tokens=2, total_tokens=12), "it was 2")
    assert (0, 1, 0, 0, 0) == counts(bring(line.format(2)))


def test_the_last_message_of_a_session_may_change(bring: Bring, team: LedgerBudgetManager) -> None:
    """A session's log says a message's usage again and again while it grows."""
    content = SAMPLES["Claude Code"].content
    lines = content.splitlines(keepends=True)
    assert (1, 0, 0, 0, 0) == counts(bring("".join(lines[:2]), "claude-code", name="s.jsonl"))
    assert (0, 0, 1, 0, 0) == counts(bring(content, "claude-code", name="s.jsonl"))
    assert 724 == team.status().balance.committed.tokens
    assert 1 == team.status().balance.committed.requests


def test_sessions_in_several_files_are_several(book: Ledger, bring: Bring) -> None:
    """Codex gives its lines no ids: they are told apart by their session, and by its sums."""
    content = SAMPLES["Codex"].content
    other = content.replace('"id": "s"', '"id": "t"')
    assert (2, 0, 0, 0, 0) == counts(bring(content, "codex", name="a.jsonl"))
    assert (2, 0, 0, 0, 0) == counts(bring(other, "codex", name="b.jsonl"))
    assert (0, 4, 0, 0, 0) == counts(bring(content + other, "codex", name="c.jsonl"))
    assert 4 == len(used(book))


@pytest.mark.parametrize("kind", ["OTLP", "LiteLLM spend logs", "OpenAI usage, API"])
def test_files_as_people_have_them_are_imported(book: Ledger, bring: Bring, kind: str) -> None:
    """Spans, logs of gateways and exports: twice is once, and the totals are proved."""
    sample = SAMPLES[kind]
    found = bring(sample.content, sample.mapping, name=sample.name)
    again = bring(sample.content, sample.mapping, name=sample.name)
    assert found.new == again.known > 0
    assert found.agrees
    assert found.told == again.journal
    assert found.new == len(used(book))


def test_what_the_pool_recorded_is_left_out(
    book: Ledger, bring: Bring, team: LedgerBudgetManager, spend: Callable[..., Any]
) -> None:
    """Also what is still open, and what another pool has; not what was released."""
    spend(team, Usage(total_tokens=5), request_id="q1")
    other = book.pool("other", SharedPoolBudgetOptions())
    spend(other, Usage(total_tokens=5), request_id="q2")
    team.reserve(RequestExtensions(Attribution(request_id="q3")), UsageEstimate(), UNLIMITED)
    released = team.reserve(
        RequestExtensions(Attribution(request_id="q4")), UsageEstimate(), UNLIMITED
    )
    team.release(released)
    moved = Attribution(request_id="q5")
    call = PastCall(usage=Usage(), occurred_at=NOON, attribution=moved)
    other.import_calls([call], "moved")
    content = HEAD + "".join(f"q{one},2024-02-29T12:00:00Z,m,1,1,\n" for one in range(1, 7))
    found = bring(content)
    assert (2, 0, 0, 0, 4) == counts(found)
    assert {"q4", "q6"} <= {request_id for request_id, _ in used(book)}
    assert (8, 4) == (found.left_out.total_tokens, found.told.total_tokens)
    assert found.agrees


def test_lines_without_ids_are_refused_if_they_change(book: Ledger, bring: Bring) -> None:
    """It may be a newer export of the account, or another account: nobody can know."""
    content = HEAD + ",2024-02-01,m,10,1,1\n,2024-02-02,m,10,2,1\n"
    bring(content, DAILY)
    grown = content.replace("10,2,1", "30,2,3") + ",2024-02-03,m,1,1,1\n"
    size = book.size("team")
    with pytest.raises(BillingFileError, match="line 3: entry 3 was imported for the same time"):
        bring(grown, DAILY)
    assert size == book.size("team")
    assert (1, 1, 1, 0, 0) == counts(bring(grown, DAILY, changed=Changed.CORRECT))
    assert (0, 3, 0, 0, 0) == counts(bring(grown, DAILY))
    other = bring(content, DAILY, source="the other account")
    assert (2, 0, 0, 0, 0) == counts(other)
    assert all(one.ok for one in book.verify())


def test_lines_of_one_call_are_one_entry(book: Ledger, bring: Bring) -> None:
    """The parts of a request, and lines of an export that say the same beside their amounts."""
    content = HEAD + "q1,2024-02-01,m,10,1,1\nq2,2024-02-01,m,1,1,1\nq1,2024-02-01,m,5,2,1\n"
    found = bring(content, replace(NAMED, repeats=Repeats.ADD))
    assert (3, 2) == (found.lines, found.calls)
    assert [("q1", 18), ("q2", 2)] == used(book)
    split = HEAD + ",2024-02-01,m,10,1,1\n,2024-02-01,m,7,0,1\n"
    assert 18 == bring(split, DAILY).journal.total_tokens


def test_what_is_not_known_of_lines_without_ids_is_counted(
    bring: Bring, team: LedgerBudgetManager, spend: Callable[..., Any]
) -> None:
    """They may be the calls that the pool recorded in the same time."""
    for days in (0, 1, 3):
        spend(team, Usage(total_tokens=1), at=NOON + timedelta(days=days))
    found = bring(HEAD + ",2024-02-29,m,1,1,1\n,2024-03-02,m,1,1,1\n", DAILY)
    assert (2, 2) == (found.unnamed, found.recorded_then)


BAD = {
    "no time": ("q2,,m,1,1,1\n", "line 3: time: the line says none"),
    "ahead": ("q2,2999-01-01,m,1,1,1\n", "line 3: time: .* is ahead of the clock"),
    "too early": ("q2,1850-01-01,m,1,1,1\n", "line 3: time: must be in the years 1900"),
    "a credit": ("q2,2024-02-01,m,1,1,-1\n", "line 3: cost_micros_usd: -1,000,000 is not 0"),
    "too much": (f"q2,2024-02-01,m,{2**63},1,1\n", "line 3: in: .* is outside 0 .."),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_line_keeps_the_whole_file_out(book: Ledger, bring: Bring, what: str) -> None:
    """The error names the line; the good lines ahead of it are not imported either."""
    line, reason = BAD[what]
    with pytest.raises(BillingFileError, match=reason):
        bring(f"{HEAD}q1,2024-02-01,m,1,1,1\n{line}")
    assert [] == used(book)


def test_arguments_are_checked(book: Ledger, bring: Bring, bill: Any) -> None:  # noqa: ANN401
    """Identical lines of which it is not known whether each was billed, above all."""
    twice = HEAD + ",2024-02-01,m,1,1,1\n" * 2
    with pytest.raises(InvalidInputError, match="line 3 repeats an earlier line"):
        bring(twice, DAILY)
    assert 1 == bring(twice, replace(DAILY, identical=Identical.ONCE)).new
    with pytest.raises(InvalidInputError, match="of one call, not of all"):
        bring(twice, DAILY, attribution=Attribution(request_id="q"))
    with pytest.raises(UnknownPoolError):
        import_calls(book, "nowhere", Calls(bill=bill(HEAD, [NAMED])))


def test_a_dry_run_writes_nothing(book: Ledger, bring: Bring) -> None:
    """And says what would be done."""
    content = HEAD + "q1,2024-02-01,m,1,1,1\nq2,2024-02-01,m,1,1,1\n"
    bring(content.removesuffix("q2,2024-02-01,m,1,1,1\n"))
    size = book.size()
    found = bring(content, dry_run=True)
    assert (1, 1, 0, 0, 0) == counts(found)
    assert found.is_dry_run
    assert size == book.size()


def test_what_the_lines_do_not_say_can_be_said_of_all(book: Ledger, bring: Bring) -> None:
    """For whom the calls were; what a line says itself stands."""
    bring(HEAD + "q1,2024-02-01,m,1,1,1\n", attribution=Attribution(run_id="r", model="other"))
    (entry,) = book.entries("team", kind=EntryKind.IMPORT)
    assert entry.attribution is not None
    assert ("r", "m") == (entry.attribution.run_id, entry.attribution.model)


def test_an_interrupted_import_goes_on(book: Ledger, team: LedgerBudgetManager, write: Any) -> None:  # noqa: ANN401
    """Pages that were written stay; the same import again writes the rest, and nothing twice."""
    content = HEAD + "".join(f"q{one},2024-02-01,m,1,1,1\n" for one in range(300))
    calls = Calls(bill=read_bill(write(content), [NAMED]))

    def stop(_done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_calls(book, team.name, calls, progress=stop)
    assert 257 == book.size("team")
    told: list[int] = []
    found = import_calls(book, team.name, calls, progress=told.append)
    assert (44, 256, 0, 0, 0) == counts(found)
    assert [256, 44] == told
    assert found.agrees


def test_an_import_is_held_against_a_bill(book: Ledger, bring: Bring, bill: Any) -> None:  # noqa: ANN401
    """An imported line matches the bill, and can be corrected by it."""
    bring(HEAD + "q1,2024-02-29,gpt-5,10,1,\n", replace(NAMED, cost=()))
    invoice = bill(HEAD + "q1,2024-02-29,gpt-5,10,2,0.5\n", [NAMED])
    found = reconcile(book, invoice)
    assert [1] == [match.entries for match in found.matches]
    assert reconcile(book, invoice).difference.cost_micros_usd == 500_000
    apply(book, found)
    assert reconcile(book, invoice).agrees
    assert all(one.ok for one in book.verify())


def test_one_call_is_recorded_unless_it_is_known(
    book: Ledger, bring: Bring, team: LedgerBudgetManager, spend: Callable[..., Any]
) -> None:
    """After a restored backup; the log that tells of it later does not double it."""
    spend(team, Usage(total_tokens=5), request_id="q1")
    usage = Usage(input_tokens=1, output_tokens=1, total_tokens=2, cost_micros_usd=1_000_000)

    def call(request_id: str, what: Usage = usage) -> PastCall:
        whom = Attribution(request_id=request_id)
        return PastCall(usage=what, occurred_at=NOON, attribution=whom)

    with pytest.raises(InvalidInputError, match="'q1' is in the books: entry 3 of pool 'team'"):
        record_call(book, "team", call("q1"), "lost with the disk")
    assert record_call(book, "team", call("q2"), "lost with the disk").is_new
    assert not record_call(book, "team", call("q2"), "lost with the disk").is_new
    with pytest.raises(InvalidInputError, match="'q2' is in the books: entry 4 of pool 'team'"):
        record_call(book, "team", call("q2", Usage(total_tokens=3)), "lost with the disk")
    content = HEAD + "q1,2024-02-29T12:00:00Z,m,1,1,1\nq2,2024-02-29T12:00:00Z,m,1,1,1\n"
    assert (0, 1, 0, 0, 1) == counts(bring(content))


def keyed(key: str | None, at: datetime = NOON) -> PastCall:
    """Return the call `q1`, under a key of its own."""
    usage = Usage(input_tokens=1, output_tokens=1, total_tokens=2, cost_micros_usd=1_000_000)
    whom = Attribution(request_id="q1")
    return PastCall(usage=usage, occurred_at=at, attribution=whom, idempotency_key=key)


ONE = HEAD + "q1,2024-02-29T12:00:00Z,m,1,1,1\n"
"""A log that tells of it."""


def test_a_call_under_a_key_is_not_imported_again(book: Ledger, bring: Bring) -> None:
    """The log is the other name of the same call; to record it again changes nothing."""
    assert record_call(book, "team", keyed("k"), "lost").is_new
    assert not record_call(book, "team", keyed("k"), "lost").is_new
    with pytest.raises(IdempotencyConflictError, match="'k'"):
        record_call(book, "team", replace(keyed("k"), usage=Usage(total_tokens=3)), "lost")
    assert (0, 0, 0, 0, 1) == counts(bring(ONE))
    with pytest.raises(InvalidInputError, match="'q1' is in the books: entry 2 of pool 'team'"):
        record_call(book, "team", keyed(None), "lost")
    assert [("q1", 2)] == used(book)


@pytest.mark.parametrize("days", [0, 400])
def test_an_imported_call_is_not_recorded_under_a_key(
    book: Ledger, bring: Bring, team: LedgerBudgetManager, days: int
) -> None:
    """Also after a correction, and if who records it does not know when it was made."""
    bring(ONE)
    team.correct(2, Usage(total_tokens=3), "bill")
    with pytest.raises(InvalidInputError, match="'q1' is in the books: entry 2 of pool 'team'"):
        record_call(book, "team", keyed("k", NOON + timedelta(days=days)), "lost")
    assert (0, 0, 0, 1, 0) == counts(bring(ONE))
    assert 3 == team.status().balance.committed.tokens
