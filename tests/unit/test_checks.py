"""What is accepted as an amount, a text, a time, and the one form it is stored in."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from ledger import AmountOutOfRangeError, InvalidInputError
from ledger.core.checks import (
    I64_MAX,
    U64_MAX,
    canonical_json,
    check_amount,
    check_text,
    check_type,
    from_micros,
    to_micros,
)


def test_the_domain_is_that_of_the_contract() -> None:
    """Memory holds 0 .. 2^64-1, a store 0 .. 2^63-1."""
    assert (18_446_744_073_709_551_615, 9_223_372_036_854_775_807) == (U64_MAX, I64_MAX)


@pytest.mark.parametrize("value", [0, 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_an_amount_in_the_domain_is_returned(value: int) -> None:
    """Both ends of the domain are inside it."""
    assert value == check_amount("amount", value)


@pytest.mark.parametrize(
    ("value", "ceiling"), [(-1, U64_MAX), (2**64, U64_MAX), (2**63, I64_MAX), (-(2**64), U64_MAX)]
)
def test_an_amount_outside_is_refused_with_its_figures(value: int, ceiling: int) -> None:
    """The error says which amount, what it was and what the most is."""
    with pytest.raises(AmountOutOfRangeError) as refused:
        check_amount("spent", value, ceiling=ceiling)
    error = refused.value
    assert ("spent", value, ceiling) == (error.field, error.value, error.ceiling)


@pytest.mark.parametrize("value", [1.0, True, False, "1", b"1", None, [1], 1j])
def test_an_amount_is_an_int_and_nothing_else(value: object) -> None:
    """Floats, booleans and texts are refused by name, not converted."""
    with pytest.raises(InvalidInputError, match="int, not") as refused:
        check_amount("spent", value)
    assert "spent" == refused.value.field
    assert not isinstance(refused.value, AmountOutOfRangeError)


@pytest.mark.parametrize("value", ["a", "a" * 255, "\U0001f600" * 255, "\ue000", "\ud7ff", "\n"])
def test_a_text_of_1_to_255_characters_is_returned(value: str) -> None:
    """Length is counted in characters, not in bytes, and nothing is normalised."""
    assert value == check_text("name", value)


@pytest.mark.parametrize(
    "value", ["", "a" * 256, "a\0b", "\ud800", "a\udfff", b"a", 1, None, ["a"]]
)
def test_a_text_no_store_can_hold_is_refused(value: object) -> None:
    """Empty, over-long, NUL, lone surrogates and other types are refused."""
    with pytest.raises(InvalidInputError) as refused:
        check_text("name", value)
    assert "name" == refused.value.field


def test_another_length_can_be_asked_for() -> None:
    """A text of exactly that length is taken."""
    assert "abc" == check_text("reason", "abc", max_chars=3)
    with pytest.raises(InvalidInputError, match="1 to 3 characters, has 4"):
        check_text("reason", "abcd", max_chars=3)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"b": 1, "a": [None, True, "x"]}, '{"a":[null,true,"x"],"b":1}'),
        ({"é": "\n\0"}, '{"é":"\\n\\u0000"}'),
        ({}, "{}"),
    ],
)
def test_json_has_one_text(value: object, expected: str) -> None:
    """Keys are sorted, there are no spaces, and text stays as it is."""
    assert expected == canonical_json(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_json_has_no_nan(value: float) -> None:
    """What JSON cannot say is refused."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": value})


@pytest.mark.parametrize(
    ("moment", "micros"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
        (datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC), 1),
        (datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), -1),
        (datetime(2023, 11, 16, 18, 17, 3, 979_960, tzinfo=UTC), 1_700_158_623_979_960),
        (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), 253_402_300_799_999_999),
    ],
)
def test_a_time_is_exact_both_ways(moment: datetime, micros: int) -> None:
    """No microsecond is lost, before 1970 and far in the future either."""
    assert micros == to_micros("at", moment)
    assert moment == from_micros(micros)


def test_a_time_zone_is_converted() -> None:
    """The same instant in another zone is the same number."""
    zone = timezone(timedelta(hours=5, minutes=30))
    assert to_micros("at", datetime(2024, 1, 1, tzinfo=UTC)) == to_micros(
        "at", datetime(2024, 1, 1, 5, 30, tzinfo=zone)
    )


@pytest.mark.parametrize(
    "moment",
    [datetime(2024, 1, 1), date(2024, 1, 1), 0, "2024-01-01T00:00:00Z", None],  # noqa: DTZ001
)
def test_a_time_without_a_zone_is_refused(moment: object) -> None:
    """A naive datetime could be any of a day's hours."""
    with pytest.raises(InvalidInputError, match="time zone"):
        to_micros("at", moment)


def test_a_type_is_checked_by_name() -> None:
    """The error names what was wanted and what came."""
    check_type("options", {}, dict)
    with pytest.raises(InvalidInputError, match="options: must be a dict, not list"):
        check_type("options", [], dict)
