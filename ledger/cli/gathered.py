"""Options that several commands share: declared once, and given to each as one value."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

Command = Callable[..., None]


def gathered(parameter: str, gather: Callable[..., object]) -> Callable[[Command], Command]:
    """Return a decorator that gives a command the options of `gather` in place of a parameter.

    The command gets the value that `gather` returns for them. An option that the command also has
    itself, such as the time zone, goes to both.
    """
    shared = _parameters(gather)

    def decorate(command: Command) -> Command:
        own = _parameters(command)
        options: dict[str, inspect.Parameter] = {}
        for name in own:
            found = shared if name == parameter else {name: own[name]}
            options |= {each: own.get(each, found[each]) for each in found}

        @functools.wraps(command)
        def run(**given: Any) -> None:  # noqa: ANN401 - whatever the options are
            value = gather(**{name: given[name] for name in shared})
            kept = {name: given[name] for name in given if name in own}
            command(**kept, **{parameter: value})

        run.__signature__ = inspect.Signature(list(options.values()))  # type: ignore[attr-defined]
        run.__annotations__ = {name: each.annotation for name, each in options.items()}
        return run

    return decorate


def _parameters(function: Callable[..., object]) -> dict[str, inspect.Parameter]:
    hints = get_type_hints(function, include_extras=True)
    return {
        name: found.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name, found in inspect.signature(function).parameters.items()
    }
