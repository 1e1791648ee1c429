"""The in-memory manager: one pool behind a lock. Its state is lost when the process ends."""

from ledger.memory.manager import SharedPoolBudgetManager

__all__ = ["SharedPoolBudgetManager"]
