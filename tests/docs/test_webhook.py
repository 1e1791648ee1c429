"""`examples/webhook.py` as a program of its own, killed while it sends to a real HTTP server."""

from __future__ import annotations

import json
import runpy
import signal
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ledger import Ledger, LedgerUnavailableError, SharedPoolBudgetOptions
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests import programs
from tests.clocks import until

PROGRAM = Path(__file__).parents[2] / "examples" / "webhook.py"
OPTIONS = SharedPoolBudgetOptions(capacity_tokens=100, thresholds={"half": 50, "most": 90})


class Server(ThreadingHTTPServer):
    """Keeps what is sent, and calls a function before it answers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.before_answer: Callable[[], object] = lambda: None


class Handler(BaseHTTPRequestHandler):
    """Takes an alert."""

    server: Server

    def do_POST(self) -> None:
        """Take it."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.sent.append((self.headers["Idempotency-Key"], body))
        self.server.before_answer()
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Write no log."""


def test_a_sender_that_is_killed_loses_no_alert(
    new_store: Callable[..., str], tmp_path: Path
) -> None:
    """What it had sent, and not noted, it sends again after its restart, and goes on from there."""
    store_url = new_store("postgresql")
    words = [sys.executable, str(PROGRAM), store_url]
    with Ledger.open(store_url) as book, Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        words += [f"http://127.0.0.1:{server.server_port}/", str(tmp_path / "alerts.cursor")]
        budget = book.pool("pool", OPTIONS)
        budget.release(budget.reserve(EXTENSIONS, tokens(95), UNLIMITED))
        crossed = [(one.key, one.crossing.threshold) for one in book.alerts()]
        assert 4 == len(crossed)

        sender = programs.Popen(words)

        def kill() -> None:
            if len(server.sent) == 2:
                sender.send_signal(signal.SIGKILL)
                sender.wait()

        server.before_answer = kill
        until(lambda: sender.poll() is not None)
        assert -signal.SIGKILL == sender.returncode
        assert crossed[:2] == [(key, body["threshold"]) for key, body in server.sent]

        server.before_answer = lambda: None
        with programs.Popen(words) as sender:
            until(lambda: len(server.sent) == 5)
            budget = book.pool("other", OPTIONS)  # crossed while it runs
            budget.reserve(EXTENSIONS, tokens(95), UNLIMITED)
            until(lambda: len(server.sent) == 7)
            sender.send_signal(signal.SIGKILL)
        keys = [key for key, _ in server.sent]
        assert [one.key for one in book.alerts()] == list(dict.fromkeys(keys))
        assert keys[1] == keys[2]
        server.shutdown()


def test_a_sender_outlives_a_store_that_is_away(
    new_store: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It says so, and goes on where it was once the store is back."""
    store_url = new_store("sqlite")
    alerts = Ledger.alerts
    answers: list[Exception | None] = [LedgerUnavailableError("away"), None]

    def sometimes(self: Ledger, *given: Any) -> Any:  # noqa: ANN401 - as the method
        if not answers:
            raise KeyboardInterrupt
        error = answers.pop(0)
        if error is not None:
            raise error
        return alerts(self, *given)

    with Ledger.open(store_url) as book, Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        book.pool("pool", OPTIONS).reserve(EXTENSIONS, tokens(60), UNLIMITED)
        hook = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr("sys.argv", [str(PROGRAM), store_url, hook, str(tmp_path / "kept")])
        monkeypatch.setattr("time.sleep", lambda _seconds: None)
        monkeypatch.setattr(Ledger, "alerts", sometimes)
        with pytest.raises(KeyboardInterrupt):
            runpy.run_path(str(PROGRAM), run_name="__main__")
        server.shutdown()
    assert ["half"] == [body["threshold"] for _, body in server.sent]
    assert "the store is away, looking again: away" in capsys.readouterr().out
