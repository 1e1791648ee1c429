"""What can happen to a call, and how it is made to happen: the rows of the matrix."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tests.transport import wire
from tests.transport.libraries import Library
from tests.transport.shapes import Shape
from tests.transport.wire import End, Reply


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that can happen to a call.

    Attributes:
        replies: What the server answers.
        call: Makes the call; errors of the library are left to the caller.
        refused: Whether nobody listens at the server's address.
        read_s: After how long the client no longer waits for the next part of an answer.
        core: The libraries with which it is tried in every run; with all others by `-m sweep`.
    """

    replies: Callable[[Shape], list[Reply]]
    call: Callable[[Library, wire.Server], Any]
    refused: bool = False
    read_s: float = 30
    core: tuple[str, ...] = ()


def _whole(library: Library, _server: wire.Server) -> None:
    library.whole()


def _streamed(library: Library, _server: wire.Server) -> None:
    for _ in library.stream():
        pass


def _in_asyncio(
    call: Callable[[Library, wire.Server], Coroutine[Any, Any, None]],
) -> Callable[[Library, wire.Server], None]:
    """Return the call of a task as one of a thread; the client is closed behind it."""

    def run(library: Library, server: wire.Server) -> None:
        async def closing() -> None:
            try:
                await call(library, server)
            finally:
                await library.aclose()

        asyncio.run(closing())

    return run


@_in_asyncio
async def _awaited(library: Library, _server: wire.Server) -> None:
    await library.awhole()


@_in_asyncio
async def _astreamed(library: Library, _server: wire.Server) -> None:
    async for _ in await library.astream():
        pass


def _closed(library: Library, _server: wire.Server) -> None:
    """Leave the loop, and close the stream."""
    stream = library.stream()
    for _ in stream:
        break
    stream.close()


def _collected(library: Library, _server: wire.Server) -> None:
    """Leave the loop, and forget the stream."""
    for _ in library.stream():
        break
    gc.collect()


@_in_asyncio
async def _acollected(library: Library, _server: wire.Server) -> None:
    """Leave the loop, and forget the stream while the event loop runs."""
    async for _ in await library.astream():
        break
    gc.collect()
    # The loop closes generators that were thrown away in tasks of its own, one after the other.
    await asyncio.sleep(0)
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)
        await asyncio.sleep(0)


@_in_asyncio
async def _cancelled_before(library: Library, server: wire.Server) -> None:
    """Cancel the task before the answer begins."""
    task = asyncio.ensure_future(library.awhole())
    while not server.requests and not task.done():  # noqa: ASYNC110 - the server is in a thread
        await asyncio.sleep(0.001)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@_in_asyncio
async def _cancelled_within(library: Library, _server: wire.Server) -> None:
    """Cancel the task in the middle of a stream."""
    begun = asyncio.Event()

    async def read() -> None:
        try:
            async for _ in await library.astream():
                begun.set()
        finally:
            begun.set()

    task = asyncio.ensure_future(read())
    await begun.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


OPENAI = ("openai, chat",)
ANTHROPIC = ("anthropic",)
EACH_PROTOCOL = (*OPENAI, "openai, responses", *ANTHROPIC, "google-genai")
OF_EACH = ("whole", "stream", "429, then whole", "stream, cut in the middle")
"""What is tried in every run with libraries that are fetched."""

FAULTS = {
    "whole": Fault(core=("httpx",), replies=lambda shape: [shape.whole], call=_whole),
    "stream": Fault(core=EACH_PROTOCOL, replies=lambda shape: [shape.stream], call=_streamed),
    "whole, asyncio": Fault(replies=lambda shape: [shape.whole], call=_awaited),
    "stream, asyncio": Fault(
        core=EACH_PROTOCOL, replies=lambda shape: [shape.stream], call=_astreamed
    ),
    "whole, gzip": Fault(core=OPENAI, replies=lambda shape: [shape.whole.gzipped()], call=_whole),
    "stream, gzip": Fault(
        core=ANTHROPIC, replies=lambda shape: [shape.stream.gzipped()], call=_streamed
    ),
    "stream, byte by byte": Fault(replies=lambda shape: [shape.stream.dripping()], call=_streamed),
    "429, then whole": Fault(replies=lambda shape: [wire.error(429), shape.whole], call=_whole),
    "500, 500, then whole": Fault(
        core=OPENAI,
        replies=lambda shape: [wire.error(500), wire.error(500), shape.whole],
        call=_whole,
    ),
    "500, then stream": Fault(
        replies=lambda shape: [wire.error(500), shape.stream], call=_streamed
    ),
    "400": Fault(replies=lambda _: [wire.error(400)], call=_whole),
    "402": Fault(replies=lambda _: [wire.error(402)], call=_whole),
    "504 of a gateway": Fault(
        replies=lambda _: [wire.error(504, x_should_retry="false")], call=_whole
    ),
    "no connection": Fault(core=OPENAI, replies=lambda _: [], call=_whole, refused=True),
    "no answer, read time-out": Fault(
        replies=lambda shape: [shape.whole.cut(0, End.HEADLESS)], call=_whole, read_s=0.3
    ),
    "no answer, cancelled": Fault(
        replies=lambda shape: [shape.whole.cut(0, End.HEADLESS)], call=_cancelled_before
    ),
    "whole, no usage": Fault(core=OPENAI, replies=lambda shape: [shape.unsaid], call=_whole),
    "stream, no usage": Fault(replies=lambda shape: [shape.unsaid_stream], call=_streamed),
    "whole, its end unmarked": Fault(
        core=OPENAI, replies=lambda shape: [shape.whole.cut(1, End.UNMARKED)], call=_whole
    ),
    "whole, shorter than announced": Fault(
        replies=lambda shape: [shape.whole.cut(1, End.SHORT)], call=_whole
    ),
    "half of whole": Fault(
        replies=lambda shape: [wire.Reply(parts=(shape.whole.parts[0][:100],), end=End.UNMARKED)],
        call=_whole,
    ),
    "stream, its end unmarked": Fault(
        replies=lambda shape: [shape.stream.cut(len(shape.stream.parts), End.UNMARKED)],
        call=_streamed,
    ),
    "stream, without its protocol's end": Fault(
        replies=lambda shape: [shape.stream.cut(shape.middle, End.CLOSED)],
        call=_streamed,
    ),
    "stream, cut in the middle": Fault(
        core=EACH_PROTOCOL,
        replies=lambda shape: [shape.stream.cut(shape.middle, End.UNMARKED)],
        call=_streamed,
    ),
    "stream, an error in the middle": Fault(replies=lambda shape: [shape.broken], call=_streamed),
    "stream, read time-out": Fault(
        replies=lambda shape: [shape.stream.cut(2, End.NEVER)], call=_streamed, read_s=0.3
    ),
    "stream, left and closed": Fault(
        replies=lambda shape: [shape.stream.cut(2, End.NEVER)], call=_closed
    ),
    "stream, left and thrown away": Fault(
        core=OPENAI, replies=lambda shape: [shape.stream.cut(2, End.NEVER)], call=_collected
    ),
    "stream, thrown away in asyncio": Fault(
        replies=lambda shape: [shape.stream.cut(2, End.NEVER)], call=_acollected
    ),
    "stream, cancelled": Fault(
        core=ANTHROPIC,
        replies=lambda shape: [shape.stream.cut(2, End.NEVER)],
        call=_cancelled_within,
    ),
}
