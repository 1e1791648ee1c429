"""A command that refuses an option given twice with different values, where one would be lost."""

from __future__ import annotations

import copy
from typing import Any

from typer.core import TyperCommand
from typing_extensions import override

from ledger.core.errors import InvalidInputError


class OnceCommand(TyperCommand):
    """A command each of whose options has one value, unless it says that it may be given again."""

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse a command line.

        Raises:
            InvalidInputError: An option that takes one value is given with different values.
        """
        if not ctx.resilient_parsing:  # a line that the shell completes may be anything
            collecting = copy.copy(self)
            collecting.params = [_collecting(one) for one in self.params]
            given, _, _ = collecting.make_parser(ctx).parse_args(args=list(args))
            for one in self.params:
                if _has_one_value(one) and len(set(given.get(one.name, ()))) > 1:
                    raise InvalidInputError(
                        one.opts[0], "given again with another value; it takes one"
                    )
        return super().parse_args(ctx, args)


def _has_one_value(parameter: Any) -> bool:  # noqa: ANN401 - as the parser makes it
    return parameter.param_type_name == "option" and not parameter.multiple


def _collecting(parameter: Any) -> Any:  # noqa: ANN401 - as the parser makes it
    """Return an option that the parser gives every value of, where it would keep the last."""
    if not _has_one_value(parameter):
        return parameter
    found = copy.copy(parameter)
    found.multiple = True
    return found
