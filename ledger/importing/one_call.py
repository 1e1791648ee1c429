"""Import one call by itself, as after a restored backup."""

from __future__ import annotations

from ledger.core.checks import REASON_MAX_CHARS, check_text, check_type
from ledger.core.errors import IdempotencyConflictError, InvalidInputError
from ledger.core.past_calls import ImportedCall, PastCall
from ledger.importing.books import find_call
from ledger.ledger import Ledger


def record_call(
    book: Ledger, pool: str, call: PastCall, reason: str, *, actor: str | None = None
) -> ImportedCall:
    """Import one call that was billed and is not in the books, say since a backup was restored.

    Args:
        book: The store.
        pool: The pool.
        call: The call.
        reason: Why, 1 to 2,000 characters.
        actor: Who imports; by default the `actor` of `Ledger.open`.

    Raises:
        InvalidInputError: An argument of another type; or the request id is in the books already,
            from a live call or with another usage.
        IdempotencyConflictError: The key was used for a call with another usage.
        UnknownPoolError: There is no such pool.
    """
    check_type("book", book, Ledger)
    check_type("call", call, PastCall)
    check_text("reason", reason, max_chars=REASON_MAX_CHARS)
    budget = book.pool(pool)
    if call.request_id is not None:
        other = find_call(book, pool, call)
        if other is not None:
            raise _in_the_books(call.request_id, other.seq, other.pool)
    (imported,) = budget.import_calls([call], reason, actor=actor)
    if imported.is_changed and call.request_id is not None and call.idempotency_key is None:
        raise _in_the_books(call.request_id, imported.entry, pool)
    if imported.is_changed:
        raise IdempotencyConflictError(call.key, seq=imported.entry)
    return imported


def _in_the_books(request_id: str, seq: int, pool: str) -> InvalidInputError:
    return InvalidInputError(
        "request_id",
        f"{request_id!r} is in the books: entry {seq} of pool {pool!r}; correct that entry if it "
        "is wrong (ledger correct)",
    )
