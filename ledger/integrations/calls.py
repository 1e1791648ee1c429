"""Calls without a known transport: a decorator and a block that count each call as one attempt.

Requests that such a call sends through a budgeted client are not counted again.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Self, TypeVar

from ledger.core.checks import check_text
from ledger.core.errors import InvalidInputError
from ledger.core.extensions import Attribution, RequestExtensions
from ledger.core.values import RequestBudget
from ledger.prices import PriceList, Recording
from ledger.transport.attempts import Attempt, BlockCall
from ledger.transport.counting import counted_here
from ledger.transport.listening import NOBODY, CallListener
from ledger.transport.protocols import ANY
from ledger.transport.repetition import call_of
from ledger.transport.requests import Asked, served_by
from ledger.transport.settings import (
    MAX_OUTPUT_TOKENS,
    AnyBudget,
    Settings,
    for_tasks,
    for_threads,
)

F = TypeVar("F", bound=Callable[..., Any])


class Counted:
    """Counts calls of a model: the input is reserved at its price, with the most output.

    As a decorator, around a function (of threads or of tasks) whose arguments are the input, and
    which returns the answer with its usage:

        @Counted(team, model="gpt-4o", max_output_tokens=400)
        def ask(question): ...

    As a block, to which the answer is given:

        with Counted(team, model="gpt-4o").call(question) as call:
            call.record(client.ask(question))

    A call that the budget refuses raises the reason, such as `ThresholdExceededError`, and is not
    made. A call whose answer has no usage, or that is never recorded, is charged by the pool's
    settlement policy. A call that ends with an error which says that it was not billed is released.
    """

    def __init__(  # noqa: PLR0913 - each is an option of its own, as in `budgeted`
        self,
        pool: AnyBudget,
        *,
        model: str,
        provider: str | None = None,
        max_output_tokens: int = MAX_OUTPUT_TOKENS,
        attribution: Attribution | None = None,
        extensions: RequestExtensions | None = None,
        request_budget: RequestBudget | None = None,
        wait_s: float = 0,
        prices: PriceList | None = None,
        telemetry: CallListener = NOBODY,
    ) -> None:
        """Set the pool that pays, and the model.

        Args:
            pool: Whose budget pays, as in `budgeted`.
            model: The model, as price lists name it.
            provider: Who serves it.
            max_output_tokens: What is reserved for an answer.
            attribution: Whom and what the calls are for.
            extensions: What else each call carries.
            request_budget: The limit of each call; unlimited without it.
            wait_s: How long a call waits for capacity, in seconds.
            prices: What calls cost; `PriceList()` without it, which needs the extra `prices`.
            telemetry: What is told of each call, such as `ledger.telemetry.Telemetry()`.

        Raises:
            InvalidInputError: An argument cannot be used.
            MissingExtraError: genai-prices is not installed, and no prices were given.
        """
        self._model = check_text("model", model)
        self._settings = Settings.of(
            pool,
            attribution=attribution,
            extensions=extensions,
            request_budget=request_budget,
            wait_s=wait_s,
            prices=prices,
            provider=provider,
            max_output_tokens=max_output_tokens,
            telemetry=telemetry,
        )

    def call(self, *given: object) -> CountedCall:
        """Return a call as a block, `with` or `async with`.

        Args:
            given: What the model reads: texts, or what JSON has.
        """
        return CountedCall(self._settings, self._model, given)

    def __call__(self, function: F) -> F:
        """Return a function that counts its calls.

        Raises:
            InvalidInputError: It is a generator, which goes on after the call.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidInputError(
                "function", "is a generator: put what it calls in a block, with counted.call(...)"
            )
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def acounted(*args: Any, **kwargs: Any) -> Any:
                async with self.call(args, kwargs) as call:
                    answer = await function(*args, **kwargs)
                    await call.arecord(answer)
                return answer

            return acounted  # type: ignore[return-value]

        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.call(args, kwargs) as call:
                answer = function(*args, **kwargs)
                call.record(answer)
            return answer

        return counted  # type: ignore[return-value]


class CountedCall:
    """One call, which is one attempt; `Counted.call` makes it."""

    def __init__(self, settings: Settings, model: str, given: object) -> None:
        self._settings = settings
        asked = Asked(protocol=ANY, model=model, provider=settings.provider, body={"input": given})
        provider = served_by(asked, settings.prices, settings.said_provider)
        asked = replace(asked, provider=provider)
        self._attempt = Attempt(settings, asked, call_of(object(), {}))
        self._block: Any = None
        self._recorded: Recording | None = None
        self._inside = ExitStack()

    def __enter__(self) -> Self:
        self._block = self._attempt.lease(for_threads(self._settings.budget))
        with self._attempt.reserving():
            self._block.__enter__()
        self._inside.enter_context(counted_here())
        self._inside.enter_context(self._attempt.sending())
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._leave(error[1])
        finally:
            self._block.__exit__(*error)

    async def __aenter__(self) -> Self:
        self._block = self._attempt.lease(for_tasks(self._settings.budget))
        with self._attempt.reserving():
            await self._block.__aenter__()
        self._inside.enter_context(counted_here())
        self._inside.enter_context(self._attempt.sending())
        return self

    async def __aexit__(self, *error: object) -> None:
        try:
            self._leave(error[1])
        finally:
            await self._block.__aexit__(*error)

    def record(self, answer: object) -> None:
        """Record the usage in the answer; usage above a limit raises nothing.

        Args:
            answer: As `ledger.prices.read_answer` takes it, or `Counts`.
        """
        if (part := self._part(answer)) is not None:
            with self._attempt.failing(part):
                part.of(self._block)

    async def arecord(self, answer: object) -> None:
        """Record the same in a task."""
        if (part := self._part(answer)) is not None:
            with self._attempt.failing(part):
                await part.of(self._block)

    def _part(self, answer: object) -> BlockCall | None:
        found = self._attempt.reading(answer, "complete")
        if found is None:
            return None
        self._recorded = found
        return BlockCall("record", found.usage, found.report)

    def _leave(self, error: object) -> None:
        self._inside.close()
        found = self._recorded
        how: Any = {"content": "complete", "recording": found, "final": True} if found else {}
        self._attempt.tell(error=error, **how)
