"""Calls that go by no transport that is known: a decorator and a block, which count each as one.

What such a call sends by a budgeted client is not counted once more.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self, TypeVar

from ledger.contract import RequestExtensions
from ledger.core.checks import check_text
from ledger.core.values import Attribution, RequestBudget
from ledger.errors import InvalidInputError, LedgerError, RequestBudgetExceededError
from ledger.prices import PriceList, Recording, count_tokens
from ledger.transport.clients import MAX_OUTPUT_TOKENS
from ledger.transport.counting import counted_here
from ledger.transport.listening import NOBODY
from ledger.transport.settings import AnyBudget, Settings, for_tasks, for_threads

_log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])


class Counted:
    """Counts calls of a model: the input is reserved at its price, with the most output.

    As a decorator, around a function (of threads or of tasks) whose arguments are the input, and
    which returns the answer with its usage:

        @Counted(team, model="gpt-4o", max_output_tokens=400)
        def ask(question): ...

    As a block, which is told the answer:

        with Counted(team, model="gpt-4o").call(question) as call:
            call.record(client.ask(question))

    A call that the budget refuses raises why, such as `ThresholdExceededError`, and is not made.
    One whose answer has no usage, or that is never recorded, is charged by the pool's settlement
    policy; one that is left by an error which says that it was not billed is released.
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
    ) -> None:
        """Say who pays, and for which model.

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

        Raises:
            InvalidInputError: An argument cannot be used.
            MissingExtraError: genai-prices is not installed, and no prices were given.
        """
        self._model = check_text("model", model)
        self._settings = Settings(
            budget=pool,
            prices=PriceList() if prices is None else prices,
            attribution=Attribution() if attribution is None else attribution,
            extensions=RequestExtensions() if extensions is None else extensions,
            request_budget=RequestBudget.unlimited() if request_budget is None else request_budget,
            wait_s=wait_s,
            provider=provider,
            max_output_tokens=max_output_tokens,
            asks_for_usage=False,
            shows_usage=False,
            telemetry=NOBODY,
        )

    def call(self, *given: object) -> Call:
        """Return a call as a block, `with` or `async with`.

        Args:
            given: What the model reads: texts, or what JSON has.

        Raises:
            UnknownPriceError: There is no price for the model.
        """
        return Call(self._settings, self._model, given)

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


class Call:
    """One call; `Counted.call` makes it."""

    def __init__(self, settings: Settings, model: str, given: object) -> None:
        self._settings = settings
        self._model = model
        self._estimate = settings.prices.estimate(
            model=model,
            provider=settings.provider,
            input_tokens=count_tokens(given, model=model),
            max_output_tokens=settings.max_output_tokens,
        )
        self._block: Any = None
        self._inside = ExitStack()

    def __enter__(self) -> Self:
        self._block = self._lease(for_threads(self._settings.budget))
        self._block.__enter__()
        self._inside.enter_context(counted_here())
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._inside.close()
        finally:
            self._block.__exit__(*error)

    async def __aenter__(self) -> Self:
        self._block = self._lease(for_tasks(self._settings.budget))
        await self._block.__aenter__()
        self._inside.enter_context(counted_here())
        return self

    async def __aexit__(self, *error: object) -> None:
        try:
            self._inside.close()
        finally:
            await self._block.__aexit__(*error)

    def record(self, answer: object) -> None:
        """Record what the answer says that the call used; it raises nothing of what was spent.

        Args:
            answer: As `ledger.prices.read_answer` takes it, or `Counts`.
        """
        found = self._recording(answer)
        if found is not None:
            with self._passed_on():
                self._block.record(found.usage, report=found.report)

    async def arecord(self, answer: object) -> None:
        """Record the same in a task."""
        found = self._recording(answer)
        if found is not None:
            with self._passed_on():
                await self._block.record(found.usage, report=found.report)

    def _lease(self, budget: Any) -> Any:
        settings = self._settings
        extensions = RequestExtensions()
        extensions.push_fallback(settings.extensions)
        return budget.lease(
            self._estimate,
            request_budget=settings.request_budget,
            attribution=settings.attribution_of(
                Attribution(provider=settings.provider, model=self._model)
            ),
            extensions=extensions,
            wait_s=settings.wait_s,
        )

    def _recording(self, answer: object) -> Recording | None:
        prices, provider = self._settings.prices, self._settings.provider
        try:
            found = prices.recording(answer, provider=provider)
            if found.unpriced is not None:  # the answer's own name has no price
                found = prices.recording(answer, model=self._model, provider=provider)
        except LedgerError as error:
            _log.warning("the usage of a call to %s cannot be read: %s", self._model, error)
            return None
        return found

    @contextmanager
    def _passed_on(self) -> Iterator[None]:
        """Log an error of the recording: the answer is there, and paid for."""
        try:
            yield
        except RequestBudgetExceededError:
            pass  # it was recorded
        except LedgerError as error:
            _log.error("the usage of a call to %s could not be recorded: %s", self._model, error)
