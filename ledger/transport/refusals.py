"""Refusals: an answer that no client library repeats, and how to get its reason.

An exception out of a transport is repeated by some libraries, up to six times. An answer of 402
with `x-should-retry: false` is not repeated by any that was tried.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from ledger.core.axes import AXES
from ledger.core.errors import (
    BudgetError,
    InvalidInputError,
    LedgerError,
    NotPermittedError,
    ReadOnlyLedgerError,
    RequestBudgetExceededError,
    StoreError,
    ThresholdExceededError,
)
from ledger.core.values import UsageEstimate
from ledger.transport.requests import Asked

_log = logging.getLogger(__name__)

EXTENSION = "ledger_denial"
"""The denial's name in the extensions of the answer."""

_ANSWERS: Mapping[type[LedgerError], tuple[int, str]] = {
    BudgetError: (402, "budget_exceeded"),
    # The role, or a read-only ledger, may not do it, so trying later is useless.
    NotPermittedError: (403, "budget_not_permitted"),
    ReadOnlyLedgerError: (403, "budget_not_permitted"),
    StoreError: (503, "budget_unavailable"),
    # There is no such pool, or the program's function chose none, so trying later is useless.
    # Clients repeat 408, 409, 429 and 5xx.
    LedgerError: (403, "budget_not_found"),
}
"""The status and type of the answer by the class of the error; the first class that fits is
used."""

_KEPT = 1_000
"""How many denials are remembered for errors that keep no more than an answer's content."""
_CHAIN_MAX = 16
_MARK = "ledger-denial-"
_MARKED = re.compile(_MARK + r"[0-9a-f]{16}(?:\.\d+)?")
_RESPONSES = ("response", "raw_response", "http_response")
_TEXTS = ("body", "message", "args")

_denials: OrderedDict[str, LedgerError] = OrderedDict()


def refusal(
    http: Any,  # noqa: ANN401 - of httpx or httpx2
    request: Any,  # noqa: ANN401 - likewise
    error: Exception,
    call: str | None = None,
    advice: str = "",
) -> Any:  # noqa: ANN401 - likewise
    """Return the answer that refuses a request; the content suits all protocols.

    Args:
        http: The module, `httpx` or `httpx2`.
        request: The request, of this module.
        error: Why: the budget's, or one of the program's own function that chooses the pool.
        call: The attempt of a call, `0f3c...1.1`: the books have the denial, if they keep it, under
            this request id, with `call-` before it. None if nothing was asked of a pool.
        advice: What to do about the output, in words; see `advice_on`.
    """
    denial = error if isinstance(error, LedgerError) else _of_the_program(error)
    mark = _MARK + (call or secrets.token_hex(8))
    _denials[mark] = denial
    while len(_denials) > _KEPT:
        _denials.popitem(last=False)
    status, kind = next(found for of, found in _ANSWERS.items() if isinstance(denial, of))
    content = {
        "type": "error",
        "error": {
            "type": kind,
            "code": kind,
            "status": kind.upper(),
            "message": f"{denial}{advice and f'. {advice}'} ({mark})",
            "param": None,
        },
    }
    return http.Response(
        status,
        headers={"content-type": "application/json", "x-should-retry": "false"},
        content=json.dumps(content).encode(),
        request=request,
        extensions={EXTENSION: denial},
    )


def advice_on(error: Exception, asked: Asked, estimate: UsageEstimate, assumed: int) -> str:
    """Return advice about a refusal because of the output, or an empty text.

    It is because of that if the output was assumed, or is more than the input.

    Args:
        error: Why the call was refused.
        asked: What was asked for.
        estimate: What was to be reserved.
        assumed: How many tokens of output are assumed where the request has no limit.
    """
    fields, most, answers = asked.output_limits, asked.max_output_tokens, asked.answers
    if not fields or not isinstance(error, ThresholdExceededError | RequestBudgetExceededError):
        return ""
    if most is not None:
        if estimate.output_tokens <= estimate.input_tokens or _is_used_up(error):
            return ""
        each = "" if answers == 1 else f" in each of {answers} answers"
        return f"The request allows {most:,} tokens of output{each} ({fields[0]}): lower that"
    return (
        f"The request has no limit of its output, so {assumed:,} tokens were assumed: set "
        f"{' or '.join(fields)} in it, or max_output_tokens= of budgeted()"
    )


def _is_used_up(error: Exception) -> bool:
    """Tell whether nothing is left on an axis, so that no smaller request would be granted."""
    return isinstance(error, ThresholdExceededError) and any(
        axis.name not in error.unlimited and getattr(error, f"remaining_{axis.name}") <= 0
        for axis in AXES
    )


def _of_the_program(error: Exception) -> LedgerError:
    """Return an error of the budget in place of another, which clients would repeat."""
    _log.error("the pool of a call could not be chosen", exc_info=error)
    denial = InvalidInputError("pool", f"could not be chosen: {error!r}")
    denial.__cause__ = error
    return denial


def denial_of(error: object) -> LedgerError | None:
    """Return why the budget refused a call, from the error that its client raised.

    Args:
        error: The client's error, or an answer of httpx.

    Returns:
        A `ThresholdExceededError`, an `UnpricedCallError` or the like; None if the error has
        nothing to do with a budget.
    """
    for _ in range(_CHAIN_MAX):
        if error is None or isinstance(error, LedgerError):
            return error
        for answer in (error, *(getattr(error, name, None) for name in _RESPONSES)):
            extensions = getattr(answer, "extensions", None)
            if isinstance(extensions, Mapping) and EXTENSION in extensions:
                found: LedgerError = extensions[EXTENSION]
                return found
        for text in _texts(error):
            for mark in _MARKED.findall(text):
                if (kept := _denials.get(mark)) is not None:
                    return kept
        error = getattr(error, "__cause__", None) or getattr(error, "__context__", None)
    return None


def _texts(error: object) -> Iterator[str]:
    if isinstance(error, BaseException):
        yield str(error)
    for name in _TEXTS:
        yield str(getattr(error, name, ""))
