"""The live view: a terminal application that reads the store repeatedly. Needs the extra `top`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import DataTable, Footer, Static

from ledger import reports
from ledger.core.axes import COST, MONEY_FIRST, Axis
from ledger.core.checks import to_micros
from ledger.core.entries import PoolId
from ledger.core.errors import LedgerError
from ledger.core.status import PoolStatus
from ledger.ledger import Ledger
from ledger.reports.render import (
    capacity,
    counted,
    duration,
    figure,
    moment,
    printable,
    sparkline,
    state,
    text,
    usd,
)

_SPAN_US = 60_000_000
"""The longest time over which the pace is measured, in microseconds."""
_BAR = 16
_NAME = 36
"""The width of a bar in characters, and the longest name."""


class LastMinute:
    """How fast pools are being spent, measured over the last minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, dict[PoolId, int]]] = deque()

    def see(self, found: reports.Glance) -> None:
        """Remember what was committed, in millionths of a US dollar."""
        at = to_micros("at", found.at)
        costs = {one.pool.pool_id: one.balance.committed.cost_micros_usd for one in found.pools}
        self._seen.append((at, costs))
        while len(self._seen) > 1 and self._seen[1][0] <= at - _SPAN_US:
            self._seen.popleft()

    def per_minute(self, pool_id: PoolId) -> int | None:
        """Return a pool's spend per minute, None until the pool was read twice."""
        known = [(at, costs[pool_id]) for at, costs in self._seen if pool_id in costs]
        if not known or known[-1][0] <= known[0][0]:
            return None
        (began, first), (ended, last) = known[0], known[-1]
        return max(0, last - first) * 60_000_000 // (ended - began)

    def steps(self) -> list[int]:
        """Return what all pools together spent between each read and the next."""
        sums = [sum(costs.values()) for _at, costs in self._seen]
        return [max(0, after - before) for before, after in pairwise(sums)]


class LiveView(App[None]):
    """Pools and open leases, read again every few seconds."""

    TITLE = "ledger top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head { height: auto; padding: 0 1; }
    #pools { height: 1fr; }
    #leases { height: 1fr; }
    .caption { height: 1; padding: 0 1; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("p", "pause", "Pause"),
        Binding("s", "sort", "Sort"),
        Binding("r", "look", "Look now"),
    ]

    class Looked(Message):
        """The store was read."""

        def __init__(self, found: reports.Glance) -> None:
            super().__init__()
            self.found = found

    class Failed(Message):
        """The store could not be read."""

        def __init__(self, error: LedgerError) -> None:
            super().__init__()
            self.error = error

    def __init__(
        self, book: Ledger, where: reports.Filter, *, every_s: int, first: reports.Glance
    ) -> None:
        super().__init__()
        self.book = book
        self.where = where
        self.every_s = every_s
        self.shown = first
        self.pace = LastMinute()
        self.pace.see(first)
        self.looking = False
        self.paused = False
        self.trouble: str | None = None
        self.order = 0

    def compose(self) -> ComposeResult:
        """Lay out the screen: a head, two tables, the keys."""
        yield Static(id="head")
        yield DataTable[Any](id="pools", cursor_type="row", zebra_stripes=True)
        yield Static(id="caption", classes="caption")
        yield DataTable[Any](id="leases", cursor_type="row", zebra_stripes=True)
        yield Footer()

    def on_mount(self) -> None:
        """Fill the tables with the first read, and read again from now on."""
        self.query_one("#pools", DataTable).add_columns(
            "Pool", "Used", "Capacity", "Spent", "Held", "Remaining", "Unit", "USD/min"
        )
        self.query_one("#leases", DataTable).add_columns(
            "Age", "Pool", "Lease", "State", "Held tokens", "Held USD", "Run", "Model"
        )
        self.query_one("#pools", DataTable).focus()
        self.draw()
        self.set_interval(self.every_s, self.look)

    def look(self) -> None:
        """Read the books in a thread, unless a read is still waiting or the view is not shown."""
        if not (self.paused or self.looking):
            self.looking = True
            self.run_worker(self._look, thread=True)

    def _look(self) -> None:
        try:
            found = reports.glance(self.book, self.where, oldest=self.shown.oldest)
        except LedgerError as error:
            self.post_message(self.Failed(error))
        else:
            self.post_message(self.Looked(found))

    def on_live_view_looked(self, message: Looked) -> None:
        """Show what was found."""
        self.looking = False
        self.trouble = None
        self.shown = message.found
        self.pace.see(message.found)
        self.draw()

    def on_live_view_failed(self, message: Failed) -> None:
        """Keep what is shown, and say since when and why it is old; the next read tries again."""
        self.looking = False
        self.trouble = " ".join(str(message.error).split())
        self.draw()

    def action_pause(self) -> None:
        """Pause reading, or go on."""
        self.paused = not self.paused
        self.draw()

    def action_look(self) -> None:
        """Read now, even while paused."""
        paused, self.paused = self.paused, False
        self.look()
        self.paused = paused

    def action_sort(self) -> None:
        """Order the pools by the next of name, use, spend and pace."""
        self.order = (self.order + 1) % len(self._orders())
        self.draw()

    def draw(self) -> None:
        """Show the newest look."""
        name, key = self._orders()[self.order]
        steps = self.pace.steps()
        head = Text(f"{printable(self.book.url)}  {moment(self.shown.at)}  by {name}")
        if steps:
            head.append(f"  USD per look {sparkline(steps, width=30)}")
        if self.paused:
            head.append("  paused", style="bold yellow")
        if self.trouble is not None:
            head.append(f"\naway, looking again: {printable(self.trouble)}", style="bold red")
        for error in self.shown.left_out:
            head.append(f"\nleft out: {printable(' '.join(str(error).split()))}", style="bold red")
        self.query_one("#head", Static).update(head)
        holding = counted(self.shown.holding, "lease")
        listed = counted(len(self.shown.leases), "lease")
        self.query_one("#caption", Static).update(
            Text(f"Open: {holding} holding; below, the oldest: {listed}")
        )
        _fill(
            self.query_one("#pools", DataTable),
            [_pool_line(one, self.pace) for one in sorted(self.shown.pools, key=key)],
        )
        _fill(self.query_one("#leases", DataTable), [_lease_line(one) for one in self.shown.leases])

    def _orders(self) -> list[tuple[str, Callable[[PoolStatus], Any]]]:
        return [
            ("pool", lambda one: one.pool.name),
            ("use", lambda one: -_used(one)[0]),
            ("spend", lambda one: -one.spent.cost_micros_usd),
            ("pace", lambda one: -(self.pace.per_minute(one.pool.pool_id) or 0)),
        ]


def _fill(table: DataTable[Any], lines: list[list[Any]]) -> None:
    """Replace a table's lines; the cursor stays on its line number."""
    place, left = table.cursor_row, table.scroll_offset
    table.clear()
    table.add_rows(lines)
    if lines:
        table.move_cursor(row=min(place, len(lines) - 1), animate=False, scroll=False)
        table.scroll_to(left.x, left.y, animate=False)


def _used(one: PoolStatus) -> tuple[int, Axis]:
    """Return how many thousandths of a capacity are used, on the axis that runs out first."""
    shares = []
    for axis in MONEY_FIRST:
        capacity = axis.limit(one.policy)
        if capacity is not None:
            if one.window is not None:
                capacity += getattr(one.window.carried, axis.name)
            used = getattr(one.spent, axis.name) + getattr(one.balance.reserved, axis.name)
            shares.append((max(0, used) * 1_000 // capacity if capacity > 0 else 1_000, axis))
        if one.prepaid is not None and axis.name in one.policy.prepaid:
            valid = [each for each in one.credits if any(each.left)]
            whole = sum(getattr(each.left.plus(each.used), axis.name) for each in valid)
            used = whole - getattr(one.prepaid, axis.name)
            shares.append((used * 1_000 // whole if whole > 0 else 1_000, axis))
        for limit in one.limits:
            whole = axis.limit(limit.limit)
            if whole is not None:
                used = max(0, getattr(limit.counted, axis.name))
                shares.append((used * 1_000 // whole if whole > 0 else 1_000, axis))
    return max(shares, key=lambda share: share[0], default=(0, COST))


def _pool_line(one: PoolStatus, pace: LastMinute) -> list[Any]:
    share, axis = _used(one)
    left = one.reservable
    rate = pace.per_minute(one.pool.pool_id)
    filled = share * _BAR // 1_000
    bar = Text("█" * filled + "░" * (_BAR - filled) + f" {share // 10:>3}%")
    bar.stylize("red" if left.below_threshold else "green")
    return [
        _name(one.pool.name),
        bar,
        _right(capacity(axis, one.policy)),
        _right(figure(axis, getattr(one.spent, axis.name))),
        _right(figure(axis, getattr(one.balance.reserved, axis.name))),
        _right(figure(axis, axis.left(left))),
        axis.shown,
        _right("" if rate is None else usd(rate)),
    ]


def _lease_line(one: reports.AgedLease) -> list[Any]:
    return [
        _right(duration(max(0, one.age_s))),
        _name(one.pool),
        _right(f"{one.lease}"),
        state(one),
        _right(f"{one.held.tokens:,}"),
        _right(usd(one.held.cost_micros_usd)),
        _name(one.run_id),
        _name(one.model),
    ]


def _name(value: str | None) -> Text:
    """Return a name, cut if it is long, since the figures need the room."""
    found = text(value)
    found.truncate(_NAME, overflow="ellipsis")
    return found


def _right(figure: str) -> Text:
    return Text(figure, justify="right")
