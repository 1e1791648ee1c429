"""Usage reports: what is known only after a call, shortened until a store can hold it.

The money is spent by then, so no value in a report may prevent that the spend is recorded. A value
that does not fit is shortened, and the entry names the fields.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from itertools import islice
from typing import Any, NamedTuple

from ledger.core.checks import (
    AHEAD_MAX_US,
    DETAIL_MAX_CHARS,
    NAME_MAX_CHARS,
    JsonObject,
    Micros,
    canonical_json,
    check_moment,
    check_text,
)
from ledger.core.errors import InvalidInputError
from ledger.core.extensions import TAGS_MAX, TAGS_MAX_CHARS, check_tags
from ledger.core.values import Provenance

DETAIL_SHOWN_CHARS = 1_000
"""How many characters are kept of a detail that does not fit. In JSON a character may take up
six."""

_REST = "(more)"
"""The tag that replaces the tags that do not fit."""
_UNSTORABLE = {0: "\N{REPLACEMENT CHARACTER}"} | dict.fromkeys(
    range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}"
)
"""NUL and lone surrogates, which no store can hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    """What is known only after the call; a given field overrides the lease's attribution.

    Nothing is refused: the call is charged, whatever its report says. A text of more than 255
    characters, or with NUL or a lone surrogate, is shortened and ends in the SHA-256 of what was
    given; an empty one counts as none. A time or a detail that cannot be stored counts as none,
    too, and so does a time that is more than a day ahead of the store's clock. The entry is then
    flagged `shortened`, and its detail names the fields.

    Attributes:
        provider: Who served the call.
        model: The model that really answered.
        request_id: The provider's id of the call.
        provenance: Where the figures came from; taken as reported.
        occurred_at: When the call ended, with a time zone.
        idempotency_key: The caller's name for this recording: repeating it changes nothing.
        tags: They replace the tags of the lease's attribution.
        detail: Anything JSON can hold, kept with the entry.
    """

    provider: str | None = None
    model: str | None = None
    request_id: str | None = None
    provenance: Provenance | None = None
    occurred_at: datetime | None = None
    idempotency_key: str | None = None
    tags: Mapping[str, str] | None = field(default=None, hash=False)
    detail: Mapping[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        # Copies are kept, since the caller may change the mappings later.
        for name, check in (
            ("provenance", Provenance),
            ("tags", check_tags),
            ("detail", _check_detail),
        ):
            given = getattr(self, name)
            if given is not None and given.__class__ not in {check, JsonObject}:
                with suppress(Exception):
                    object.__setattr__(self, name, check(given))


class Fitted(NamedTuple):
    """A report as it is stored, with every field fitting.

    Attributes:
        shortened: The names of the fields that are not as they were given, in order.
    """

    provider: str | None = None
    model: str | None = None
    request_id: str | None = None
    provenance: Provenance | None = None
    occurred_at: Micros | None = None
    idempotency_key: str | None = None
    tags: dict[str, str] | None = None
    detail: JsonObject | None = None
    shortened: tuple[str, ...] = ()

    def by(self, now: Micros) -> Fitted:
        """Return it as it is stored now: without a time that is more than a day ahead."""
        if self.occurred_at is None or self.occurred_at - now <= AHEAD_MAX_US:
            return self
        shortened = (*self.shortened, "occurred_at")
        return self._replace(occurred_at=None, shortened=shortened)


REPORTED = Fitted._fields[:-1]
"""The fields of a report."""


def fit(report: UsageReport) -> Fitted:
    """Return what is stored of a report; the caller's tags and detail are not kept."""
    values: dict[str, Any] = {}
    shortened = []
    for name, check, shorten in _FIELDS:
        given = getattr(report, name)
        if given is None:
            continue
        try:
            values[name] = check(given)
        except Exception:  # noqa: BLE001 - the call is charged, whatever a bad value raises
            shortened.append(name)
            try:
                values[name] = shorten(given)
            except Exception:  # noqa: BLE001 - likewise
                values[name] = None
    return Fitted(**values, shortened=tuple(shortened))


def _shorten_text(given: object) -> str | None:
    text = given if isinstance(given, str) else str(given)
    if not text:
        return None
    try:
        return check_text("text", text)
    except InvalidInputError:
        ending = f"...sha256:{_digest(text)}"
        return _storable(text)[: NAME_MAX_CHARS - len(ending)] + ending


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _storable(text: str) -> str:
    return text.translate(_UNSTORABLE)


def _shorten_tags(given: Mapping[object, object]) -> dict[str, str]:
    fitted: dict[str, str] = {}
    for key, value in given.items():
        name, text = _shorten_text(key), _shorten_text(value)
        if name is not None and text is not None:
            fitted[name] = text
    whole = dict(sorted(fitted.items()))
    kept = dict(islice(whole.items(), TAGS_MAX))
    while len(kept) < len(whole) or len(canonical_json(kept)) > TAGS_MAX_CHARS:
        kept.pop(_REST, None)
        kept.popitem()
        digest = _digest(canonical_json(whole))
        kept[_REST] = f"{len(whole) - len(kept)} of {len(whole)} left out, all sha256:{digest}"
        if len(canonical_json(kept)) <= TAGS_MAX_CHARS:
            break
    return check_tags(kept)


def _check_detail(detail: object) -> JsonObject:
    if isinstance(detail, JsonObject):  # a report's, which was checked when that was made
        return detail
    if not isinstance(detail, Mapping):
        raise InvalidInputError("detail", "must be a mapping that JSON can hold")
    kept = JsonObject(detail)
    _check_written(kept.text)
    return kept


def _check_written(text: str) -> None:
    check_text("detail", text, max_chars=DETAIL_MAX_CHARS // 8)
    if "\\u0000" in text:
        raise InvalidInputError("detail", "must not hold NUL")


def written_detail(text: str) -> Mapping[str, Any]:
    """Return a report's detail by its canonical text: as a mapping that fits, or is shortened."""
    made = JsonObject.written(text)
    try:
        _check_written(text)
    except InvalidInputError:
        return made.content
    return made


def _shorten_detail(given: object) -> JsonObject:
    try:
        text = json.dumps(given, default=str, ensure_ascii=False, skipkeys=True)
    except (TypeError, ValueError, RecursionError):
        text = repr(given)
    # JSON spells NUL in six characters, which no database takes for a part of its own JSON.
    begins = _storable(text[:DETAIL_SHOWN_CHARS]).replace("\\u0000", _UNSTORABLE[0])
    return JsonObject({"begins": begins, "chars": len(text), "sha256": _digest(text)})


_Fit = Callable[[Any], Any]


def _text(name: str) -> tuple[str, _Fit, _Fit]:
    return name, lambda given: check_text(name, given), _shorten_text


_FIELDS: tuple[tuple[str, _Fit, _Fit], ...] = (
    _text("provider"),
    _text("model"),
    _text("request_id"),
    ("provenance", Provenance, lambda _given: Provenance.UNKNOWN),
    ("occurred_at", lambda given: check_moment("occurred_at", given), lambda _given: None),
    _text("idempotency_key"),
    ("tags", check_tags, _shorten_tags),
    ("detail", _check_detail, _shorten_detail),
)
"""The fields of a report: the check that returns a value as it is or raises, and the function that
makes a value fit."""
