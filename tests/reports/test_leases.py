"""Leases by age, stale ones, and those that were used after they expired."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ledger import I64_MAX, LeasePhase, Ledger, Totals, from_micros, reports
from ledger.core.errors import InvalidInputError
from ledger.reports import Filter, LateUse, LeaseAge

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
AGES = (0, 60, 600, 3_600, 86_400, 604_800, None)


def expected_ages(open_leases: list[tuple[int, bool, Totals]]) -> list[LeaseAge]:
    """Return ages of leases that are each so many seconds old, expired or not, and hold so much."""
    found = []
    for from_s, below_s in itertools.pairwise(AGES):
        members = [
            (expired, held)
            for age_s, expired, held in open_leases
            if age_s >= from_s and (below_s is None or age_s < below_s)
        ]
        found.append(
            LeaseAge(
                from_s=from_s or 0,
                below_s=below_s,
                leases=len(members),
                expired=sum(expired for expired, _held in members),
                held=Totals(*(sum(held[axis] for _, held in members) for axis in range(3))),
            )
        )
    return found


def test_every_age_to_the_second(scribe: Any) -> None:  # noqa: ANN401 - the conftest's own
    """A lease is in the next age from the full minute, hour, day or week on."""
    scribe.pool("team")
    ages = [0, 59, 60, 599, 600, 3_599, 3_600, 86_399, 86_400, 604_799, 604_800, 10**9]
    for age_s in ages:
        scribe.append("team", "reservation", at=NOW, recorded=NOW - timedelta(seconds=age_s),
                      estimate_total_tokens=age_s + 1, estimate_cost_micros_usd=1)  # fmt: skip
    found = reports.leases(scribe.book, now=NOW, stale_after_s=86_400)
    assert expected_ages([(age_s, False, Totals(age_s + 1, 1, 1)) for age_s in ages]) == found.ages
    assert ages[:7:-1] == [one.age_s for one in found.stale]
    assert (NOW, 86_400) == (found.now, found.stale_after_s)


@pytest.mark.parametrize("seed", range(3))
def test_against_a_fold(
    history: Callable[[int], Ledger], facts: Callable[..., list[dict[str, Any]]], seed: int
) -> None:
    """Open, expired and late leases are those that the entries one by one say."""
    book = history(seed)
    now = datetime(2124, 5, 1, tzinfo=UTC)  # the clock has run on since they were recorded
    for where in (Filter(), Filter(pools=["root"]), Filter(pools=["other"], as_of=12)):
        rows = [
            row
            for row in facts(book)
            if (not where.pools or row["pool"] in where.pools)
            and (where.as_of is None or row["seq"] <= where.as_of)
            and row["origin_seq"] is None
        ]
        newest = {(row["pool"], row["lease"]): row for row in rows if row["lease"] is not None}
        expired = {
            (row["pool"], row["lease"]): row["recorded_at"]
            for row in rows
            if row["kind"] == "expiry"
        }
        ended = {
            (row["pool"], row["lease"]) for row in rows if row["kind"] in {"settlement", "release"}
        }
        still = [
            (
                (now - from_micros(row["recorded_at"])) // timedelta(seconds=1),
                (row["pool"], row["seq"]) in expired,
                Totals(
                    *(newest[row["pool"], row["seq"]][f"held_{name}"] for name in Totals._fields)
                ),
            )
            for row in rows
            if row["kind"] == "reservation" and (row["pool"], row["seq"]) not in ended
        ]
        found = reports.leases(book, where, now=now, stale_after_s=0)
        assert expected_ages(still) == found.ages
        assert sorted(still) == sorted(
            (one.age_s, one.phase is LeasePhase.EXPIRED, one.held) for one in found.stale
        )
        late = [row for row in rows if row["flags"] & 2 and row["usage_total_tokens"] is not None]
        assert [(row["pool"], row["seq"]) for row in late] == [
            (one.pool, one.seq) for one in found.late
        ]


def test_a_lease_that_was_used_late(scribe: Any) -> None:  # noqa: ANN401 - the conftest's own
    """When it expired, how much later it was used, and what for."""
    scribe.pool("team")
    who = {"run_id": "r", "model": "m"}
    lease = scribe.append("team", "reservation", who=who, recorded=NOW, estimate_total_tokens=9)
    scribe.append("team", "expiry", lease=lease, recorded=NOW + timedelta(seconds=60))
    book = scribe.book
    before = reports.leases(book, now=NOW + timedelta(minutes=2), stale_after_s=60)
    assert [("r", "m", LeasePhase.EXPIRED, Totals())] == [
        (one.run_id, one.model, one.phase, one.held) for one in before.stale
    ]
    seq = scribe.append("team", "settlement", lease=lease, recorded=NOW + timedelta(seconds=95.5),
                        flags=2, usage_total_tokens=7, usage_cost_micros_usd=8)  # fmt: skip
    found = reports.leases(book, now=NOW + timedelta(minutes=2))
    assert [] == found.stale
    assert [
        LateUse(
            pool="team",
            lease=lease,
            seq=seq,
            run_id="r",
            expired_at=NOW + timedelta(seconds=60),
            used_at=NOW + timedelta(seconds=95.5),
            after_s=35,
            total_tokens=7,
            cost_micros_usd=8,
        )
    ] == found.late
    as_of = reports.leases(book, Filter(pools=["team"], as_of=lease), stale_after_s=0)
    assert NOW == as_of.now
    assert [(0, LeasePhase.OPEN)] == [(one.age_s, one.phase) for one in as_of.stale]


def test_holds_above_63_bits_are_exact(scribe: Any) -> None:  # noqa: ANN401 - the conftest's own
    """Holds of several pools are summed without overflow."""
    for pool in "abc":
        scribe.pool(pool)
        scribe.append(pool, "reservation", recorded=NOW, estimate_total_tokens=I64_MAX)
    youngest, *_others = reports.leases(scribe.book, now=NOW).ages
    assert 3 * I64_MAX == youngest.held.tokens


def test_an_empty_store(book: Ledger) -> None:
    """All ages are there, and nothing in them."""
    found = reports.leases(book)
    assert expected_ages([]) == found.ages
    assert ([], []) == (found.stale, found.late)


def test_what_is_refused(book: Ledger) -> None:
    """A moment without a time zone, and an age below nothing."""
    with pytest.raises(InvalidInputError, match="time zone"):
        reports.leases(book, now=datetime(2024, 1, 1))  # noqa: DTZ001 - that is the point
    with pytest.raises(InvalidInputError, match="stale_after_s"):
        reports.leases(book, stale_after_s=-1)
