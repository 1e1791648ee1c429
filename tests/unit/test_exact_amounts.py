"""Dollars as micro-USD, and usage added up as each provider counts it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import U64_MAX, AmountOutOfRangeError, Counting, InvalidInputError, Usage, usd

COUNTS = st.integers(0, 2**60)


@pytest.mark.parametrize(
    ("amount", "micros"),
    [
        ("12.50", 12_500_000),
        ("0", 0),
        ("0.000001", 1),
        (".5", 500_000),
        ("1.0000000000", 1_000_000),
        (3, 3_000_000),
        (Decimal("0.1"), 100_000),
        (Decimal("1E-6"), 1),
        ("18446744073709.551615", U64_MAX),
    ],
)
def test_dollars_are_exact(amount: str | int | Decimal, micros: int) -> None:
    """No float is in between: the last micro-USD of the range is right."""
    assert micros == usd(amount)
    assert type(usd(amount)) is int


@given(st.integers(0, U64_MAX))
def test_every_amount_comes_back(micros: int) -> None:
    """Written with six places, as reports and exports do."""
    assert micros == usd(f"{micros // 1_000_000}.{micros % 1_000_000:06}")


@pytest.mark.parametrize(
    "amount",
    [
        *(0.1, 12.5, float("nan"), True, None, b"1"),
        *("", ".", "1.", "-1", "+1", "1e3", "1_000", "1,000", "$1", " 1", "1 ", "NaN", "\u0661"),
        *("0.0000001", Decimal("0.0000001"), Decimal("NaN"), Decimal("Infinity")),
        *(Decimal("1E+99999999"), Decimal("1E-99999999"), "9" * 10_000),
    ],
)
def test_what_is_no_exact_amount_is_refused(amount: Any) -> None:  # noqa: ANN401 - anything
    """A seventh place too: a cost is rounded up and a limit down, and only the caller knows."""
    with pytest.raises(InvalidInputError):
        usd(amount)


@pytest.mark.parametrize("amount", [-1, Decimal(-1), "18446744073709.551616", 2**64])
def test_amounts_have_a_range(amount: str | int | Decimal) -> None:
    """A price or a cost that no amount can hold is refused, like any other amount."""
    with pytest.raises(AmountOutOfRangeError):
        usd(amount)


@pytest.mark.parametrize(
    ("counting", "figures", "expected"),
    [
        # An answer of GPT-5: 1,408 of the prompt were cached, 512 of the completion is reasoning.
        (
            Counting.OPENAI,
            {
                "input_tokens": 1_486,
                "output_tokens": 651,
                "cache_read_tokens": 1_408,
                "reasoning_tokens": 512,
            },
            (1_486, 651, 2_137),
        ),
        # Claude: what was cached stands beside the input.
        (
            Counting.ANTHROPIC,
            {
                "input_tokens": 50,
                "output_tokens": 503,
                "cache_creation_tokens": 248,
                "cache_read_tokens": 1_800,
                "reasoning_tokens": 100,
            },
            (2_098, 503, 2_601),
        ),
        # Gemini: thoughts stand beside the candidates, and its own total says so: 758 + 102 + 865.
        (
            Counting.GEMINI,
            {
                "input_tokens": 758,
                "output_tokens": 102,
                "cache_read_tokens": 700,
                "reasoning_tokens": 865,
            },
            (758, 967, 1_725),
        ),
    ],
)
def test_parts_add_up_as_the_provider_counts(
    counting: Counting, figures: dict[str, int], expected: tuple[int, int, int]
) -> None:
    """The total is the provider's own, and the parts are included in input and output."""
    found = Usage.of(counting, **figures, cost_micros_usd=7)
    assert expected == (found.input_tokens, found.output_tokens, found.total_tokens)
    assert 7 == found.cost_micros_usd
    assert found == Usage.of(str(counting), **figures, cost_micros_usd=7)


@given(
    counting=st.sampled_from(Counting),
    figures=st.lists(COUNTS, min_size=5, max_size=5),
)
def test_the_total_is_every_token_once(counting: Counting, figures: list[int]) -> None:
    """Whatever includes what, input and output make the total, and hold their parts.

    OpenAI's and Gemini's cached tokens are a part of the input only if the provider's figures are
    right; what it says is taken.
    """
    names = "input_tokens output_tokens cache_creation_tokens cache_read_tokens reasoning_tokens"
    given_ = dict(zip(names.split(), figures, strict=True))
    found = Usage.of(counting, **given_)
    assert found.total_tokens == found.input_tokens + found.output_tokens
    input_, output, written, read, reasoning = figures
    beside = {
        Counting.OPENAI: 0,
        Counting.ANTHROPIC: written + read,
        Counting.GEMINI: reasoning,
    }
    assert found.total_tokens == input_ + output + beside[counting]
    parts = (found.cache_creation_tokens, found.cache_read_tokens, found.reasoning_tokens)
    assert (written, read, reasoning) == parts


def test_what_does_not_add_up_is_refused() -> None:
    """No such provider, a float, and a sum that is out of range."""
    with pytest.raises(InvalidInputError, match="openai, anthropic, gemini"):
        Usage.of("mistral", input_tokens=1)
    with pytest.raises(InvalidInputError, match="input_tokens"):
        Usage.of(Counting.OPENAI, input_tokens=1.5)  # type: ignore[arg-type]
    with pytest.raises(AmountOutOfRangeError):
        Usage.of(Counting.OPENAI, input_tokens=U64_MAX, output_tokens=1)
