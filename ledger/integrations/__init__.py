"""What client libraries know and their bytes do not say: runs, agents and tools, one module each.

`ledger.transport.budgeted` counts every attempt below these libraries. The modules here count
nothing, so that nothing is counted twice; they say whom and what each call is for. Only
`ledger.integrations.calls` counts: calls that go by no transport that is known.
"""
