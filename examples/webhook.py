"""Send every threshold crossing to a webhook: at least once, whatever stops in between.

Install: `pip install .`

As a program of its own it goes on until it is stopped, and may be killed at any moment:

    python webhook.py sqlite:///ledger.db https://example.com/hook alerts.cursor

Without arguments it sends to a server of its own, which is busy at first.

Prints:

    not delivered, again in 0.1 s: HTTP Error 503: Service Unavailable
    team: half (50 %) reached, 400 tokens left
    team: most (90 %) reached, 50 tokens left
    started again, nothing is sent twice
    team: most (90 %) left, 400 tokens left
"""

import itertools
import json
import os
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

from ledger import (
    Alert,
    ContentionError,
    Ledger,
    LedgerUnavailableError,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    UsageEstimate,
)

EVERY_S = 1
TIMEOUT_S = 10
PAUSES_S = (0.1, 1, 5, 30)


def send(hook: str, alert: Alert) -> None:
    """Post an alert, again and again until the receiver has it; those behind it wait."""
    crossing = alert.crossing
    remaining = crossing.remaining
    body = {
        "pool": crossing.pool,
        "threshold": crossing.threshold,
        "percent": crossing.percent,
        "direction": crossing.direction,
        "recorded_at": crossing.recorded_at.isoformat(),
        # What the pool limits: tokens, cost_micros_usd, requests.
        "left": {
            axis: getattr(remaining, axis)
            for axis in ("tokens", "cost_micros_usd", "requests")
            if not remaining.is_unlimited(axis)
        },
    }
    # By the key the receiver drops what it got before.
    headers = {"Content-Type": "application/json", "Idempotency-Key": alert.key}
    request = Request(hook, json.dumps(body).encode(), headers)  # noqa: S310 - the operator's
    for pause_s in itertools.chain(PAUSES_S, itertools.repeat(PAUSES_S[-1])):
        try:
            with urlopen(request, timeout=TIMEOUT_S):  # noqa: S310
                return
        except OSError as error:  # not reached, no answer in time, or an answer of 400 or more
            print(f"not delivered, again in {pause_s} s: {error}", flush=True)
            time.sleep(pause_s)


def deliver(book: Ledger, hook: str, kept: Path) -> None:
    """Send what was crossed behind the cursor that is kept, and keep the cursor behind each."""
    after = kept.read_text(encoding="utf-8") if kept.exists() else None
    for alert in book.alerts(after):
        send(hook, alert)
        # If the program is killed here, the alert is sent once more, under the same key.
        fresh = kept.with_name(f"{kept.name}.new")
        with fresh.open("w", encoding="utf-8") as file:
            file.write(alert.cursor)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(kept)  # the old cursor or the new one, never half of one


class Receiver(BaseHTTPRequestHandler):
    """A server that refuses the first request, and prints what the others say."""

    busy = True

    def do_POST(self) -> None:
        """Take an alert."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if Receiver.busy:
            Receiver.busy = False
            self.send_error(503)
            return
        left = ", ".join(f"{amount} {axis}" for axis, amount in body["left"].items())
        print(
            f"{body['pool']}: {body['threshold']} ({body['percent']} %) {body['direction']}, "
            f"{left} left"
        )
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Write no log."""


def show(folder: Path) -> None:
    """Cross thresholds, and deliver twice: the second time from the cursor that was kept."""
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hook, kept = f"http://127.0.0.1:{server.server_port}/", folder / "alerts.cursor"
    options = SharedPoolBudgetOptions(capacity_tokens=1_000, thresholds={"half": 50, "most": 90})
    call, unlimited = RequestExtensions(), RequestBudget.unlimited()
    with Ledger.open(f"sqlite:///{folder / 'ledger.db'}") as book:
        budget = book.pool("team", options)
        budget.reserve(call, UsageEstimate(total_tokens=600), unlimited)
        lease = budget.reserve(call, UsageEstimate(total_tokens=350), unlimited)
        deliver(book, hook, kept)
        print("started again, nothing is sent twice")
        budget.release(lease)
        deliver(book, hook, kept)
    server.shutdown()
    server.server_close()


def main() -> None:
    """Follow a store for ever, or show how it works."""
    if len(sys.argv) == 1:
        with tempfile.TemporaryDirectory() as folder:
            show(Path(folder))
        return
    url, hook, kept = sys.argv[1:]
    with Ledger.open(url, create=False) as book:
        while True:
            try:
                deliver(book, hook, Path(kept))
            except (LedgerUnavailableError, ContentionError) as error:
                print(f"the store is away, looking again: {error}", flush=True)
            time.sleep(EVERY_S)


if __name__ == "__main__":
    main()
