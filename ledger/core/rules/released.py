"""The released versions of the rules, and which of them decides in a pool.

A pool keeps the version under which its policy was set, until it is adjusted. So `verify` checks an
old entry by the rules of its time, not by today's. To change a rule, add a version here, and do not
change earlier versions. (Until the library's first release the newest version may still change.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from ledger.core.checks import Micros
from ledger.core.entries import Balance, EntryFlag, LeaseState, WindowState
from ledger.core.errors import InvalidInputError, UnknownRulesError
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.rules.admission import Denial, admit
from ledger.core.rules.credits import Credits
from ledger.core.rules.leases import has_ended
from ledger.core.rules.limits import Limits
from ledger.core.values import RequestBudget, Usage, UsageDifference, UsageEstimate


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
        limits: Limits | None = None,
        credits: Credits | None = None,
    ) -> Denial | None:
        """Return why it is denied, or None if it is admitted."""


class Released(NamedTuple):
    """A version of the rules.

    Attributes:
        since: The first version of the library that has it.
        admit: How it decides a reservation.
        dates_expiries: Whether limits and credits count the charge of an expiry, and usage that
            comes after the hold ended, at the end of the hold; otherwise when it is recorded.
    """

    since: str
    admit: Admit
    dates_expiries: bool = True


RELEASED = {
    1: Released("0.1.0", admit, dates_expiries=False),
    2: Released("0.1.0", admit),
}
CURRENT = 2
"""The version under which policies are set today."""


def dates_expiries(version: int) -> bool:
    """Tell whether a version counts an expired lease at the end of its hold."""
    return RELEASED[version].dates_expiries


def dating_flag(
    version: int, lease: LeaseState | None, usage: Usage | UsageDifference | None, at: Micros
) -> EntryFlag:
    """Return the flag of an entry that counts when the hold of its lease ended.

    Such entries are the expiry and usage that comes after the hold ended, whether or not the expiry
    was written before it. A correction counts when the corrected entry counts, and a mirror when
    its original counts.

    Args:
        version: The version of the rules in the pool that granted the lease.
        lease: The lease after the entry, None if it is about none.
        usage: Its usage, None if it records none.
        at: When it is recorded.
    """
    late = usage is not None and lease is not None and has_ended(lease, at)
    return EntryFlag.AT_EXPIRY if late and dates_expiries(version) else EntryFlag.NONE


def current() -> int:
    """Return the version under which policies are set today."""
    return CURRENT


def stamp() -> dict[str, Any]:
    """Return the rules' version as the detail of an entry that sets a policy records it."""
    return {"version": CURRENT, "since": RELEASED[CURRENT].since}


def version_in(detail: Mapping[str, Any]) -> int:
    """Return the version of the rules in the detail of an entry that sets a policy.

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
