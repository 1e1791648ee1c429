"""The number of tokens of a request's text, before it is sent; nothing is fetched.

With the extra `tokens` (toktok-rs, 8 MB, imported in 0.01 s) OpenAI's vocabularies count exactly.
Without it, and for other models, characters are counted: docs/prices.md says how far off that is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ledger.core.errors import InvalidInputError, MissingExtraError

EACH_MESSAGE = 4
"""Tokens that a provider adds for a message: 3 or 4, and 3 before its answer."""

_ENCODINGS = (
    (
        "o200k_base",
        re.compile(r"(gpt-(4o|4\.1|4\.5|[5-9])|chatgpt-|o[1-9]|gpt-audio|gpt-realtime)"),
    ),
    ("cl100k_base", re.compile(r"(gpt-4|gpt-3\.5|text-embedding-)")),
)
_BYTES_PER_TOKEN = 3
_WEIGHTY = re.compile(r"[!-@\[-`{-~]")
"""ASCII digits and punctuation: they make more tokens than letters do."""


def count_tokens(content: object, *, model: str | None = None, exact: bool = False) -> int:
    """Return about how many input tokens a content has.

    Args:
        content: A text; or messages and tools as they are sent: every text in them is counted, the
            names of roles and properties too.
        model: The model that reads it. OpenAI's are counted by their vocabulary if the extra
            `tokens` is installed.
        exact: Whether to raise an error instead of counting characters.

    Raises:
        MissingExtraError: `exact`, and the extra is not installed.
        InvalidInputError: `exact`, and no vocabulary of the model is known here; or the content
            holds a picture or the like, whose tokens its text does not tell.
    """
    found = texts_in(content)
    if found.media or found.may_be_files:
        raise InvalidInputError(
            "content", "holds a picture or a file: count its tokens yourself, and add them"
        )
    encoding = encoding_of(model)
    if exact and encoding is None:
        raise InvalidInputError("model", f"no vocabulary of {model!r} is known here")
    if exact and _vocabularies() is None:
        raise MissingExtraError(what="toktok-rs", extra="tokens")
    return found.tokens(model)


class Texts(NamedTuple):
    """What a model reads.

    Attributes:
        names: The names of properties, which are few and the same in most requests.
        texts: All other texts.
        messages: How many messages there are.
        media: How many pictures and files there are, which were left out.
        may_be_files: Whether a text that begins with `data:` may be a file, which it is not in the
            schema of a tool.
    """

    names: list[str]
    texts: list[str]
    messages: int
    media: int
    may_be_files: bool

    def tokens(self, model: str | None) -> int:
        """Return about how many tokens these are, without the media."""
        encoding = encoding_of(model)
        around = EACH_MESSAGE * (self.messages + 1) if self.messages else 0
        names = sum([_of_name(name, encoding) for name in self.names])
        return around + names + sum([_counted(text, encoding) for text in self.texts])


def texts_in(content: object) -> Texts:
    """Return the texts of a request, or of a part of it, in any order.

    Raises:
        InvalidInputError: It has a value that is neither text nor JSON, or an object that contains
            itself.
    """
    names: list[str] = []
    texts: list[str] = []
    rest: list[Any] = [content]
    messages, media, may_be_files = 0, 0, False
    parts = 0
    while rest:
        one = rest.pop()
        kind = type(one)
        if kind is str:
            texts.append(one)
            may_be_files = may_be_files or one.startswith("data:")
            continue
        if kind is not dict and kind is not list:
            rest.append(_as_json(one))
            continue
        parts += len(one)  # first, or a wide object that contains itself fills the memory
        if parts > _PARTS_MAX:
            raise InvalidInputError("content", f"holds itself, or more than {_PARTS_MAX:,} parts")
        if kind is dict:
            named = one.get("type")  # a list in some schemas of tools
            if type(named) is str and named in _MEDIA:
                media += 1
                continue
            messages += "role" in one
            may_be_files = may_be_files or ("media_type" in one and "data" in one)
            if not _MEDIA_NAMES.isdisjoint(one):
                kept = {name: value for name, value in one.items() if not _is_medium(name, value)}
                media += len(one) - len(kept)
                one = kept
            names += map(str, one)
            rest += one.values()
        else:
            rest += one
    return Texts(names, texts, messages, media, may_be_files)


_PARTS_MAX = 10_000_000
"""The most members of objects and lists in a request, since one that contains itself never ends."""
_MEDIA = frozenset(
    [
        *("audio", "input_audio", "document", "file", "input_file"),
        *("image", "image_url", "input_image", "video", "video_url"),
    ]
)
"""Types of parts that are not text. Gemini's parts have no type, but these names."""
_GEMINI_MEDIA = frozenset({"inlineData", "inline_data", "fileData", "file_data"})
_BEDROCK_MEDIA = frozenset({"audio", "document", "image", "video"})
"""Bedrock's names, each with its source."""
_MEDIA_NAMES = _GEMINI_MEDIA | _BEDROCK_MEDIA


def _is_medium(name: str, value: object) -> bool:
    of_bedrock = name in _BEDROCK_MEDIA and isinstance(value, Mapping) and "source" in value
    return of_bedrock or name in _GEMINI_MEDIA


def _as_json(value: object) -> str | dict[str, object] | list[object]:
    """Return the JSON form of a value that is neither text, object nor list."""
    if isinstance(value, str):
        return str.__str__(value)  # the text itself, whatever its class makes of it
    if value is None or isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): one for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return list(value)
    raise InvalidInputError(
        "content", f"must be text, or messages of text, not a {type(value).__name__}"
    )


def _counted(text: str, encoding: str | None) -> int:
    vocabularies = None if encoding is None else _vocabularies()
    if vocabularies is None:
        return by_characters(text)
    try:
        # It counts the whole text. `batch_count` would take 13 us for its threads, while each text
        # takes less than 1 us.
        return int(vocabularies.truncate(text, 0, encoding)[1])
    except UnicodeEncodeError:  # a lone surrogate, which JSON can hold
        return by_characters(text)


_of_name = lru_cache(maxsize=1_000)(_counted)


@lru_cache(maxsize=1)
def _vocabularies() -> Any:  # noqa: ANN401 - a module; None without the extra
    try:
        import toktok  # noqa: PLC0415 - an optional extra
    except ImportError:
        return None
    return toktok


def by_characters(text: str) -> int:
    """Return about how many tokens a text has, by its characters.

    It is a third of the UTF-8 bytes, with digits and punctuation counted twice.
    """
    weight = len(text.encode("utf-8", "surrogatepass")) + len(_WEIGHTY.findall(text))
    return -(-weight // _BYTES_PER_TOKEN)


@lru_cache(maxsize=1_000)
def encoding_of(model: str | None) -> str | None:
    """Return the name of an OpenAI model's vocabulary, None for any other model."""
    name = "" if model is None else model.lower().rpartition("/")[2].removeprefix("ft:")
    return next((encoding for encoding, names in _ENCODINGS if names.match(name)), None)
