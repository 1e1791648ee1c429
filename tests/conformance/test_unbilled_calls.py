"""Not billed is not spent: a block that a provider's refusal ends releases its lease.

The client libraries are not installed here. Their errors are made as they were seen to be: of
classes with the same names, modules and bases, with the same attributes.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ledger import (
    AsyncLedger,
    EntryKind,
    InvalidInputError,
    Ledger,
    SettlementPolicy,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    Usage,
    is_unbilled,
    register_unbilled,
)
from ledger.core import unbilled
from ledger.testing.calls import EXTENSIONS
from tests.leases import OF_HUNDRED, TEN


def named(name: str, *bases: type) -> Any:  # noqa: ANN401 - a class of exceptions
    """Return a class of errors as a library has it."""
    module, _, own = name.rpartition(".")
    return type(own, bases or (Exception,), {"__module__": module})


def made(kind: Any, *args: object, cause: BaseException | None = None, **found: object) -> Any:  # noqa: ANN401 - any error
    """Return an error with attributes, and what it was raised from."""
    error = kind(*args)
    vars(error).update(found)
    error.__cause__ = cause
    return error


OPENAI = named("openai.APIStatusError", named("openai.APIError"))
OPENAI_LOST = named("openai.APIConnectionError", named("openai.APIError"))
OPENAI_LATE = named("openai.APITimeoutError", OPENAI_LOST)
OPENAI_LIMIT = named("openai.RateLimitError", OPENAI)
ANTHROPIC = named("anthropic._exceptions.APIStatusError")
GENAI = named("google.genai.errors.ClientError", named("google.genai.errors.APIError"))
BOTO = named("botocore.exceptions.ClientError")
BOTO_LIMIT = named("botocore.errorfactory.ThrottlingException", BOTO)
BOTO_STREAM = named("botocore.exceptions.EventStreamError", BOTO)
HTTPX = named("httpx.HTTPStatusError")
HTTPX_REFUSED = named("httpx.ConnectError")
HTTPX2_REFUSED = named("httpx2.ConnectError")
HTTPX2_LATE = named("httpx2.ReadTimeout")
REQUESTS = named("requests.exceptions.HTTPError")
REQUESTS_LOST = named("requests.exceptions.ConnectionError")
NEW = named("urllib3.exceptions.NewConnectionError")
RETRIED = named("urllib3.exceptions.MaxRetryError")
AIOHTTP = named("aiohttp.client_exceptions.ClientResponseError")
URLLIB = named("urllib.error.URLError")
OWN = named("program.ModelFailed")


def status(code: int) -> SimpleNamespace:
    """Return a response."""
    return SimpleNamespace(status_code=code)


def metadata(code: int) -> dict[str, Any]:
    """Return a response as botocore has it."""
    return {"ResponseMetadata": {"HTTPStatusCode": code}}


UNBILLED = {
    "openai 429": made(OPENAI_LIMIT, status_code=429, code="rate_limit"),
    "openai 400": made(OPENAI, status_code=400),
    "openai refused": made(OPENAI_LOST, cause=HTTPX2_REFUSED()),
    "openai refused, before httpx2": made(OPENAI_LOST, cause=HTTPX_REFUSED()),
    "anthropic 401": made(ANTHROPIC, status_code=401),
    "google-genai 429": made(GENAI, code=429, response=status(429)),
    "google-genai 400 by aiohttp": made(GENAI, code=400, response=SimpleNamespace(status=400)),
    "bedrock 429": made(BOTO_LIMIT, response=metadata(429)),
    "bedrock refused": made(named("botocore.exceptions.EndpointConnectionError")),
    "bedrock, no connection in time": named("botocore.exceptions.ConnectTimeoutError")(),
    "httpx 422": made(HTTPX, response=status(422)),
    "httpx refused": HTTPX_REFUSED(),
    "httpx, no connection in time": named("httpx.ConnectTimeout")(),
    "httpx, no place in the pool": named("httpx.PoolTimeout")(),
    "openai, no connection in time": made(OPENAI_LATE, cause=named("httpx2.ConnectTimeout")()),
    "requests 403": made(REQUESTS, response=status(403)),
    "requests refused": made(REQUESTS_LOST, made(RETRIED, reason=NEW())),
    "requests, no connection in time": made(
        REQUESTS_LOST,
        made(RETRIED, reason=named("urllib3.exceptions.ConnectTimeoutError")()),
    ),
    "aiohttp 404": made(AIOHTTP, status=404),
    "aiohttp, no connection in time": named("aiohttp.client_exceptions.ConnectionTimeoutError")(),
    "urllib 404": made(named("urllib.error.HTTPError", URLLIB), code=404),
    "urllib refused": made(URLLIB, reason=ConnectionRefusedError()),
    "refused": ConnectionRefusedError(),
    "no such host": socket.gaierror(),
    "raised from one": made(OWN, cause=made(OWN, cause=made(OPENAI, status_code=429))),
    "a group of them": ExceptionGroup("g", [made(OPENAI, status_code=429), HTTPX_REFUSED()]),
}
UNKNOWN = {
    "openai 500": made(OPENAI, status_code=500),
    "openai 408": made(OPENAI, status_code=408),
    "openai time-out": made(OPENAI_LATE, cause=HTTPX2_LATE()),
    "openai dropped": made(OPENAI_LOST, cause=named("httpx2.RemoteProtocolError")()),
    "openai lost, without a cause": made(OPENAI_LOST),
    "openai in a stream": made(named("openai.APIError"), code=429),
    "anthropic in a stream": made(ANTHROPIC, status_code=200),
    "google-genai in a stream": made(GENAI, code=429, response=status(200)),
    "bedrock in a stream": made(BOTO_STREAM, response=metadata(400)),
    "bedrock 500": made(BOTO, response=metadata(500)),
    "bedrock without a response": made(BOTO),
    "httpx time-out": named("httpx.ReadTimeout")(),
    "httpx 503": made(HTTPX, response=status(503)),
    "requests without a response": made(REQUESTS, response=None),
    "requests dropped": made(REQUESTS_LOST, named("urllib3.exceptions.ProtocolError")()),
    "requests lost": made(REQUESTS_LOST),
    "urllib time-out": made(URLLIB, reason=TimeoutError()),
    "nginx 499": made(HTTPX, response=status(499)),
    "a flag for a status": made(OPENAI, status_code=True),
    "time-out": TimeoutError(),
    "reset": ConnectionResetError(),
    "cancelled": asyncio.CancelledError(),
    "interrupted": KeyboardInterrupt(),
    "a mistake": ValueError("openai.APIStatusError"),
    "raised from a time-out": made(OWN, cause=named("httpx.ReadTimeout")()),
    "while another was handled": made(OWN, __context__=made(OPENAI, status_code=429)),
    "a group with another": ExceptionGroup("g", [made(OPENAI, status_code=429), ValueError()]),
}


@pytest.mark.parametrize("which", UNBILLED)
def test_refusals_are_known(which: str) -> None:
    """4xx before any output, and connections that were never made."""
    assert is_unbilled(UNBILLED[which])


@pytest.mark.parametrize("which", UNKNOWN)
def test_what_nobody_knows_is_not_taken_for_free(which: str) -> None:
    """Time-outs, cut streams, 5xx, and whatever else a program raises."""
    assert not is_unbilled(UNKNOWN[which])


def test_a_circle_of_causes_has_an_end() -> None:
    """Python allows one."""
    one, other = OWN(), OWN()
    one.__cause__, other.__cause__ = other, one
    assert not is_unbilled(one)


def leave(block: Any, error: BaseException, before: Callable[[Any], object]) -> None:  # noqa: ANN401 - any block
    """Enter a block, and leave it by an error."""

    def run() -> None:
        with block as lease:
            before(lease)
            raise error

    with pytest.raises(type(error)):
        run()


async def leave_async(block: Any, error: BaseException, observed: Usage | None) -> None:  # noqa: ANN401 - any block
    """Enter a block of a task, and leave it by an error."""

    async def run() -> None:
        async with block as lease:
            if observed is not None:
                await lease.observe(observed)
            raise error

    with pytest.raises(type(error)):
        await run()


def nothing(_lease: Any) -> None:  # noqa: ANN401 - any block
    """Do nothing."""


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def budget(request: pytest.FixtureRequest, fresh_name: str) -> Any:  # noqa: ANN401 - any manager
    """Return a budget of each kind in turn."""
    if request.param == "memory":
        return SharedPoolBudgetManager(OF_HUNDRED)
    return request.getfixturevalue(f"shared_{request.param}").pool(fresh_name, OF_HUNDRED)


def test_ten_refusals_use_nothing_up(budget: Any) -> None:  # noqa: ANN401 - any manager
    """Each asks for a tenth of the budget, and gives it back."""
    for error in [made(OPENAI_LIMIT, status_code=429)] * 10:
        leave(budget.lease(TEN), error, nothing)
    assert 100 == budget.remaining(EXTENSIONS).tokens


@pytest.mark.parametrize("which", ["openai time-out", "openai 500", "openai in a stream"])
def test_what_nobody_knows_is_settled_by_policy(budget: Any, which: str) -> None:  # noqa: ANN401 - any manager
    """At the estimate, as without an answer at all."""
    leave(budget.lease(TEN), UNKNOWN[which], nothing)
    assert 90 == budget.remaining(EXTENSIONS).tokens


def test_a_refusal_after_output_is_settled_by_policy(budget: Any) -> None:  # noqa: ANN401 - any manager
    """What was observed was billed, so the rest of the call may be."""
    error = made(OPENAI_LIMIT, status_code=429)
    leave(budget.lease(TEN), error, lambda lease: lease.observe(Usage(total_tokens=3)))
    assert 90 == budget.remaining(EXTENSIONS).tokens


def test_a_refusal_after_the_record_changes_nothing(budget: Any) -> None:  # noqa: ANN401 - any manager
    """The lease was settled before it, by what was recorded."""
    error = made(OPENAI_LIMIT, status_code=429)
    leave(budget.lease(TEN), error, lambda lease: lease.record(Usage(total_tokens=3)))
    assert 97 == budget.remaining(EXTENSIONS).tokens


def test_the_journal_has_a_release(shared_book: Ledger, fresh_name: str) -> None:
    """No settlement at 0: the call used nothing, and counts for no request."""
    pool = shared_book.pool(fresh_name, OF_HUNDRED)
    leave(pool.lease(TEN), ConnectionRefusedError(), nothing)
    assert EntryKind.RELEASE == list(shared_book.entries(fresh_name))[-1].kind
    assert 0 == pool.status().balance.committed.requests


@pytest.mark.parametrize("policy", SettlementPolicy)
def test_tasks_do_the_same(shared_book: Ledger, fresh_name: str, policy: SettlementPolicy) -> None:
    """Whatever the policy, a refusal releases; what is unknown follows the policy."""
    refusal, unknown = made(OPENAI, status_code=429), made(OPENAI, status_code=500)
    options = SharedPoolBudgetOptions(capacity_tokens=100, settlement=policy)

    async def run() -> list[int]:
        budget = await AsyncLedger(shared_book).pool(fresh_name, options)
        left = []
        for error, observed in ((refusal, None), (unknown, None), (refusal, Usage(total_tokens=3))):
            await leave_async(budget.lease(TEN), error, observed)
            left.append((await budget.remaining(EXTENSIONS)).tokens)
        return left

    expected = [100, 90, 80] if policy is SettlementPolicy.ESTIMATED else [100, 100, 97]
    assert expected == asyncio.run(run())


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget afterwards what a test registers."""
    monkeypatch.setattr(unbilled, "_RULES", dict(unbilled._RULES))


@pytest.mark.usefixtures("rules")
def test_programs_add_their_own(budget: Any) -> None:  # noqa: ANN401 - any manager
    """By a class or by its name, for all of its errors or for some."""

    class RefusedError(Exception):
        pass

    register_unbilled(RefusedError)
    register_unbilled("groq.APIStatusError", lambda error: error.status_code == 429)
    groq = named("groq._exceptions.RateLimitError", named("groq._exceptions.APIStatusError"))
    leave(budget.lease(TEN), RefusedError(), nothing)
    leave(budget.lease(TEN), made(groq, status_code=429), nothing)
    assert 100 == budget.remaining(EXTENSIONS).tokens
    leave(budget.lease(TEN), made(groq, status_code=400), nothing)
    assert 90 == budget.remaining(EXTENSIONS).tokens


@pytest.mark.usefixtures("rules")
def test_what_is_there_can_be_replaced() -> None:
    """A program that fetches pages in its blocks may not want their 404."""
    register_unbilled("httpx.HTTPStatusError", lambda _error: False)
    assert not is_unbilled(made(HTTPX, response=status(404)))


@pytest.mark.usefixtures("rules")
def test_a_rule_that_raises_hides_nothing(budget: Any) -> None:  # noqa: ANN401 - any manager
    """The lease is settled by policy, and the error says what went wrong."""
    register_unbilled(OWN, lambda error: error.no_such_attribute)
    error = OWN("out")
    leave(budget.lease(TEN), error, nothing)
    assert 90 == budget.remaining(EXTENSIONS).tokens
    (note,) = error.__notes__
    assert "no_such_attribute" in note


@pytest.mark.parametrize("given", [int, 7, "", "ValueError", "a b.C", "x." * 200])
def test_what_is_no_class_of_errors_is_refused(given: Any) -> None:  # noqa: ANN401 - wrong on purpose
    """A name needs its package, or it would stand for classes of anybody."""
    with pytest.raises(InvalidInputError, match="error_class"):
        register_unbilled(given)


def test_what_is_no_rule_is_refused() -> None:
    """A rule is a function that looks at the error; a number of HTTP is none."""
    with pytest.raises(InvalidInputError, match="when"):
        register_unbilled("groq.APIStatusError", 429)  # type: ignore[arg-type]
