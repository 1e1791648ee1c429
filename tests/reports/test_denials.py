"""What was refused, and what remained when it was."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest

from ledger import (
    Attribution,
    Balance,
    Ledger,
    RequestBudget,
    RequestBudgetExceededError,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Totals,
    UnknownPoolError,
    Usage,
    UsageEstimate,
    reports,
)
from ledger.core import rules
from ledger.core.errors import InvalidInputError
from ledger.reports import Denied, DeniedGroup, Filter, Increase

Noon = Callable[[int], datetime]
LIMIT = RequestBudget.from_tokens(10)


def test_every_figure_in_order(audited: Ledger, call: Callable[..., object], noon: Noon) -> None:
    """Both reasons, with what was asked, what was left, whose it was and when, oldest first."""
    audited.pool("team", SharedPoolBudgetOptions(capacity_tokens=100, capacity_cost_micros_usd=50))
    used = Usage(total_tokens=30, cost_micros_usd=9)
    call(audited, "team", UsageEstimate(total_tokens=30, cost_micros_usd=9), used)
    asked = UsageEstimate(total_tokens=71, cost_micros_usd=3)
    with pytest.raises(ThresholdExceededError):
        call(audited, "team", asked, run="big", after_noon_s=60)
    with pytest.raises(RequestBudgetExceededError):
        call(audited, "team", UsageEstimate(total_tokens=11), limit=LIMIT, after_noon_s=1)
    expected = [
        Denied(
            seq=4,
            at=noon(60),
            run_id="big",
            reason="threshold",
            requested_tokens=71,
            requested_cost_micros_usd=3,
            remaining_tokens=70,
            remaining_cost_micros_usd=41,
            pool="team",
            refused_by="team",
            refusal="capacity, tokens",
            increase_tokens=1,
            increase_cost_micros_usd=0,
            increase_requests=0,
        ),
        Denied(
            seq=5,
            at=noon(1),
            run_id=None,
            reason="request_budget",
            requested_tokens=11,
            requested_cost_micros_usd=0,
            remaining_tokens=None,
            remaining_cost_micros_usd=None,
            pool="team",
            refusal="request budget, tokens",
        ),
    ]
    found = list(reports.denials(audited, "team"))
    assert expected == [replace(one, idempotency_key=None) for one in found]
    second = str(found[1].idempotency_key)
    assert found[1:] == list(reports.denials(audited, "team", keys={second}))


def test_what_is_left_of_an_unlimited_capacity(
    audited: Ledger, call: Callable[..., object]
) -> None:
    """It means nothing, and is not told."""
    audited.pool("team", SharedPoolBudgetOptions(capacity_tokens=1))
    with pytest.raises(ThresholdExceededError):
        call(audited, "team", UsageEstimate(total_tokens=2))
    (denied,) = reports.denials(audited, "team")
    assert (1, None) == (denied.remaining_tokens, denied.remaining_cost_micros_usd)


def test_a_pool_is_asked_alone(busy: Ledger) -> None:
    """Denials of other pools, and other kinds of entries, are left out."""
    assert [(7, "two")] == [(one.seq, one.run_id) for one in reports.denials(busy, "team")]
    assert [] == list(reports.denials(busy, "other"))


def test_denials_are_kept_only_where_asked_for(book: Ledger, call: Callable[..., object]) -> None:
    """Books that were opened without `record_denials` have none to report."""
    book.pool("team", SharedPoolBudgetOptions(capacity_tokens=1))
    with pytest.raises(ThresholdExceededError):
        call(book, "team", UsageEstimate(total_tokens=2))
    assert [] == list(reports.denials(book, "team"))
    assert 1 == reports.statement(book, "team").seq


def test_an_unknown_pool_is_named(busy: Ledger) -> None:
    """The error says which pool there is not."""
    with pytest.raises(UnknownPoolError, match="no pool 'nope'"):
        list(reports.denials(busy, "nope"))


def refuse(book: Ledger, rng: random.Random) -> None:
    """Ask a small pool for random amounts, so that most calls are refused."""
    book.pool(
        "team",
        SharedPoolBudgetOptions(
            capacity_tokens=1_000, capacity_cost_micros_usd=900, stop_threshold_tokens=50
        ),
    )
    for number in range(60):
        asked = UsageEstimate(
            total_tokens=rng.randrange(1_500), cost_micros_usd=rng.randrange(1_200)
        )
        who = RequestExtensions(
            Attribution(run_id=rng.choice("ab"), model=rng.choice(["m1", "m2"]), agent="g")
        )
        limit = LIMIT if rng.random() < 0.2 else RequestBudget.unlimited()
        try:
            lease = book.pool("team").reserve(who, asked, limit)
        except (ThresholdExceededError, RequestBudgetExceededError):
            continue
        if rng.random() < 0.7:
            book.pool("team").record_used(lease, Usage(total_tokens=asked.total_tokens // 2))
        if number == 30:
            # Now the pool is over its capacity, and what remains stops at 0.
            less = SharedPoolBudgetOptions(capacity_tokens=10, capacity_cost_micros_usd=900)
            book.adjust("team", less)


@pytest.mark.parametrize("seed", range(3))
def test_the_increase_is_the_smallest_that_admits(audited: Ledger, seed: int) -> None:
    """With it the rules admit the call, and with one less on an axis that refused they do not."""
    refuse(audited, random.Random(seed))
    found = list(reports.denials(audited, "team"))
    assert found
    policy = SharedPoolBudgetOptions()
    checked = 0
    entries = {entry.seq: entry for entry in audited.entries("team")}
    for seq, entry in entries.items():
        policy = entry.policy or policy
        denied = next((one for one in found if one.seq == seq), None)
        if denied is None or entry.estimate is None or entry.request_budget is None:
            continue
        if denied.reason == "request_budget":
            assert (None, None) == (denied.increase_tokens, denied.increase_cost_micros_usd)
            continue
        tokens, cost = denied.increase_tokens, denied.increase_cost_micros_usd
        assert tokens is not None
        assert cost is not None
        for less_tokens, less_cost, admitted in ((0, 0, True), (1, 0, False), (0, 1, False)):
            if (less_tokens and not tokens) or (less_cost and not cost):
                continue
            larger = replace(
                policy,
                capacity_tokens=policy.capacity_tokens + tokens - less_tokens,
                capacity_cost_micros_usd=policy.capacity_cost_micros_usd + cost - less_cost,
            )
            denial = rules.admit(larger, entry.balance, entry.estimate, entry.request_budget)
            assert admitted == (denial is None)
            checked += 1
    assert checked > 20


@pytest.mark.parametrize("seed", range(2))
def test_denials_by_who(audited: Ledger, seed: int) -> None:
    """Counts, sums and increases of each group, against the denials one by one."""
    refuse(audited, random.Random(seed))
    groups: dict[tuple[str | None, ...], list[Denied]] = defaultdict(list)
    for one in reports.denials(audited, "team"):
        groups[one.run_id, one.model].append(one)
    found = {
        tuple(group.group.values()): group
        for group in reports.denials_by(audited, by=["run", "model"])
    }
    assert set(groups) == set(found)
    for place, members in groups.items():
        group = found[place]
        alone = sorted(one.increase_tokens for one in members if one.increase_tokens is not None)
        assert len(members) == group.denials
        assert len(members) - len(alone) == group.by_request_budget
        assert sum(one.requested_tokens for one in members) == group.requested_tokens
        if alone:
            assert group.tokens is not None
            assert sum(one <= group.tokens.half for one in alone) * 2 >= len(alone)
            assert sum(one < group.tokens.half for one in alone) * 2 < len(alone)
            assert alone[-1] == group.tokens.each
            assert group.tokens.all >= group.tokens.each


def test_what_lets_all_in(audited: Ledger, call: Callable[..., object], noon: Noon) -> None:
    """Each alone needs little; all of them need what they ask for together."""
    audited.pool("team", SharedPoolBudgetOptions(capacity_tokens=100))
    for after in range(3):
        with pytest.raises(ThresholdExceededError):
            call(audited, "team", UsageEstimate(total_tokens=110), run="a", after_noon_s=after)
    assert [
        DeniedGroup(
            pool="team",
            group={"run": "a"},
            denials=3,
            by_request_budget=0,
            requested_tokens=330,
            requested_cost_micros_usd=0,
            first_at=noon(0),
            last_at=noon(2),
            tokens=Increase(half=10, most=10, each=10, all=230),
            cost_micros_usd=Increase(half=0, most=0, each=0, all=0),
            requests=Increase(half=0, most=0, each=0, all=0),
        )
    ] == reports.denials_by(audited)
    larger = SharedPoolBudgetOptions(capacity_tokens=330)
    assert None is rules.admit(
        larger,
        Balance(Totals(220, 0, 2), Totals()),
        UsageEstimate(total_tokens=110),
        RequestBudget.unlimited(),
    )


def test_denials_by_filter(busy: Ledger, noon: Noon) -> None:
    """A filter narrows denials down as it does any report."""
    assert 1 == len(list(reports.denials(busy)))
    assert 1 == len(list(reports.denials(busy, Filter(run_id="two", since=noon(40)))))
    assert [] == list(reports.denials(busy, Filter(run_id="one")))
    assert [] == list(reports.denials(busy, Filter(until=noon(40))))
    assert [] == reports.denials_by(busy, Filter(pools=["other"]))
    with pytest.raises(InvalidInputError, match="colour"):
        reports.denials_by(busy, by=["colour"])


def test_what_a_pool_above_refused(audited: Ledger, call: Callable[..., object]) -> None:
    """It is named, and no capacity of the pool that was asked would have helped."""
    audited.pool("org", SharedPoolBudgetOptions(capacity_tokens=100))
    audited.pool("team", SharedPoolBudgetOptions(capacity_tokens=200), parent="org")
    for tokens in (150, 250):
        with pytest.raises(ThresholdExceededError):
            call(audited, "team", UsageEstimate(total_tokens=tokens))
    found = [
        (one.refused_by, one.remaining_tokens, one.increase_tokens)
        for one in reports.denials(audited, "team")
    ]
    assert [("org", 100, None), ("team", 200, 50)] == found
    (group,) = reports.denials_by(audited, "team", by=[])
    assert (2, 1, 0) == (group.denials, group.by_pools_above, group.by_request_budget)
    assert group.tokens is not None
    assert 50 == group.tokens.each
