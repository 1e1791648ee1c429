"""What is known only after the spend never refuses the spend: it is shortened and flagged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import (
    Attribution,
    BudgetManager,
    EntryFlag,
    EntryKind,
    InvalidInputError,
    Ledger,
    Provenance,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    UsageReport,
)
from ledger.core.usage_reports import REPORTED, fit
from ledger.testing.calls import EXTENSIONS, UNLIMITED

Make = Callable[..., BudgetManager]

CIRCLE: dict[str, Any] = {}
CIRCLE["self"] = CIRCLE
LONG = "x" * 256
NAIVE = datetime(2024, 5, 6)  # noqa: DTZ001 - the naive one is the test
TEXTS = ("provider", "model", "request_id", "idempotency_key")


class Unprintable:
    """A value that raises whatever is asked of it."""

    def __str__(self) -> str:
        """Raise."""
        raise RuntimeError("no text")

    __repr__ = __str__


class Endless(Mapping[Any, Any]):
    """A mapping that raises when it is read."""

    def __getitem__(self, key: object) -> object:
        """Raise."""
        raise RuntimeError("no values")

    def __iter__(self) -> Iterator[Any]:
        """Raise."""
        raise RuntimeError("no keys")

    def __len__(self) -> int:
        """Return some number."""
        return 1


AWKWARD: list[tuple[str, Any]] = [
    *((name, value) for name in TEXTS for value in (LONG, "", "a\0b", "\ud800", 7, b"b")),
    *((name, Unprintable()) for name in TEXTS),
    *(("provenance", value) for value in ("guessed", "", 1, [])),
    *(("occurred_at", value) for value in (NAIVE, "2024-05-06", 0, datetime.min)),  # noqa: DTZ901 - likewise
    ("occurred_at", datetime(3000, 1, 1, tzinfo=UTC)),
    *(("tags", value) for value in ("k=v", 7, [("a", "b")], {"": "b"}, {"a": ""}, {1: 2})),
    *(("tags", value) for value in ({LONG: LONG}, {"a": "\0"}, Endless())),
    ("tags", {str(number): "x" for number in range(65)}),
    ("tags", {f"{number}{'k' * 250}": "\x01" * 255 for number in range(64)}),
    *(("detail", value) for value in ({"a": float("nan")}, {"a": {1}}, {"a": b"b"}, {("a",): 1})),
    *(("detail", value) for value in ({"a": "\ud800\0"}, {"a": "x" * 99_999}, [1], 1, CIRCLE)),
    *(("detail", value) for value in ({"a": NAIVE}, {"a": Unprintable()}, Endless())),
]


def digest(text: str) -> str:
    """Return the SHA-256 of a text, which may have lone surrogates."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@pytest.mark.parametrize("record", ["record_used", "observe"])
def test_the_spend_is_recorded_whatever_the_report_says(make: Make, record: str) -> None:
    """Every field, every awkward value, every manager."""
    budget: Any = make(SharedPoolBudgetOptions(capacity_tokens=10_000))
    for count, (name, value) in enumerate(AWKWARD, 1):
        lease = budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=9), UNLIMITED)
        report = UsageReport(**{name: value})
        if name == "idempotency_key" and isinstance(value, str) and value:
            report = UsageReport(idempotency_key=f"{value}{count}{LONG}")
        getattr(budget, record)(lease, Usage(total_tokens=9), report=report)
        assert 10_000 - 9 * count == budget.remaining(EXTENSIONS).tokens, (name, value)


def test_such_entries_say_so_and_verify(shared_book: Ledger, fresh_name: str) -> None:
    """Each has the flag, names the field in its detail, and is whole, in the pool above too."""
    org = f"{fresh_name} org"
    shared_book.pool(org, SharedPoolBudgetOptions())
    budget = shared_book.pool(fresh_name, SharedPoolBudgetOptions(), parent=org)
    call = RequestExtensions(Attribution(run_id="r", model="asked", request_id="ours"))
    lease = budget.reserve(call, UsageEstimate(total_tokens=9), UNLIMITED)
    for name, value in AWKWARD:
        if name == "idempotency_key" and value not in ("", LONG):
            continue
        budget.observe(lease, Usage.zero(), report=UsageReport(**{name: value}))
        newest = list(shared_book.entries(fresh_name))[-1]
        assert EntryFlag.SHORTENED in newest.flags
        assert [name] == newest.detail["shortened"]
    everything = UsageReport(**dict(AWKWARD))
    budget.record_used(lease, Usage(total_tokens=1), report=everything)
    newest = list(shared_book.entries(fresh_name))[-1]
    assert [name for name in REPORTED if name in dict(AWKWARD)] == newest.detail["shortened"]
    for pool in (org, fresh_name):
        assert [None] == [one.damage for one in shared_book.verify(pool)]


def test_what_fits_is_not_flagged(shared_book: Ledger, fresh_name: str) -> None:
    """At the limits, and a text of a class of its own."""

    class Model(StrEnum):
        GPT = "gpt"

    budget = shared_book.pool(fresh_name, SharedPoolBudgetOptions())
    lease = budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=9), UNLIMITED)
    report = UsageReport(
        provider="p" * 255, model=Model.GPT, request_id="\U0001f600" * 255, tags={}, detail={}
    )
    budget.record_used(lease, Usage(total_tokens=1), report=report)
    newest = list(shared_book.entries(fresh_name))[-1]
    assert (EntryFlag.NONE, "\U0001f600" * 255) == (newest.flags, newest.request_id)
    assert newest.attribution is not None
    assert ("p" * 255, "gpt") == (newest.attribution.provider, newest.attribution.model)


def test_a_shortened_text_tells_which_it_was() -> None:
    """It begins like what was given, and ends in its digest: two of them are never mixed up."""
    one, other = "x" * 300 + "a", "x" * 300 + "b"
    first, second = (fit(UsageReport(request_id=text)).request_id for text in (one, other))
    assert first is not None
    assert first != second
    assert 255 == len(first)
    assert first.startswith("x" * 100)
    assert first.endswith(f"...sha256:{digest(one)}")
    assert "a\ufffdb...sha256:" + digest("a\0b") == fit(UsageReport(model="a\0b")).model


def test_a_shortened_key_makes_its_call_happen_once(shared_book: Ledger, fresh_name: str) -> None:
    """The same long key again writes nothing, another one is another call."""
    budget = shared_book.pool(fresh_name, SharedPoolBudgetOptions())
    lease = budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=9), UNLIMITED)
    for key in (LONG + "a", LONG + "a", LONG + "b"):
        report = UsageReport(idempotency_key=key)
        budget.observe(lease, Usage(total_tokens=1), report=report)
    assert 2 == budget.status().balance.committed.tokens


def test_what_counts_as_none_leaves_what_was_captured(shared_book: Ledger, fresh_name: str) -> None:
    """An empty model is not a model, and a report of nothing overrides nothing."""
    budget = shared_book.pool(fresh_name, SharedPoolBudgetOptions())
    call = RequestExtensions(Attribution(model="asked", request_id="ours"))
    lease = budget.reserve(call, UsageEstimate(total_tokens=9), UNLIMITED)
    report = UsageReport(model="", request_id="", occurred_at=NAIVE)
    budget.record_used(lease, Usage(total_tokens=1), report=report)
    newest = list(shared_book.entries(fresh_name))[-1]
    assert newest.attribution is not None
    assert ("asked", "ours", None) == (
        newest.attribution.model,
        newest.request_id,
        newest.occurred_at,
    )
    assert ["model", "request_id", "occurred_at"] == newest.detail["shortened"]


def test_what_is_kept_of_tags_and_details() -> None:
    """As many tags as fit, and the beginning of a detail; both with a digest of the whole."""
    tags = {f"{number:03}": "x" for number in range(70)}
    kept = fit(UsageReport(tags=tags)).tags
    assert kept is not None
    assert (64, "x") == (len(kept), kept["062"])
    whole = json.dumps(tags, sort_keys=True, separators=(",", ":"))
    assert f"7 of 70 left out, all sha256:{digest(whole)}" == kept["(more)"]
    text = json.dumps({"a": "x" * 99_999})
    assert {"begins": text[:1_000], "chars": len(text), "sha256": digest(text)} == (
        fit(UsageReport(detail={"a": "x" * 99_999})).detail
    )


def test_an_unknown_provenance_is_unknown() -> None:
    """It must not pass for reported, as none at all does."""
    assert Provenance.UNKNOWN is fit(UsageReport(provenance="guessed")).provenance  # type: ignore[arg-type]


def test_a_report_of_another_type_is_a_mistake_of_the_program(make: Make) -> None:
    """As a usage of another type: nothing that a provider said. The lease can still be settled."""
    budget: Any = make(SharedPoolBudgetOptions(capacity_tokens=100))
    lease = budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=9), UNLIMITED)
    with pytest.raises(InvalidInputError, match="report"):
        budget.record_used(lease, Usage(total_tokens=9), report={"request_id": "r"})
    budget.record_used(lease, Usage(total_tokens=9))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)
SURROGATES = st.text(st.characters(categories=["Cs", "Cc", "L"]), max_size=600)


@settings(max_examples=100, deadline=None)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(REPORTED, ANYTHING | SURROGATES)))
def test_whatever_is_given_fits(given_: dict[str, Any]) -> None:
    """Every field is in its limits, and what is stored once is stored the same again."""
    fitted = fit(UsageReport(**given_))
    assert set(fitted.shortened) <= set(given_)
    again = fit(UsageReport(**{name: getattr(fitted, name) for name in (*TEXTS, "tags", "detail")}))
    assert () == again.shortened
    assert [getattr(fitted, name) for name in TEXTS] == [getattr(again, name) for name in TEXTS]
    assert (fitted.tags, fitted.detail) == (again.tags, again.detail)


def test_settlements_of_a_kind_are_flagged_in_reports(shared_book: Ledger, fresh_name: str) -> None:
    """The flag is in the entries that everybody reads."""
    budget = shared_book.pool(fresh_name, SharedPoolBudgetOptions())
    lease = budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=9), UNLIMITED)
    budget.record_used(lease, Usage(total_tokens=1), report=UsageReport(request_id=LONG))
    (entry,) = shared_book.entries(fresh_name, kind=EntryKind.SETTLEMENT)
    assert EntryFlag.SHORTENED == entry.flags
