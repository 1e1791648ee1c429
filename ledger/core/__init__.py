"""Pure integers: values, policies, entries, hashes and the rules that decide them.

Nothing here imports a database, reads a clock or does I/O. Internal: import from `ledger`.
"""
