"""openai-agents: each run is a run, below that of the agent whose tool started it.

Its hooks are not enough: there is none for errors, and each is called in a task of its own, so that
its settings do not reach the call. So the runs themselves are put in blocks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ledger.core.errors import MissingExtraError
from ledger.transport.settings import Acting, acting_now, agent_run

try:
    from agents import RunHooks
    from agents.run import get_default_agent_runner, set_default_agent_runner
except ImportError as error:
    raise MissingExtraError(what="openai-agents", extra="openai-agents") from error


def attribute_runs() -> None:
    """Make each run of `Runner` from now on a run of its own, with its agents by name.

    A run that a tool starts, such as that of `agent.as_tool()`, is below the run that calls the
    tool. A streamed run whose `stream_events()` is left before its end is cancelled: otherwise it
    would go on, and spend.

        attribute_runs()
        agent = Agent("triage", model=budgeted(model, pool=team))
        await Runner.run(agent, "Hi")
    """
    runner = get_default_agent_runner()
    if not isinstance(runner, _Runner):
        set_default_agent_runner(_Runner(runner))  # type: ignore[arg-type,unused-ignore]


class _Runner:
    """The runner of openai-agents, each of whose runs is in a block."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def run(self, starting_agent: Any, input: Any, **options: Any) -> Any:  # noqa: A002 - by name
        with _running(starting_agent, options) as known:
            return await self._inner.run(starting_agent, input, **known)

    def run_sync(self, starting_agent: Any, input: Any, **options: Any) -> Any:  # noqa: A002
        with _running(starting_agent, options) as known:
            return self._inner.run_sync(starting_agent, input, **known)

    def run_streamed(self, starting_agent: Any, input: Any, **options: Any) -> Any:  # noqa: A002
        with _running(starting_agent, options) as known:  # the task of the run is made inside
            result = self._inner.run_streamed(starting_agent, input, **known)
        events = result.stream_events
        result.stream_events = lambda: _until_left(result, events)
        return result


@contextmanager
def _running(agent: Any, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    with agent_run(agent.name):
        yield {**options, "hooks": _Hooks(options.get("hooks") or RunHooks(), acting_now())}


class _Hooks(RunHooks[Any]):
    """The hooks that a run was given; they also say which agent acts, which handoffs change."""

    def __init__(self, inner: Any, acting: Acting) -> None:
        for name in dir(RunHooks):
            if name.startswith("on_") and name != "on_llm_start":
                setattr(self, name, getattr(inner, name))
        self._started: Callable[..., Any] = inner.on_llm_start
        self._acting = acting

    async def on_llm_start(self, context: Any, agent: Any, *more: Any, **named: Any) -> None:
        self._acting.agent = agent.name
        await self._started(context, agent, *more, **named)


async def _until_left(result: Any, events: Callable[[], Any]) -> AsyncIterator[Any]:
    """Yield the events of a run, and cancel it if they are not read to their end."""
    found, ended = events(), False
    try:
        async for event in found:
            yield event
        ended = True
    finally:
        if not ended:
            result.cancel()
        await found.aclose()
