"""The budget of a coding assistant: sessions of five hours that begin with a call, and a week.

Install: `pip install '.[prices]' anthropic`

Prints:

    Mon 09:00  session   0 % used, not begun   week   0 % used
    Mon 09:20  session  30 % used, ends 14:20  week  12 % used
    Mon 11:00  session  90 % used, ends 14:20  week  36 % used
    Mon 11:01  refused: the session has too little left, the next one begins in 3 h 19 min
    Mon 14:20  session  30 % used, ends 19:20  week  48 % used
    Tue 08:00  session  90 % used, ends 13:00  week  84 % used
    Tue 14:00  refused: the week has too little left, the next one begins in 130 h 0 min
"""

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
from anthropic import Anthropic, APIStatusError

from ledger import (
    Ledger,
    LedgerBudgetManager,
    Limit,
    Period,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Window,
    from_micros,
    usd,
)
from ledger.transport import budgeted, denial_of

PLAN = SharedPoolBudgetOptions(
    capacity_cost_micros_usd=usd("0.20"),
    window=Window(period=timedelta(hours=5), session=True),
    limits=[
        Limit(name="week", period=Window(period=Period.WEEK), capacity_cost_micros_usd=usd("0.50"))
    ],
)
ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-6",
    "content": [{"type": "text", "text": "def main(): ..."}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 20, "output_tokens": 4_000},
}


class Clock:
    """A clock to be set, so that this program need not wait; without one, the store's counts."""

    now = datetime(2026, 3, 2, 9, tzinfo=UTC)

    def set(self, day: int, hour: int, minute: int = 0) -> None:
        """Set it, in March."""
        self.now = datetime(2026, 3, day, hour, minute, tzinfo=UTC)

    def __call__(self) -> int:
        """Return the time in microseconds since 1970."""
        return int(self.now.timestamp()) * 1_000_000


class Assistant:
    """An assistant with a plan."""

    def __init__(self, client: Anthropic, plan: LedgerBudgetManager, clock: Clock) -> None:
        self._client = budgeted(client, pool=plan)
        self._plan = plan
        self._clock = clock

    def write(self, times: int = 1) -> None:
        """Write code, if the plan has enough left, and say how far it is used."""
        try:
            for _ in range(times):
                self._client.messages.create(
                    model="claude-sonnet-4-6",
                    max_tokens=4_000,
                    messages=[{"role": "user", "content": "Write the program."}],
                )
        except APIStatusError as error:
            denied = denial_of(error)
            if not isinstance(denied, ThresholdExceededError) or denied.retry_at is None:
                raise
            minutes = (denied.retry_at - self._clock.now) // timedelta(minutes=1)
            print(
                f"{self._clock.now:%a %H:%M}  refused: the {denied.limit or 'session'} has too "
                f"little left, the next one begins in {minutes // 60} h {minutes % 60} min"
            )
        else:
            self.tell()

    def tell(self) -> None:
        """Print how far the plan is used."""
        status = self._plan.status()
        (week,) = status.limits
        session = 100 * status.spent.cost_micros_usd // status.policy.capacity_cost_micros_usd
        share = 100 * week.counted.cost_micros_usd // week.limit.capacity_cost_micros_usd
        window = status.window
        ends = f"ends {from_micros(window.end):%H:%M}" if window.begun else "not begun "
        print(
            f"{self._clock.now:%a %H:%M}  session {session:>3} % used, {ends}  "
            f"week {share:>3} % used"
        )


def main() -> None:
    """Work for two days."""
    clock = Clock()
    provider = httpx2.MockTransport(lambda _: httpx2.Response(200, json=ANSWER))
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger.open(f"sqlite:///{Path(folder) / 'ledger.db'}", clock=clock) as book,
        Anthropic(api_key="none", http_client=httpx2.Client(transport=provider)) as client,
    ):
        assistant = Assistant(client, book.pool("plan", PLAN), clock)
        assistant.tell()
        clock.set(2, 9, 20)
        assistant.write()
        clock.set(2, 11)
        assistant.write(2)
        clock.set(2, 11, 1)
        assistant.write()
        clock.set(2, 14, 20)  # the session has ended; the next call begins a new one
        assistant.write()
        clock.set(3, 8)
        assistant.write(3)
        clock.set(3, 14)
        assistant.write(3)


if __name__ == "__main__":
    main()
