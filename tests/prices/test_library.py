"""genai-prices: offline, dated, and never charging what it does not know as something else."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from genai_prices import data_snapshot
from genai_prices.data_snapshot import DataSnapshot

from ledger import MissingExtraError, UnknownPriceError
from ledger.prices import Counts, PriceList

MILLION = Counts(input_tokens=1_000_000)


def usd(library: PriceList, model: str, **more: object) -> str:
    """Return what a million input tokens cost."""
    return str(library.price(MILLION, model=model, **more).cost_usd.normalize())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "provider", "tier"),
    [
        ("gpt-5", "openai", "nonsense"),
        ("gpt-5", "openai", "scale"),
        ("gpt-5", "azure", "flex"),
        ("gpt-5", "azure", "batch"),
        ("gpt-5", "azure", "priority"),
        ("gpt-4.1-mini", "openai", "flex"),
        ("claude-haiku-4-5", "anthropic", "priority"),
        ("gemini-2.5-pro", "google", "flex"),
        ("mistral-large-latest", "mistral", "flex"),
    ],
)
def test_a_tier_that_the_library_would_charge_in_full(
    library: PriceList, model: str, provider: str, tier: str
) -> None:
    """It ignores what it does not know, and every tier of a model that it lends from another."""
    assert usd(library, model, provider=provider) != "0"
    with pytest.raises(UnknownPriceError, match=f"no price of it for service_tier '{tier}'"):
        usd(library, model, provider=provider, service_tier=tier)


@pytest.mark.parametrize(
    ("tier", "expected"),
    [
        (None, "1.25"),
        ("default", "1.25"),
        ("flex", "0.625"),
        ("batch", "0.625"),
        ("priority", "2.5"),
    ],
)
def test_tiers_that_it_knows(library: PriceList, tier: str | None, expected: str) -> None:
    """Batch is understood although the library calls it otherwise."""
    assert expected == usd(library, "gpt-5", provider="openai", service_tier=tier)


def test_two_conditions_at_once_are_not_guessed(library: PriceList) -> None:
    """Fast has a price and batch has one; what both together cost the library does not say."""
    fast = {"speed": "fast"}
    both = {"speed": "fast", "service_tier": "batch"}
    ordinary = library.price(MILLION, model="claude-opus-5")
    assert library.price(MILLION, model="claude-opus-5", conditions=fast).cost_usd > (
        ordinary.cost_usd
    )
    with pytest.raises(UnknownPriceError, match="speed 'fast', service_tier 'batch'"):
        library.price(MILLION, model="claude-opus-5", conditions=both)


@pytest.mark.parametrize(
    ("model", "used"),
    [
        ("gpt-4o-audio-preview", {"input_tokens": 9, "input_audio_tokens": 9}),
        ("gpt-4o-audio-preview", {"output_tokens": 9, "output_audio_tokens": 1}),
        ("gpt-4o", {"input_tokens": 9, "input_audio_tokens": 1}),
        ("gemini-2.5-pro", {"input_tokens": 9, "input_audio_tokens": 1}),
    ],
)
def test_sound_on_models_priced_as_text(
    library: PriceList, model: str, used: dict[str, int]
) -> None:
    """The library would charge it as text, which costs a tenth or less."""
    with pytest.raises(UnknownPriceError, match="audio of"):
        library.price(Counts(**used), model=model)


def test_sound_that_has_a_price(library: PriceList) -> None:
    """32 and 64 USD a million, beside text at 2.5 and 10."""
    used = Counts(
        input_tokens=200, input_audio_tokens=100, output_tokens=30, output_audio_tokens=20
    )
    found = library.price(used, model="gpt-audio")
    assert {"input": 100, "input_audio": 100, "output": 10, "output_audio": 20} == {
        line.kind: line.count for line in found.lines
    }
    assert 250 + 3_200 + 100 + 1_280 == found.cost_micros_usd


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("mistral-ocr-2505", "mistral"),
        ("whisper-large-v3", "groq"),
        ("tts-1", "openai"),
        ("gpt-4o", "github-copilot"),
        ("gemma-3", "google"),
    ],
)
def test_models_whose_tokens_have_no_price(library: PriceList, model: str, provider: str) -> None:
    """The library charges 0 for tokens of models that are priced by pages, hours or not at all."""
    with pytest.raises(UnknownPriceError, match="no price for input"):
        usd(library, model, provider=provider)


@pytest.mark.parametrize(
    "model", ["gpt-4o-foo", "gpt-9", "claude-sonnet-9", "", "azure/", "/", "models/", "ft:"]
)
def test_unknown_models(library: PriceList, model: str) -> None:
    """Near misses are not priced as what they resemble."""
    with pytest.raises((UnknownPriceError, ValueError)):
        usd(library, model)


@pytest.mark.parametrize(
    ("model", "provider", "as_"),
    [
        ("openai/gpt-4o", None, ("gpt-4o", "openai")),
        ("openai/gpt-4o", "openai", ("gpt-4o", "openai")),
        ("OpenAI/GPT-4o", None, ("gpt-4o", "openai")),
        ("azure/gpt-4o", None, ("gpt-4o", "azure")),
        ("azure_ai/gpt-4o", None, ("gpt-4o", "azure")),
        ("models/gemini-2.5-pro", None, ("gemini-2.5-pro", "google")),
        ("ft:gpt-4o-2024-08-06:acme::x", None, ("ft:gpt-4o", "openai")),
        ("openai/gpt-4o", "openrouter", ("openai/gpt-4o", "openrouter")),
        ("claude-haiku-4-5@20251001", None, ("claude-haiku-4-5", "anthropic")),
    ],
)
def test_names_as_programs_write_them(
    library: PriceList, model: str, provider: str | None, as_: tuple[str, str]
) -> None:
    """A provider in front, a version behind, or a fine-tuned name."""
    found = library.rates(model, provider=provider)
    assert as_ == (found.model, found.provider)


def test_bedrock_is_known_by_its_names(library: PriceList) -> None:
    """A region in front is the regional price, a tenth more."""
    name = "anthropic.claude-sonnet-4-5-20250929-v1:0"
    plain, regional = (usd(library, each) for each in (f"global.{name}", f"us.{name}"))
    assert ("3", "3.3") == (plain, regional)


def test_prices_of_their_time(library: PriceList) -> None:
    """o3 cost 10 USD until 2025-06-10; a time with another zone is the same moment."""
    day = datetime(2025, 6, 10, tzinfo=UTC)
    assert "10" == usd(library, "o3", at=day - timedelta(microseconds=1)).replace("1E+1", "10")
    assert "2" == usd(library, "o3", at=day)
    found = library.rates("o3", at=day)
    assert ("2025-06-10", "genai-prices") == (found.since, found.source)
    assert library.rates("o3", at=day - timedelta(days=1)).since is None
    assert library.rates("gpt-4o").since is None


def test_the_version_says_whether_prices_were_updated(
    library: PriceList, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is fetched; where the program let the library update itself, the entry says when."""
    bundled = data_snapshot.get_snapshot()
    updated = DataSnapshot(providers=bundled.providers, from_auto_update=True)
    updated.timestamp = datetime(2026, 11, 28, 9, 30)  # noqa: DTZ001 - as the library sets it
    assert "updated" not in library.rates("gpt-4o").version
    monkeypatch.setattr(data_snapshot, "_custom_snapshot", updated)
    assert library.rates("gpt-4o").version.endswith(", updated 2026-11-28T09:30:00")
    none = DataSnapshot(providers=[], from_auto_update=True)
    monkeypatch.setattr(data_snapshot, "_custom_snapshot", none)
    with pytest.raises(UnknownPriceError):  # what was found in other prices is not remembered
        library.rates("gpt-4o")


def test_without_the_library_a_table_is_enough(tmp_path: Path) -> None:
    """Nothing of it is imported by `ledger` or `ledger.prices`; the error names the extra."""
    program = """
import sys
sys.modules["genai_prices"] = None
import ledger
from ledger.prices import Counts, PriceList
own = {"price": [{"model": "m", "input": "0.5"}]}
used = Counts(input_tokens=3)
assert 2 == PriceList(own, library=False).price(used, model="m").cost_micros_usd
try:
    PriceList()
except ledger.MissingExtraError as error:
    print(error.extra, error)
import ledger.cli, ledger.reports
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert "prices genai-prices is not installed" in done.stdout
    assert issubclass(MissingExtraError, Exception)


def test_importing_ledger_loads_no_prices() -> None:
    """`import ledger` does not cost what the library costs to import."""
    program = (
        "import sys, ledger; print([m for m in sys.modules if 'prices' in m or 'toktok' in m])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "[]" == done.stdout.strip()


@pytest.mark.parametrize("model", ["gemini-2.5-flash-preview-tts", "gemini-2.5-pro-preview-tts"])
def test_speech_of_models_that_make_nothing_else_has_the_price_of_their_output(
    library: PriceList, model: str
) -> None:
    """The library has it under the name of text; it is not charged as nothing."""
    usage = {
        "promptTokenCount": 100,
        "candidatesTokenCount": 1_000,
        "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 1_000}],
        "totalTokenCount": 1_100,
    }
    found = library.recording({"modelVersion": model, "usageMetadata": usage}, provider="google")
    sound = Counts(output_tokens=9, output_audio_tokens=9)
    assert 108 == library.price(sound, model="gpt-4o-mini-tts").cost_micros_usd
    assert found.unpriced is None
    assert found.usage.cost_micros_usd == (10_050 if "flash" in model else 20_100)
