"""One attempt of a call, with a lease of its own from the estimate to its one end.

Client libraries repeat failed requests without telling their callers. Each attempt may be billed,
so each has a lease, which is ended once:

===========================================  =================================================
what came                                    how the lease ends
===========================================  =================================================
no connection                                released
an answer that is an error                   released; if a gateway waited in vain, by policy
nothing, or no answer: time-out, cancel      by the pool's settlement policy
usage, and the protocol's own end            settled at that usage, also if the bytes break off
usage, and no end                            what is known is observed; the rest by policy
no usage                                     by policy
===========================================  =================================================
"""

from __future__ import annotations

import _thread
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

from typing_extensions import override

from ledger.core.checks import JsonObject
from ledger.core.collecting import is_collecting
from ledger.core.errors import (
    LedgerError,
    RequestBudgetExceededError,
    UnknownPriceError,
    UnpricedCallError,
)
from ledger.core.extensions import for_whom
from ledger.core.kept_calls import Keeping, lease_named, shown
from ledger.core.usage_reports import UsageReport
from ledger.core.values import NOTHING_USED, BudgetLease, Usage, UsageEstimate
from ledger.managers.router import BudgetRouter
from ledger.managers.tasks import AsyncBudgetRouter
from ledger.prices import Recording
from ledger.prices.answers import id_of, model_of
from ledger.prices.rates import price
from ledger.transport.answers import EventReader, FrameReader, JsonReader, Reader, SoundReader
from ledger.transport.listening import NOBODY, NOTHING
from ledger.transport.repetition import RepeatedCall
from ledger.transport.requests import Asked
from ledger.transport.settings import Settings, note_call

_log = logging.getLogger(__name__)

_WAITED_IN_VAIN = frozenset({408, 499, 504, 524})
"""The statuses with which a proxy or gateway stopped waiting, while the model may have gone on."""

_FIGURES = tuple(Usage.__dataclass_fields__)


class BlockCall(NamedTuple):
    """A call about a lease, by its name in a lease block.

    Attributes:
        name: `observe`, `record` or `release`.
        usage: The usage that it records, None if it releases the lease.
        report: What is known about the call.
    """

    name: str
    usage: Usage | None = None
    report: UsageReport | None = None

    def of(self, block: Any) -> Any:  # noqa: ANN401 - a block for threads or for tasks
        """Make the call, or return the awaitable of the call."""
        call = getattr(block, self.name)
        return call() if self.usage is None else call(self.usage, report=self.report)


class Attempt:
    """One attempt: what it reserves, what its answer says, and how it ends.

    It does not call the budget itself, so that it serves threads and tasks.
    """

    def __init__(self, settings: Settings, asked: Asked, call: RepeatedCall) -> None:
        self._settings = settings
        self.asked = asked
        self.asks_for_usage = settings.asks_for_usage and asked.leaves_usage_out
        """Whether the usage of the answer is asked for, because the caller did not."""
        self._call = call
        self._number = call.attempts
        self.reader: Reader | None = None
        """The reader of the answer; None before it arrives, and if it is an error."""
        self._status: int | None = None
        self._observed = NOTHING_USED
        self._end = threading.Lock()
        """Taken by the caller that ends the attempt, and never released."""
        self._unpriced: UnknownPriceError | None = None
        try:
            self.estimate = asked.estimate(settings.prices, settings.max_output_tokens)
            """What is to be reserved."""
        except UnknownPriceError as error:
            # The pool decides whether that matters, since it may limit only tokens.
            self._unpriced = error
            given, written = asked.tokens(settings.max_output_tokens)
            self.estimate = UsageEstimate(
                input_tokens=given, output_tokens=written, total_tokens=given + written
            )
        self._attribution = settings.attribution_of(
            operation=asked.protocol.operation,
            provider=asked.provider,
            model=asked.model,
            request_id=f"call-{self.call}",
        )
        self._block: Any = None
        self._listener = NOTHING
        if settings.telemetry is not NOBODY:
            with self._unheard():
                self._listener = settings.telemetry.begin(asked, self._attribution, self.estimate)

    @property
    def call(self) -> str:
        """Its call's number and its own; the request id of its lease is `call-` and this."""
        return f"{self._call.id}.{self._number}"

    def lease(self, budget: Any) -> Any:  # noqa: ANN401 - a budget for threads or for tasks
        """Return the attempt's lease as a block of this budget, to be entered."""
        self._block = budget.lease(
            self.estimate,
            request_budget=self._settings.request_budget,
            attribution=self._attribution,
            extensions=self._settings.extensions,
            wait_s=self._settings.wait_s,
        )
        return self._block

    def reserving(self) -> Reserving:
        """Return a block in which to enter the lease; it tells the listener of a refusal.

        Raises:
            UnknownPriceError: It replaces the pool's refusal of the missing amount, since it says
                more.
        """
        return Reserving(self)

    def reserved(self, error: BaseException | None) -> None:
        """Note that the lease was granted, or tell the listener why it was not, and raise it."""
        if error is None:
            note_call(self._attribution)
            return
        unknown = self._unpriced if isinstance(error, UnpricedCallError) else None
        self.tell(error=unknown or error)
        if unknown is not None:
            raise unknown from error

    def sending(self) -> AbstractContextManager[object]:
        """Return a block that holds the listener's context while the request is sent."""
        return nullcontext() if self._listener is NOTHING else self._heard_sending()

    @contextmanager
    def _heard_sending(self) -> Iterator[None]:
        with ExitStack() as stack:
            with self._unheard():
                stack.enter_context(self._listener.sending())
            yield

    def tell(self, **how: Any) -> None:  # noqa: ANN401 - as the listener takes it
        """Tell the listener how the attempt ended."""
        if self._listener is NOTHING:
            return
        if is_collecting():
            # The thread may be inside telemetry code, whose locks are not reentrant.
            try:
                _thread.start_new_thread(self._tell, (how,))
            except RuntimeError:  # the interpreter is shutting down, and starts no thread
                self._tell(how)
        else:
            self._tell(how)

    def _tell(self, how: dict[str, Any]) -> None:
        with self._unheard():
            self._listener.end(**how)

    @contextmanager
    def _unheard(self) -> Iterator[None]:
        """Log an error of a listener; no call fails and no lease stays open because of it."""
        try:
            yield
        except Exception:  # noqa: BLE001 - whatever a listener raises
            _log.exception("telemetry of call %s failed", self._call.id)

    def answered(self, status: int, headers: Mapping[str, str]) -> bool:
        """Take the head of an answer, and return whether its content is to be read."""
        self._status = status
        if not 200 <= status < 300:  # noqa: PLR2004 - by HTTP
            return False
        content_type = headers.get("content-type", "")
        kind: type[Reader] = EventReader if "event-stream" in content_type else JsonReader
        if "amazon.eventstream" in content_type:
            kind = FrameReader
        elif kind is JsonReader and self.asked.protocol.spoken and "json" not in content_type:
            kind = SoundReader
        self.read_by(kind, headers)
        return True

    def read_by(self, kind: type[Reader], headers: Mapping[str, str]) -> None:
        """Read the answer with a reader of this kind, and the usage in its head."""
        self.reader = kind(
            self.asked.protocol,
            self.asked.answers,
            hides_usage=self.asks_for_usage and not self._settings.shows_usage,
        )
        self.reader.head(headers)

    def early(self) -> BlockCall | None:
        """Return what is recorded before the end: the input usage at the beginning of an answer."""
        assert self.reader is not None  # noqa: S101 - asked while it reads
        self.reader.said.early = False
        recording = self._recording("begun")
        return None if recording is None else self._part("observe", recording)

    def ends(self) -> bool:
        """Return True for the first caller, which ends the attempt."""
        return self._end.acquire(blocking=False)

    def parts(self, how: str) -> list[BlockCall]:
        """Return the calls that end the attempt, before the end by the pool's policy.

        Args:
            how: How the content ended: `complete`, `cut` or `left`.
        """
        if self.reader is None:
            self.tell(status=self._status)
            refused = self._status is not None and self._status not in _WAITED_IN_VAIN
            return [BlockCall("release")] if refused else []
        self.reader.end()
        said = self.reader.said
        if said.final and how == "left":  # many clients stop reading at the protocol's end
            how = "complete"
        self._call.succeeded = said.final and how == "complete"
        recording = self._recording(how)
        self.tell(status=self._status, content=how, recording=recording, final=said.final)
        if recording is None:
            self.name()
            return []
        part = self._part("record" if said.final else "observe", recording)
        nothing_new = not said.final and part.usage == Usage()
        return [] if nothing_new else [part]

    def name(self) -> None:
        """Name the model and the id of the answer, for the end by the pool's policy."""
        assert self.reader is not None  # noqa: S101 - asked after an answer came
        answer = self.reader.said.answer
        report = UsageReport(model=model_of(answer), request_id=id_of(answer))
        if self._observed == Usage() and report != UsageReport():
            self._block.restate(self.estimate, report=report)

    def failing(self, part: BlockCall | None = None) -> Failing:
        """Return a block for a call about the lease, whose error is logged and not raised.

        While the store is unavailable, usage is kept, and is recorded later.

        Args:
            part: The call, if it records usage.
        """
        return Failing(self, part)

    def failed(self, part: BlockCall | None, error: LedgerError) -> None:
        """Log that a call about the lease failed."""
        if isinstance(error, RequestBudgetExceededError):
            return  # it was recorded
        lease, spent = self._block.lease, "no usage"
        if part is not None and part.usage is not None:
            spent = shown(part.usage, None if part.report is None else part.report.request_id)
        _log.error(
            "the usage of call %s (lease %s of pool %r: %s%s) could not be recorded: %s",
            self._call.id,
            lease_named(lease.id, lease.proof),
            self._pool_of(lease),
            spent,
            for_whom(self._attribution),
            error,
        )

    def _pool_of(self, lease: BudgetLease) -> str | None:
        """Return the name of the pool that granted a lease, None in memory."""
        budget = self._settings.budget
        if isinstance(budget, AsyncBudgetRouter):
            budget = budget.sync
        if isinstance(budget, BudgetRouter):
            return budget.pool_of(lease)  # read from memory: this router granted the lease
        name: str | None = getattr(budget, "name", None)
        return name

    def _recording(self, how: str) -> Recording | None:
        """Return the usage in the answer, None if it has none."""
        assert self.reader is not None  # noqa: S101 - asked after an answer came
        answer = self.reader.said.answer
        if answer.get(self.asked.protocol.usage):
            return self.reading(answer, how)
        prices = self._settings.prices
        measured: object = self.asked.spoken_at(prices)
        if "duration" in answer and self.asked.heard_at(prices) is not None:
            measured = {"usage": {"seconds": answer["duration"]}}
        return None if measured is None else self.reading(measured, how)

    def reading(self, answer: object, how: str) -> Recording | None:
        """Return the usage in an answer, None if it cannot be read.

        Args:
            answer: As `ledger.prices.read_answer` takes it, or `Counts`.
            how: How its content ended.
        """
        given: dict[str, Any] = {
            "provider": self.asked.provider,
            "service_tier": self.asked.service_tier,
            "detail": {
                "attempt": JsonObject.written(
                    f'{{"call":"{self._call.id}","content":"{how}","number":{self._number}}}'
                )
            },
        }
        prices = self._settings.prices
        try:
            found = prices.recording(answer, **given)
            if found.unpriced is not None and self.asked.model is not None:
                # A gateway may answer with a name of its own, and a new model with a dated name.
                asked = prices.recording(answer, model=self.asked.model, **given)
                found = found if asked.price is None else asked
        except LedgerError as error:
            _log.warning("the usage of call %s cannot be read: %s", self._call.id, error)
            return None
        # The provider is that of the lease, or else the one by which the call was priced.
        served = None
        if self._attribution.provider is None and found.price is not None:
            served = found.price.rates.provider
        if found.report.provider == (served or self._attribution.provider):
            return found  # as in most calls; making a report takes time
        return replace(found, report=replace(found.report, provider=served))

    def _part(self, name: str, recording: Recording) -> BlockCall:
        before, rest = self._observed, recording.usage
        if before is not NOTHING_USED:
            rest = Usage(**{f: max(0, getattr(rest, f) - getattr(before, f)) for f in _FIGURES})
        if name == "observe":
            self._observed = before.saturating_add(rest)
            self._block.restate(self._at_most(recording), report=recording.report)
        return BlockCall(name, rest, recording.report)

    def _at_most(self, recording: Recording) -> UsageEstimate:
        """Return the most that a call with partial usage used: that, and all output reserved."""
        known, missing = recording.usage, self.estimate.output_tokens
        missing = max(0, missing - known.output_tokens)
        cost = self.estimate.cost_micros_usd
        if recording.price is not None:
            first, *others = recording.price.requests
            written = replace(first, output_tokens=first.output_tokens + missing)
            cost = price(recording.price.rates, [written, *others]).cost_micros_usd
        return UsageEstimate(
            input_tokens=known.input_tokens,
            output_tokens=known.output_tokens + missing,
            total_tokens=known.total_tokens + missing,
            cost_micros_usd=cost,
        )


class Reserving:
    """A block in which a lease is entered; a generator would take four times as long."""

    __slots__ = ("_attempt",)

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _where: object) -> None:
        self._attempt.reserved(error)


class Failing(Keeping):
    """A block for a call about a lease, which is kept if the store cannot do it now."""

    __slots__ = ("_attempt", "_part")

    def __init__(self, attempt: Attempt, part: BlockCall | None) -> None:
        super().__init__()
        self._attempt = attempt
        self._part = part

    @override
    def __exit__(self, *error: object) -> bool | None:
        super().__exit__(*error)
        if not isinstance(failure := error[1], LedgerError):
            return None
        self._attempt.failed(self._part, failure)
        return True
