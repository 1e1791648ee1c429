"""What callers can catch: hierarchy, figures, messages, and the way to another process."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

from ledger import (
    AmountOutOfRangeError,
    BillingFileError,
    BudgetError,
    ContentionError,
    EntryCorrectedError,
    ExportError,
    IdempotencyConflictError,
    InvalidInputError,
    InvalidUrlError,
    JournalDamagedError,
    LedgerError,
    LedgerUnavailableError,
    LostLeaseError,
    MissingExtraError,
    NotALedgerError,
    NotPermittedError,
    OpenLeasesError,
    OtherStoreError,
    OutcomeUnknownError,
    ParentConflictError,
    PoisonedError,
    PoolClosedError,
    PoolConflictError,
    PriceTableError,
    ReadOnlyLedgerError,
    RequestBudgetExceededError,
    RowsDiscardedError,
    SchemaVersionError,
    SharedPoolBudgetOptions,
    StoreError,
    ThresholdExceededError,
    TraceAlreadyRunError,
    UncorrectableEntryError,
    UnknownLeaseError,
    UnknownPoolError,
    UnknownPriceError,
    UnknownRulesError,
    UnpricedCallError,
)
from ledger.core import errors
from ledger.core.axes import U64_MAX

OPTIONS = [SharedPoolBudgetOptions(capacity_tokens=number) for number in (101, 202, 303)]

# Each error, its attributes, and what its message must show.
ERRORS: list[tuple[LedgerError, dict[str, Any], list[str]]] = [
    (LedgerError("text"), {}, ["text"]),
    (BudgetError("text"), {}, ["text"]),
    (StoreError("text"), {}, ["text"]),
    (UnknownPriceError("no price"), {"reason": "no price", "pool": None}, ["no price"]),
    (PriceTableError("a.toml", "why"), {"field": "a.toml", "reason": "why"}, ["a.toml: why"]),
    (
        RequestBudgetExceededError(
            requested_tokens=1_234,
            requested_cost_micros_usd=22,
            budget_tokens=33,
            budget_cost_micros_usd=None,
        ),
        {
            "requested_tokens": 1_234,
            "requested_cost_micros_usd": 22,
            "budget_tokens": 33,
            "budget_cost_micros_usd": None,
        },
        ["1,234 tokens", "22 micro-USD", "33 tokens", "unlimited micro-USD"],
    ),
    (
        ThresholdExceededError(
            requested_tokens=1_111,
            requested_cost_micros_usd=2_222,
            remaining_tokens=333,
            remaining_cost_micros_usd=444,
        ),
        {
            "requested_tokens": 1_111,
            "requested_cost_micros_usd": 2_222,
            "remaining_tokens": 333,
            "remaining_cost_micros_usd": 444,
            "pool": None,
        },
        ["1,111 tokens", "2,222 micro-USD", "333 tokens", "444 micro-USD", "adjust()"],
    ),
    (
        ThresholdExceededError(
            requested_tokens=1,
            requested_cost_micros_usd=2,
            remaining_tokens=3,
            remaining_cost_micros_usd=4,
        ).of_pool("org"),
        {"requested_tokens": 1, "remaining_cost_micros_usd": 4, "pool": "org"},
        ["pool 'org' cannot grant 1 tokens"],
    ),
    (
        UnpricedCallError(
            missing=("total_tokens", "cost_micros_usd"),
            input_tokens=1_000,
            output_tokens=234,
            total_tokens=0,
            cost_micros_usd=0,
            pool="org",
        ),
        {
            "missing": ("total_tokens", "cost_micros_usd"),
            "input_tokens": 1_000,
            "output_tokens": 234,
            "total_tokens": 0,
            "cost_micros_usd": 0,
            "pool": "org",
        },
        ["1,234 tokens", "pool 'org' limits tokens and cost_micros_usd", "total_tokens=1,234"],
    ),
    (UnknownLeaseError(77), {"lease_id": 77}, ["77"]),
    (
        LostLeaseError(77, pool="team"),
        {"lease_id": 77, "pool": "team"},
        ["lease 77 of pool 'team' is lost", "record_lost"],
    ),
    (LostLeaseError(77), {"lease_id": 77, "pool": None}, ["lease 77", "record_lost"]),
    (PoolClosedError("team"), {"pool": "team"}, ["'team' is closed", "settled or released"]),
    (
        ParentConflictError("team", parent="org", carved=True),
        {"name": "team", "parent": "org", "carved": True},
        ["'team' is carved out of 'org'", "never changes"],
    ),
    (
        ParentConflictError("team", parent=None, carved=False),
        {"name": "team", "parent": None, "carved": False},
        ["'team' has no parent"],
    ),
    (
        OpenLeasesError("team", open_leases=1_200),
        {"pool": "team", "open_leases": 1_200},
        ["'team' has open leases (1,200)", "Settle or release"],
    ),
    (
        UncorrectableEntryError(41, "it is of kind denial"),
        {"seq": 41, "reason": "it is of kind denial"},
        ["entry 41", "it is of kind denial"],
    ),
    (PoisonedError(), {}, ["new manager"]),
    (InvalidInputError("name", "too long"), {"field": "name"}, ["name: too long"]),
    (EntryCorrectedError(41), {"seq": 41}, ["entry 41", "read its usage again"]),
    (
        AmountOutOfRangeError("usage.total_tokens", value=-5, ceiling=99),
        {"field": "usage.total_tokens", "value": -5, "ceiling": 99},
        ["usage.total_tokens", "-5", "0 .. 99"],
    ),
    (InvalidUrlError("url", "no such scheme"), {"field": "url"}, ["url: no such scheme"]),
    (
        BillingFileError("bill.csv", line=12, reason="no number"),
        {"line": 12, "reason": "no number"},
        ["bill.csv", "line 12", "no number"],
    ),
    (RowsDiscardedError(), {}, ["Nothing was committed", "ledger db check"]),
    (UnknownPoolError("tea"), {"name": "tea"}, ["'tea'", "options", "ledger pool list"]),
    (
        PoolConflictError("p", opening=OPTIONS[0], current=OPTIONS[1], given=OPTIONS[2]),
        {"name": "p", "opening": OPTIONS[0], "current": OPTIONS[1], "given": OPTIONS[2]},
        ["'p'", "101", "202", "303", "capacity_tokens as given", "ensure"],
    ),
    (
        IdempotencyConflictError("key-1", seq=41),
        {"idempotency_key": "key-1", "seq": 41},
        ["'key-1'", "41"],
    ),
    (
        TraceAlreadyRunError("trace.csv", pool="p"),
        {"path": "trace.csv", "pool": "p"},
        ["trace.csv", "'p'", "--again"],
    ),
    (
        ExportError("out.csv", "it is a folder"),
        {"path": "out.csv", "reason": "it is a folder"},
        ["out.csv: it is a folder"],
    ),
    (LedgerUnavailableError("no server"), {}, ["no server"]),
    (
        NotPermittedError(role="r", operation="adjust", reason="permission denied"),
        {"role": "r", "operation": "adjust", "reason": "permission denied"},
        ["role 'r' may not adjust (permission denied)", "ledger db roles"],
    ),
    (
        ReadOnlyLedgerError(url="sqlite:///a.db"),
        {"url": "sqlite:///a.db"},
        ["sqlite:///a.db was opened with read_only=True", "nothing was written", "standby"],
    ),
    (
        ContentionError(timeout_s=2.5, attempts=9),
        {"timeout_s": 2.5, "attempts": 9},
        ["2.5 s", "9 attempts", "Nothing was written"],
    ),
    (OutcomeUnknownError("key-2"), {"idempotency_key": "key-2"}, ["'key-2'", "exactly once"]),
    (
        SchemaVersionError(found=None, expected="0001", url="sqlite:///a.db"),
        {"found": None, "expected": "0001"},
        ["no schema", "ledger db upgrade --url 'sqlite:///a.db'"],
    ),
    (
        SchemaVersionError(found="0001", expected="0002", url="sqlite:///a.db"),
        {"found": "0001", "expected": "0002"},
        ["0001 is older", "0002", "ledger db upgrade --url 'sqlite:///a.db'"],
    ),
    (
        SchemaVersionError(found="0003", expected="0002", url="sqlite:///a.db"),
        {"found": "0003", "expected": "0002"},
        ["0003 is newer", "0002", "pip install --upgrade budget-ledger"],
    ),
    (NotALedgerError("other tables"), {}, ["other tables"]),
    (
        OtherStoreError(url="sqlite:///a.db"),
        {},
        ["sqlite:///a.db were written in another store", "Restore the whole backup", "read_only"],
    ),
    (
        JournalDamagedError(pool="p", seq=8, reason="its hash does not match"),
        {"pool": "p", "seq": 8, "reason": "its hash does not match"},
        ["'p'", "entry 8", "its hash does not match", "ledger verify"],
    ),
    (
        UnknownRulesError(version=7, since="9.1", known=1),
        {"version": 7, "since": "9.1"},
        ["version 7", "up to version 1", "budget-ledger 9.1", "pip install --upgrade"],
    ),
    (
        MissingExtraError(what="psycopg", extra="postgresql"),
        {"extra": "postgresql"},
        ["psycopg", "pip install 'budget-ledger[postgresql]'"],
    ),
]
CASES = pytest.mark.parametrize(
    ("error", "attributes", "shown"), ERRORS, ids=[type(error).__name__ for error, _, _ in ERRORS]
)


def test_every_error_is_tested_here() -> None:
    """The list above leaves out none of the public classes."""
    public = {
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, LedgerError)
    }
    assert public == {type(error) for error, _, _ in ERRORS}


@CASES
def test_an_error_carries_its_figures(
    error: LedgerError, attributes: dict[str, Any], shown: list[str]
) -> None:
    """The attributes hold what was given, and the message shows it."""
    assert attributes == {name: getattr(error, name) for name in attributes}
    assert [] == [text for text in shown if text not in str(error)]


@CASES
@pytest.mark.parametrize(
    "carry",
    [copy.copy, copy.deepcopy]
    + [
        lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - our own bytes
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ],
)
def test_an_error_survives_the_way_to_another_process(
    error: LedgerError,
    attributes: dict[str, Any],
    shown: list[str],  # noqa: ARG001 - as the other test
    carry: Any,  # noqa: ANN401 - a function
) -> None:
    """The copy is of the same class, says the same, and carries the same figures."""
    arrived = carry(error)
    assert type(error) is type(arrived)
    assert str(error) == str(arrived)
    assert error.args == arrived.args
    assert attributes == {name: getattr(arrived, name) for name in attributes}


@pytest.mark.parametrize(
    ("child", "parents"),
    [
        (BudgetError, {LedgerError}),
        (RequestBudgetExceededError, {BudgetError}),
        (ThresholdExceededError, {BudgetError}),
        (UnknownLeaseError, {BudgetError}),
        (LostLeaseError, {UnknownLeaseError}),
        (PoisonedError, {BudgetError}),
        (InvalidInputError, {LedgerError, ValueError}),
        (AmountOutOfRangeError, {InvalidInputError}),
        (InvalidUrlError, {InvalidInputError}),
        (BillingFileError, {InvalidInputError}),
        (UnknownPoolError, {LedgerError}),
        (PoolConflictError, {LedgerError}),
        (IdempotencyConflictError, {LedgerError}),
        (TraceAlreadyRunError, {LedgerError}),
        (ExportError, {LedgerError}),
        (StoreError, {LedgerError}),
        (LedgerUnavailableError, {StoreError}),
        (NotPermittedError, {LedgerUnavailableError}),
        (ReadOnlyLedgerError, {LedgerUnavailableError}),
        (ContentionError, {StoreError}),
        (OutcomeUnknownError, {StoreError}),
        (SchemaVersionError, {StoreError}),
        (NotALedgerError, {StoreError}),
        (JournalDamagedError, {StoreError}),
        (RowsDiscardedError, {StoreError}),
        (OtherStoreError, {StoreError}),
        (UnknownRulesError, {StoreError}),
        (MissingExtraError, {StoreError}),
        (LedgerError, {Exception}),
    ],
)
def test_the_hierarchy_is_as_drawn(child: type, parents: set[type]) -> None:
    """What the module's docstring draws is what `except` sees."""
    assert parents == set(child.__bases__)


@pytest.mark.parametrize(
    "name", [type(error).__name__ for error, _, _ in ERRORS] + ["a verdict of the budget"]
)
def test_the_drawing_is_complete(name: str) -> None:
    """Every class stands in the drawing."""
    assert name in (errors.__doc__ or "")


@pytest.mark.parametrize(
    ("remaining", "shown"), [(2**63 - 1, "9,223,372,036,854,775,807"), (2**64 - 1, "unlimited")]
)
def test_what_is_left_of_an_unlimited_pool_is_called_so(remaining: int, shown: str) -> None:
    """A figure nobody can mean is not printed; the attribute has it all the same."""
    error = ThresholdExceededError(
        requested_tokens=1,
        requested_cost_micros_usd=2,
        remaining_tokens=remaining,
        remaining_cost_micros_usd=0,
    )
    assert f"{shown} tokens" in str(error)
    assert remaining == error.remaining_tokens


def test_a_cause_is_kept() -> None:
    """The driver's error is where Python puts it."""
    cause = OSError("disk")
    with pytest.raises(LedgerUnavailableError) as caught:
        raise LedgerUnavailableError("no disk") from cause
    assert cause is caught.value.__cause__


def test_a_refusal_by_a_limit_of_requests_says_what_was_asked() -> None:
    """One request, of none that remain; and no word of leases where none holds what is missing."""
    refused = ThresholdExceededError(
        requested_tokens=25,
        requested_cost_micros_usd=100,
        remaining_tokens=U64_MAX,
        remaining_cost_micros_usd=U64_MAX,
        remaining_requests=0,
        limit="1m rolling",
    )
    said = "cannot grant 25 tokens and 100 micro-USD and 1 request: 0 requests remain. "
    assert f"{said}Ask for less, or raise the limit with adjust()" in str(refused)
    assert "leases" not in str(refused)
    assert "Ask for less, settle or release open leases, or raise" in str(refused.by_leases())


def test_a_refusal_of_an_overspent_pool_says_so() -> None:
    """By how much; asking for less would not help, ending leases might."""
    refused = ThresholdExceededError(
        requested_tokens=24,
        requested_cost_micros_usd=0,
        remaining_tokens=U64_MAX,
        remaining_cost_micros_usd=0,
        overspent={"cost_micros_usd": 110_048},
        pool="team",
    )
    said = "0 micro-USD remain. It is overspent by 110,048 micro-USD, so it grants nothing. "
    assert f"{said}Raise the capacity with adjust()" in str(refused)
    assert "less" not in str(refused)
    assert "Settle or release open leases, or raise" in str(refused.by_leases())


def test_one_attempt_is_not_called_several() -> None:
    """A busy store is often given up on after the first."""
    said = [str(ContentionError(timeout_s=1, attempts=many)) for many in (0, 1, 2)]
    assert [True] * 3 == [
        part in one
        for part, one in zip(("(0 attempts)", "(1 attempt)", "(2 attempts)"), said, strict=True)
    ]
