"""LangChain and LangGraph: each invocation is a run, with its agents, nodes and tools.

`Budgeted` counts calls of models without a known transport.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID

from typing_extensions import override

from ledger.core.errors import MissingExtraError
from ledger.core.extensions import Attribution
from ledger.integrations.calls import Counted, CountedCall
from ledger.prices import Counts
from ledger.prices.answers import Answer
from ledger.transport.settings import AnyBudget, attribute, attribution_now, back_to

try:
    from langchain_core.callbacks import BaseCallbackHandler
except ImportError as error:
    raise MissingExtraError(what="langchain-core", extra="langchain") from error


class _Part(NamedTuple):
    """A part of an invocation: its run, and the tool that it is in."""

    run_id: str
    parent_run_id: str | None
    tool: str | None


class Attributed(BaseCallbackHandler):
    """A callback handler that says which run, agent and tool a call is for.

    Give it to what is invoked, and a budget to the model:

        model = budgeted(ChatOpenAI(model="gpt-4o"), pool=team)
        graph.invoke(question, config={"callbacks": [Attributed()]})
    """

    run_inline = True  # runs handlers in the task of the call, where their settings must apply

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
        """Return the part that contains this one, or the beginning of an invocation."""
        known = None if parent_run_id is None else self._parts.get(parent_run_id)
        if known is not None:
            return known
        outer = attribution_now()
        return _Part(str(run_id), None if outer is None else outer.run_id, None)


class Budgeted(BaseCallbackHandler):
    """A callback handler that counts calls of models, and stops those that the budget refuses.

    For models without a transport that `budgeted` knows; models with one are not counted twice.

        model.invoke(question, config={"callbacks": [Budgeted(team)]})

    A refused call of `invoke`, `stream` and their counterparts for tasks raises the reason, such as
    `ThresholdExceededError`, before anything is sent. The usage that the model reports is recorded.
    """

    raise_error = True  # otherwise a handler's error is logged, and the call goes on
    run_inline = True  # in the task of the call, as above

    def __init__(self, pool: AnyBudget, **options: Any) -> None:
        """Set the pool that pays.

        Args:
            pool: Whose budget pays, for threads; in tasks it is asked without awaiting.
            options: What else `Counted` takes. The model says its name, its provider, and often
                what it writes at most, itself; `model`, `provider` and `max_output_tokens` hold
                where it does not.
        """
        self._pool = pool
        self._options = options
        self._calls: dict[UUID, CountedCall] = {}

    @override
    def on_chat_model_start(
        self,
        serialized: Any,
        messages: Any,
        *,
        run_id: UUID,
        metadata: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        texts = [[message.content for message in batch] for batch in messages]
        self._begin(run_id, texts, metadata or {})

    @override
    def on_llm_start(
        self,
        serialized: Any,
        prompts: Any,
        *,
        run_id: UUID,
        metadata: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        self._begin(run_id, list(prompts), metadata or {})

    @override
    def on_llm_end(self, response: Any, *, run_id: UUID, **more: Any) -> None:
        call = self._calls.pop(run_id, None)
        if call is None:
            return
        try:
            if (answer := _answer(response)) is not None:
                call.record(answer)
        finally:
            call.__exit__(None, None, None)

    @override
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **more: Any) -> None:
        if (call := self._calls.pop(run_id, None)) is not None:
            call.__exit__(type(error), error, error.__traceback__)

    def _begin(self, run_id: UUID, given: object, said: dict[str, Any]) -> None:
        named = {
            "model": said.get("ls_model_name"),
            "provider": said.get("ls_provider"),
            "max_output_tokens": said.get("ls_max_tokens"),
        }
        options = self._options | {name: one for name, one in named.items() if one is not None}
        call = Counted(self._pool, **options).call(given)
        call.__enter__()
        self._calls[run_id] = call


def _answer(response: Any) -> Answer | None:
    """Return what a model reports of its usage, None if it reports none."""
    requests, total, model = [], 0, None
    for generation in (one for batch in response.generations for one in batch):
        message: Any = getattr(generation, "message", None)
        usage = getattr(message, "usage_metadata", None)
        if not usage:
            continue
        given, made = usage.get("input_token_details", {}), usage.get("output_token_details", {})
        requests.append(
            Counts(
                input_tokens=usage["input_tokens"],
                output_tokens=usage["output_tokens"],
                cache_read_tokens=given.get("cache_read") or 0,
                cache_write_tokens=given.get("cache_creation") or 0,
                reasoning_tokens=made.get("reasoning") or 0,
            )
        )
        total += usage["total_tokens"]
        model = message.response_metadata.get("model_name") or model
    if not requests:
        return None
    return Answer(requests=tuple(requests), total_tokens=total, model=model)
