"""Errors that say that the provider did not do the work of a call, so that it costs nothing.

They are known by the names of their classes, so that no client library is imported. A name stands
for its subclasses, too, and the nearest known class of an error decides:

* an answer with a status of 4xx, except 408 and 499: the provider refused the request;
* a connection that was never made, or not in time: nothing was sent.

A call that takes too long or is cut off, an answer of 5xx, and a stream that breaks off with an
error may have been billed or not: these are settled by the pool's policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

from ledger.core.checks import check_callable, check_text
from ledger.core.errors import InvalidInputError

Rule = Callable[[Any], bool]
"""A rule: tells of an error of one class whether it says that the call was not billed."""

_CAUSES_MAX = 16
"""How many causes of an error are followed: more than programs have, and a bound for causes in a
circle."""
_UNKNOWN_STATUSES = frozenset({408, 499})
"""The statuses with which a provider or a proxy stops waiting (408, 499): it is not known how far
the call got."""


def _refused(status: object) -> bool:
    return isinstance(status, int) and 400 <= status < 500 and status not in _UNKNOWN_STATUSES  # noqa: PLR2004 - by HTTP


def _by_status_code(error: Any) -> bool:  # noqa: ANN401 - of a library that is not imported
    return _refused(error.status_code)


def _by_status(error: Any) -> bool:  # noqa: ANN401 - likewise
    return _refused(error.status)


def _by_code(error: Any) -> bool:  # noqa: ANN401 - likewise
    return _refused(error.code)


def _by_response(error: Any) -> bool:  # noqa: ANN401 - likewise
    """Decide by the answer's status: the error's may come from the middle of a stream."""
    response = error.response
    return _refused(getattr(response, "status_code", getattr(response, "status", None)))


def _by_metadata(error: Any) -> bool:  # noqa: ANN401 - likewise
    return _refused(error.response["ResponseMetadata"]["HTTPStatusCode"])


def _by_cause(error: BaseException) -> bool:
    return error.__cause__ is not None and is_unbilled(error.__cause__)


def _by_reason(error: Any) -> bool:  # noqa: ANN401 - likewise
    return isinstance(error.reason, BaseException) and is_unbilled(error.reason)


def _by_argument(error: BaseException) -> bool:
    (argument,) = error.args
    return isinstance(argument, BaseException) and is_unbilled(argument)


def _always(_error: BaseException) -> bool:
    return True


def _never(_error: BaseException) -> bool:
    return False


_RULES: dict[str, Rule] = {
    "builtins.ConnectionRefusedError": _always,
    "socket.gaierror": _always,
    "openai.APIStatusError": _by_status_code,
    "openai.APIConnectionError": _by_cause,
    "anthropic.APIStatusError": _by_status_code,
    "anthropic.APIConnectionError": _by_cause,
    # An error in the middle of a stream is of the same class, and has a code of its own.
    "google.genai.errors.APIError": _by_response,
    "botocore.exceptions.ClientError": _by_metadata,
    "botocore.exceptions.EventStreamError": _never,
    "botocore.exceptions.EndpointConnectionError": _always,
    "botocore.exceptions.ConnectTimeoutError": _always,
    "httpx.HTTPStatusError": _by_response,
    "httpx.ConnectError": _always,
    "httpx.ConnectTimeout": _always,
    "httpx.PoolTimeout": _always,
    "httpx2.HTTPStatusError": _by_response,
    "httpx2.ConnectError": _always,
    "httpx2.ConnectTimeout": _always,
    "httpx2.PoolTimeout": _always,
    "requests.exceptions.HTTPError": _by_response,
    "requests.exceptions.ConnectionError": _by_argument,
    "urllib3.exceptions.MaxRetryError": _by_reason,
    "urllib3.exceptions.NewConnectionError": _always,
    "urllib3.exceptions.ConnectTimeoutError": _always,
    "aiohttp.ClientResponseError": _by_status,
    "aiohttp.ClientConnectorError": _always,
    "aiohttp.ConnectionTimeoutError": _always,
    "urllib.error.HTTPError": _by_code,
    "urllib.error.URLError": _by_reason,
}
"""Rules by name: the package or module, and the class. Modules in between may be left out."""


def register_unbilled(error_class: type[BaseException] | str, when: Rule | None = None) -> None:
    """Register a class of errors that release the lease when one ends a lease's block.

    It applies in this process, to the class and its subclasses, and replaces an earlier rule for
    the class.

    Args:
        error_class: The class, or its name with its package, such as `"groq.APIStatusError"`.
        when: Takes an error, and tells whether its call was not billed. Without it no such error's
            call was.

    Raises:
        InvalidInputError: It is no class of exceptions, or no such name; or `when` is no function.
    """
    check_callable("when", when)
    if isinstance(error_class, type) and issubclass(error_class, BaseException):
        name = f"{error_class.__module__}.{error_class.__qualname__}"
    else:
        name = check_text("error_class", error_class)
        if not all(part.isidentifier() for part in name.split(".")) or "." not in name:
            raise InvalidInputError("error_class", f"{name!r} is no class with its package")
    _RULES[name] = _always if when is None else when


def is_unbilled(error: BaseException) -> bool:
    """Tell whether an error says that the provider did not do the work.

    The nearest of the error's classes that is known decides. An error of no known class is judged
    by its cause (`raise ... from`), a group by all of its errors.
    """
    for _ in range(_CAUSES_MAX):
        rule = _rule_of(error)
        if rule is not None:
            return _says(rule, error)
        if isinstance(error, BaseExceptionGroup):
            return all(is_unbilled(one) for one in error.exceptions)
        if error.__cause__ is None:
            return False
        error = error.__cause__
    return False


def _rule_of(error: BaseException) -> Rule | None:
    for one in type(error).__mro__:
        for name in _names(one):
            if name in _RULES:
                return _RULES[name]
    return None


def _names(one: type) -> Iterator[str]:
    """Yield a class's names, with the whole of its module first, and last with its package."""
    modules = accumulate(one.__module__.split("."), "{}.{}".format)
    for module in reversed(list(modules)):
        yield f"{module}.{one.__qualname__}"


def _says(rule: Rule, error: BaseException) -> bool:
    try:
        return bool(rule(error))
    except Exception as broken:  # noqa: BLE001 - a rule of any kind must not hide the error
        error.add_note(f"whether this call was billed could not be told: {broken!r}")
        return False
