"""One budget manager for a service of many tenants."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from ledger import (
    AsyncBudgetManager,
    AsyncLedger,
    Attribution,
    BudgetLease,
    BudgetManager,
    InvalidInputError,
    Ledger,
    LedgerBudgetManager,
    RequestExtensions,
    SettlementPolicy,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UnknownLeaseError,
    UnknownPoolError,
    Usage,
    UsageEstimate,
)
from ledger.testing.calls import UNLIMITED
from tests.leases import TEN


def by_tenant(extensions: RequestExtensions) -> str:
    """Choose the pool of the tenant that the caller put there."""
    who = extensions.get(Attribution)
    return f"tenant {who.tenant}" if who is not None else "nobody"


def of(tenant: str) -> RequestExtensions:
    """Return what a request of a tenant carries."""
    return RequestExtensions(Attribution(tenant=tenant))


def pools(book: Ledger) -> None:
    """Make the pools of two tenants below one organisation."""
    book.pool("org", SharedPoolBudgetOptions(capacity_tokens=50))
    for tenant in ("a", "b"):
        options = SharedPoolBudgetOptions(capacity_tokens=30, settlement=SettlementPolicy.RELEASE)
        book.pool(f"tenant {tenant}", options, parent="org")


def left(book: Ledger) -> list[int]:
    """Return what remains of each tenant's own pool."""
    return [book.pool(f"tenant {name}").status().remaining.tokens for name in ("a", "b")]


def test_the_pool_is_chosen_by_what_the_request_carries(book: Ledger) -> None:
    """And what follows goes by the lease's own pool, whatever would be chosen by then."""
    pools(book)
    moved = []

    def choose(extensions: RequestExtensions) -> str:
        return moved[-1] if moved else by_tenant(extensions)

    router = book.router(choose)
    assert isinstance(router, BudgetManager)
    leases = [router.reserve(of(tenant), TEN, UNLIMITED) for tenant in ("a", "b", "b")]
    assert [20, 10] == left(book)
    assert (20, 10) == tuple(router.remaining(of(name)).tokens for name in ("a", "b"))
    moved.append("nowhere")
    router.observe(leases[0], Usage(total_tokens=1))
    router.record_used(leases[0], Usage(total_tokens=3))
    router.release(leases[1])
    router.abandon(leases[2])
    assert [26, 30] == left(book)
    moved.clear()
    with pytest.raises(ThresholdExceededError, match="tenant a"):
        router.reserve(of("a"), UsageEstimate(total_tokens=27), UNLIMITED)


def test_what_is_not_there_is_refused(book: Ledger) -> None:
    """A pool that was not made, no name at all, and leases that no pool here has granted."""
    pools(book)
    router = book.router(by_tenant)
    lease = router.reserve(of("a"), TEN, UNLIMITED)
    with pytest.raises(UnknownPoolError, match="tenant c"):
        router.reserve(of("c"), TEN, UNLIMITED)
    with pytest.raises(UnknownPoolError, match="nobody"):
        router.remaining(RequestExtensions())
    for stranger in (replace(lease, pool=uuid4()), replace(lease, pool=None)):
        with pytest.raises(UnknownLeaseError):
            router.record_used(stranger, Usage())
    with pytest.raises(InvalidInputError, match="the chosen pool"):
        book.router(lambda _extensions: "").remaining(of("a"))
    with pytest.raises(InvalidInputError, match="extensions"):
        router.remaining(None)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="lease"):
        router.release(7)  # type: ignore[arg-type]


def test_a_pool_that_is_made_later_is_found(book: Ledger) -> None:
    """What was not there is not remembered."""
    router = book.router(by_tenant)
    with pytest.raises(UnknownPoolError):
        router.remaining(of("a"))
    pools(book)
    assert 30 == router.remaining(of("a")).tokens


def test_a_lease_for_the_length_of_a_block(book: Ledger) -> None:
    """It follows the policy of the chosen pool."""
    pools(book)
    router = book.router(by_tenant)
    with router.lease(TEN, attribution=Attribution(tenant="b")) as lease:
        assert [30, 20] == left(book)
        lease.record(Usage(total_tokens=4))
    with router.lease(TEN, attribution=Attribution(tenant="b")):
        pass
    assert [30, 26] == left(book)


def test_a_router_in_asyncio(store_url: str) -> None:
    """Awaited calls go to the pool that the request names."""

    async def main() -> None:
        async with await AsyncLedger.open(store_url) as book:
            await asyncio.to_thread(pools, book.sync)
            router = book.router(by_tenant)
            assert isinstance(router, AsyncBudgetManager)
            first, second, third = await asyncio.gather(
                *(router.reserve(of(name), TEN, UNLIMITED) for name in ("a", "b", "a"))
            )
            await router.observe(first, Usage(total_tokens=1))
            await router.record_used(first, Usage(total_tokens=3))
            await router.release(second)
            await router.abandon(third)
            assert 26 == (await router.remaining(of("a"))).tokens
            async with router.lease(TEN, attribution=Attribution(tenant="b")) as lease:
                await lease.record(Usage(total_tokens=9))
            assert [26, 21] == left(book.sync)
            with pytest.raises(UnknownLeaseError):
                await router.release(
                    BudgetLease(id=1, reserved=TEN, request_budget=UNLIMITED, pool=uuid4())
                )

    asyncio.run(main())


def test_a_router_in_asyncio_reads_on_another_thread_which_pool_granted_a_lease(
    store_url: str,
) -> None:
    """The event loop runs on while the store is read for a lease that another router granted."""

    async def main() -> None:
        async with AsyncLedger.open(store_url) as book:
            await asyncio.to_thread(pools, book.sync)
            lease = await book.router(by_tenant).reserve(of("b"), TEN, UNLIMITED)
            router = book.router(by_tenant)
            granting, threads = router.sync._granting, set[int]()

            def noted(pool: UUID) -> LedgerBudgetManager | None:
                threads.add(threading.get_ident())
                return granting(pool)

            router.sync._granting = noted
            assert "tenant b" == await router.pool_of(lease)
            assert threads
            assert threading.get_ident() not in threads

    asyncio.run(main())
