"""Corrections that a bill asks for are appended exactly once, each with its reason."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from ledger import (
    EntryKind,
    InvalidInputError,
    Ledger,
    LedgerBudgetManager,
    OccurredAt,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    UsageReport,
)
from ledger.reconcile import Outcome, Reconciliation, Status, apply, reconcile
from ledger.reports import Filter
from tests import programs
from tests.fixtures import Read, Write

Spend = Callable[..., Any]
Used = Callable[..., Usage]

NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)
HEADER = "request_id,at,model,input_tokens,output_tokens,cost_usd\n"


def corrections(book: Ledger, *pools: str) -> list[tuple[str, int, str]]:
    """Return every correction: pool, the corrected entry, the reason; and check the books."""
    assert all(found.ok for found in book.verify())
    return [
        (pool, entry.detail["corrects"], entry.detail["reason"])
        for pool in pools or ("team",)
        for entry in book.entries(pool, kind=EntryKind.CORRECTION)
    ]


def outcomes(result: Reconciliation) -> list[tuple[Outcome | None, str | None]]:
    """Return what became of each match that differs."""
    return [(one.outcome, one.reason) for one in result.of(Status.DIFFERING)]


def test_each_difference_is_corrected_once(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """With file, hash and line as the reason; the second time there is nothing to do."""
    spend(team, used(100, 20, 900, cache_read_tokens=5), request_id="a")
    spend(team, used(7, 3, 50), request_id="b")
    spend(team, used(1, 1, 1), request_id="mine")
    read = bill(
        f"{HEADER}a,2024-02-29,gpt-5,90,30,0.00095\nb,2024-02-29,gpt-5,7,3,0.00005\n"
        "theirs,2024-02-29,gpt-5,5,5,1\n"
    )
    applied = apply(book, reconcile(book, read))
    assert [(Outcome.APPLIED, None)] == outcomes(applied)
    reason = f"billed: bill.csv, SHA-256 {read.sha256}, line 2"
    assert [("team", 3, reason)] == corrections(book)
    # What the bill does not say stays as it was.
    assert used(90, 30, 950, cache_read_tokens=5) == team.usage_of(3)
    again = reconcile(book, read)
    assert [] == outcomes(again)
    # Billed but not recorded is listed, and never booked.
    assert ["theirs"] == [one.request_id for one in again.of(Status.BILLED_ONLY)]
    assert not again.agrees
    # The plan of before, once more: nothing is left to do.
    late = apply(book, applied)
    assert [(Outcome.ALREADY_APPLIED, None)] == outcomes(late)
    assert 1 == len(corrections(book))


def test_agreement_counts_what_was_applied(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """Bill and journal agree once every difference was applied."""
    spend(team, used(1, 0, 5), request_id="a")
    result = reconcile(book, bill(f"{HEADER}a,2024-02-29,gpt-5,2,0,0.000005\n"))
    assert not result.agrees
    assert apply(book, result).agrees


def test_the_last_entry_takes_the_difference(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """Never below 0: what is left goes to the entry before it, and so on."""
    spend(team, used(10, 0, 100), used(5, 4, 40), request_id="r")
    spend(team, used(2, 2, 20), request_id="r")
    read = bill(f"{HEADER}r,2024-02-29,gpt-5,8,5,0.0001\n")
    assert [(Outcome.APPLIED, None)] == outcomes(apply(book, reconcile(book, read)))
    # 17, 6, 160 were recorded: 9 fewer, 1 fewer, 60 fewer. The totals are the sums.
    usages = [team.usage_of(seq) for seq in (3, 4, 6)]
    assert [(8, 0, 100), (0, 4, 0), (0, 1, 0)] == [
        (one.input_tokens, one.output_tokens, one.cost_micros_usd) for one in usages
    ]
    assert 13 == sum(one.total_tokens for one in usages)
    assert [6, 4, 3] == [seq for _pool, seq, _reason in corrections(book)]
    assert reconcile(book, read).agrees


@pytest.mark.parametrize("writes", range(4))
def test_a_crash_in_the_middle(
    book: Ledger,
    team: LedgerBudgetManager,
    spend: Spend,
    used: Used,
    bill: Read,
    monkeypatch: pytest.MonkeyPatch,
    *,
    writes: int,
) -> None:
    """After any number of corrections the same file goes on where it stopped."""
    other = book.pool("other", SharedPoolBudgetOptions())
    spend(other, used(10, 0, 100), request_id="r")
    spend(team, used(5, 5, 40), request_id="r")
    spend(team, used(9, 9, 90), request_id="s")
    read = bill(f"{HEADER}r,2024-02-29,gpt-5,2,1,0.00003\ns,2024-02-29,gpt-5,9,9,0.000091\n")
    left = iter(range(writes))
    correct = LedgerBudgetManager.correct

    def failing(*given: Any, **named: Any) -> Any:  # noqa: ANN401 - as the real one
        if next(left, None) is None:
            raise KeyboardInterrupt
        return correct(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(LedgerBudgetManager, "correct", failing)
        if writes < 3:
            with pytest.raises(KeyboardInterrupt):
                apply(book, reconcile(book, read))
        else:
            apply(book, reconcile(book, read))
    assert writes == len(corrections(book, "team", "other"))
    assert apply(book, reconcile(book, read)).agrees
    assert reconcile(book, read).agrees
    assert 3 == len(corrections(book, "team", "other"))


def test_a_line_is_not_applied_to_another_effect_later(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """Who corrects an entry after the bill was applied has the last word over the same file."""
    spend(team, used(10, 0, 100), request_id="r")
    read = bill(f"{HEADER}r,2024-02-29,gpt-5,8,0,0.0001\n")
    apply(book, reconcile(book, read))
    team.correct(3, used(9, 0, 100), "a credit note")
    ((outcome, reason),) = outcomes(apply(book, reconcile(book, read)))
    assert Outcome.NOT_APPLIED is outcome
    assert "was applied before" in str(reason)
    assert 2 == len(corrections(book))
    # Another file is another bill.
    newer = bill(f"{HEADER}r,2024-02-29,gpt-5,7,0,0.0001\n")
    assert apply(book, reconcile(book, newer)).agrees
    assert 3 == len(corrections(book))


def test_what_happened_meanwhile_is_seen(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """A correction between reading and writing is neither lost nor counted twice."""
    spend(team, used(10, 0, 100), request_id="r")
    spend(team, used(10, 0, 100), request_id="r")
    plan = reconcile(book, bill(f"{HEADER}r,2024-02-29,gpt-5,25,0,0.0002\n"))
    team.correct(3, used(12, 0, 100), "meanwhile")
    assert apply(book, plan).agrees
    assert [12, 13] == [team.usage_of(seq).input_tokens for seq in (3, 5)]


def test_two_that_write_at_the_same_moment(
    book: Ledger,
    team: LedgerBudgetManager,
    spend: Spend,
    used: Used,
    bill: Read,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second one, from another file or to another effect, changes nothing."""
    correct = LedgerBudgetManager.correct
    spend(team, used(10, 0, 100), request_id="r")
    spend(team, used(10, 0, 100), request_id="s")
    read = bill(f"{HEADER}r,2024-02-29,gpt-5,8,0,0.0001\ns,2024-02-29,gpt-5,8,0,0.0001\n")
    plan = reconcile(book, read)

    def outrun(self: Any, entry: int, usage: Usage, reason: str, **named: Any) -> Any:  # noqa: ANN401
        if entry == 3:  # the same was said by another bill
            correct(self, entry, usage, "another", idempotency_key="another")
        else:  # this line was applied under another name of the file
            correct(self, entry, usage, "renamed", idempotency_key=named["idempotency_key"])
        return correct(self, entry, usage, reason, **named)

    monkeypatch.setattr(LedgerBudgetManager, "correct", outrun)
    assert [Outcome.ALREADY_APPLIED, Outcome.NOT_APPLIED] == [
        one for one, _ in outcomes(apply(book, plan))
    ]
    assert [3, 5] == [seq for _pool, seq, _reason in corrections(book)]


def test_two_that_apply_one_bill_by_different_amounts_at_the_same_moment(
    book: Ledger,
    team: LedgerBudgetManager,
    spend: Spend,
    used: Used,
    bill: Read,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither takes back what the other one corrected after it had read the entry."""
    spend(team, used(10, 0, 100), request_id="r")
    read = bill(f"{HEADER}r,2024-02-29,gpt-5,8,0,0.00007\n")
    tokens = reconcile(book, read, axes=["input_tokens", "total_tokens"])
    cost = reconcile(book, read, axes=["cost_micros_usd"])
    correct = LedgerBudgetManager.correct

    def outrun(self: Any, *given: Any, **named: Any) -> Any:  # noqa: ANN401 - as the real one
        monkeypatch.setattr(LedgerBudgetManager, "correct", correct)
        assert apply(book, tokens).agrees
        return correct(self, *given, **named)

    monkeypatch.setattr(LedgerBudgetManager, "correct", outrun)
    assert apply(book, cost).agrees
    assert used(8, 0, 70) == team.usage_of(3)
    assert reconcile(book, read).agrees
    assert 2 == len(corrections(book))


def test_what_is_not_applied_says_why(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """Open leases, days, credits and amounts beyond any store are listed; nothing is written."""
    spend(team, used(10, 0, 100), request_id="open", ends=False)
    spend(team, used(10, 0, 100), request_id="credit")
    spend(team, used(10, 0, 100), request_id="huge")
    spend(team, used(10, 0, 100))
    most = 2**63 - 1
    result = apply(
        book,
        reconcile(
            book,
            bill(
                f"{HEADER}open,2024-02-29,gpt-5,11,0,0.0001\n"
                "credit,2024-02-29,gpt-5,10,0,-0.0001\n"
                f"huge,2024-02-29,gpt-5,{most},{most},0.0001\n"
                ",2024-02-29,gpt-5,11,0,0.0001\n"
            ),
        ),
    )
    said = {one.request_id: (one.outcome, one.reason) for one in result.of(Status.DIFFERING)}
    expected = {
        "open": "lease 2 is still open; settle it",
        "credit": "less than nothing",
        "huge": "the most that a store can hold",
        None: "matched by model and day",
    }
    assert expected.keys() == said.keys()
    for request, why in expected.items():
        assert Outcome.NOT_APPLIED is said[request][0]
        assert why in str(said[request][1])
    assert [] == corrections(book)
    assert not result.agrees


def test_what_was_used_under_no_request_id_is_left_to_a_person(
    book: Ledger, team: LedgerBudgetManager, used: Used, bill: Read
) -> None:
    """A stream's id may be known at its end alone: the rest of it is not counted twice."""
    lease = team.reserve(
        RequestExtensions(OccurredAt(NOON)), UsageEstimate(), RequestBudget.unlimited()
    )
    team.observe(lease, used(60, 0, 100), report=UsageReport(occurred_at=NOON))
    team.record_used(lease, used(40, 0, 90), report=UsageReport(request_id="r", occurred_at=NOON))
    result = apply(book, reconcile(book, bill(f"{HEADER}r,2024-02-29,gpt-5,100,0,0.00019\n")))
    (one,) = result.of(Status.DIFFERING)
    assert Outcome.NOT_APPLIED is one.outcome
    assert "under no request id (entry 3)" in str(one.reason)
    assert [] == corrections(book)


def test_the_past_is_not_corrected(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """A reconciliation up to an entry is for reading: what came later would be corrected twice."""
    spend(team, used(10, 0, 100), request_id="r")
    read = bill(f"{HEADER}r,2024-02-29,gpt-5,8,0,0.0001\n")
    past = reconcile(book, read, Filter(pools=["team"], as_of=3))
    with pytest.raises(InvalidInputError, match="as_of"):
        apply(book, past)
    assert [] == corrections(book)


def test_corrections_reach_the_pools_above(
    book: Ledger, spend: Spend, used: Used, bill: Read
) -> None:
    """What a shared pool corrects is corrected up to the root."""
    book.pool("org", SharedPoolBudgetOptions())
    below = book.pool("below", SharedPoolBudgetOptions(), parent="org")
    spend(below, used(10, 0, 100), request_id="r")
    apply(book, reconcile(book, bill(f"{HEADER}r,2024-02-29,gpt-5,8,0,0.00007\n")))
    for name in ("org", "below"):
        assert (8, 70) == book.pool(name).status().balance.committed[:2]
    assert 1 == len(corrections(book, "below"))


def test_two_processes_apply_the_same_file(
    store_url: str, book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, write: Write
) -> None:
    """Started at once, they append each correction once, and both end well."""
    names = [f"r{number}" for number in range(40)]
    for name in names:
        spend(team, used(10, 2, 100), used(1, 1, 10), request_id=name)
    path = write(HEADER + "".join(f"{name},2024-02-29,gpt-5,9,1,0.00005\n" for name in names))
    words = [sys.executable, "-m", "ledger", "reconcile", path, "--apply", "--url", store_url]
    running = [programs.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    ended = [(one.communicate(timeout=120)[0], one.returncode) for one in running]
    assert [0, 0, 0] == [code for _out, code in ended], ended
    # Two entries each: the last one goes down to nothing, the rest is taken from the other.
    corrected = [(pool, seq) for pool, seq, _reason in corrections(book)]
    assert 80 == len(corrected) == len(set(corrected))
    assert (400, 2_000) == team.status().balance.committed[:2]
