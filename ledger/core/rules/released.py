"""Every version of the rules that was ever released, and which one a pool is decided by.

A pool keeps the version under which its policy was set, until it is adjusted: so what `verify` says
of an old entry is what the rules said when it was written, whatever they say today. To change a
rule, add a version here, and leave those before it as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from ledger.core.entries import Balance, WindowState
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.rules.admission import Denial, admit
from ledger.core.values import RequestBudget, UsageEstimate
from ledger.errors import InvalidInputError, UnknownRulesError


class Admit(Protocol):
    """Decides a reservation; see `rules.admit`."""

    def __call__(
        self,
        policy: SharedPoolBudgetOptions,
        balance: Balance,
        estimate: UsageEstimate,
        request_budget: RequestBudget,
        window: WindowState | None = None,
        *,
        requests: int = 1,
    ) -> Denial | None:
        """Return why it is denied, or None where it is admitted."""


class Released(NamedTuple):
    """A version of the rules.

    Attributes:
        since: The first version of the library that has it.
        admit: How it decides a reservation.
    """

    since: str
    admit: Admit


RELEASED = {1: Released("0.1.0", admit)}
CURRENT = 1
"""The version under which policies are set today."""


def admission(version: int | None = None) -> Admit:
    """Return how a version decides a reservation; None is the current one."""
    return RELEASED[CURRENT if version is None else version].admit


def current() -> int:
    """Return the version under which policies are set today."""
    return CURRENT


def stamp() -> dict[str, Any]:
    """Return what an entry that sets a policy says of the rules that it is set under."""
    return {"version": CURRENT, "since": RELEASED[CURRENT].since}


def version_in(detail: Mapping[str, Any]) -> int:
    """Return the version of the rules that an entry names which sets a policy.

    Raises:
        UnknownRulesError: This version of the library does not have it.
        InvalidInputError: The entry names none.
    """
    stamped = detail.get("rules")
    if not isinstance(stamped, Mapping):
        stamped = {}
    version = stamped.get("version")
    if isinstance(version, bool) or not isinstance(version, int):
        raise InvalidInputError("rules", "must say under which version of them the policy was set")
    if version not in RELEASED:
        raise UnknownRulesError(version=version, since=str(stamped.get("since")), known=CURRENT)
    return version
