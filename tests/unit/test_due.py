"""What is due counts as if it had expired, and looking at it so changes nothing that is kept."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from ledger import EntryFlag, EntryKind, PoolInfo, SettlementPolicy, Totals
from ledger.core import rules
from ledger.core.axes import AMOUNTS
from ledger.core.checks import Micros
from ledger.core.entries import PoolId
from ledger.core.values import USAGE_FIELDS
from ledger.store.history import StagedHistory

AT = Micros(1_000)
HOLDS = [(AT, Totals(7, 30, 1)), (Micros(2_000), Totals(5, 0, 1))]


@pytest.mark.parametrize(
    ("policy", "charged"),
    [
        (SettlementPolicy.ESTIMATED, [Totals(7, 30, 1), Totals(5, 0, 1)]),
        (SettlementPolicy.OBSERVED, [Totals(0, 0, 1)] * 2),
        (SettlementPolicy.RELEASE, [Totals()] * 2),
    ],
)
def test_what_is_due_is_charged_as_the_policy_says(
    policy: SettlementPolicy, charged: list[Totals]
) -> None:
    """All of it goes back, and each charge counts when its hold ended; in version 1 as written."""
    found = rules.overdue(2, policy, HOLDS)
    assert (Totals(12, 30, 2), Totals.sum(charged)) == found[:2]
    assert tuple(zip((AT, 2_000), charged, strict=True)) == found.dated
    assert found._replace(dated=()) == rules.overdue(1, policy, HOLDS)
    twice = Totals(24, 60, 4), Totals.sum(charged * 2), found.dated * 2, found.timed * 2
    assert twice == found.plus(found)
    assert (HOLDS[0][1], charged[0]) == found.before(Micros(2_000))
    assert rules.Due() == rules.overdue(2, policy, [])


def late(seq: int, tokens: int) -> dict[str, Any]:
    """Return the row of usage that counts when a hold ended."""
    usage = {f"usage_{name}": 0 for name in USAGE_FIELDS} | {f"usage_{AMOUNTS[0]}": tokens}
    return usage | {
        "seq": seq,
        "kind": EntryKind.OBSERVATION,
        "flags": int(EntryFlag.AT_EXPIRY),
        "detail": None,
        "occurred_at": None,
        "expires_at": AT,
    }


def test_a_look_at_what_is_due_counts_nothing_twice() -> None:
    """What is staged after it is there for both, once, whoever is asked first."""
    staged: list[Any] = [late(1, 3)]
    pool = PoolInfo(pool_id=PoolId(1), identity=UUID(int=1), name="pool")
    written = StagedHistory(
        lambda _asked: pytest.fail("there is nothing to read"),
        pool,
        upto=0,
        staged=staged,
    )
    looked = written.with_due([(AT, Totals(50, 0, 1))])
    assert (53, 3) == (
        looked.dated(0, Micros(9_999)).tokens,
        written.dated(0, Micros(9_999)).tokens,
    )
    staged.append(late(2, 4))
    assert (57, 7) == (
        looked.dated(0, Micros(9_999)).tokens,
        written.dated(0, Micros(9_999)).tokens,
    )
    assert [AT] * 3 == list(looked.dates(0, Micros(0), Micros(9_999)))
    assert (2, 2) == (looked.last, written.last)
    assert 0 == looked.dated(0, AT).tokens
    assert written is written.with_due([])
