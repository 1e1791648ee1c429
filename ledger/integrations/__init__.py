"""Runs, agents and tools of client libraries, which requests do not name; one module each.

`ledger.transport.budgeted` counts every attempt of these libraries. The modules here do not count,
so that nothing is counted twice. They say whom and what each call is for. Only
`ledger.integrations.calls` counts calls, those without a known transport.
"""
