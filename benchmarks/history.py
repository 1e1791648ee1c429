"""Makes a pool with a long, realistic history: many runs, models, days and outcomes."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, literal, null, select

from benchmarks.direct import Direct
from benchmarks.work import TIMEOUT_S, UNLIMITED
from ledger import (
    Attribution,
    BudgetLease,
    LeaseTtl,
    Ledger,
    LedgerBudgetManager,
    Provenance,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
    UsageReport,
)
from ledger.reports.position import SIDES
from ledger.store.database import Database
from ledger.store.schema import attributions, entries

POOL = "history"
RUN = "run-7"
ORIGINALS = 10_001
"""How many entries are made by real calls, within one day. Each copy of them is a day later."""

_DAY_US = 86_400_000_000
_BEGIN = 1_750_000_000_000_000
_BATCH = 100
_CAPACITY = 10**14
_MODELS = (("openai", "gpt-5"), ("openai", "gpt-5-mini"), ("anthropic", "claude"), ("own", "small"))
_OPERATIONS = ("plan", "search", "write", "review")
_PROVENANCES = (*[Provenance.REPORTED] * 8, Provenance.RECOVERED, Provenance.ESTIMATED)
_OUTCOMES = (*["settled"] * 97, "released", "late", "left open")
_CALLS_OF_A_RUN = 25


class _Days:
    """A clock that each batch moves forward, so that the originals take most of a day."""

    def __init__(self) -> None:
        self.now = _BEGIN

    def __call__(self) -> int:
        return self.now


def write(url: str, size: int) -> int:
    """Make a pool of about `size` entries, and return how many it has.

    One day of real entries is copied again and again, because a million real calls would take
    longer than all that is measured. The copies have run ids of their own. They keep the hashes of
    their originals, so the pool cannot be verified.
    """
    days = _Days()
    with Ledger.open(url, timeout_s=TIMEOUT_S, clock=days, record_denials=True) as book:
        budget = book.pool(POOL, SharedPoolBudgetOptions(capacity_tokens=_CAPACITY))
        found = _a_day(budget, days, min(size, ORIGINALS))
    database = Database(url, timeout_s=TIMEOUT_S, create=False)
    with database.connect() as connection:
        while found < size:
            with connection.begin():
                found = _doubled(connection, found, size)
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("ANALYZE")  # the server would do it by itself, but later
    database.close()
    return found


def _a_day(budget: LedgerBudgetManager, days: _Days, size: int) -> int:
    """Write the entries of one day by real calls, in batches; return how many there are."""
    chance = random.Random(5)  # noqa: S311 - the same history every time
    calls = found = 0
    direct = Direct(budget)
    waiting: list[tuple[BudgetLease, Usage]] = []
    while (left := size - (found := budget.status().seq)) > 0:
        days.now += _DAY_US * _BATCH * 9 // (ORIGINALS * 10)
        late, waiting = waiting, []
        for lease, used in late[:left]:
            budget.record_used(lease, used)
        left -= len(late)
        wanted = [_call(chance, calls + number) for number in range(min(_BATCH // 2, left // 2))]
        calls += len(wanted)
        if not wanted:
            if left > 0:
                _refused(budget, *_call(chance, calls))
            continue
        leases = direct.done([direct.reserve(*call, UNLIMITED) for call in wanted])
        endings: list[None] = []  # operations, in truth
        for lease in leases:
            outcome, used = chance.choice(_OUTCOMES), _used(chance, lease.reserved)
            if outcome == "released":
                endings.append(direct.release(lease))
            elif outcome == "late":
                waiting.append((lease, used))
            elif outcome == "settled":
                report = UsageReport(provenance=chance.choice(_PROVENANCES))
                endings.append(direct.record_used(lease, used, report=report))
        direct.done(endings)
        if left > 3 * _BATCH:
            _refused(budget, *_call(chance, calls))
    return found


def _refused(
    budget: LedgerBudgetManager, extensions: RequestExtensions, estimate: UsageEstimate
) -> None:
    too_much = UsageEstimate(total_tokens=2 * _CAPACITY, cost_micros_usd=estimate.cost_micros_usd)
    try:
        budget.reserve(extensions, too_much, UNLIMITED)
    except ThresholdExceededError:
        return
    raise AssertionError("the estimate is over the capacity")


def _call(chance: random.Random, number: int) -> tuple[RequestExtensions, UsageEstimate]:
    run = number // _CALLS_OF_A_RUN
    provider, model = _MODELS[(run + number) % len(_MODELS)]
    attribution = Attribution(
        run_id=f"run-{run}",
        parent_run_id=f"run-{run - run % 5}" if run % 5 else None,
        tenant=f"tenant-{run % 20}",
        agent=f"agent-{run % 7}",
        operation=_OPERATIONS[number % len(_OPERATIONS)],
        provider=provider,
        model=model,
        tags={"team": f"team-{run % 3}"},
    )
    tokens = chance.randrange(200, 8_000)
    # Half of the leases hold for a second only, so that late usage comes after they expired.
    more = [LeaseTtl(timedelta(seconds=1))] if chance.choice([True, False]) else []
    return RequestExtensions(attribution, *more), UsageEstimate(
        input_tokens=tokens,
        output_tokens=tokens // 2,
        total_tokens=tokens + tokens // 2,
        cost_micros_usd=tokens * 7,
    )


def _used(chance: random.Random, estimate: UsageEstimate) -> Usage:
    percent = chance.randrange(20, 110)
    tokens_in = estimate.input_tokens
    tokens_out = estimate.output_tokens * percent // 100
    return Usage(
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        total_tokens=tokens_in + tokens_out,
        cost_micros_usd=estimate.cost_micros_usd * percent // 100,
        cache_read_tokens=tokens_in // 2,
        reasoning_tokens=tokens_out // 3,
    )


def _doubled(connection: Connection, found: int, size: int) -> int:
    """Copy all entries but the opening, up to `size` in all; return how many entries there are."""
    e, a = entries.c, attributions.c
    last = connection.execute(select(entries).where(e.seq == found)).mappings().one()
    days_us = -((_BEGIN - last["recorded_at"]) // _DAY_US) * _DAY_US
    named = connection.execute(select(func.max(a.attribution_id))).scalar_one()
    more_names: dict[str, ColumnElement[Any]] = {
        "attribution_id": a.attribution_id + named,
        "run_id": a.run_id + literal(f".{found}"),
        "parent_run_id": a.parent_run_id + literal(f".{found}"),
        "content_key": null(),
    }
    columns = [more_names.get(column.name, column) for column in a]
    connection.execute(insert(attributions).from_select(a.keys(), select(*columns)))
    # The opening is not copied, so the numbers of the copies move by one less.
    changed: dict[str, ColumnElement[Any]] = {
        "seq": e.seq + (found - 1),
        "lease": e.lease + (found - 1),
        "attribution_id": e.attribution_id + named,
        "idempotency_key": null(),
        **{name: e[name] + days_us for name in ("recorded_at", "expires_at", "swept_until")},
        **{name: e[name] + last[name] for name in SIDES},
    }
    copies = select(*(changed.get(column.name, column) for column in e)).where(
        e.seq > 1, e.seq <= size - found + 1
    )
    connection.execute(insert(entries).from_select(e.keys(), copies))
    return min(size, 2 * found - 1)
