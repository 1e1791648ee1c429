"""What a caller attaches to a request: for whom it is, when, for how long, and its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, TypeVar, cast

from ledger.core.checks import canonical_json, check_moment, check_text, check_type
from ledger.core.errors import InvalidInputError
from ledger.core.policy import check_ttl

T = TypeVar("T")

TAGS_MAX = 64
TAGS_MAX_CHARS = 40_000


class RequestExtensions:
    """What a caller attaches to a request: a map from type to value, in layers.

    A read looks in the newest layer first. A change is made in the newest layer only.
    """

    __slots__ = ("_layers",)

    def __init__(self, *values: object) -> None:
        self._layers: tuple[dict[type, Any], ...] = ({type(value): value for value in values},)

    def __repr__(self) -> str:
        seen: dict[type, object] = {}
        for layer in reversed(self._layers):
            seen.update(layer)
        return f"RequestExtensions({', '.join(map(repr, seen.values()))})"

    def insert(self, value: T) -> T | None:
        """Put `value` into the newest layer under its type; return the value replaced there."""
        newest = self._layers[0]
        previous = newest.get(type(value))
        newest[type(value)] = value
        return cast("T | None", previous)

    def newest(self) -> Mapping[type, Any]:
        """Return the newest value of each type; a copy, or what must not be changed."""
        newest, *older = self._layers
        for layer in older:
            newest = layer | newest
        return newest

    def get(self, kind: type[T]) -> T | None:
        """Return the newest value of exactly this type, or None."""
        for layer in self._layers:
            if kind in layer:
                return cast("T", layer[kind])
        return None

    def remove(self, kind: type[T]) -> T | None:
        """Remove the value of this type from the newest layer, so that `get` finds an older one."""
        return cast("T | None", self._layers[0].pop(kind, None))

    def contains(self, kind: type) -> bool:
        """Tell whether any layer holds a value of exactly this type."""
        return any(kind in layer for layer in self._layers)

    def extend(self, other: RequestExtensions) -> None:
        """Add a copy of `other` as the newest layers: `get` looks there first, then here."""
        check_type("other", other, RequestExtensions)
        self._layers = (*map(dict, other._layers), *self._layers)

    def push_fallback(self, older: RequestExtensions) -> None:
        """Add a copy of `older` as the oldest layers: `get` looks here first, then there."""
        check_type("older", older, RequestExtensions)
        self._layers += tuple(map(dict, older._layers))

    def is_empty(self) -> bool:
        """Tell whether no layer holds anything."""
        return not any(self._layers)


layers_of: Callable[[RequestExtensions], tuple[Mapping[type, Any], ...]] = attrgetter("_layers")
"""Returns the layers, the newest first."""


def check_tags(tags: object) -> dict[str, str]:
    """Return tags that every store can hold, in order, as a copy.

    Raises:
        InvalidInputError: They are no mapping of at most 64 texts to texts, or too long.
    """
    if not isinstance(tags, Mapping) or len(tags) > TAGS_MAX:
        raise InvalidInputError("tags", f"must be a mapping of at most {TAGS_MAX} str to str")
    if not tags:
        return {}
    checked = {check_text("tag", key): check_text(f"tag {key!r}", tags[key]) for key in tags}
    if len(canonical_json(checked)) > TAGS_MAX_CHARS:
        raise InvalidInputError("tags", f"must have at most {TAGS_MAX_CHARS} characters as JSON")
    return dict(sorted(checked.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Whom and what a call is for; put it into the `RequestExtensions` of a reservation.

    All optional; texts have 1 to 255 characters; at most 64 tags.
    """

    run_id: str | None = None
    parent_run_id: str | None = None
    tenant: str | None = None
    agent: str | None = None
    operation: str | None = None
    provider: str | None = None
    model: str | None = None
    request_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in (*ATTRIBUTION_TEXTS, "request_id"):
            value = getattr(self, name)
            if value is not None:
                check_text(name, value)
        object.__setattr__(self, "tags", check_tags(self.tags))


ATTRIBUTION_TEXTS = tuple(
    part.name for part in fields(Attribution) if part.name not in {"request_id", "tags"}
)


def for_whom(attribution: Attribution | None) -> str:
    """Return whom and what a call is for, as text to add to a line of the log."""
    parts = [] if attribution is None else [(name, getattr(attribution, name)) for name in _ALL]
    said = [f"{name} {value!r}" for name, value in parts if value]
    return f", for {', '.join(said)}" if said else ""


_ALL = tuple(part.name for part in fields(Attribution))


@dataclass(frozen=True, slots=True)
class OccurredAt:
    """When the call really happened, if not now; put it into the `RequestExtensions`."""

    at: datetime

    def __post_init__(self) -> None:
        check_moment("occurred_at", self.at)


@dataclass(frozen=True, slots=True)
class LeaseTtl:
    """How long this lease holds its estimate; put it into the `RequestExtensions`."""

    ttl: timedelta

    def __post_init__(self) -> None:
        check_ttl("lease_ttl", self.ttl)


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The caller's name for one call, 1 to 255 characters: repeating it changes nothing."""

    key: str

    def __post_init__(self) -> None:
        check_text("idempotency_key", self.key)
