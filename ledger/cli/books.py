"""`ledger remaining`, `ledger leases`, `ledger verify`: ask the books, and check them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated

import typer

from ledger.cli.common import (
    URL_DEFAULT,
    OutputFormat,
    PoolName,
    PrintFormat,
    Url,
    emit,
    existing,
    progress_bar,
    show,
    stdout,
    tell_left_out,
)
from ledger.cli.exit_codes import ExitCode
from ledger.core.axes import AXES
from ledger.core.checks import from_micros
from ledger.core.entries import Totals
from ledger.core.errors import InvalidInputError, LeftOut
from ledger.core.kinds import LeasePhase
from ledger.core.status import OpenLease
from ledger.reports.render import (
    Sheet,
    columns,
    counted,
    figure,
    figures,
    moment,
    printable,
    shown_axes,
    text,
    usd,
)
from ledger.store.anchors import Anchor
from ledger.store.audit import OTHER_STORE


@dataclass(frozen=True, slots=True, kw_only=True)
class RemainingRow:
    """What `ledger remaining` prints; an axis without a limit is None.

    It holds until `until`, when less counts on a limit, a window or a credit ends; None for never.
    """

    pool: str
    tokens: int | None
    cost_micros_usd: int | None
    requests: int | None
    below_threshold: bool
    until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedLease:
    """A lease as `ledger leases` prints it.

    Its charge is its recorded usage so far; for an expired lease, the assumed usage.
    """

    lease: int
    token: str
    phase: str
    run_id: str | None
    reserved_at: datetime
    held_tokens: int
    held_cost_micros_usd: int
    held_requests: int
    charged_tokens: int
    charged_cost_micros_usd: int


def remaining(
    pool: PoolName, url: Url = URL_DEFAULT, output_format: OutputFormat = PrintFormat.TABLE
) -> None:
    """Print what remains of a pool: on each axis the least of what it and the pools above have.

    Example: ledger remaining team
    """
    with existing(url) as book:
        status = book.pool(pool).status()
    left = status.reservable
    row = RemainingRow(
        pool=pool,
        **{axis.name: axis.left(left) for axis in AXES},
        below_threshold=left.below_threshold,
        until=None if status.until is None else from_micros(status.until),
    )

    def people() -> None:
        shown = "  ".join(
            f"{axis.shown} {figure(axis, axis.left(left))}"
            for axis in AXES
            if not (axis.only_if_limited and left.is_unlimited(axis.name))
        )
        stop = "  (at or below the stop threshold)" if left.below_threshold else ""
        stop = "  (closed)" if status.closed else stop
        until = "" if row.until is None else f"  (until {moment(row.until)})"
        stdout().print(f"{shown}{stop}{until}", soft_wrap=True)

    emit([row], RemainingRow, output_format, people)


def leases(
    pool: PoolName, url: Url = URL_DEFAULT, output_format: OutputFormat = PrintFormat.TABLE
) -> None:
    """List the leases of a pool that have not ended, oldest first.

    Example: ledger leases list team
    """
    with existing(url) as book:
        now = book.now()
        found = [_by_now(one, now) for one in book.open_leases(pool)]
        axes = shown_axes([book.pool(pool).status().policy])
    expired = sum(one.phase is LeasePhase.EXPIRED for one in found)
    among = f", of which {expired:,} expired" if expired else ""
    sheet = Sheet(
        columns=columns(
            *("Lease", "State", "Run", "Reserved"),
            *(f"Held\n{axis.shown}" for axis in axes),
            *("Charged\ntokens", "Charged\nUSD"),
        ),
        title=f"Leases of pool {pool} that have not ended: {len(found):,}{among}",
    )
    rows = [_lease_row(one) for one in found]
    for row, one in zip(rows, found, strict=True):
        sheet.add(
            str(row.lease),
            row.phase,
            text(row.run_id),
            moment(row.reserved_at),
            *figures(axes, one.held),
            f"{row.charged_tokens:,}",
            usd(row.charged_cost_micros_usd),
        )
    emit(rows, ListedLease, output_format, lambda: show(sheet))


def expire(
    pool: Annotated[
        str | None,
        typer.Argument(help="Only this pool; by default all pools.", show_default=False),
    ] = None,
    url: Url = URL_DEFAULT,
) -> None:
    """Expire the leases that are past their time to live. Every write to a pool does so, too.

    A damaged pool is named on standard error and left out; the exit code is then 1.

    Example: ledger expire team
    """
    lost: LeftOut = []
    with existing(url, writes=True) as book:
        found = book.expire_due(pool, left_out=lost)
    stdout().print(f"{counted(found, 'lease', 'leases')} expired")
    tell_left_out(lost)


def verify(
    pool: Annotated[
        str | None,
        typer.Argument(help="Only this pool; by default all pools.", show_default=False),
    ] = None,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            help="What was printed before, as POOL=SEQ:HASH; may be given again. It is damage if "
            "the pool does not have that entry, or another hash.",
            show_default=False,
        ),
    ] = None,
    url: Url = URL_DEFAULT,
) -> None:
    """Check every entry: order, hashes, verdicts, totals, leases. Exit code 1 on damage.

    Without a pool, the database also holds its indexes, which reports read, to its tables.

    Keep the printed number and hash outside the store, and expect them later: a journal that was
    shortened or rewritten cannot have them again.

    Example: ledger verify team
    """
    print_verified(url, pool, expect=[Anchor.read(one) for one in expect or ()])


def print_verified(url: str, pool: str | None = None, *, expect: Sequence[Anchor]) -> None:
    """Verify a store, or one pool of it, and print what was found.

    Raises:
        typer.Exit: There is damage.
    """
    with existing(url) as book, progress_bar() as bar:
        task = bar.add_task("Verifying", total=book.size(pool))
        found = book.verify(pool, expect=expect, progress=lambda count: bar.advance(task, count))
    if not found:
        raise InvalidInputError("--url", "this store has no pool, so nothing was verified")
    out = stdout()
    if all(one.damage is not None and one.damage.reason == OTHER_STORE for one in found):
        out.print(f"DAMAGED  every pool: {OTHER_STORE}", markup=False, soft_wrap=True)
        raise typer.Exit(ExitCode.FOUND)
    for one in found:
        if one.damage is None:
            count = counted(one.entries, "entry", "entries")
            line = f"ok       {one.pool.name}: {count}, hash {one.hash.hex()}"
        else:
            entry = f"entry {one.damage.seq}: " if one.damage.seq else ""
            line = f"DAMAGED  {one.pool.name}: {entry}{one.damage.reason}"
        out.print(printable(line), markup=False, soft_wrap=True)
    if not all(one.ok for one in found):
        raise typer.Exit(ExitCode.FOUND)


def _by_now(found: OpenLease, now: datetime) -> OpenLease:
    """Return a due lease as the next write will leave it."""
    if found.expires_at is None or found.expires_at > now:
        return found
    return replace(found, phase=LeasePhase.EXPIRED, held=Totals())


def _lease_row(found: OpenLease) -> ListedLease:
    return ListedLease(
        lease=found.lease.id,
        token=found.lease.token,
        phase=found.phase,
        run_id=None if found.attribution is None else found.attribution.run_id,
        reserved_at=found.reserved_at,
        **{f"held_{name}": amount for name, amount in found.held._asdict().items()},
        charged_tokens=found.used.total_tokens,
        charged_cost_micros_usd=found.used.cost_micros_usd,
    )
