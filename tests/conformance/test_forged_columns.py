"""An owner who changes any column of any kind of entry and computes the chain anew is found out.

Where not, the column is in a list here with the reason: the table of docs/journal.md.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ledger import (
    Attribution,
    Credit,
    EntryKind,
    IdempotencyKey,
    LeaseTtl,
    Ledger,
    OccurredAt,
    PastCall,
    PoolClosedError,
    RequestBudget,
    RequestExtensions,
    SettlementPolicy,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
    UsageReport,
    Window,
    from_micros,
)
from tests.clocks import Clock
from tests.fixtures import Vandal

BUDGET = RequestBudget(tokens=400, cost_micros_usd=90_000)
THEN = datetime(2023, 11, 14, 22, 0, tzinfo=UTC)
"""Before every entry that these tests write."""


class Author:
    """Writes a store with every kind of entry: own, mirrored, and of a lease that funds a pool."""

    def __init__(self, book: Ledger, clock: Clock) -> None:
        self._book = book
        self._clock = clock
        self._number = 0

    def later(self, seconds: int = 7) -> None:
        """Let some time pass: entries are then apart."""
        self._clock.now += seconds * 1_000_000

    def reserve(self, pool: str, tokens: int, *more: object) -> Any:  # noqa: ANN401 - a lease
        """Reserve for one of several runs, with an estimate that no other lease has."""
        self.later()
        self._number += 1
        given = Attribution(
            run_id=f"run {self._number % 3}",
            tenant="acme",
            model="m",
            tags={"team": "t"},
            request_id=f"q{self._number}",
        )
        estimate = UsageEstimate(
            input_tokens=tokens - 1, total_tokens=tokens, cost_micros_usd=100 + self._number
        )
        extensions = RequestExtensions(given, OccurredAt(THEN), *more)
        return self._book.pool(pool).reserve(extensions, estimate, BUDGET)

    def record(self, pool: str, lease: object, tokens: int, **report: Any) -> None:  # noqa: ANN401 - any field
        """Settle a lease."""
        self.later()
        usage = Usage(output_tokens=2, total_tokens=tokens, cost_micros_usd=tokens)
        given = UsageReport(**report) if report else None
        self._book.pool(pool).record_used(lease, usage, report=given)

    def bring(self, pool: str, tokens: int) -> None:
        """Import a call of the past."""
        self.later()
        self._number += 1
        usage = Usage(output_tokens=2, total_tokens=tokens, cost_micros_usd=tokens)
        whom = Attribution(run_id="run 1", model="m", request_id=f"q{self._number}")
        call = PastCall(usage=usage, occurred_at=THEN, attribution=whom)
        self._book.pool(pool).import_calls([call], "moved")

    def denied(self, pool: str, tokens: int, key: str) -> None:
        """Be denied, and have that kept."""
        with pytest.raises(ThresholdExceededError):
            self.reserve(pool, tokens, IdempotencyKey(key))

    def pools(self) -> None:
        """Open pools that share, one that is carved out, and one with windows."""

        def options(tokens: int, **more: Any) -> SharedPoolBudgetOptions:  # noqa: ANN401 - any option
            return SharedPoolBudgetOptions(capacity_tokens=tokens, **more)

        ttl = timedelta(minutes=10)
        opened: list[tuple[str, SharedPoolBudgetOptions, dict[str, Any]]] = [
            ("paid", options(100, prepaid=["tokens"]), {}),
            ("org", options(1_000, thresholds={"half": 50}), {}),
            ("team", options(600), {"parent": "org"}),
            ("run", options(500, lease_ttl=ttl), {"parent": "team"}),
            ("worker", options(300, lease_ttl=ttl), {"parent": "org", "carved": True}),
            ("hourly", options(90, window=Window(period=timedelta(hours=1), carry_over=True)), {}),
            ("given", options(80, settlement=SettlementPolicy.ESTIMATED), {}),
            ("freed", options(80, settlement=SettlementPolicy.RELEASE), {}),
        ]
        for name, policy, where in opened:
            self.later()
            self._book.pool(name, policy, **where)

    def write(self) -> None:
        """Write everything."""
        self.pools()
        self.top_up()
        book, run = self._book, self._book.pool("run")
        reported = self.reserve("run", 50)
        self.later()
        run.observe(reported, Usage(total_tokens=3), report=UsageReport(request_id="other"))
        self.later()
        run.renew(reported, timedelta(minutes=20))
        self.record("run", reported, 40, model="n", tags={"a": "b"}, detail={"x": 1})
        settled = run.status().seq
        plain = self.reserve("run", 60)
        self.record("run", plain, 61)
        self.later()
        run.correct(settled, Usage(total_tokens=45, reasoning_tokens=1), "invoice")
        self.bring("run", 5)
        freed = self.reserve("run", 70)
        self.later()
        run.release(freed)
        self.denied("run", 399, "own")
        other = self.reserve("team", 200)
        self.denied("run", 333, "from above")
        self.record("team", other, 10)
        expiring = self.reserve("run", 90)
        self.later(700)
        book.expire_due()
        self.record("run", expiring, 95)
        self.reserve("run", 33)
        self.carve()
        for pool in ("given", "freed"):
            lease = self.reserve(pool, 5)
            self.later()
            book.pool(pool).abandon(lease)
        self.record("hourly", self.reserve("hourly", 20), 15)
        self.later(3_600)
        self.bring("hourly", 12)
        self.record("hourly", self.reserve("hourly", 30), 15)
        self.later()
        book.adjust("org", SharedPoolBudgetOptions(capacity_tokens=900), reason="less")
        self.later()
        book.close_pool("hourly", reason="done")

    def top_up(self) -> None:
        """Give credits, and spend of one that expires."""
        soon = from_micros(self._clock.now + 60_000_000)
        self.later()
        self._book.credit("paid", Credit(name="first", tokens=50, expires_at=soon))
        self.record("paid", self.reserve("paid", 20), 15)
        self.later(60)
        self._book.credit("paid", Credit(name="second", tokens=9), reason="paid")

    def carve(self) -> None:
        """Spend in a pool that is carved out, close it, and hear of more."""
        worker = self._book.pool("worker")
        self.record("worker", self.reserve("worker", 80), 85)
        late = self.reserve("worker", 20, LeaseTtl(timedelta(minutes=1)))
        self.later(90)
        self._book.close_pool("worker")
        self.record("worker", late, 25)
        with pytest.raises(PoolClosedError):
            self.reserve("worker", 1)
        self.later()
        worker.correct(worker.status().seq, Usage(total_tokens=24), "invoice")


@pytest.fixture
def written(timed: Ledger, clock: Clock) -> Ledger:
    """Return a ledger with every kind of entry, on each database in turn."""
    Author(timed, clock).write()
    assert [] == [found for found in timed.verify() if not found.ok]
    return timed


def roles(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return one entry of each kind that is a pool's own, repeats another, or funds a pool."""
    found = {}
    for row in rows:
        role = "own" if row["origin_seq"] is None else "mirror"
        detail = row["detail"] or ""
        if role == "mirror" and "carving" in detail:
            role = "funding"
        if '"report":' in detail:
            role = f"{role} with a report"
        if detail.startswith('{"settlement"'):
            role = f"{role} of an abandoned lease"
        if row["kind"] == EntryKind.DENIAL and '"pool":' in detail:
            role = "from above"
        found[role, row["kind"]] = row
    return found


def leaves(value: object) -> Iterator[object]:
    """Yield copies of a JSON value, each with one thing in it changed."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {name: one for name, one in value.items() if name != key}
            for changed in leaves(inner):
                yield {**value, key: changed}
        yield {**value, "more": 1}
    elif isinstance(value, bool) or value is None:
        yield 1
    elif isinstance(value, int):
        yield from (value + 1, max(0, value - 1))
    elif isinstance(value, str):
        yield value + "x"


def others(row: dict[str, Any], column: str, rows: list[dict[str, Any]]) -> list[Any]:
    """Return other values that a column may plausibly hold."""
    value, pool_id = row[column], row["pool_id"]
    there = {one[column] for one in rows if one["pool_id"] == pool_id}
    plausible: dict[str, list[Any]] = {
        "kind": list(map(str, EntryKind)),
        "attribution_id": [None, *there],
        "lease": [None, *there],
        "provenance": [None, "reported", "recovered", "guessed"],
        "payload_digest": [None, row["hash"]],
        "idempotency_key": [None, "another", *sorted(there - {None})[:1]],
        "request_id": [None, "another"],
        "origin_pool_id": [None, 1, 2, 3, 4, 99],
        "policy_seq": [1, row["seq"]],
        "window_seq": [1, row["seq"]],
    }
    if column == "detail":
        made = ['{"report":{"x":1}}', '{"reason":"why"}', None, f"{value} "]
        made += [
            json.dumps(one, sort_keys=True, separators=(",", ":"))
            for one in leaves(json.loads(value or "{}"))
        ]
    elif column in plausible:
        made = plausible[column]
    elif value is None:
        made = [0, 1, row["recorded_at"]]
    else:
        less = [value - 1] if column.endswith(("_at", "_until", "seq")) else []
        made = [None, value + 1, *less]
    return [one for one in dict.fromkeys(made) if one != value]


def turned(values: list[Any], number: int) -> list[Any]:
    """Return values, another one first for each number."""
    first = number % len(values) if values else 0
    return values[first:] + values[:first]


KEYED = {
    "opening",
    "reservation",
    "denial",
    "observation",
    "renewal",
    "settlement",
    "release",
    "adjustment",
    "correction",
    "closing",
    "credit",
    "import",
}

UNDETERMINED: dict[str, dict[str, set[str]]] = {
    # Between that of the entry before and when the entry is recorded. One that is too low makes a
    # sweep look at more; one that is too high would leave a due lease its hold, and is found. Where
    # no lease was granted for a time, there is none.
    "swept_until": {"": set(map(str, EntryKind)) - {"opening", "threshold"}},
    # Between those of the entries before and behind it, unless another pool has the same entry, or
    # an expiry or a window depends on it.
    "recorded_at": {
        "own": {
            *("adjustment", "closing", "denial", "import", "opening", "reservation", "rollover"),
            "settlement",
        },
        "funding": {"settlement"},
        "own of an abandoned lease": {"expiry", "release", "settlement"},
        "from above": {"denial"},
    },
    # The caller's, whatever it is; but there is one, and no other entry of the pool has it.
    "idempotency_key": {"own": KEYED, "from above": KEYED},
    # Not all that a caller gave is kept: a denial's time to live, what of a report was left out.
    "payload_digest": {"own": KEYED, "from above": KEYED},
    # What nothing else repeats: a denial is one entry.
    "attribution_id": {"own": {"denial", "import"}, "from above": {"denial"}},
    "request_id": {
        "own": {"denial", "import", "settlement"},
        "own of an abandoned lease": {"settlement"},
        "from above": {"denial"},
    },
    "occurred_at": {"own": {"denial", "import", "settlement"}, "from above": {"denial"}},
    **{
        name: {"own": {"denial"}, "from above": {"denial"}}
        for name in (*("estimate_total_tokens", "estimate_cost_micros_usd"),)
    },
    # What no balance counts, and no entry of another pool repeats.
    **{
        name: {"own": {"denial", "reservation"}, "from above": {"denial"}}
        for name in (
            *("estimate_input_tokens", "estimate_output_tokens"),
            *("budget_tokens", "budget_cost_micros_usd"),
        )
    },
    **{
        f"usage_{name}": {"own": {"import", "settlement"}}
        for name in (
            *("input_tokens", "output_tokens"),
            *("cache_creation_tokens", "cache_read_tokens", "reasoning_tokens"),
        )
    },
    # What was said after the call, in a pool that shares with none above.
    "provenance": {"own": {"import", "settlement"}},
    # Policies and credits until a verdict depends on it, reasons, reports, whether a lease was
    # abandoned or ended so, and whether leases held what a pool above had too little of: it may
    # have had as little a moment earlier or later, without them.
    "detail": {
        "own": {"adjustment", "closing", "correction", "credit", "import", "opening", "settlement"},
        "own of an abandoned lease": {"release", "settlement"},
        "from above": {"denial"},
    },
}
"""Columns of which another value is not found, each with the roles and kinds of the entries.

Everything else is proved. docs/journal.md has the same list for people.
"""


def undetermined(role: str, kind: str, column: str) -> bool:
    """Tell whether the list says that another value is not found."""
    listed = UNDETERMINED.get(column, {})
    return any(
        kind in kinds and (not name or role == name or (kinds is KEYED and role.startswith(name)))
        for name, kinds in listed.items()
    )


POOLS = ("paid", "org", "team", "run", "worker", "hourly", "given", "freed")
SHARING = POOLS[1:3]
"""Pools with entries that repeat those of others: SQL compares them."""


@pytest.mark.parametrize(
    ("store_url", "pool", "values"),
    [
        *(pytest.param("sqlite", pool, 1, id=f"{pool}-a value") for pool in POOLS),
        *(
            pytest.param(store, pool, sys.maxsize, id=f"{store}-{pool}-all", marks=pytest.mark.long)
            for store, pools in (("sqlite", POOLS), ("postgresql", SHARING))
            for pool in pools
        ),
    ],
    indirect=["store_url"],
)
def test_every_column_of_every_kind_of_entry_is_proved(
    written: Ledger, vandal: Vandal, store_url: str, pool: str, values: int
) -> None:
    """Each column by itself, on entries of each kind: what is not found is in the list above.

    A plain run tries one value in each column that is proved, another one in each next column.
    """
    vandal.loosen()
    rows = vandal.rows()
    pool_id = next(one.pool_id for one in written.pools() if one.name == pool)
    own = [one for one in rows if one["pool_id"] == pool_id]
    missed, expected, number = set(), set(), itertools.count()
    for (role, kind), row in roles(rows).items():
        # What a pool says of its own entries is decided in Python, the same on both databases.
        if row["pool_id"] != pool_id or ("postgresql" in store_url and row["origin_seq"] is None):
            continue
        for column in sorted(set(row) - {"hash"}):
            swept = column == "swept_until" and row[column] is None
            left = values
            if undetermined(role, kind, column) and not swept:
                expected.add((role, kind, column))
                left = sys.maxsize
            for value in turned(others(row, column, rows), next(number)):
                if not vandal.forge_in(own, row["seq"] - 1, column, value):
                    continue  # the database refuses it
                found = written.verify(pool)[0].ok and all(one.ok for one in written.verify())
                vandal.restore()
                left -= 1
                if found:
                    missed.add((role, kind, column))
                if found or not left:
                    break
    assert expected == missed
