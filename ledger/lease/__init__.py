"""Leases of `with` blocks: the call that makes one, the blocks, and what renews their leases."""

from ledger.lease.blocks import LeaseBlock
from ledger.lease.calls import PoolLeases, leasing
from ledger.lease.task_blocks import AsyncLeaseBlock, finished

__all__ = ["AsyncLeaseBlock", "LeaseBlock", "PoolLeases", "finished", "leasing"]
