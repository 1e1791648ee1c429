"""LangChain and LangGraph: each invocation is a run, with its agents, nodes and tools."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID

from typing_extensions import override

from ledger.core.extensions import Attribution
from ledger.errors import MissingExtraError
from ledger.transport.settings import attribute, attribution_now, back_to

try:
    from langchain_core.callbacks import BaseCallbackHandler
except ImportError as error:
    raise MissingExtraError(what="langchain-core", extra="langchain") from error


class _Part(NamedTuple):
    """A part of an invocation: which run it belongs to, and in which tool it is."""

    run_id: str
    parent_run_id: str | None
    tool: str | None


class Attributed(BaseCallbackHandler):
    """A callback handler that says which run, agent and tool a call is for.

    Give it to what is invoked, and a budget to the model:

        model = budgeted(ChatOpenAI(model="gpt-4o"), pool=team)
        graph.invoke(question, config={"callbacks": [Attributed()]})
    """

    run_inline = True  # in the task of the call: what is said elsewhere is not heard there

    def __init__(self) -> None:
        self._parts: dict[UUID, _Part] = {}
        self._before: dict[UUID, Attribution | None] = {}

    @override
    def on_chain_start(
        self,
        serialized: Any,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **more: Any,
    ) -> None:
        self._parts[run_id] = self._part(run_id, parent_run_id)

    @override
    def on_tool_start(
        self,
        serialized: Any,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **more: Any,
    ) -> None:
        name = more.get("name") or (serialized or {}).get("name")
        self._parts[run_id] = self._part(run_id, parent_run_id)._replace(tool=name)

    @override
    def on_chat_model_start(
        self,
        serialized: Any,
        messages: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        part = self._part(run_id, parent_run_id)
        said = metadata or {}
        agent = said.get("lc_agent_name") or said.get("langgraph_node")
        self._before[run_id] = attribution_now()
        attribute(
            Attribution(
                run_id=part.run_id,
                parent_run_id=part.parent_run_id,
                agent=agent,
                tags={} if part.tool is None else {"tool": part.tool},
            )
        )

    @override
    def on_llm_start(self, serialized: Any, prompts: Any, **named: Any) -> None:
        self.on_chat_model_start(serialized, prompts, **named)

    @override
    def on_llm_end(self, response: Any, *, run_id: UUID, **more: Any) -> None:
        if run_id in self._before:
            back_to(self._before.pop(run_id))

    @override
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **more: Any) -> None:
        self.on_llm_end(None, run_id=run_id)

    @override
    def on_chain_end(self, outputs: Any, *, run_id: UUID, **more: Any) -> None:
        self._parts.pop(run_id, None)

    @override
    def on_chain_error(self, error: BaseException, *, run_id: UUID, **more: Any) -> None:
        self._parts.pop(run_id, None)

    @override
    def on_tool_end(self, output: Any, *, run_id: UUID, **more: Any) -> None:
        self._parts.pop(run_id, None)

    @override
    def on_tool_error(self, error: BaseException, *, run_id: UUID, **more: Any) -> None:
        self._parts.pop(run_id, None)

    def _part(self, run_id: UUID, parent_run_id: UUID | None) -> _Part:
        """Return the part that one is in, or the beginning of an invocation."""
        known = None if parent_run_id is None else self._parts.get(parent_run_id)
        if known is not None:
            return known
        outer = attribution_now()
        return _Part(str(run_id), None if outer is None else outer.run_id, None)
