"""Books in which every figure is known."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Table, func, insert, select

from ledger import (
    Attribution,
    BudgetLease,
    Ledger,
    OccurredAt,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
)
from ledger.core.extensions import ATTRIBUTION_TEXTS
from ledger.core.values import ESTIMATE_FIELDS, USAGE_FIELDS
from ledger.store import schema

NOON = datetime(2024, 2, 29, 12, 0, 0, 250_000, tzinfo=UTC)

Call = Callable[..., BudgetLease]


@pytest.fixture
def noon() -> Callable[[int], datetime]:
    """Return a function that gives the time so many seconds after noon of one day."""
    return lambda seconds: NOON + timedelta(seconds=seconds)


@pytest.fixture
def audited(store_url: str) -> Iterator[Ledger]:
    """Return books that keep denials, on each database in turn."""
    with Ledger.open(store_url, record_denials=True) as opened:
        yield opened


@pytest.fixture
def call() -> Call:
    """Return a function that reserves, and settles if a usage is given."""

    def make(
        book: Ledger,
        pool: str,
        estimate: UsageEstimate,
        used: Usage | None = None,
        *,
        run: str | None = None,
        after_noon_s: int | None = None,
        limit: RequestBudget | None = None,
    ) -> BudgetLease:
        extensions = RequestExtensions()
        if run is not None:
            extensions.insert(Attribution(run_id=run))
        if after_noon_s is not None:
            extensions.insert(OccurredAt(NOON + timedelta(seconds=after_noon_s)))
        budget = book.pool(pool)
        lease = budget.reserve(extensions, estimate, limit or RequestBudget.unlimited())
        if used is not None:
            budget.record_used(lease, used)
        return lease

    return make


@pytest.fixture
def busy(audited: Ledger, call: Call) -> Ledger:
    """Return books with two runs, calls without a run, a denial, an open lease, two pools.

    ========== ===== ============== ================== ==================
    pool       run   seconds        estimate           used
    ========== ===== ============== ================== ==================
    team       one   10             100+50 = 150, 900  100+20 = 120, 700
    team       one   30             200+60 = 260, 800  200+90 = 290, 990
    team       two   20             10+5 = 15, 40      still open
    team       two   40             denied: 9,999
    team       -     50             1+1 = 2, 3         1+0 = 1, 1
    other      one   5              7+3 = 10, 20       7+2 = 9, 15
    ========== ===== ============== ================== ==================
    """
    audited.pool("team", SharedPoolBudgetOptions(capacity_tokens=5_000))
    audited.pool("other", SharedPoolBudgetOptions())
    call(audited, "team", estimate(100, 50, 900), used(100, 20, 700), run="one", after_noon_s=10)
    call(audited, "team", estimate(10, 5, 40), run="two", after_noon_s=20)
    call(audited, "team", estimate(200, 60, 800), used(200, 90, 990), run="one", after_noon_s=30)
    with pytest.raises(ThresholdExceededError):
        call(audited, "team", estimate(9_000, 999, 7), run="two", after_noon_s=40)
    call(audited, "team", estimate(1, 1, 3), used(1, 0, 1), after_noon_s=50)
    call(audited, "other", estimate(7, 3, 20), used(7, 2, 15), run="one", after_noon_s=5)
    return audited


_COLUMNS = tuple(column.name for column in schema.entries.columns)


class Scribe:
    """Appends rows of every kind to a store, also those that the library does not write (yet).

    Amounts, balances and lease states are as the rules would have them; hashes are not.
    """

    def __init__(self, book: Ledger) -> None:
        self.book = book
        self._leases: dict[tuple[int, int], dict[str, Any]] = {}
        """What each lease's newest entry would say if it said all."""
        self.written: list[tuple[Table, dict[str, Any]]] = []
        self._transaction: Connection | None = None

    @contextmanager
    def together(self) -> Iterator[Connection]:
        """Append what is appended meanwhile in one transaction."""
        if self._transaction is not None:
            yield self._transaction
            return
        with self.book._database.engine.connect() as connection:
            self._transaction = connection
            try:
                yield connection
            finally:
                self._transaction = None
            connection.commit()

    def pool(self, name: str, *, parent: str | None = None, **policy: int) -> None:
        """Open a pool, below another one."""
        if parent is None:
            self.book.pool(name, SharedPoolBudgetOptions(**policy))
            return
        self.book.pool(name + " (template)", SharedPoolBudgetOptions(**policy))
        with self.book._database.engine.connect() as connection:
            ids = dict(
                connection.execute(select(schema.pools.c.name, schema.pools.c.pool_id)).all()
            )
            fresh = {"pool_id": max(ids.values()) + 1, "identity": random.randbytes(16)}
            connection.execute(
                insert(schema.pools), {**fresh, "name": name, "parent_id": ids[parent]}
            )
            (opening,) = connection.execute(
                select(schema.entries).where(schema.entries.c.pool_id == ids[name + " (template)"])
            ).mappings()
            keys = {"pool_id": fresh["pool_id"], "idempotency_key": None}
            connection.execute(insert(schema.entries), {**opening, **keys})
            connection.commit()

    def append(
        self,
        pool: str,
        kind: str,
        *,
        who: Mapping[str, Any] | None = None,
        at: datetime | None = None,
        recorded: datetime | None = None,
        lease: int | None = None,
        **values: Any,  # noqa: ANN401 - any column
    ) -> int:
        """Append an entry and return its number; balances follow from the kind."""
        e = schema.entries.c
        with self.together() as connection:
            pool_id = connection.execute(
                select(schema.pools.c.pool_id).where(schema.pools.c.name == pool)
            ).scalar_one()
            head = connection.execute(
                select(schema.entries).where(e.pool_id == pool_id).order_by(e.seq.desc()).limit(1)
            ).one()
            row: dict[str, Any] = {
                **dict.fromkeys(_COLUMNS),
                **{
                    name: getattr(head, name)
                    for name in _COLUMNS
                    if name.startswith(("committed_", "reserved_"))
                    or name in {"pool_id", "policy_seq", "window_seq", "swept_until"}
                },
                "seq": head.seq + 1,
                "kind": kind,
                "flags": 0,
                "recorded_at": head.recorded_at,
                "hash_version": 1,
                "hash": bytes(32),
            }
            if recorded is not None:
                row["recorded_at"] = micros(recorded)
            if at is not None:
                row["occurred_at"] = micros(at)
            if who is not None:
                row["attribution_id"] = self._attribution(connection, pool_id, who)
            if lease is not None or kind == "reservation":
                row["lease"] = lease or row["seq"]
                self._leased(row, values)
            row |= values
            if row["estimate_total_tokens"] is not None:
                row |= {
                    f"estimate_{name}": row[f"estimate_{name}"] or 0 for name in ESTIMATE_FIELDS
                }
            if row["usage_total_tokens"] is not None:
                row |= dict.fromkeys(
                    (f"usage_{name}" for name in USAGE_FIELDS if row[f"usage_{name}"] is None), 0
                )
                for name in ("tokens", "cost_micros_usd"):
                    used = row[f"usage_{'total_' * (name == 'tokens')}{name}"]
                    total = row[f"committed_{name}"] + used
                    row[f"committed_{name}"] = min(max(0, total), 2**63 - 1)
            if row["lease"] is not None:
                self._leases[row["pool_id"], row["lease"]] = row
            connection.execute(insert(schema.entries), _thin(row))
        self.written.append((schema.entries, row))
        return int(row["seq"])

    def write_again(self, written: list[tuple[Table, dict[str, Any]]]) -> None:
        """Append what another scribe has appended to pools of the same names and policies."""
        e, who, rows = schema.entries.c, [], []
        with self.book._database.engine.connect() as connection:
            opened = connection.execute(select(e.pool_id, e.recorded_at).where(e.seq == 1))
            recorded_at = dict(opened.all())
            for table, row in written:
                if table is schema.attributions:
                    who.append(dict.fromkeys(table.columns.keys()) | row)
                    continue
                again = row | {"recorded_at": recorded_at[row["pool_id"]]}
                rows.append(_thin(again))
                if again["lease"] is not None:
                    self._leases[again["pool_id"], again["lease"]] = again
            for table, added in ((schema.attributions, who), (schema.entries, rows)):
                if added:
                    connection.execute(insert(table), added)
            connection.commit()

    def _leased(self, row: dict[str, Any], values: dict[str, Any]) -> None:
        """Fill in the estimate and the hold of a lease's entry, and move the reserved totals."""
        before = self._leases.get((row["pool_id"], row["lease"]))
        held = ("tokens", "cost_micros_usd", "requests")
        if before is None:
            row |= {f"estimate_{name}": 0 for name in ESTIMATE_FIELDS} | values
            row |= {
                "held_tokens": row["estimate_total_tokens"],
                "held_cost_micros_usd": row["estimate_cost_micros_usd"],
                "held_requests": 1,
            } | {f"used_{name}": 0 for name in USAGE_FIELDS}
            was = dict.fromkeys(held, 0)
        else:
            row |= {
                name: before[name]
                for name in _COLUMNS
                if name.startswith(("estimate_", "held_", "used_"))
                or (name == "attribution_id" and row[name] is None)
            }
            was = {name: row[f"held_{name}"] for name in held}
            if row["kind"] in {"settlement", "release", "expiry"}:
                row |= {f"held_{name}": 0 for name in held}
            row |= {
                f"used_{name}": row[f"used_{name}"] + values.get(f"usage_{name}", 0)
                for name in USAGE_FIELDS
            }
        for name in held:
            row[f"reserved_{name}"] += row[f"held_{name}"] - was[name]

    def _attribution(self, connection: Any, pool_id: int, who: Mapping[str, Any]) -> int:  # noqa: ANN401
        a = schema.attributions.c
        tags = json.dumps(
            who.get("tags"), sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )
        content = {name: who.get(name) for name in ATTRIBUTION_TEXTS}
        content["tags"] = tags if who.get("tags") else None
        highest = connection.execute(
            select(func.max(a.attribution_id)).where(a.pool_id == pool_id)
        ).scalar()
        redacted = bool(who.get("redacted"))
        row = {
            "pool_id": pool_id,
            "attribution_id": (highest or 0) + 1,
            "digest": bytes(32),
            "salt": None if redacted else bytes(16),
            **({} if redacted else content),
        }
        connection.execute(insert(schema.attributions), row)
        self.written.append((schema.attributions, row))
        return int(row["attribution_id"])


@pytest.fixture
def scribe(book: Ledger) -> Scribe:
    """Return who writes rows of every kind, on each database in turn."""
    return Scribe(book)


def _said(row: Any, granted: Any) -> dict[str, Any]:  # noqa: ANN401 - rows of entries
    """Return all that an entry says: what its lease was estimated at, has used, and holds."""
    said: dict[str, Any] = {}
    if row["usage_total_tokens"] is not None:
        said |= {f"usage_{name}": row[f"usage_{name}"] or 0 for name in USAGE_FIELDS}
    if row["lease"] is None:
        return said
    used = "usage" if row["used_total_tokens"] is None else "used"
    at_first = (granted["estimate_total_tokens"], granted["estimate_cost_micros_usd"], 1)
    held = at_first if row["kind"] == "reservation" else (0, 0, 0)
    names = ("tokens", "cost_micros_usd", "requests")
    if row["held_tokens"] is not None:
        held = tuple(row[f"held_{name}"] for name in names)
    return {
        **said,
        **{f"held_{name}": amount for name, amount in zip(names, held, strict=True)},
        **{f"granted_{name}": granted[f"estimate_{name}"] for name in ESTIMATE_FIELDS},
        **{f"used_{name}": row[f"{used}_{name}"] or 0 for name in USAGE_FIELDS},
    }


def _thin(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without what the library leaves out: what its kind and its usage say already."""
    kind, thin = row["kind"], dict(row)
    if kind not in {"reservation", "denial", "correction"}:
        thin |= {f"estimate_{name}": None for name in ESTIMATE_FIELDS}
    names = ("tokens", "cost_micros_usd", "requests")
    at_first = (row["estimate_total_tokens"], row["estimate_cost_micros_usd"], 1)
    implied = at_first if kind == "reservation" else (0, 0, 0)
    if implied == tuple(row[f"held_{name}"] for name in names):
        thin |= {f"held_{name}": None for name in names}
    if kind != "correction" and all(
        row[f"used_{name}"] == (row[f"usage_{name}"] or 0) for name in USAGE_FIELDS
    ):
        thin |= {f"used_{name}": None for name in USAGE_FIELDS}
    for name in USAGE_FIELDS[len(ESTIMATE_FIELDS) :]:
        thin |= {f"{group}_{name}": thin[f"{group}_{name}"] or None for group in ("usage", "used")}
    return thin


@pytest.fixture
def facts() -> Callable[[Ledger], list[dict[str, Any]]]:
    """Return a function that reads every entry with its attribution, for an oracle to fold."""

    def read(book: Ledger) -> list[dict[str, Any]]:
        e, a = schema.entries, schema.attributions
        query = (
            select(
                *e.columns,
                *(a.c[name] for name in ATTRIBUTION_TEXTS),
                a.c.tags,
                schema.pools.c.name.label("pool"),
            )
            .select_from(
                e.join(schema.pools, schema.pools.c.pool_id == e.c.pool_id).outerjoin(
                    a, (a.c.pool_id == e.c.pool_id) & (a.c.attribution_id == e.c.attribution_id)
                )
            )
            .order_by(e.c.pool_id, e.c.seq)
        )
        rows = book.read(lambda connection: connection.execute(query).mappings().all())
        granted = {(row["pool_id"], row["seq"]): row for row in rows}
        return [
            {
                **row,
                **_said(row, granted.get((row["pool_id"], row["lease"]), row)),
                "tags": json.loads(row["tags"] or "{}"),
                "at": row["recorded_at"] if row["occurred_at"] is None else row["occurred_at"],
            }
            for row in rows
        ]

    return read


WHO = [
    {
        "run_id": "a",
        "model": "m1",
        "provider": "p",
        "tenant": "t1",
        "tags": {"team": "x", 'é"': ","},
    },
    {"run_id": "b", "parent_run_id": "a", "model": "m2", "agent": "g", "tags": {"team": "y"}},
    {"run_id": "c", "parent_run_id": "b", "model": "m1", "operation": "chat", "tenant": "t2"},
    {"run_id": "d", "parent_run_id": "gone", "model": "m3", "tags": {"other": '","team":"x'}},
    {"redacted": True},
    None,
]


_HISTORIES: dict[tuple[int, int], list[tuple[Table, dict[str, Any]]]] = {}
"""What was written for a seed: to write it again as one takes a fraction of the time."""


@pytest.fixture
def history(scribe: Scribe) -> Callable[[int], Ledger]:
    """Return a function that writes a random history of every kind into three pools."""

    def write(seed: int, *, entries: int = 70) -> Ledger:
        rng = random.Random(seed)
        scribe.pool("root", capacity_tokens=50_000, stop_threshold_tokens=10)
        scribe.pool("leaf", parent="root")
        scribe.pool("other", capacity_cost_micros_usd=10**9)
        if (seed, entries) in _HISTORIES:
            scribe.write_again(_HISTORIES[seed, entries])
            return scribe.book
        begin = datetime(2024, 3, 8, tzinfo=UTC)
        opened: list[tuple[str, int]] = []
        with scribe.together():
            for _ in range(entries):
                at = begin + timedelta(
                    seconds=rng.randrange(60 * 86_400), microseconds=rng.randrange(9)
                )
                _step(scribe, rng, None if rng.random() < 0.1 else at, opened)
        _HISTORIES[seed, entries] = list(scribe.written)
        return scribe.book

    return write


def _step(
    scribe: Scribe, rng: random.Random, at: datetime | None, opened: list[tuple[str, int]]
) -> None:
    """Append one entry of a random kind, and sometimes its mirror in the parent."""
    values: dict[str, Any] = {"at": at, "who": rng.choice(WHO)}
    used = {
        f"usage_{name}": rng.choice([0, rng.randrange(900), rng.randrange(2**40)])
        for name in USAGE_FIELDS
    }
    kind = rng.choice(["reservation"] * 4 + ["end"] * 4 + ["denial", "correction", "adjustment"])
    pool = rng.choice(["root", "leaf", "other"])
    if kind == "end" and opened:
        pool, lease = opened.pop(rng.randrange(len(opened)))
        kind = rng.choice(["settlement"] * 3 + ["observation", "release", "expiry"])
        if kind == "observation":
            opened.append((pool, lease))
        if kind == "expiry":
            scribe.append(pool, kind, lease=lease, at=at)
            kind, values["flags"] = "settlement", 2
        values |= {"lease": lease}
        if kind != "release":
            values |= used | {
                "provenance": rng.choice(["reported", "recovered", "estimated", "unknown", None])
            }
        if rng.random() < 0.7:
            del values["who"]
    elif kind == "correction":
        values |= {name: -amount // 3 for name, amount in used.items()}
    elif kind == "adjustment":
        values = {}
    else:
        kind = "denial" if kind == "denial" else "reservation"
        values |= {f"estimate_{name}": rng.randrange(1, 5_000) for name in ESTIMATE_FIELDS}
    seq = scribe.append(pool, kind, **values)
    if kind == "reservation":
        opened.append((pool, seq))
    if pool == "leaf" and kind != "adjustment":
        values.pop("lease", None)
        mirrored = {"origin_pool_id": 3, "origin_seq": seq, "lease": None}
        scribe.append("root", kind, **{**values, **mirrored})


def micros(at: datetime) -> int:
    """Return a time as the store holds it."""
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def estimate(input_tokens: int, output_tokens: int, cost: int) -> UsageEstimate:
    """Return an estimate whose total is the sum of its parts."""
    return UsageEstimate(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        total_tokens=input_tokens + output_tokens,
        cost_micros_usd=cost,
    )


def used(input_tokens: int, output_tokens: int, cost: int) -> Usage:
    """Return a usage whose total is the sum of its parts."""
    return Usage.from_estimate(estimate(input_tokens, output_tokens, cost))
