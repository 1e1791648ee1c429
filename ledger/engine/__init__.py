"""How a call becomes entries: the group-commit queue, transactions, batches and operations.

Internal: import from `ledger`.
"""
