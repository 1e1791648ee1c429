"""A pool without its queue: the queue is compared with it, and long histories are written by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ledger import LedgerBudgetManager
from ledger.engine.operations import Operation, Reserve
from ledger.engine.perform import perform


class Direct(LedgerBudgetManager):
    """A pool without its queue: a call returns its operation, and `done` does many at once.

    It does what the queue does with a batch, and nothing else: the queue is compared with it.
    """

    def __init__(self, budget: LedgerBudgetManager) -> None:
        vars(self).update(vars(budget))

    def done(self, operations: Sequence[Any]) -> Sequence[Any]:
        """Do operations in a transaction of their own, and return their answers."""
        calls = [(self._journal, operation) for operation in operations]
        done = self._writer.transactions.run(
            partial(perform, calls=lambda _locked: calls, now=self._writer.now),
            [self._journal],
            key=operations[0].key,
        )
        pool = self._journal.info
        return [
            operation.answer(row, pool)
            for operation, row in zip(operations, done.outcomes, strict=True)
            if isinstance(row, Mapping)
        ]

    def _reserve(self, operation: Reserve, wait_s: float) -> Any:  # noqa: ANN401, ARG002 - not answered yet
        return operation

    def _do(self, operation: Operation[Any]) -> Any:  # noqa: ANN401 - not answered yet
        return operation
