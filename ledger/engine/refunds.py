"""Refunds and late usage of earlier windows: how much of them counts in the present one."""

from __future__ import annotations

from ledger.core import rules
from ledger.core.entries import EntryFlag, Totals, WindowState, late_in, requests_made
from ledger.core.kinds import CHANGES_WINDOW
from ledger.core.values import UsageDifference
from ledger.engine.pool_batch import PoolBatch
from ledger.store.corrections import counted_late, moved_since
from ledger.store.drafts import Draft
from ledger.store.rows import window_json


def in_window(pool: PoolBatch, draft: Draft, replaced: Totals) -> Draft:
    """Return a draft with the pool's window after it, if the draft changes the window.

    Args:
        pool: The pool whose newest entry the draft will be.
        draft: The draft, decided.
        replaced: The usage of the next entry, if the draft takes back an assumed charge that it
            replaces.

    Raises:
        JournalDamagedError: An earlier correction, or the entry that began the window, cannot be
            read.
    """
    window, detail = pool.head.window, draft.detail
    if window is None or detail is None or draft.kind not in CHANGES_WINDOW:
        return draft
    began = pool.window_began()
    if draft.flags & EntryFlag.IMPORTED:
        assert draft.usage is not None  # noqa: S101 - both kinds have usage
        assert draft.occurred_at is not None  # noqa: S101 - an import has this time
        by = Totals.of(draft.usage, requests=requests_made(draft.kind, detail))
        earlier_window = rules.with_import(pool.head.policy, window, draft.occurred_at, by)
        if earlier_window is not None:
            return _changed(draft, earlier_window, began)
        if "corrects" not in detail:
            return draft
    here = pool.connection, pool.journal, detail["corrects"]
    counted = None
    if detail["corrects"] >= began:
        counted = counted_late(*here, began=began, staged=pool.staged)
        if counted is None:
            return draft
    assert isinstance(draft.usage, UsageDifference)  # noqa: S101 - as a correction's always is
    by = rules.moved_by(0, detail, draft.usage).by
    if late_in(detail) is not None:
        taken = rules.taken_back(by.plus(replaced))
    else:
        assert draft.lease is not None  # noqa: S101 - a correction is about a lease
        earlier = moved_since(*here, draft.lease.lease, after=began, staged=pool.staged)
        taken = rules.taken_back(by, earlier if counted is None else [counted, *earlier])
    if not any(taken):
        return draft
    return _changed(draft, rules.without(window, taken), began)


def _changed(draft: Draft, window: WindowState, began: int) -> Draft:
    said = {**(draft.detail or {}), "window": window_json(window, since=began)}
    return draft._replace(window=window, detail=said)
