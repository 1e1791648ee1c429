"""The five lines that say which calls are charged are true, in README and in the contract."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from ledger import SharedPoolBudgetManager, SharedPoolBudgetOptions, UsageEstimate
from tests.conformance.test_unbilled_calls import (
    ANTHROPIC,
    HTTPX,
    HTTPX2_LATE,
    UNBILLED,
    UNKNOWN,
    made,
    status,
)
from tests.programs import ROOT

CHARGED = 10
LINES: dict[str, list[BaseException | None]] = {
    "An answer of 4xx, 408 and 499 aside: released.": [
        *(made(ANTHROPIC, status_code=code) for code in (400, 401, 403, 404, 413, 422, 429)),
        made(HTTPX, response=status(429)),
        UNBILLED["bedrock 429"],
        UNBILLED["google-genai 429"],
    ],
    "No connection was made (refused, no such host, not in time, none free in the client's pool): "
    "released.": [
        UNBILLED["openai refused"],
        UNBILLED["no such host"],
        UNBILLED["httpx, no connection in time"],
        UNBILLED["httpx, no place in the pool"],
    ],
    "An answer of 5xx, 408 or 499: charged.": [
        made(ANTHROPIC, status_code=code) for code in (408, 499, 500, 502, 503, 504, 529)
    ],
    "A time-out of the answer, a cut connection, an error in the middle of a stream: charged.": [
        HTTPX2_LATE(),
        TimeoutError(),
        ConnectionResetError(),
        UNKNOWN["openai time-out"],
        UNKNOWN["openai dropped"],
        UNKNOWN["openai in a stream"],
    ],
    "An error of the program's own, or a block that just ends: charged.": [
        ValueError("its own"),
        KeyboardInterrupt(),
        None,
    ],
}


@pytest.mark.parametrize("path", ["README.md", "docs/contract.md"])
def test_both_say_the_same_five_lines(path: str) -> None:
    """In this order, one after the other."""
    lines = [line.strip() for line in (ROOT / path).read_text(encoding="utf-8").splitlines()]
    first, *_ = LINES
    begin = lines.index(f"* {first}")
    assert [f"* {line}" for line in LINES] == lines[begin : begin + len(LINES)]


@pytest.mark.parametrize("line", LINES)
def test_a_block_ends_as_its_line_says(line: str) -> None:
    """Each kind of error that the line names ends a block of its own."""
    for error in LINES[line]:
        manager: Any = SharedPoolBudgetManager(SharedPoolBudgetOptions(capacity_tokens=100))
        with contextlib.ExitStack() as block:
            block.enter_context(contextlib.suppress(type(error)))
            block.enter_context(manager.lease(UsageEstimate(total_tokens=CHARGED)))
            if error is not None:
                raise error
        assert line.endswith("charged.") is (manager._state._balance.committed.tokens == CHARGED), (
            error
        )
        assert 0 == manager._state._balance.reserved.tokens
