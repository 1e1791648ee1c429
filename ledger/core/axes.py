"""The axes on which a pool counts what it spends: one row each; no other module lists them.

Fields and columns are named by rule: capacity `capacity_tokens`, what is kept back
`stop_threshold_tokens`, the most that is carried over `carry_cap_tokens`. Code that treats all axes
alike iterates over `AXES`. A fourth axis needs a row here, fields in the public values
(`SharedPoolBudgetOptions`, `Window`, `Totals`, `Remaining`) and columns in the schema.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Any, NamedTuple

U64_MAX = 2**64 - 1
"""As a capacity it means unlimited. It is defined here, since errors say what is unlimited."""


class Axis(NamedTuple):
    """One axis.

    Attributes:
        name: The name of its field in `Totals` and `Remaining`.
        amount: The field of an estimate or a usage that counts on it; None if each call counts as
            1.
        unit: The unit of its integers, in messages.
        shown: The unit that people see: in headings of columns, and as the last word of an option.
        scale: How many of `unit` make 1 of `shown`.
        only_if_limited: Whether it is stored, counted down and shown only where it has a limit.
    """

    name: str
    amount: str | None
    unit: str
    shown: str
    scale: int = 1
    only_if_limited: bool = False

    @property
    def heading(self) -> str:
        """The axis's name at the beginning of a heading."""
        return self.shown[0].upper() + self.shown[1:]

    @property
    def capacity(self) -> str:
        """The field of a policy that limits it."""
        return f"capacity_{self.name}"

    @property
    def stop_threshold(self) -> str:
        """The field of a policy that holds its stop threshold."""
        return f"stop_threshold_{self.name}"

    @property
    def carry_cap(self) -> str:
        """The field of a window that caps what is carried over."""
        return f"carry_cap_{self.name}"

    def is_unlimited(self, policy: object) -> bool:
        """Tell whether a policy has no limit on it."""
        return bool(getattr(policy, self.capacity) == U64_MAX)

    def limit(self, policy: object) -> int | None:
        """Return the capacity that a policy gives it, None if it has no limit."""
        return None if self.is_unlimited(policy) else int(getattr(policy, self.capacity))

    def left(self, remaining: object) -> int | None:
        """Return what a `Remaining` says of it, None if it has no limit."""
        unlimited: frozenset[str] = getattr(remaining, "unlimited")  # noqa: B009 - of any type
        return None if self.name in unlimited else int(getattr(remaining, self.name))


TOKENS = Axis("tokens", "total_tokens", "tokens", "tokens")
COST = Axis("cost_micros_usd", "cost_micros_usd", "micro-USD", "USD", scale=1_000_000)
REQUESTS = Axis("requests", None, "requests", "requests", only_if_limited=True)

AXES = (TOKENS, COST, REQUESTS)
NAMES = tuple(axis.name for axis in AXES)
CAPACITIES = tuple(axis.capacity for axis in AXES)
STOP_THRESHOLDS = tuple(axis.stop_threshold for axis in AXES)
CARRY_CAPS = tuple(axis.carry_cap for axis in AXES)
LIMITS = (*CAPACITIES, *CARRY_CAPS)
"""The fields of policies, limits and windows that say U64_MAX where there is no limit."""
MONEY_FIRST = tuple(sorted(AXES, key=lambda axis: -axis.scale))
"""The axes in the order in which they are drawn: cost first."""
AMOUNTS = tuple(axis.amount for axis in AXES if axis.amount is not None)
"""The fields of an estimate, and of a usage, that count against a pool."""


def shown(value: Any, unlimited: Collection[str] | None = None) -> str:  # noqa: ANN401 - a dataclass
    """Return what `repr` says of a dataclass, with fields that have no limit called unlimited.

    Args:
        value: The value.
        unlimited: The fields that have none; by default the capacities and caps that are `U64_MAX`.
    """
    if unlimited is None:
        unlimited = {name for name in LIMITS if getattr(value, name, None) == U64_MAX}
    parts = (
        f"{one.name}={'unlimited' if one.name in unlimited else repr(getattr(value, one.name))}"
        for one in fields(value)
        if one.repr
    )
    return f"{type(value).__name__}({', '.join(parts)})"
