"""The dimensions that figures can be grouped by."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from ledger.core.checks import check_several, check_type
from ledger.core.errors import InvalidInputError
from ledger.reports.buckets import Unit
from ledger.reports.figures import Label
from ledger.store.dialects.expressions import tag_value
from ledger.store.schema import attributions

UNITS = tuple(str(unit) for unit in Unit)
DIMENSION_COLUMNS = {
    "run": "run_id",
    **{name: name for name in ("model", "provider", "tenant", "agent", "operation")},
}
"""Dimensions that are columns of an attribution."""

_TAG = "tag:"


def checked(by: Sequence[str], *, times: bool) -> tuple[str, ...]:
    """Check the names of dimensions and return them.

    Args:
        by: The names.
        times: Whether hours, days, weeks and months are allowed.

    Raises:
        InvalidInputError: There is none of this name, or one is named twice.
    """
    check_several("by", by)
    known = [*(UNITS if times else ()), *DIMENSION_COLUMNS, "pool"]
    for name in by:
        check_type("by", name, str)
        if name not in known and not (name.startswith(_TAG) and name != _TAG):
            tag = _TAG + (name.removeprefix(_TAG) or "NAME")
            raise InvalidInputError(
                "by", f"{name!r} is none of {', '.join(known)}; a tag of this name is {tag!r}"
            )
    if len(set(by)) != len(by):
        raise InvalidInputError("by", "names a dimension twice")
    return tuple(by)


# These functions are keys in the cache of queries, so one name must always give the same function.
@functools.lru_cache(maxsize=128)
def label(name: str) -> Label:
    """Return the column to group by for a dimension other than a time; for pools, their number."""
    if name == "pool":
        return lambda inner: inner.pool_id
    if name.startswith(_TAG):
        return lambda _: tag_value(attributions.c.tags, name.removeprefix(_TAG))
    return lambda _: attributions.c[DIMENSION_COLUMNS[name]]
