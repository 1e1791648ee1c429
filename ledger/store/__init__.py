"""What is on disk: schema, migrations, connections, rows, queries and the proof of them.

Internal: import from `ledger`.
"""
