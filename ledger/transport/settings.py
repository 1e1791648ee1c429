"""The settings of a budgeted client: the budget that pays, the prices, and what it hides."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, replace
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from typing_extensions import override

from ledger.contract import AsyncBudget, Budget
from ledger.core.checks import check_amount, check_seconds, check_text, check_type
from ledger.core.errors import InvalidInputError
from ledger.core.extensions import Attribution, RequestExtensions
from ledger.core.values import RequestBudget
from ledger.lease import AsyncLeaseBlock, LeaseBlock, leasing
from ledger.managers.memory import SharedPoolBudgetManager
from ledger.managers.pool import LedgerBudgetManager
from ledger.managers.router import BudgetRouter
from ledger.managers.tasks import AsyncBudgetRouter, AsyncLedgerBudgetManager
from ledger.prices import PriceList
from ledger.transport.listening import NOBODY, CallListener

P = ParamSpec("P")
T = TypeVar("T")

TWICE = "has a budget already; `attributed` says what single calls are for"

MAX_OUTPUT_TOKENS = 4_096
"""How many output tokens are reserved for a call without a limit of its own."""


class Acting:
    """The agent that acts in a run, if that changes; for hooks that run in tasks of their own.

    Attributes:
        began: The agent of the run.
        agent: The agent that acts; None if it is the run's.
    """

    agent: str | None = None

    def __init__(self, began: str | None) -> None:
        self.began = began


class _Run:
    """A run of `agent_run`, and the one that it is in."""

    called = False
    """Whether a call of the run was granted, since reports show only such runs."""

    def __init__(self, run_id: str, around: _Run | str | None) -> None:
        self.run_id = run_id
        self.around = around
        self._parents: dict[str | None, str | None] = {}

    def parent(self, client: str | None) -> str | None:
        """Return the run below which reports show this one; it does not change once it is known.

        Args:
            client: The run of the client that calls.
        """
        return self._parents.setdefault(client, self.below(client))

    def below(self, client: str | None) -> str | None:
        """Return the nearest run around this one that has made a call, or else the outermost."""
        outermost, found = self, self.around
        while isinstance(found, _Run) and not found.called:
            outermost, found = found, found.around
        if isinstance(found, _Run):
            return found.run_id
        return found or client or (None if outermost is self else outermost.run_id)


AnyBudget = Budget[LeaseBlock] | AsyncBudget[AsyncLeaseBlock]

_attribution: ContextVar[Attribution | None] = ContextVar("attribution of calls", default=None)
_acting: ContextVar[Acting | None] = ContextVar("who acts in a run", default=None)
_run: ContextVar[_Run | None] = ContextVar("the innermost run of `agent_run`", default=None)
_outermost: ContextVar[str | None] = ContextVar("the run that no other is around", default=None)
"""This run is below that of the client, which only the client knows."""


@contextmanager
def attributed(attribution: Attribution) -> Iterator[None]:
    """Say whom and what the calls inside the block are for.

    It wins over what `budgeted` was given; tags are merged. It applies to the thread or task, and
    to tasks that are made in the block.

    Raises:
        InvalidInputError: It is no `Attribution`.
    """
    check_type("attribution", attribution, Attribution)
    token = _attribution.set(_over(attribution, _attribution.get()))
    try:
        yield
    finally:
        _attribution.reset(token)


@contextmanager
def agent_run(
    agent: str | None = None, *, run_id: str | None = None, tags: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Make the calls inside the block a run of their own, below the run that they are in.

    That is the nearest block around this one that has made a call before the first call in this
    one, or else the run of the client. Runs without a call are in no report, and runs below them
    would not be found. So an agent that starts others shows in reports with what each of them, and
    all of them, cost; a router (`Ledger.router`) that chooses by `Attribution.agent` or
    `Attribution.run_id` lets each pay by a pool of its own.

    Args:
        agent: The agent's name.
        run_id: The run's; a new one without it.
        tags: As in `attributed`.

    Yields:
        The run's id.

    Raises:
        InvalidInputError: A name, or a tag, cannot be used.
    """
    outer = _attribution.get()
    parent = None if outer is None else outer.run_id
    run_id = f"run-{secrets.token_hex(8)}" if run_id is None else run_id
    own = Attribution(run_id=run_id, parent_run_id=parent, agent=agent, tags=tags or {})
    given = _over(own, outer) or own
    token = _attribution.set(replace(given, parent_run_id=parent))
    around = _run.get()
    run = _run.set(_Run(run_id, around if around and around.run_id == parent else parent))
    acting = _acting.set(Acting(given.agent))
    try:
        yield run_id
    finally:
        _acting.reset(acting)
        _run.reset(run)
        _attribution.reset(token)


def attribute(attribution: Attribution | None) -> None:
    """Set, in this thread or task from now on, what calls are for, over the earlier settings.

    For hooks of libraries, which cannot hold a block open; `attribution_now` gives what to go back
    to, and `back_to` does.
    """
    if attribution is not None and attribution.parent_run_id is None:
        _outermost.set(attribution.run_id)
    _attribution.set(_over(attribution, _attribution.get()))


def note_call(attribution: Attribution) -> None:
    """Note that a call was granted, so that its run may have others below it."""
    run = _run.get()
    if run is not None and attribution.run_id == run.run_id:
        run.called = True


def acting_now() -> Acting:
    """Return the agent that acts in the innermost run of `agent_run`."""
    return _acting.get() or Acting(None)


def attribution_now() -> Attribution | None:
    """Return whom and what calls are for in this thread or task."""
    return _attribution.get()


def back_to(before: Attribution | None) -> None:
    """Restore what calls were for before."""
    _attribution.set(before)


def _over(newer: Attribution | None, older: Attribution | None) -> Attribution | None:
    return newer or older if newer is None or older is None else _both(newer, older)


def _both(newer: Attribution, older: Attribution) -> Attribution:
    parts = {name: getattr(newer, name) or getattr(older, name) for name in _TEXTS}
    return Attribution(**parts, tags={**older.tags, **newer.tags})


def _texts_of(attribution: Attribution) -> dict[str, str]:
    """Return what an attribution says, without its tags."""
    return {name: said for name in _TEXTS if (said := getattr(attribution, name)) is not None}


_TEXTS = tuple(part.name for part in fields(Attribution) if part.name != "tags")

_BUDGETS = (LedgerBudgetManager, BudgetRouter, SharedPoolBudgetManager, AsyncBudget)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `budgeted` was given; it says what each means. `caller` is what tells two clients apart.

    Raises:
        InvalidInputError: Something is of another type, or out of range.
        AmountOutOfRangeError: The most output is negative, or above 2^64-1.
    """

    budget: AnyBudget
    prices: PriceList
    attribution: Attribution
    extensions: RequestExtensions
    request_budget: RequestBudget
    wait_s: float
    provider: str | None
    max_output_tokens: int
    asks_for_usage: bool
    shows_usage: bool
    refuses_uncounted: bool
    telemetry: CallListener
    caller: object = field(default_factory=object)
    _said: Mapping[str, str] = field(init=False, repr=False, compare=False)
    """What was said of all calls."""

    def __post_init__(self) -> None:
        if not isinstance(self.budget, _BUDGETS):
            raise InvalidInputError(
                "pool",
                "must be a budget, such as Ledger.open(...).pool('team'), not a "
                f"{type(self.budget).__name__}",
            )
        for name, kind in (
            ("attribution", Attribution),
            ("extensions", RequestExtensions),
            ("request_budget", RequestBudget),
            ("asks_for_usage", bool),
            ("shows_usage", bool),
            ("refuses_uncounted", bool),
            ("prices", PriceList),
            ("telemetry", CallListener),
        ):
            check_type(name, getattr(self, name), kind)
        check_seconds("wait_s", self.wait_s)
        check_amount("max_output_tokens", self.max_output_tokens)
        if self.provider is not None:
            check_text("provider", self.provider)
        object.__setattr__(self, "_said", _texts_of(self.attribution))

    @classmethod
    def of(  # noqa: PLR0913 - each is an option of its own
        cls,
        pool: AnyBudget,
        *,
        run_id: str | None = None,
        attribution: Attribution | None = None,
        extensions: RequestExtensions | None = None,
        request_budget: RequestBudget | None = None,
        wait_s: float = 0,
        prices: PriceList | None = None,
        provider: str | None = None,
        max_output_tokens: int = MAX_OUTPUT_TOKENS,
        asks_for_usage: bool = True,
        shows_usage: bool = False,
        refuses_uncounted: bool = False,
        telemetry: CallListener = NOBODY,
    ) -> Self:
        """Return the settings that were given, with defaults for the others.

        Raises:
            InvalidInputError: An argument cannot be used, or was given twice.
            MissingExtraError: genai-prices is not installed, and no prices were given.
        """
        if attribution is not None and run_id is not None:
            raise InvalidInputError("run_id", "stands in the attribution, too; give one of them")
        if None not in {provider, attribution and attribution.provider}:
            raise InvalidInputError("provider", "stands in the attribution, too; give one of them")
        return cls(
            budget=pool,
            prices=PriceList() if prices is None else prices,
            attribution=Attribution(run_id=run_id) if attribution is None else attribution,
            extensions=RequestExtensions() if extensions is None else extensions,
            request_budget=RequestBudget.unlimited() if request_budget is None else request_budget,
            wait_s=wait_s,
            provider=provider,
            max_output_tokens=max_output_tokens,
            asks_for_usage=asks_for_usage,
            shows_usage=shows_usage,
            refuses_uncounted=refuses_uncounted,
            telemetry=telemetry,
        )

    @property
    def said_provider(self) -> str | None:
        """Who serves the calls, by what was said of them."""
        own = _attribution.get()
        return (own and own.provider) or self.attribution.provider

    def attribution_of(self, **known: str | None) -> Attribution:
        """Return whom and what a call is for; explicit settings win over what is known of it."""
        own, acting = _attribution.get(), _acting.get()
        if own is not None and acting is not None and acting.agent is not None:
            # An agent that was named inside the run, for a part of it, is kept.
            own = replace(own, agent=acting.agent) if own.agent == acting.began else own
        if own is None:
            return Attribution(**{**known, **self._said}, tags=self.attribution.tags)
        said = _both(own, self.attribution)
        parts = {**known, **_texts_of(said)}
        if own.run_id is not None:
            parts["parent_run_id"] = self._parent(own, said.parent_run_id)
        return Attribution(**parts, tags=said.tags)

    def _parent(self, own: Attribution, given: str | None) -> str | None:
        """Return the run that a call's own run is below.

        Args:
            own: What was said of the call in its thread or task.
            given: The run that it is below as far as that is said.
        """
        run, client = _run.get(), self.attribution.run_id
        if run is not None and own.run_id == run.run_id:
            return run.parent(client)
        if run is not None and own.parent_run_id == run.run_id and not run.called:
            return run.below(client) or given  # a hook's, in a run without a call of its own
        return client if own.run_id == _outermost.get() else given


class _InMemory(AsyncBudget[AsyncLeaseBlock]):
    """The in-memory manager for tasks. Its calls do not wait, so they are made in the loop."""

    lease = leasing(AsyncLeaseBlock)

    def __init__(self, budget: SharedPoolBudgetManager) -> None:
        self._budget = budget

    @override
    def _call(
        self, method: Callable[Concatenate[Any, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[T]:
        return self._made(method.__name__, args, kwargs)

    async def _made(self, name: str, args: Any, kwargs: Any) -> Any:  # noqa: ANN401 - any call
        return getattr(self._budget, name)(*args, **kwargs)


def for_threads(budget: AnyBudget) -> Budget[LeaseBlock]:
    """Return the budget for calls of threads.

    Raises:
        InvalidInputError: It is only for asyncio.
    """
    if isinstance(budget, LedgerBudgetManager | BudgetRouter | SharedPoolBudgetManager):
        return budget
    raise InvalidInputError(
        "pool",
        "is for asyncio, and the client is not: give what Ledger.open(...).pool(...) returns",
    )


def for_tasks(budget: AnyBudget) -> AsyncBudget[AsyncLeaseBlock]:
    """Return the budget for calls of tasks."""
    if isinstance(budget, LedgerBudgetManager):
        return AsyncLedgerBudgetManager(budget)
    if isinstance(budget, BudgetRouter):
        return AsyncBudgetRouter(budget)
    if isinstance(budget, SharedPoolBudgetManager):
        return _InMemory(budget)
    assert isinstance(budget, AsyncBudget)  # noqa: S101 - `Settings` lets in nothing else
    return budget
