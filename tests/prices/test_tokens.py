"""How many tokens a text is: by OpenAI's vocabularies, or by characters within a stated error."""

from __future__ import annotations

import json
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import toktok
from hypothesis import given
from hypothesis import strategies as st

from ledger import InvalidInputError
from ledger.prices import count_tokens
from ledger.prices.tokens import EACH_MESSAGE, by_characters, encoding_of
from tests.programs import ROOT

HERE = Path(__file__).parent
TEXTS: dict[str, str] = {
    **json.loads((HERE / "texts.json").read_text(encoding="utf-8")),
    "code": (ROOT / "ledger" / "managers" / "memory.py").read_text(encoding="utf-8"),
    "markdown": (ROOT / "README.md").read_text(encoding="utf-8"),
    "json": '{"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}], "n": 1}' * 9,
    "numbers": (ROOT / "examples" / "azure_code_2023.csv").read_text(encoding="utf-8")[:20_000],
}


@pytest.mark.parametrize("name", TEXTS)
def test_characters_are_within_the_stated_error(name: str) -> None:
    """Never too few by today's vocabulary, at most 2.5 times; by the older one a third too few."""
    text = TEXTS[name]
    estimate = by_characters(text)
    newest, older = (
        estimate / int(toktok.batch_count([text], encoding)[0])
        for encoding in ("o200k_base", "cl100k_base")
    )
    assert 1.0 <= newest <= 2.5
    assert 0.65 <= older <= 1.8


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-4o", "o200k_base"),
        ("gpt-4.1-mini", "o200k_base"),
        ("gpt-5.5", "o200k_base"),
        ("o3", "o200k_base"),
        ("openai/o4-mini", "o200k_base"),
        ("ft:gpt-4o-2024-08-06:acme::x", "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("gpt-3.5-turbo", "cl100k_base"),
        ("text-embedding-3-small", "cl100k_base"),
        ("claude-sonnet-4-5", None),
        ("gemini-2.5-pro", None),
        ("", None),
        (None, None),
    ],
)
def test_which_vocabulary_a_model_has(model: str | None, encoding: str | None) -> None:
    """OpenAI's alone are known; the newest is for what is not older."""
    assert encoding == encoding_of(model)


def test_openais_models_are_counted_exactly() -> None:
    """A sentence is as many tokens as its vocabulary says."""
    assert 4 == count_tokens("how many tokens?", model="gpt-4o", exact=True)
    with pytest.raises(InvalidInputError, match="vocabulary"):
        count_tokens("how many tokens?", model="claude-sonnet-4-5", exact=True)


def test_messages_are_their_texts_and_what_is_around_them() -> None:
    """Roles, names and tools count; each message has some tokens around it."""
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "How many?"}]},
    ]
    texts = ["role", "system", "content", "Be brief.", "role", "user", "content", "type", "text"]
    texts += ["text", "How many?"]
    around = 3 * EACH_MESSAGE
    assert around + sum(map(by_characters, texts)) == count_tokens(messages)
    assert around + int(sum(toktok.batch_count(texts, "o200k_base"))) == count_tokens(
        messages, model="gpt-5"
    )
    with_numbers = {"tools": [{"name": "f", "maximum": 10, "strict": True, "default": None}]}
    assert count_tokens(with_numbers) > count_tokens({"tools": [{"name": "f"}]})


@pytest.mark.parametrize(
    "content",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"inline": b"AAAA"},
        b"AAAA",
        object(),
    ],
)
def test_what_is_no_text_is_not_counted_as_text(content: object) -> None:
    """The text of a picture tells nothing about its tokens."""
    with pytest.raises(InvalidInputError, match="content"):
        count_tokens([{"role": "user", "content": content}])


class Safe(str):
    """Text as of template engines, which is what it says of itself."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return itself."""
        return self


class Tone(str, Enum):  # noqa: UP042 - `str` of a StrEnum is its value
    """A text with a name."""

    KIND = "be kind"


@pytest.mark.parametrize("text", [Safe("be kind"), Tone.KIND])
def test_a_text_of_another_class_is_counted_as_text(text: str) -> None:
    """Whatever its class makes of it."""
    assert by_characters("be kind") == count_tokens(text)


def test_what_holds_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than counted for ever."""
    monkeypatch.setattr("ledger.prices.tokens._PARTS_MAX", 1_000)
    endless: list[Any] = ["a"]
    endless.append(endless)
    with pytest.raises(InvalidInputError, match="holds itself"):
        count_tokens(endless)


def test_texts_are_members_that_are_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a wide list that holds itself is refused before it fills the memory."""
    monkeypatch.setattr("ledger.prices.tokens._PARTS_MAX", 1_000)
    assert 1_000 == count_tokens(["a"] * 1_000)
    with pytest.raises(InvalidInputError, match="holds itself"):
        count_tokens(["a"] * 1_001)


def test_a_text_that_no_vocabulary_takes_is_counted_by_its_characters() -> None:
    """JSON can hold half a character; the others are counted exactly."""
    assert by_characters("no \ud800") + 4 == count_tokens(
        ["no \ud800", "how many tokens?"], model="gpt-4o"
    )


@given(st.text())
def test_any_text_has_a_count(text: str) -> None:
    """Also with surrogates and controls; never more than a token a byte, twice for punctuation."""
    found = by_characters(text)
    assert (found == 0) == (text == "")
    assert found <= 2 * len(text.encode("utf-8", "surrogatepass"))


def test_without_the_extra_characters_are_counted(tmp_path: Path) -> None:
    """`exact` names the extra; without it an estimate comes back."""
    program = """
import sys
sys.modules["toktok"] = None
import ledger
from ledger.prices import count_tokens
print(count_tokens("how many tokens?", model="gpt-4o"))
try:
    count_tokens("how many tokens?", model="gpt-4o", exact=True)
except ledger.MissingExtraError as error:
    print(error.extra)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert ["6", "tokens"] == done.stdout.split()
