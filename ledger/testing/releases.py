"""What `release` gives back, for managers that have it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from ledger import (
    U64_MAX,
    InvalidInputError,
    Remaining,
    SharedPoolBudgetOptions,
    UnknownLeaseError,
    Usage,
)
from ledger.testing.calls import EXTENSIONS, UNLIMITED, Make, tokens


class ReleaseContract:
    """What `release` gives back, for managers that have it."""

    def test_a_release_gives_everything_back_and_ends_the_lease(self, make: Make) -> None:
        """Nothing is committed; the lease can neither be settled nor released again."""
        budget: Any = make(SharedPoolBudgetOptions(capacity_tokens=100))
        lease = budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)
        budget.release(lease)
        assert Remaining(100, U64_MAX, False) == budget.remaining(EXTENSIONS)
        for call in (
            budget.release,
            lambda lease: budget.record_used(lease, Usage(total_tokens=1)),
        ):
            with pytest.raises(UnknownLeaseError) as unknown:
                call(lease)
            assert lease.id == unknown.value.lease_id
        assert 100 == budget.remaining(EXTENSIONS).tokens

    def test_a_settled_or_foreign_lease_cannot_be_released(self, make: Make) -> None:
        """Nor can an unknown id, nor another pool's lease; nothing changes."""
        budget: Any = make(SharedPoolBudgetOptions(capacity_tokens=100))
        settled, open_lease = (budget.reserve(EXTENSIONS, tokens(10), UNLIMITED) for _ in range(2))
        budget.record_used(settled, Usage(total_tokens=10))
        foreign = replace(open_lease, pool=uuid4())
        unknown = [replace(settled, id=number) for number in (0, -1, 2**64)]
        for lease in (settled, foreign, *unknown):
            with pytest.raises(UnknownLeaseError):
                budget.release(lease)
        assert 80 == budget.remaining(EXTENSIONS).tokens

    def test_a_release_of_another_type_is_refused(self, make: Make) -> None:
        """The id alone is no lease."""
        budget: Any = make(SharedPoolBudgetOptions(capacity_tokens=100))
        lease = budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)
        with pytest.raises(InvalidInputError):
            budget.release(lease.id)
        budget.release(lease)
