"""pydantic-ai: each run of an agent is a run, below that of the agent whose tool started it."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from ledger.core.errors import MissingExtraError
from ledger.core.extensions import Attribution
from ledger.transport.settings import agent_run, attributed

try:
    from pydantic_ai.capabilities import AbstractCapability
except ImportError as error:
    raise MissingExtraError(what="pydantic-ai", extra="pydantic-ai") from error


class Attributed(AbstractCapability[Any]):
    """A capability that says which agent, run and tool a call is for.

    Give one to each agent, and a budget to their models:

        lead = Agent("openai-chat:gpt-4o", name="lead", capabilities=[Attributed()])
        budgeted(lead, pool=team)
    """

    @override
    async def wrap_run(self, ctx: Any, *, handler: Any) -> Any:
        name = None if ctx.agent is None else ctx.agent.name
        with agent_run(name, run_id=ctx.run_id):
            return await handler()

    @override
    async def wrap_tool_execute(
        self, ctx: Any, *, call: Any, tool_def: Any, args: Any, handler: Any
    ) -> Any:
        with attributed(Attribution(tags={"tool": call.tool_name})):
            return await handler(args)
