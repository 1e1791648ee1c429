"""The budget around litellm: around each HTTP client that it makes, for its functions and routers.

litellm makes clients of openai, which it keeps in a cache, and clients of httpx (some of which use
aiohttp) in two classes of its own. Its hooks cannot stop every call: their errors are logged, or
they are not called at all.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ledger.core.errors import InvalidInputError

_NAME = "litellm"
_CACHE = "in_memory_llm_clients_cache"
_HANDLERS = f"{_NAME}.llms.custom_httpx.http_handler"
_CLASSES = ("HTTPHandler", "AsyncHTTPHandler")
_BY_AIOHTTP = f"{_NAME}.llms.custom_httpx.aiohttp_handler", "BaseLLMAIOHTTPHandler"
"""The class that sends models named `aiohttp_openai/...`, only through aiohttp."""
_MAKE = ("__init__", "create_client")
"""The methods that make a client; the second one makes it again after it was closed."""
_KEPT = ("module_level_client", "module_level_aclient")
_MARK = "_ledger_budget"


def is_litellm(client: object) -> bool:
    """Tell whether an object is the module litellm, or a router of it."""
    of = client.__name__ if isinstance(client, ModuleType) else type(client).__module__
    return of.partition(".")[0] == _NAME


def is_wrapped(litellm: object) -> bool:
    """Tell whether litellm is wrapped already."""
    return hasattr(getattr(litellm, _CACHE, None), _MARK)


def wrap_litellm(litellm: Any, wrap: Callable[[object], None]) -> None:  # noqa: ANN401 - the module
    """Wrap all clients that litellm makes from now on.

    Args:
        litellm: The module.
        wrap: Wraps the HTTP clients in an object, if there are any and that was not done.

    Raises:
        InvalidInputError: It is a part of litellm, or a release that makes its clients elsewhere.
    """
    cache, handlers = getattr(litellm, _CACHE, None), sys.modules.get(_HANDLERS)
    classes = [getattr(handlers, name, None) for name in _CLASSES]
    if not isinstance(litellm, ModuleType) or not hasattr(cache, "set_cache") or None in classes:
        raise InvalidInputError(
            "client",
            "give litellm itself, of release 1.80 or newer: budgeted(litellm, pool=...); its "
            "routers share its clients",
        )
    lock = threading.Lock()

    def wrapped(found: object) -> None:
        with lock:  # two threads may find the same one
            wrap(found)

    for one in classes:
        for name in _MAKE:
            if hasattr(one, name):
                setattr(one, name, _making(getattr(one, name), wrapped))
    module, name = _BY_AIOHTTP
    for call in ("completion", "image_variations"):
        by_aiohttp = getattr(sys.modules.get(module), name, None)
        if hasattr(by_aiohttp, call):
            setattr(by_aiohttp, call, _refuse)
    # Empty, so that clients that were made before are made again.
    setattr(litellm, _CACHE, _budgeted(type(cache), wrapped)())
    for name in _KEPT:
        wrapped(getattr(litellm, name, None))


def _refuse(*_given: object, **_named: object) -> None:
    raise InvalidInputError(
        "model",
        "is sent by aiohttp alone, which is not counted: call it as openai/..., with api_base=",
    )


def _making(method: Callable[..., Any], wrap: Callable[[object], None]) -> Callable[..., Any]:
    """Return a method that wraps the client that it makes."""

    @functools.wraps(method)
    def make(self: object, *given: Any, **named: Any) -> Any:  # noqa: ANN401 - of litellm
        made = method(self, *given, **named)
        wrap(self if made is None else made)
        return made

    return make


def _budgeted(cache: Any, wrap: Callable[[object], None]) -> Any:  # noqa: ANN401 - of litellm
    """Return the class of a cache whose clients are wrapped."""

    class Budgeted(cache):  # type: ignore[misc]
        def set_cache(self, key: str, value: object, **more: Any) -> Any:  # noqa: ANN401 - of litellm
            wrap(value)
            return super().set_cache(key, value, **more)

    setattr(Budgeted, _MARK, True)
    return Budgeted
