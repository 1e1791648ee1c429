"""Price lists to try, and a guard: nothing here may use the network."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from typing import Any

import pytest

from ledger.prices import PriceList, PriceTable

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

OWN: dict[str, Any] = {
    "version": "2026-03",
    "price": [
        {
            "model": "house-1",
            "input": "2",
            "cache_read": "0.2",
            "output": 8,
            "above": [{"input_tokens": 200_000, "input": "4", "cache_read": "0.4"}],
        },
        {"model": "house-1", "service_tier": "batch", "input": 1, "output": 4},
        {"model": "house-1", "since": "2026-06-01", "input": 3, "output": 9},
        {"model": "house-*", "input": 100, "output": 100},
        {"model": "house-1", "provider": "azure", "input": 5, "output": 5},
    ],
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every attempt to leave the machine fail the test."""

    def refuse(self: socket.socket, address: Any) -> None:  # noqa: ANN401
        if self.family != socket.AF_UNIX and address[0] not in {"127.0.0.1", "::1", "localhost"}:
            raise AssertionError(f"a price was to be fetched from {address}")
        connect(self, address)

    connect = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def library() -> PriceList:
    """Return the prices of genai-prices alone."""
    return PriceList()


@pytest.fixture
def own() -> PriceTable:
    """Return a table of one's own."""
    return PriceTable(OWN)


@pytest.fixture
def noon() -> datetime:
    """Return a time at which all prices here are known."""
    return NOON
