"""The section on clients: what `budgeted` adds to a call, and to a stream that passes it.

The client is openai's. Its answers come from this process, so that no network is measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.bench import Bench, fresh_pool
from benchmarks.measure import Workload, repeated, timed
from benchmarks.work import ESTIMATE, USED
from ledger import Attribution, LedgerBudgetManager
from ledger.prices import PriceList, count_tokens
from ledger.transport import budgeted

if TYPE_CHECKING:
    import openai

MODEL = "gpt-4o"
MESSAGES: Any = [{"role": "user", "content": "Is it worth it?"}]
CHUNKS = 200
"""How many parts a stream has."""

_USAGE = {"prompt_tokens": 1_000, "completion_tokens": 120, "total_tokens": 1_120}
_HEAD = {"id": "chatcmpl-1", "created": 1, "model": MODEL}
_MESSAGE = {"role": "assistant", "content": "It depends. " * 40}
_WHOLE = {
    **_HEAD,
    "object": "chat.completion",
    "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}],
    "usage": _USAGE,
}


def _events() -> Iterator[bytes]:
    chunk = {**_HEAD, "object": "chat.completion.chunk"}
    for number in range(CHUNKS):
        word = {"index": 0, "delta": {"content": f"word {number} "}, "finish_reason": None}
        yield _event({**chunk, "choices": [word]})
    yield _event({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    yield _event({**chunk, "choices": [], "usage": _USAGE})
    yield b"data: [DONE]\n\n"


def _event(content: object) -> bytes:
    return b"data: %s\n\n" % json.dumps(content).encode()


_WHOLE_CONTENT = (json.dumps(_WHOLE).encode(),)
_STREAM_CONTENT = tuple(_events())


def _client() -> openai.OpenAI:
    """Return a client whose requests are answered at once, as a provider would."""
    import httpx2  # noqa: PLC0415 - a second to import, for this section alone
    import openai  # noqa: PLC0415 - likewise

    def answer(request: httpx2.Request) -> httpx2.Response:
        streams = json.loads(request.content).get("stream")
        return httpx2.Response(
            200,
            headers={"content-type": "text/event-stream" if streams else "application/json"},
            content=iter(_STREAM_CONTENT if streams else _WHOLE_CONTENT),
        )

    return openai.OpenAI(
        api_key="none", http_client=httpx2.Client(transport=httpx2.MockTransport(answer))
    )


def workloads(bench: Bench) -> list[Workload]:
    """Return a call recorded by hand, and a bare stream; each beside the same with a budget.

    A stream that is reserved and recorded by hand stands between the two: what it takes more are
    the two entries, with their waits for the disk; what `budgeted` takes more than that one is what
    its chunks pass through.

    The first row by hand is given its figures. The second one counts and prices as `budgeted` does,
    and keeps as much with the entry: what a program without `budgeted` would have to write.
    """
    pool = fresh_pool(bench.book())
    bare, paid = _client(), budgeted(_client(), pool=fresh_pool(bench.book()), run_id="benchmark")
    calls, streams = bench.scale.calls, max(1, bench.scale.calls // 10)
    by_hand = Workload(
        name="a call, recorded by hand",
        run=lambda: repeated(calls, partial(timed, work=partial(_by_hand, bare, pool))),
    )
    priced = Workload(
        name="a call, priced and recorded by hand",
        run=lambda: repeated(calls, partial(timed, work=partial(_priced, bare, pool, PriceList()))),
        base=by_hand,
        compare="latency",
    )
    unpaid = Workload(
        name=f"a stream of {CHUNKS} chunks, without a budget",
        run=lambda: repeated(streams, partial(timed, work=partial(_streamed, bare))),
    )
    stream_by_hand = partial(_by_hand, bare, pool, call=_streamed)
    return [
        priced,
        Workload(
            name="a call, budgeted",
            run=lambda: repeated(calls, partial(timed, work=partial(_call, paid))),
            base=by_hand,
            compare="latency",
        ),
        Workload(
            name=f"a stream of {CHUNKS} chunks, recorded by hand",
            run=lambda: repeated(streams, partial(timed, work=stream_by_hand)),
            base=unpaid,
            compare="latency",
        ),
        Workload(
            name=f"a stream of {CHUNKS} chunks, budgeted",
            run=lambda: repeated(streams, partial(timed, work=partial(_streamed, paid))),
            base=unpaid,
            compare="latency",
        ),
    ]


def _call(client: openai.OpenAI) -> openai.types.chat.ChatCompletion:
    return client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=400)


def _by_hand(
    client: openai.OpenAI,
    pool: LedgerBudgetManager,
    call: Callable[[openai.OpenAI], object] = _call,
) -> None:
    attribution = Attribution(run_id="benchmark", model=MODEL, provider="openai")
    with pool.lease(ESTIMATE, attribution=attribution) as lease:
        call(client)
        lease.record(USED)


def _priced(client: openai.OpenAI, pool: LedgerBudgetManager, prices: PriceList) -> None:
    attribution = Attribution(run_id="benchmark", operation="chat", model=MODEL, provider="openai")
    estimate = prices.estimate(
        model=MODEL,
        provider="openai",
        input_tokens=count_tokens(MESSAGES, model=MODEL),
        max_output_tokens=400,
    )
    with pool.lease(estimate, attribution=attribution) as lease:
        found = prices.recording(_call(client), provider="openai")
        lease.record(found.usage, report=found.report)


def _streamed(client: openai.OpenAI) -> None:
    for _ in client.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        max_tokens=400,
        stream=True,
        stream_options={"include_usage": True},
    ):
        pass
