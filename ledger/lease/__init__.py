"""Leases of `with` blocks: the call that makes one, the blocks, and what renews their leases."""

from ledger.lease.blocks import AsyncLeaseBlock, LeaseBlock, finished
from ledger.lease.calls import PoolLeases, leasing

__all__ = ["AsyncLeaseBlock", "LeaseBlock", "PoolLeases", "finished", "leasing"]
