"""Verification: rebuild a pool from its journal, and check that no entry was changed or removed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy import Connection

from ledger.core import fold, hashing, rules
from ledger.core.checks import I64_MAX
from ledger.core.entries import (
    Entry,
    EntryFlag,
    LeaseAfter,
    LeaseState,
)
from ledger.core.entry_shape import Contradiction, correction_of
from ledger.core.errors import (
    JournalDamagedError,
    LedgerUnavailableError,
    StoreError,
    UncorrectableEntryError,
)
from ledger.core.extensions import ATTRIBUTION_TEXTS, Attribution
from ledger.core.kinds import KINDS, EntryKind
from ledger.core.values import UsageDifference
from ledger.store import journal, mirrors, rows, trail
from ledger.store.anchors import Anchor, Expected
from ledger.store.carvings import Below
from ledger.store.columns import check_entry
from ledger.store.corrections import Spending, lease_before, spending
from ledger.store.database import Database
from ledger.store.dialects.indexes import is_damage
from ledger.store.history import StoredHistory
from ledger.store.journal import PoolJournal
from ledger.store.refusals import Refusals
from ledger.store.trail import Trail
from ledger.store.verifications import Damage, Progress, Verification

CHANGED = "its hash does not match: the entry, or one before it, was changed"


def stream(
    database: Database, pool: PoolJournal, *, after: int = 0, kind: EntryKind | None = None
) -> Iterator[dict[str, Any]]:
    """Yield a pool's rows in order, a page in memory at a time, up to the newest.

    Pages are read in transactions of their own: rows never change, so writers are not disturbed
    and a slow reader holds no snapshot.
    """
    while True:
        page = database.read(
            lambda connection, after=after: pool.page(connection, after=after, kind=kind),  # type: ignore[misc]
            serializable=False,
        )
        yield from page
        if len(page) < journal.PAGE:
            return
        after = page[-1]["seq"]


def replay(database: Database, pool: PoolJournal) -> fold.Replay:
    """Apply the rules to a pool's entries, in bounded memory.

    Raises:
        JournalDamagedError: The rules cannot have written one of them.
    """
    history = StoredHistory(database.read_each, pool.info, upto=0)
    state = fold.Replay(history=history)
    for row in stream(database, pool):
        history.upto = state.entries
        try:
            state.apply(_entry_of(row))
        except Contradiction as error:
            raise pool.damaged(row["seq"], str(error)) from error
    try:
        state.end()
    except Contradiction as error:
        raise pool.damaged(state.entries + 1, str(error)) from error
    return state


def verify(
    database: Database,
    pool: PoolJournal,
    *,
    expect: Iterable[Anchor] = (),
    progress: Progress | None = None,
) -> Verification:
    """Check every entry of a pool: order, hashes, verdicts, totals, leases, policy, other pools.

    Each entry is decided again by the rules, from the state after the entries before it. It must
    agree with what is stored, and with the pools above and below. Entries that are appended
    meanwhile are checked, too.

    Args:
        database: The store.
        pool: The pool.
        expect: Anchors; those of other pools are ignored.
        progress: Called with the number of entries checked since its previous call.

    Raises:
        LedgerUnavailableError: The store cannot be read.
    """
    checker = _Checker(database, pool)
    expected = Expected(one for one in expect if one.pool == pool.info.name)
    try:
        damage = _first_damage(checker, expected, progress)
    except LedgerUnavailableError as error:
        if not is_damage(error.__cause__):
            raise
        damage = Damage(seq=checker.seq + 1, reason=f"it cannot be read: {error}")
    return Verification(
        pool=pool.info,
        entries=checker.seq,
        hash=checker.hash,
        balance=checker.state.balance,
        damage=damage,
    )


def _first_damage(
    checker: _Checker, expected: Expected, progress: Progress | None
) -> Damage | None:
    database, pool = checker.database, checker.pool
    damage = None
    for row in stream(database, pool):
        before = checker.seq
        reason = checker.problem(row) or expected.problem(checker.seq, checker.hash)
        if reason is not None:
            damage = Damage(seq=before + 1, reason=reason)
            break
        if progress is not None and checker.seq % journal.PAGE == 0:
            progress(journal.PAGE)
    if progress is not None:
        progress(checker.seq % journal.PAGE)
    if damage is None:
        damage = checker.missing()
    gone = expected.missing(checker.seq)
    if damage is None and gone is not None:
        damage = Damage(seq=checker.seq + 1, reason=gone)
    if damage is None:
        found = database.read(
            lambda connection: mirrors.disagreement(connection, pool, upto=checker.seq),
            serializable=False,
        )
        damage = None if found is None else Damage(seq=found[0], reason=found[1])
    return damage


class _Checker:
    """The state after the entries so far, against which the next one is checked."""

    def __init__(self, database: Database, pool: PoolJournal) -> None:
        self.database = database
        self.pool = pool
        self._history = StoredHistory(database.read_each, pool.info, upto=0)
        self.state = fold.Replay(history=self._history)
        self.seq = 0
        self.hash = pool.genesis
        self._trail = Trail()
        self._below = Below(database, pool)
        self._refusals = Refusals(pool)

    def problem(self, row: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the next row; if nothing is, take it over and return None."""
        try:
            reason = self._chain_problem(row) or self._entry_problem(row, _entry_of(row))
        except Contradiction as error:
            return str(error)
        except JournalDamagedError as error:  # another entry on which this one builds is damaged
            return error.reason
        except StoreError:
            raise
        except (*rows.UNREADABLE, ArithmeticError) as error:
            return f"it cannot be read: {type(error).__name__}: {error}"
        if reason is None:
            self.seq, self.hash = row["seq"], row["hash"]
        return reason

    def missing(self) -> Damage | None:
        """Return the damage if an entry is missing after the last one, None otherwise."""
        if self.seq == 0:
            return Damage(seq=1, reason=journal.NO_OPENING)
        try:
            self.state.end()
        except Contradiction as error:
            return Damage(seq=self.seq + 1, reason=str(error))
        return None

    def _chain_problem(self, row: Mapping[str, Any]) -> str | None:
        try:
            check_entry(row)
        except ValueError as error:
            return f"it cannot be read: {error}"
        if row["seq"] != self.seq + 1:
            return f"entry {self.seq + 1} is missing; the next one is {row['seq']}"
        recorded_at = self._trail.recorded_at
        if recorded_at is not None and row["recorded_at"] < recorded_at:
            return "it is recorded before the entry ahead of it"
        return _attribution_problem(row) or self._hash_problem(row)

    def _hash_problem(self, row: Mapping[str, Any]) -> str | None:
        if row["hash_version"] != hashing.HASH_VERSION:
            return f"hash version {row['hash_version']} is not known to this version of ledger"
        if row["hash"] != rows.row_hash(self.hash, row, row["digest"]):
            return CHANGED
        return None

    def _entry_problem(self, row: Mapping[str, Any], entry: Entry) -> str | None:
        ahead = self._trail.recorded_at
        self._history.upto = self.seq
        effect = self.state.apply(entry)
        lease: LeaseAfter | None = None
        flags, budget = self._flags(entry, effect), entry.request_budget
        if effect is not None:
            lease = LeaseAfter.of(effect.lease, flags)
            if entry.kind == EntryKind.CORRECTION and flags & EntryFlag.AT_EXPIRY:
                # It is compared with the corrected entry's.
                lease = lease._replace(expires_at=entry.lease and entry.lease.expires_at)
            if "usage" in KINDS[EntryKind(entry.kind)].has:
                budget = effect.lease.request_budget
        expected: dict[str, object] = {
            "balance": self.state.balance,
            "lease": lease,
            "request_budget": budget,
            "flags": flags,
            "policy_seq": self.state.policy_seq,
            "window_seq": self.state.window_seq,
        }
        if entry.seq == 1 and entry.detail.get("parent") != self.pool.place():
            return f"it opens the pool in another place than {self.pool.place()}"
        for name, value in expected.items():
            if getattr(entry, name) != value:
                return f"{name} should be {value}, but is {getattr(entry, name)}"
        return self._trail.problem(row, entry, self.state) or self._related_problem(
            row, entry, ahead
        )

    def _flags(self, entry: Entry, effect: rules.Effect | None) -> EntryFlag:
        """Return the flags that an entry must have."""
        flags = EntryFlag.NONE if effect is None else effect.flags
        flags |= self._unpriced(entry)
        repeats = entry.origin is not None and "carving" not in entry.detail
        if entry.kind == EntryKind.CORRECTION or repeats:
            flags |= entry.flags & EntryFlag.AT_EXPIRY  # it is compared with another entry's
        else:
            lease = None if effect is None else effect.lease
            said = lease, entry.usage, entry.recorded_at
            flags |= rules.dating_flag(self.state.rules_version, *said)
        if "shortened" in entry.detail:
            flags |= EntryFlag.SHORTENED
        return flags | EntryFlag.CLOSED if self.state.closed else flags

    def _unpriced(self, entry: Entry) -> EntryFlag:
        """Return the flag of an entry that leaves out what the pool limits.

        The limits of other pools are not known here. An entry from a lower pool, or one that a pool
        above repeats, may be flagged because of their limits. An entry and its mirrors have the
        same flag.
        """
        amounts = entry.estimate if entry.kind == EntryKind.RESERVATION else entry.usage
        if amounts is None or "carving" in entry.detail:
            return EntryFlag.NONE
        shares = entry.origin is not None or len(self.pool.lineage) > 1
        if shares and entry.flags & EntryFlag.UNPRICED:
            missing = not isinstance(amounts, UsageDifference) and rules.left_out(amounts)
            return EntryFlag.UNPRICED if missing else EntryFlag.NONE
        return rules.unpriced_flag([self.state.policy], amounts)

    def _related_problem(
        self, row: Mapping[str, Any], entry: Entry, ahead: int | None
    ) -> str | None:
        """Check the references of an entry to other entries, in this pool and in others."""
        reason = None
        if entry.kind == EntryKind.CORRECTION:
            reason = self._correction_problem(row, entry)
        reason = reason or self._below.problem(row, entry, ahead=ahead)
        if reason is None and entry.kind == EntryKind.DENIAL and "pool" in entry.detail["denial"]:
            granted = self._trail.granted
            reason = self.database.read(
                lambda connection: self._refusals.problem(connection, entry, granted=granted),
                serializable=False,
            )
        return reason

    def _correction_problem(self, row: Mapping[str, Any], entry: Entry) -> str | None:
        """Check a correction against the entry it corrects, and against its lease before it."""
        found, lease = correction_of(entry), entry.lease
        assert lease is not None  # noqa: S101 - by its shape

        def look(connection: Connection) -> tuple[Spending, LeaseState | None]:
            said = spending(connection, self.pool, found.corrects, before=entry.seq)
            return said, lease_before(connection, self.pool, lease.lease, before=entry.seq)

        try:
            said, before = self.database.read(look, serializable=False)
        except UncorrectableEntryError as error:
            return f"{entry.kind}: {error}"
        if said.row["lease"] != lease.lease:
            return f"correction of entry {found.corrects}, which is of another lease"
        if said.usage != found.before:
            return f"correction of entry {found.corrects} from {found.before}, not {said.usage}"
        moved = UsageDifference.between(found.before, found.after)
        if before is not None and entry.flags & EntryFlag.AT_EXPIRY:
            before = before._replace(expires_at=said.row["expires_at"])
        if before is None or lease != LeaseAfter.of(
            before._replace(used=moved.added_to(before.used, ceiling=I64_MAX)), entry.flags
        ):
            return f"lease should be {before} moved by {moved}, but is {lease}"
        if (entry.estimate, entry.request_budget) != (before.estimate, before.request_budget):
            return f"its estimate or budget is not that of lease {lease.lease}"
        return trail.correction_problem(row, said.row)


def _attribution_problem(row: Mapping[str, Any]) -> str | None:
    if row["attribution_id"] is not None and row["digest"] is None:
        return f"attribution {row['attribution_id']} is missing"
    attribution = _attribution_of(row)
    if attribution is None and any(row[name] for name in (*ATTRIBUTION_TEXTS, "tags")):
        return f"attribution {row['attribution_id']} has content and no salt"
    if attribution is not None:
        content = hashing.attribution_content(attribution)
        if type(row["salt"]) is not bytes:
            return f"attribution {row['attribution_id']} has a salt that is none"
        if row["digest"] != hashing.attribution_digest(content, salt=row["salt"]) or (
            row["content_key"] != hashing.content_key(content)
        ):
            return f"attribution {row['attribution_id']} was changed"
    return None


def _attribution_of(row: Mapping[str, Any]) -> Attribution | None:
    try:
        return rows.attribution_of(row)
    except rows.UNREADABLE as error:
        raise Contradiction(f"its attribution cannot be read: {error}") from error


def _entry_of(row: Mapping[str, Any]) -> Entry:
    try:
        return rows.entry_of(row, None)
    except rows.UNREADABLE as error:
        raise Contradiction(f"it cannot be read: {error}") from error


def entry_of(pool: PoolJournal, row: Mapping[str, Any]) -> Entry:
    """Return a row of a pool as the value that callers see.

    Raises:
        JournalDamagedError: It cannot be read.
    """
    try:
        return rows.entry_of(row, rows.attribution_of(row))
    except rows.UNREADABLE as error:
        raise pool.damaged(row["seq"], f"it cannot be read: {error}") from error
