"""The values of the contract: their members, their bounds, and that they never change."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from ledger import (
    U64_MAX,
    AmountOutOfRangeError,
    Attribution,
    BudgetLease,
    IdempotencyKey,
    InvalidInputError,
    OccurredAt,
    Provenance,
    Remaining,
    RequestBudget,
    SharedPoolBudgetOptions,
    Usage,
    UsageDifference,
    UsageEstimate,
    UsageReport,
)
from ledger.core.checks import JsonObject
from ledger.core.rules import remainder
from ledger.core.usage_reports import fit
from ledger.engine.operations import reserve

ESTIMATE = ("input_tokens", "output_tokens", "total_tokens", "cost_micros_usd")
USAGE = (*ESTIMATE, "cache_creation_tokens", "cache_read_tokens", "reasoning_tokens")
BUDGET = ("tokens", "cost_micros_usd")
OPTIONS = (
    "capacity_tokens",
    "capacity_cost_micros_usd",
    "stop_threshold_tokens",
    "stop_threshold_cost_micros_usd",
)
ATTRIBUTION = (
    "run_id",
    "parent_run_id",
    "tenant",
    "agent",
    "operation",
    "provider",
    "model",
    "request_id",
)
NOW = datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=UTC)
NAIVE = datetime(2024, 5, 6)  # noqa: DTZ001 - the naive one is the test

AMOUNTS = [
    (kind, name)
    for kind, names in (
        (UsageEstimate, ESTIMATE),
        (Usage, USAGE),
        (RequestBudget, BUDGET),
        (SharedPoolBudgetOptions, OPTIONS),
    )
    for name in names
]
TEXTS = [
    (kind, name)
    for kind, names in (
        (Attribution, ATTRIBUTION),
        (IdempotencyKey, ("key",)),
    )
    for name in names
]
VALUES = [
    UsageEstimate(total_tokens=1),
    Usage(reasoning_tokens=2),
    Remaining(1, 2, False),
    RequestBudget.from_tokens(3),
    BudgetLease(id=1, reserved=UsageEstimate(), request_budget=RequestBudget()),
    SharedPoolBudgetOptions(capacity_tokens=4, thresholds={"half": 50}),
    Attribution(run_id="r", tags={"a": "b"}),
    OccurredAt(NOW),
    IdempotencyKey("k"),
    UsageReport(model="m", tags={"a": "b"}, detail={"a": [1]}, provenance=Provenance.ESTIMATED),
]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (UsageEstimate, ESTIMATE),
        (Usage, USAGE),
        (
            Remaining,
            ("tokens", "cost_micros_usd", "below_threshold", "requests", "unlimited"),
        ),
        (RequestBudget, BUDGET),
        (BudgetLease, ("id", "reserved", "request_budget", "pool", "ttl", "proof")),
        (
            SharedPoolBudgetOptions,
            (
                *OPTIONS,
                "capacity_requests",
                "stop_threshold_requests",
                "strict",
                "lease_ttl",
                "settlement",
                "thresholds",
                "window",
                "unpriced",
                "limits",
                "prepaid",
            ),
        ),
        (Attribution, (*ATTRIBUTION, "tags")),
        (
            UsageReport,
            (
                "provider",
                "model",
                "request_id",
                "provenance",
                "occurred_at",
                "idempotency_key",
                "tags",
                "detail",
            ),
        ),
    ],
)
def test_the_fields_are_those_of_the_contract(kind: type, names: tuple[str, ...]) -> None:
    """Names and order are part of the contract."""
    assert names == tuple(part.name for part in fields(kind))


@pytest.mark.parametrize("value", [0, 1, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize(("kind", "name"), AMOUNTS)
def test_every_amount_holds_the_whole_domain(kind: type, name: str, value: int) -> None:
    """0 and 2^64-1 and what lies around 2^63 come back as they went in."""
    assert value == getattr(kind(**{name: value}), name)


@pytest.mark.parametrize("value", [-1, 2**64])
@pytest.mark.parametrize(("kind", "name"), AMOUNTS)
def test_every_amount_is_bounded(kind: type, name: str, value: int) -> None:
    """One below and one above the domain are refused, and the error names the field."""
    with pytest.raises(AmountOutOfRangeError, match=name) as refused:
        kind(**{name: value})
    assert (value, U64_MAX) == (refused.value.value, refused.value.ceiling)


@pytest.mark.parametrize("value", [1.0, True, "1", b"1", [], 1 + 0j])
@pytest.mark.parametrize(("kind", "name"), AMOUNTS)
def test_every_amount_is_an_int(kind: type, name: str, value: object) -> None:
    """No rounding error and no accident of a type can enter the books."""
    with pytest.raises(InvalidInputError, match=name):
        kind(**{name: value})


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, name in AMOUNTS if kind is not RequestBudget]
)
def test_only_a_limit_may_be_absent(kind: type, name: str) -> None:
    """None is no amount, except as the limit of a request."""
    with pytest.raises(InvalidInputError, match=name):
        kind(**{name: None})


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_never_change(value: object) -> None:
    """A value is frozen and slotted: nothing can be changed or added."""
    name = fields(value)[0].name  # type: ignore[arg-type]
    with pytest.raises(FrozenInstanceError):
        setattr(value, name, getattr(value, name))
    assert not hasattr(value, "__dict__")


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_cross_process_boundaries(value: object) -> None:
    """A value is equal to its pickled copy, and hashes alike."""
    copy = pickle.loads(pickle.dumps(value))  # noqa: S301 - our own bytes
    assert value == copy
    assert hash(value) == hash(copy)


@pytest.mark.parametrize("kind", [UsageEstimate, Usage])
def test_zero_is_nothing_at_all(kind: type[Usage]) -> None:
    """`zero()` and the defaults are 0 in every field."""
    zero = kind.zero()
    assert kind() == zero
    assert {0} == {getattr(zero, part.name) for part in fields(kind)}


def test_an_estimate_can_be_taken_as_usage() -> None:
    """The four amounts are taken over; what an estimate does not know is 0."""
    estimate = UsageEstimate(input_tokens=1, output_tokens=2, total_tokens=4, cost_micros_usd=8)
    assert Usage(
        input_tokens=1, output_tokens=2, total_tokens=4, cost_micros_usd=8
    ) == Usage.from_estimate(estimate)


def test_usage_is_added_field_by_field() -> None:
    """Every field is summed, none is derived from another."""
    one = Usage(**{name: 10 ** (index + 1) for index, name in enumerate(USAGE)})
    two = Usage(**{name: 2 * 10 ** (index + 1) for index, name in enumerate(USAGE)})
    expected = Usage(**{name: 3 * 10 ** (index + 1) for index, name in enumerate(USAGE)})
    assert expected == one.saturating_add(two)


@pytest.mark.parametrize(("ceiling", "top"), [({}, 2**64 - 1), ({"ceiling": 2**63 - 1}, 2**63 - 1)])
@pytest.mark.parametrize("name", USAGE)
def test_a_sum_stops_at_the_ceiling(name: str, ceiling: dict[str, int], top: int) -> None:
    """The ceiling is reached exactly, and never passed; other fields are not touched."""
    start = Usage(**{name: top - 1})
    assert Usage(**{name: top}) == start.saturating_add(Usage(**{name: 1}), **ceiling)
    assert Usage(**{name: top}) == start.saturating_add(Usage(**{name: 2}), **ceiling)
    assert Usage(**{name: top}) == start.saturating_add(start, **ceiling)


@pytest.mark.parametrize("name", USAGE)
def test_a_difference_is_what_one_usage_lacks_to_another(name: str) -> None:
    """Each field by itself, both ways, over the whole domain; added, it gives the other."""
    low, high = Usage(**{name: 3}), Usage(**{name: U64_MAX})
    up, down = UsageDifference.between(low, high), UsageDifference.between(high, low)
    assert UsageDifference(**{name: U64_MAX - 3}) == up
    assert UsageDifference(**{name: 3 - U64_MAX}) == down
    assert (high, low) == (up.added_to(low), down.added_to(high))
    assert UsageDifference() == UsageDifference.between(high, high)


def test_an_added_difference_stops_at_the_ends() -> None:
    """Neither below 0 nor above the ceiling."""
    five = Usage(total_tokens=5)
    assert Usage() == UsageDifference(total_tokens=-6).added_to(five)
    assert Usage(total_tokens=9) == UsageDifference(total_tokens=6).added_to(five, ceiling=9)


@pytest.mark.parametrize("value", [1.0, True, "1", None, U64_MAX + 1, -U64_MAX - 1])
def test_a_difference_is_an_integer_of_the_domain(value: object) -> None:
    """Floats, booleans, text, and what no two usages can differ by are refused."""
    with pytest.raises(InvalidInputError):
        UsageDifference(total_tokens=value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("budget", "tokens", "cost"),
    [
        (RequestBudget.unlimited(), None, None),
        (RequestBudget.from_tokens(5), 5, None),
        (RequestBudget.from_cost_micros_usd(6), None, 6),
        (RequestBudget.with_limits(5, 6), 5, 6),
        (RequestBudget.with_limits(None, 6), None, 6),
        (RequestBudget.with_limits(0, 0), 0, 0),
    ],
)
def test_a_request_budget_limits_what_it_says(
    budget: RequestBudget, tokens: int | None, cost: int | None
) -> None:
    """Each constructor sets its own limits and leaves the other unlimited."""
    assert (tokens, cost) == (budget.tokens, budget.cost_micros_usd)


@pytest.mark.parametrize(
    ("budget", "tokens", "cost", "allowed"),
    [
        (RequestBudget.unlimited(), 2**64 - 1, 2**64 - 1, True),
        (RequestBudget.from_tokens(5), 5, 2**64 - 1, True),
        (RequestBudget.from_tokens(5), 6, 0, False),
        (RequestBudget.from_cost_micros_usd(5), 2**64 - 1, 5, True),
        (RequestBudget.from_cost_micros_usd(5), 0, 6, False),
        (RequestBudget.with_limits(5, 7), 5, 7, True),
        (RequestBudget.with_limits(5, 7), 6, 7, False),
        (RequestBudget.with_limits(5, 7), 5, 8, False),
        (RequestBudget.with_limits(0, 0), 0, 0, True),
        (RequestBudget.with_limits(0, 0), 1, 0, False),
    ],
)
def test_an_amount_equal_to_the_limit_is_allowed(
    budget: RequestBudget, tokens: int, cost: int, *, allowed: bool
) -> None:
    """The limit itself is allowed, one more is not, on either axis."""
    assert allowed is budget.allows_usage(Usage(total_tokens=tokens, cost_micros_usd=cost))
    estimate = UsageEstimate(total_tokens=tokens, cost_micros_usd=cost)
    assert allowed is budget.allows_estimate(estimate)


def test_only_totals_and_cost_count_against_a_request_budget() -> None:
    """Input, output, cache and reasoning tokens are parts of the total, and not added to it."""
    budget = RequestBudget.with_limits(0, 0)
    parts = {name: 9 for name in USAGE if name not in {"total_tokens", "cost_micros_usd"}}
    assert budget.allows_usage(Usage(**parts))
    assert budget.allows_estimate(UsageEstimate(input_tokens=9, output_tokens=9))


def test_a_pool_is_unlimited_unless_told_otherwise() -> None:
    """Capacities default to unlimited, thresholds to 0."""
    options = SharedPoolBudgetOptions()
    assert (U64_MAX, U64_MAX, 0, 0) == tuple(getattr(options, name) for name in OPTIONS)


def test_a_lease_carries_its_pool() -> None:
    """The identity of the granting pool is part of the value; in memory there is none."""
    reserved, budget = UsageEstimate(total_tokens=3), RequestBudget.unlimited()
    here = BudgetLease(id=7, reserved=reserved, request_budget=budget)
    there = BudgetLease(id=7, reserved=reserved, request_budget=budget, pool=UUID(int=1))
    assert None is here.pool
    assert UUID(int=1) == there.pool
    assert here != there


@pytest.mark.parametrize("kind", [Attribution, UsageReport])
def test_everything_about_a_call_is_optional(kind: type) -> None:
    """An empty attribution and an empty report are fine."""
    value = kind()
    assert {None} == {
        getattr(value, part.name) for part in fields(kind) if part.name not in {"tags", "detail"}
    }


@pytest.mark.parametrize("text", ["x", "x" * 255, "\u00e9" * 255, " "])
@pytest.mark.parametrize(("kind", "name"), TEXTS)
def test_every_text_may_have_255_characters(kind: type, name: str, text: str) -> None:
    """A text is kept as it was given."""
    assert text == getattr(kind(**{name: text}), name)


@pytest.mark.parametrize("text", ["", "x" * 256, "a\0b", "\ud800", chr(0xDFFF), b"x", 1, ["x"]])
@pytest.mark.parametrize(("kind", "name"), TEXTS)
def test_every_text_is_checked(kind: type, name: str, text: object) -> None:
    """Empty, over-long, NUL, lone surrogates and other types are refused by name."""
    with pytest.raises(InvalidInputError) as refused:
        kind(**{name: text})
    assert refused.value.field in {name, "idempotency_key"}


@pytest.mark.parametrize("kind", [Attribution, UsageReport])
def test_tags_are_copied_and_sorted(kind: Any) -> None:  # noqa: ANN401 - either class
    """What the caller does with the mapping afterwards changes nothing."""
    given = {"b": "2", "a": "1"}
    value = kind(tags=given)
    given["c"] = "3"
    assert [("a", "1"), ("b", "2")] == list(value.tags.items())


def test_64_tags_of_full_length_are_accepted() -> None:
    """The bounds themselves are inside."""
    tags = {f"{number:0255}": "v" * 255 for number in range(64)}
    assert tags == Attribution(tags=tags).tags


@pytest.mark.parametrize(
    "tags",
    [
        {str(number): "v" for number in range(65)},
        {"": "v"},
        {"k": ""},
        {"k" * 256: "v"},
        {"k": "v" * 256},
        {"k\0": "v"},
        {"k": "\ud800"},
        {"k": 1},
        {1: "v"},
        {"k": None},
        {"k": {"nested": "v"}},
        [("k", "v")],
        "k=v",
        7,
    ],
)
def test_tags_are_a_flat_bounded_map_of_texts(tags: Any) -> None:  # noqa: ANN401 - wrong on purpose
    """Too many, too long, nested, or of another type: refused."""
    with pytest.raises(InvalidInputError):
        Attribution(tags=tags)


@pytest.mark.parametrize("moment", [NAIVE, "2024-05-06T07:08:09Z", 0, None])
def test_a_call_is_dated_with_a_time_zone(moment: Any) -> None:  # noqa: ANN401 - wrong on purpose
    """A naive datetime, a text or a number is refused."""
    with pytest.raises(InvalidInputError, match="occurred_at"):
        OccurredAt(moment)


@pytest.mark.parametrize("given", [*Provenance, "recovered"])
def test_provenance_is_one_of_four_words(given: Any) -> None:  # noqa: ANN401 - the word, too
    """The member or its word is accepted."""
    assert given == UsageReport(provenance=given).provenance
    assert {"reported", "recovered", "estimated", "unknown"} == set(Provenance)


def test_a_report_s_detail_is_a_copy_of_what_json_holds() -> None:
    """Later changes of the caller's mapping do not reach the report."""
    given: dict[str, Any] = {"finish": "stop", "parts": [1, {"a": None}]}
    report = UsageReport(detail=given)
    given["parts"].append(2)
    assert {"finish": "stop", "parts": [1, {"a": None}]} == report.detail


def test_a_report_s_detail_is_encoded_once() -> None:
    """What is done to the detail that a report shows does not reach the entry."""
    report = UsageReport(detail={"parts": [1]})
    assert report.detail is not None
    report.detail["parts"].append(2)
    kept = fit(report).detail
    assert isinstance(kept, JsonObject)
    assert '{"parts":[1]}' == kept.text
    assert kept is fit(replace(report, model="m")).detail


def test_what_remains_is_what_its_class_makes() -> None:
    """It is made without the class, which takes twice as long."""
    made = remainder._remains(1, 2, True, 3, frozenset({"tokens"}))
    assert Remaining(1, 2, True, 3) == made
    assert [1, 2, True, 3, {"tokens"}] == [getattr(made, part.name) for part in fields(made)]


def test_a_granted_lease_is_what_its_class_makes() -> None:
    """It is made without the class, which takes twice as long."""
    values: dict[str, Any] = {
        "reserved": UsageEstimate(total_tokens=2),
        "request_budget": RequestBudget.from_tokens(3),
        "pool": UUID(int=4),
        "ttl": timedelta(seconds=5),
        "proof": b"6",
    }
    made = reserve._granted(1, *values.values())
    assert BudgetLease(id=1, **values) == made
    assert [1, *values.values()] == [getattr(made, part.name) for part in fields(BudgetLease)]
