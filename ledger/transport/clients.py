"""`budgeted`: puts a budget around a program's client."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar

from ledger.core.errors import InvalidInputError
from ledger.core.extensions import Attribution, RequestExtensions
from ledger.core.values import RequestBudget
from ledger.prices import PriceList
from ledger.transport.bedrock import is_bedrock, wrap_bedrock
from ledger.transport.http_transport import Shared, Transport, transport_of
from ledger.transport.listening import NOBODY, CallListener
from ledger.transport.litellm import is_litellm, is_wrapped, wrap_litellm
from ledger.transport.settings import (
    MAX_OUTPUT_TOKENS,
    TWICE,
    AnyBudget,
    Settings,
    for_threads,
)

T = TypeVar("T")

_INSIDE = (
    "_client",  # openai, anthropic
    "_api_client._httpx_client",  # google-genai
    "_api_client._async_httpx_client",
    "sdk_configuration.client",  # mistral
    "sdk_configuration.async_client",
    "client",  # litellm's own
    "_client_wrapper.httpx_client.httpx_client",  # cohere
)
"""The attributes that lead from a library's client to its HTTP clients."""
_CLIENTS = (
    "client",  # a model of pydantic-ai
    "model.client",  # an agent of pydantic-ai
    "root_client",  # langchain-openai
    "root_async_client",
    "_client",  # langchain-anthropic; a model of openai-agents
    "_async_client",
)
"""The attributes that lead from a framework's objects to the clients of libraries."""
_TRANSPORT, _MOUNTS, _MAKE = "_transport", "_mounts", "_inner_client_cls"
"""The private attributes of httpx for a client's transports, which other instrumentation uses,
too."""


def budgeted(  # noqa: PLR0913 - one line around a client: each is an option of its own
    client: T,
    *,
    pool: AnyBudget,
    run_id: str | None = None,
    attribution: Attribution | None = None,
    extensions: RequestExtensions | None = None,
    request_budget: RequestBudget | None = None,
    wait_s: float = 0,
    prices: PriceList | None = None,
    provider: str | None = None,
    max_output_tokens: int = MAX_OUTPUT_TOKENS,
    ask_for_usage: bool = True,
    show_usage: bool = False,
    refuse_uncounted: bool = False,
    telemetry: CallListener = NOBODY,
) -> T:
    """Put a budget around every request to a model that a client makes, and return the client.

    The client itself is changed, with all objects that share its HTTP client; of a framework, only
    the given model. Each attempt has a lease of its own: what it may cost at most is reserved
    before the request leaves, and what its answer used is recorded. A refused call is answered by
    402, by 403 if no pool is found or the role may not call, by 503 if the store cannot be asked;
    `denial_of` says why. Counted are OpenAI's chat, completions, responses, embeddings, images,
    transcriptions and speech, Anthropic's messages, Gemini's generateContent and embedContent,
    Cohere's chat, embed and rerank, and Bedrock's requests, whoever speaks them. Others pass.

    Args:
        client: A client of openai, anthropic, google-genai, mistral, groq or cohere; a model of
            langchain-openai, langchain-anthropic, pydantic-ai (or an agent) or openai-agents; a
            client of boto3 for `bedrock-runtime`; litellm itself; a client of httpx or httpx2; or a
            transport of these, of which a wrapped one is returned.
        pool: Whose budget pays: what `Ledger.pool` and `Ledger.router` return, their counterparts
            of `AsyncLedger` if the client is for asyncio alone, or `SharedPoolBudgetManager`.
        run_id: The run that the calls belong to; short for an attribution.
        attribution: Whom and what the calls are for; see `attributed` for single calls.
        extensions: What else each request carries, such as `LeaseTtl` or `Unpriced.FLAG`.
        request_budget: The limit of each attempt; unlimited without it.
        wait_s: How long a call waits for capacity, in seconds, before it is refused.
        prices: What calls cost; `PriceList()` without it, which needs the extra `prices`.
        provider: Who serves the models, as price lists name it. It is short for an attribution, in
            which it counts as well; without it the host says so. At an address that is not known
            it is whose model of that name a price list has, or else, if that has the model, the
            provider whose protocol is spoken.
        max_output_tokens: What is reserved for an answer whose request has no limit.
        ask_for_usage: Whether streams are asked for their usage (`stream_options.include_usage`).
        show_usage: Whether callers see usage that they did not ask for; frameworks always do.
        refuse_uncounted: Whether a POST is refused that may cost something and is not counted.
        telemetry: What is told of each attempt, such as `ledger.telemetry.Telemetry()`.

    Raises:
        InvalidInputError: An argument cannot be used, or no HTTP client; or one has a budget.
        MissingExtraError: genai-prices is not installed, and no prices were given.
    """
    settings = Settings.of(
        pool,
        run_id=run_id,
        attribution=attribution,
        extensions=extensions,
        request_budget=request_budget,
        wait_s=wait_s,
        prices=prices,
        provider=provider,
        max_output_tokens=max_output_tokens,
        asks_for_usage=ask_for_usage,
        shows_usage=show_usage,
        refuses_uncounted=refuse_uncounted,
        telemetry=telemetry,
    )
    return _with_budget(client, settings)


def _with_budget(client: T, settings: Settings) -> T:
    """Wrap the transports of a client."""
    if _is_transport(client):
        wrapped: T = transport_of(client, settings)
        return wrapped
    if is_bedrock(client):
        wrap_bedrock(client, settings)
    elif is_litellm(client):
        if is_wrapped(client):
            raise InvalidInputError("client", TWICE)
        for_threads(settings.budget)
        wrap_litellm(client, functools.partial(_wrap_found, replace(settings, shows_usage=True)))
    else:
        _wrap_all(client, settings)
    return client


def _wrap_all(client: object, settings: Settings) -> None:
    """Wrap all transports that a client, or one inside it, calls models by."""
    libraries: list[object] = [client]
    found = list(_http_clients(client))
    if not found:  # a framework's client, which counts the usage that it sees
        settings = replace(settings, shows_usage=True)
        libraries = [_inside(client, path) for path in _CLIENTS]
        found = [one for library in libraries for one in _detached(library)]
    if not found and isinstance(client, type):
        raise InvalidInputError(
            "client", f"is the class {client.__name__}; make a client of it, {client.__name__}()"
        )
    if not found:
        raise InvalidInputError(
            "client",
            f"a {type(client).__name__} has no HTTP client of httpx or httpx2 that is known here; "
            "if it takes one, make it with http_client=budgeted(httpx.Client(), pool=...)",
        )
    if any(isinstance(getattr(one, _TRANSPORT), Transport) for one in found):
        raise InvalidInputError("client", TWICE)
    if not any(hasattr(one, "aclose") for one in found):
        for_threads(settings.budget)  # raises now and not at the first call
    for one in found:
        _wrap(one, settings)
    for library in libraries:
        _keep_to_httpx(library)


def _wrap_found(settings: Settings, library: object) -> None:
    """Wrap the HTTP clients of a library's client, if it has any that are not wrapped."""
    for one in _http_clients(library):
        if not isinstance(getattr(one, _TRANSPORT), Transport):
            _wrap(one, settings)


def _is_transport(client: object) -> bool:
    return hasattr(client, "handle_request") or hasattr(client, "handle_async_request")


def _http_clients(client: object) -> Iterator[Any]:
    """Yield the HTTP clients of httpx and httpx2 that a library's client calls models by."""
    found = []
    for path in ("", *_INSIDE):
        inner = _inside(client, path)
        if hasattr(inner, _TRANSPORT) and hasattr(inner, _MOUNTS) and inner not in found:
            found.append(inner)
    yield from found


def _detached(library: object) -> Iterator[Any]:
    """Yield HTTP clients of a library's client, each a copy of the one that it had.

    langchain-openai, langchain-anthropic and pydantic-ai use one HTTP client for all models of an
    address, and models of others must not pay by this budget.
    """
    for path in _INSIDE:
        before, _, name = path.rpartition(".")
        holder = _inside(library, before)
        inner = getattr(holder, name, None)
        if not hasattr(inner, _TRANSPORT) or not hasattr(inner, _MOUNTS):
            continue
        own = copy.copy(inner)
        if not isinstance(getattr(own, _TRANSPORT), Transport):
            setattr(own, _TRANSPORT, Shared(inner, getattr(inner, _TRANSPORT)))
            mounts = getattr(inner, _MOUNTS)
            own_mounts = {pattern: one and Shared(inner, one) for pattern, one in mounts.items()}
            setattr(own, _MOUNTS, own_mounts)
            setattr(holder, name, own)
        yield own


def _inside(client: object, path: str) -> Any:  # noqa: ANN401 - whatever is there
    inner: Any = client
    for name in path.split(".") if path else ():
        inner = getattr(inner, name, None)
    return inner


def _wrap(client: Any, settings: Settings) -> Any:  # noqa: ANN401 - of httpx or httpx2
    """Wrap the transports of an HTTP client, those for proxies included, and return the client."""
    setattr(client, _TRANSPORT, transport_of(getattr(client, _TRANSPORT), settings))
    mounts = getattr(client, _MOUNTS)
    for pattern, transport in mounts.items():
        if transport is not None:
            mounts[pattern] = transport_of(transport, settings)
    # google-genai makes a client for each loop.
    for one in getattr(client, "_loop_clients", {}).values():
        _wrap(one, settings)
    make = getattr(client, _MAKE, None)
    if make is not None:
        setattr(client, _MAKE, lambda **given: _wrap(make(**given), settings))
    return client


def _keep_to_httpx(client: object) -> None:
    """Keep google-genai from using aiohttp, which it prefers if that is installed."""
    options = getattr(getattr(client, "_api_client", None), "_http_options", None)
    if options is not None:
        given = options.async_client_args or {}
        options.async_client_args = {"transport": "httpx", **given}
