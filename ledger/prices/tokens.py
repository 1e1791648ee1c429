"""How many tokens a request's text is, before it is sent; nothing is fetched.

With the extra `tokens` (toktok-rs, 8 MB, imported in 0.01 s) OpenAI's vocabularies count exactly.
Without it, and for other models, characters are counted: docs/prices.md says how far off that is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from ledger.errors import InvalidInputError, MissingExtraError

EACH_MESSAGE = 4
"""Tokens that a provider puts around a message: 3 or 4, and 3 before its answer."""

_ENCODINGS = (
    (
        "o200k_base",
        re.compile(r"(gpt-(4o|4\.1|4\.5|[5-9])|chatgpt-|o[1-9]|gpt-audio|gpt-realtime)"),
    ),
    ("cl100k_base", re.compile(r"(gpt-4|gpt-3\.5|text-embedding-)")),
)
_MAPPINGS, _SEQUENCES = (dict, Mapping), (list, Sequence)
"""The built-in one first: it is known at once, and these stand in every request."""
_BYTES_PER_TOKEN = 3
_WEIGHTY = re.compile(r"[!-@\[-`{-~]")
"""ASCII digits and punctuation: they make more tokens than letters do."""


def count_tokens(content: object, *, model: str | None = None, exact: bool = False) -> int:
    """Return about how many input tokens something is.

    Args:
        content: A text; or messages and tools as they are sent: every text in them is counted, the
            names of roles and properties too.
        model: The model that reads it. OpenAI's are counted by their vocabulary if the extra
            `tokens` is installed.
        exact: Whether to raise rather than to go by characters.

    Raises:
        MissingExtraError: `exact`, and the extra is not installed.
        InvalidInputError: `exact`, and no vocabulary of the model is known here; or the content
            holds a picture or the like, whose tokens its text does not tell.
    """
    texts = list(_texts(content))
    messages = _messages(content)
    around = EACH_MESSAGE * (messages + 1) if messages else 0
    encoding = encoding_of(model)
    if encoding is None and exact:
        raise InvalidInputError("model", f"no vocabulary of {model!r} is known here")
    if encoding is not None:
        try:
            import toktok  # noqa: PLC0415 - an optional extra
        except ImportError as error:
            if exact:
                raise MissingExtraError(what="toktok-rs", extra="tokens") from error
        else:
            return around + sum(_counted(toktok.truncate, text, encoding) for text in texts)
    return around + sum(map(by_characters, texts))


def _counted(truncate: Callable[[str, int, str], tuple[str, int]], text: str, encoding: str) -> int:
    try:
        # It counts the whole text, whatever it leaves of it. `batch_count` takes 13 us for the
        # threads of a call, whose texts take less than 1 us each.
        return int(truncate(text, 0, encoding)[1])
    except UnicodeEncodeError:  # a lone surrogate, which JSON can hold
        return by_characters(text)


def by_characters(text: str) -> int:
    """Return about how many tokens a text is, by its characters alone.

    It is a third of the UTF-8 bytes, digits and punctuation counted twice.
    """
    weight = len(text.encode("utf-8", "surrogatepass")) + len(_WEIGHTY.findall(text))
    return -(-weight // _BYTES_PER_TOKEN)


def encoding_of(model: str | None) -> str | None:
    """Return the name of an OpenAI model's vocabulary, None for any other model."""
    name = "" if model is None else model.lower().rpartition("/")[2].removeprefix("ft:")
    return next((encoding for encoding, names in _ENCODINGS if names.match(name)), None)


def _messages(content: object) -> int:
    if isinstance(content, _MAPPINGS):
        return int("role" in content) + sum(map(_messages, content.values()))
    if isinstance(content, _SEQUENCES) and not isinstance(content, str | bytes):
        return sum(map(_messages, content))
    return 0


def _texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        if content.startswith("data:"):
            raise InvalidInputError(
                "content", "holds a picture or a file: count its tokens yourself, and add them"
            )
        yield content
    elif isinstance(content, _MAPPINGS):
        for name, value in content.items():
            if isinstance(value, bytes) or (name == "data" and "media_type" in content):
                raise InvalidInputError(
                    "content", "holds a picture or a file: count its tokens yourself, and add them"
                )
            yield str(name)
            yield from _texts(value)
    elif isinstance(content, _SEQUENCES) and not isinstance(content, bytes):
        for one in content:
            yield from _texts(one)
    elif isinstance(content, bool | int | float) or content is None:
        yield str(content)
    else:
        raise InvalidInputError(
            "content", f"must be text, or messages of text, not a {type(content).__name__}"
        )
