"""The call `lease` of a budget: it makes a block, or finds an open lease by its token."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from ledger.contract import Leasing
from ledger.core.extensions import Attribution, RequestExtensions
from ledger.core.values import RequestBudget, UsageEstimate

P = ParamSpec("P")
Found = TypeVar("Found")
Block = TypeVar("Block")


def leasing(block: Callable[Concatenate[Any, P], Block]) -> Callable[Concatenate[Any, P], Block]:
    """Return the call `lease` that makes blocks of this class."""

    @functools.wraps(Leasing.lease)
    def lease(self: object, /, *args: P.args, **kwargs: P.kwargs) -> Block:
        return block(self, *args, **kwargs)

    return lease


class PoolLeases(ABC, Generic[Found, Block]):
    """The call `lease` of one pool's budget, which also finds an open lease by its token."""

    _block: Callable[..., Block]

    @overload
    def lease(self, lease: str) -> Found: ...

    @overload
    def lease(
        self,
        lease: UsageEstimate,
        *,
        request_budget: RequestBudget | None = None,
        attribution: Attribution | None = None,
        extensions: RequestExtensions | None = None,
        wait_s: float = 0,
    ) -> Block: ...

    def lease(
        self,
        lease: str | UsageEstimate,
        *,
        request_budget: RequestBudget | None = None,
        attribution: Attribution | None = None,
        extensions: RequestExtensions | None = None,
        wait_s: float = 0,
    ) -> Found | Block:
        """Return an open lease by its token, or a new lease for the length of a `with` block.

        In asyncio the open lease is awaited, and the block is an `async with` block. An estimate
        gives a block. The block reserves when it is entered, not before; an object is good for one
        block. It has `observe`, `record`, `restate`, `renew` and `release`. If the block ends
        without a `record` or a `release` (by return, exception, cancellation or the closing of a
        generator), the lease is ended by the pool's settlement policy, as by `abandon`; or
        released, if the exception says that the provider did not do the work.

        Args:
            lease: The token of a lease, granted to this or another process; or an estimate.
            request_budget: The request's own limit; unlimited without it.
            attribution: Whom and what the call is for.
            extensions: What else the request carries; `attribution` wins over one in here.
            wait_s: How long to wait for capacity on entry, in seconds, as for `reserve`.

        Raises:
            InvalidInputError: `lease` is neither a token nor an estimate. A number is no token: a
                store that was restored may have granted it again.
            LostLeaseError: The store has no such lease any more.
            UnknownLeaseError: The lease has ended.
        """
        if not isinstance(lease, UsageEstimate):
            return self._open_lease(lease)
        return self._block(
            lease,
            request_budget=request_budget,
            attribution=attribution,
            extensions=extensions,
            wait_s=wait_s,
        )

    @abstractmethod
    def _open_lease(self, lease: str) -> Found: ...
