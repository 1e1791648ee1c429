"""Budgets for the clients that programs use: each attempt of each call is counted from its bytes.

A transport for httpx and httpx2 speaks OpenAI's chat completions and responses, Anthropic's
messages and Gemini's generateContent. It needs no client library. Without a price table of your own
it needs the extra `prices`.
"""

from ledger.transport.clients import budgeted
from ledger.transport.refusals import denial_of
from ledger.transport.settings import agent_run, attributed

__all__ = ["agent_run", "attributed", "budgeted", "denial_of"]
