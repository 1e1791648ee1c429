"""Filters of reports: which entries a report is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from ledger.core.checks import (
    I64_MAX,
    check_amount,
    check_several,
    check_text,
    check_type,
    to_micros,
)
from ledger.core.errors import InvalidInputError


class TimeBasis(StrEnum):
    """Which of an entry's times counts."""

    OCCURRED = "occurred"
    """When the call happened; if the caller did not say, when the entry was recorded."""

    RECORDED = "recorded"
    """When the entry was recorded."""


class PoolState(StrEnum):
    """Which pools are wanted: those that take new reservations, the others, or both."""

    OPEN = "open"
    CLOSED = "closed"
    ALL = "all"


ATTRIBUTED = ("run_id", "tenant", "agent", "operation", "provider", "model")
"""The fields of a filter that are compared with an entry's attribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which entries a report is about; without any field, all of them.

    Each entry is counted in the pool where it was made, and not again in the pools above that
    mirror it. So a parent by itself counts only what was spent from it directly; `descendants` adds
    the pools below it.

    Attributes:
        pools: Names of pools; none means all of them.
        descendants: Also the pools below those that are named.
        parent: Only pools directly below this one.
        matching: Only pools whose names match this pattern, in which `*` stands for any text, `?`
            for one character and `[ab]` for one of these; upper and lower case differ.
        state: Only pools that are open now, only closed ones, or both. By default figures count
            both, and lists leave closed pools out.
        since: Only entries from this time on; it needs a time zone.
        until: Only entries before this time; it needs a time zone.
        run_id: Only entries of this run.
        tenant: Only entries of this tenant.
        agent: Only entries of this agent.
        operation: Only entries of this operation.
        provider: Only entries of this provider.
        model: Only entries of this model.
        tags: Only entries that have all of these tags, each with exactly this value.
        as_of: The last entry that counts, of the one pool that is named. The report then never
            changes.
        basis: Which time counts.
    """

    pools: Sequence[str] = ()
    descendants: bool = False
    parent: str | None = None
    matching: str | None = None
    state: PoolState | None = None
    since: datetime | None = None
    until: datetime | None = None
    run_id: str | None = None
    tenant: str | None = None
    agent: str | None = None
    operation: str | None = None
    provider: str | None = None
    model: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    as_of: int | None = None
    basis: TimeBasis = TimeBasis.OCCURRED

    def __post_init__(self) -> None:
        check_several("pools", self.pools)
        object.__setattr__(self, "pools", tuple(check_text("pool", name) for name in self.pools))
        for name in ("parent", "matching", *ATTRIBUTED):
            value = getattr(self, name)
            if value is not None:
                check_text(name, value)
        if self.state is not None:
            check_type("state", self.state, PoolState)
        check_type("tags", self.tags, Mapping)
        tags = {check_text("tag", name): check_text("tag", self.tags[name]) for name in self.tags}
        object.__setattr__(self, "tags", tags)
        check_type("basis", self.basis, TimeBasis)
        since, until = (
            None if at is None else to_micros(name, at)
            for name, at in (("since", self.since), ("until", self.until))
        )
        if since is not None and until is not None and since > until:
            raise InvalidInputError("until", "must not be before since")
        if self.as_of is not None:
            check_amount("as_of", self.as_of, ceiling=I64_MAX)
            if len(self.pools) != 1 or self.descendants or self.narrowed:
                raise InvalidInputError(
                    "as_of", "is the number of an entry of one pool; name that pool alone"
                )

    @property
    def narrowed(self) -> bool:
        """Whether pools are chosen by other properties than their names."""
        by_state = self.state not in {None, PoolState.ALL}
        return by_state or (self.parent, self.matching) != (None, None)


Where = Filter | str
"""A filter, or the name of a pool, which stands for a filter with only that pool."""

EVERYTHING = Filter()
"""The filter of all entries."""
