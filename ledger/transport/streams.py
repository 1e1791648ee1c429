"""The content of an answer while it passes: it is read, and its end ends the attempt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import suppress
from typing import Any

from ledger.lease import AsyncLeaseBlock, LeaseBlock, finished
from ledger.transport.attempts import Attempt, BlockCall

_endings: set[asyncio.Task[None]] = set()
"""The ends of attempts whose streams were dropped, kept here since a loop has only weak references
to tasks."""


class Stream:
    """The content of an answer for threads."""

    def __init__(self, source: Any, attempt: Attempt, block: LeaseBlock) -> None:  # noqa: ANN401 - of the module
        self._source = source
        self._attempt = attempt
        self._block = block

    def __iter__(self) -> Iterator[bytes]:
        reader = self._attempt.reader
        assert reader is not None  # noqa: S101 - the answer is no error
        said = reader.said
        try:
            source = self._source
            for chunk in source.iter_bytes() if hasattr(source, "iter_bytes") else source:
                passed = reader.feed(chunk)
                if said.early:
                    self._make(self._attempt.early())
                if said.final and reader.is_over:
                    self.end("complete")
                if passed:
                    yield passed
        except BaseException as error:
            self.end("left" if isinstance(error, GeneratorExit) else "cut")
            raise
        rest = reader.end()
        self.end("complete")
        if rest:
            yield rest

    def close(self) -> None:
        """Close the answer, and end the attempt unless it has ended."""
        try:
            self._source.close()
        finally:
            self.end("left")

    def end(self, how: str) -> None:
        """End the attempt, once."""
        if not self._attempt.ends():
            return
        for part in self._attempt.parts(how):
            self._make(part)
        with self._attempt.failing():
            self._block.__exit__(None, None, None)

    def _make(self, part: BlockCall | None) -> None:
        if part is not None:
            with self._attempt.failing(part):
                part.of(self._block)


class AsyncStream:
    """The content of an answer for tasks."""

    _ending = False
    """Whether the end has begun."""

    def __init__(self, source: Any, attempt: Attempt, block: AsyncLeaseBlock) -> None:  # noqa: ANN401 - of the module
        self._source = source
        self._attempt = attempt
        self._block = block

    async def __aiter__(self) -> AsyncIterator[bytes]:
        reader = self._attempt.reader
        assert reader is not None  # noqa: S101 - the answer is no error
        said, passing = reader.said, False
        try:
            source = self._source
            async for chunk in source.aiter_bytes() if hasattr(source, "aiter_bytes") else source:
                passed = reader.feed(chunk)
                if said.early:
                    await _in_full(self._make(self._attempt.early()))
                if said.final and reader.is_over:
                    await self.end("complete")
                if passed:
                    passing = True
                    yield passed
                    passing = False
        except GeneratorExit:
            # A caller that closes this generator awaits it. If it is waiting for a chunk instead,
            # it is being torn down from outside, with everything that awaits it.
            if passing and asyncio._get_running_loop() is not None:  # noqa: SLF001 - None is no error here
                await self.end("left")
            else:
                self._leave()
            raise
        except BaseException:
            await self.end("cut")
            raise
        rest = reader.end()
        await self.end("complete")
        if rest:
            yield rest

    async def aclose(self) -> None:
        """Close the answer, and end the attempt unless it has ended."""
        try:
            await self._source.aclose()
        finally:
            await self.end("left")

    async def end(self, how: str) -> None:
        """End the attempt, once, also if the task is cancelled meanwhile."""
        if not self._attempt.ends():
            return
        try:
            await _in_full(self._end(how))
        except asyncio.CancelledError:
            if not self._ending:  # the loop is shut down, and has cancelled all its tasks
                self._abandon()
            raise

    async def _end(self, how: str) -> None:
        self._ending = True
        try:
            for part in self._attempt.parts(how):
                await self._make(part)
        except BaseException as error:
            # The loop is being shut down, or this task was dropped, so the end by policy is queued.
            await self._block.__aexit__(type(error), error, error.__traceback__)
            raise
        with self._attempt.failing():
            await self._block.__aexit__(None, None, None)

    async def _make(self, part: BlockCall | None) -> None:
        if part is not None:
            with self._attempt.failing(part):
                await part.of(self._block)

    def _leave(self) -> None:
        """End the attempt without awaiting it."""
        if not self._attempt.ends():
            return
        loop = asyncio._get_running_loop()  # noqa: SLF001 - None is no error here
        if loop is None:
            self._abandon()
        else:
            task = loop.create_task(self._end("left"))
            _endings.add(task)
            task.add_done_callback(_endings.discard)

    def _abandon(self) -> None:
        """Leave the end by the pool's policy in the queue."""
        self._attempt.tell(content="left")
        self._attempt.name()
        with suppress(StopIteration):
            self._block.__aexit__(GeneratorExit, None, None).send(None)


async def _in_full(call: Coroutine[Any, Any, None]) -> None:
    """Await calls about a lease, which a cancellation does not interrupt."""
    failure, cancelled = await finished(call)
    interruption = failure or cancelled
    if interruption is not None:
        raise interruption
