"""Users' own mappings: a TOML or JSON file, which may extend a ready mapping."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from ledger.core.checks import check_path
from ledger.core.errors import InvalidInputError
from ledger.files.mapping import BillMapping
from ledger.files.ready import READY

_EXTENDS = "extends"


def read_mappings(path: str | Path) -> Sequence[BillMapping]:
    """Return the mappings that a TOML or JSON file describes.

    There are several if the file extends a ready mapping that has several shapes.

    Raises:
        InvalidInputError: The file cannot be read or is no mapping; the error says why.
    """
    path = check_path("path", path)
    where = f"mapping {path}"
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise InvalidInputError(where, f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # not JSON, not TOML, or not UTF-8
        raise InvalidInputError(where, f"not {path.suffix.removeprefix('.')}: {error}") from error
    known = [*(part.name for part in fields(BillMapping)), _EXTENDS]
    if not isinstance(found, dict):
        raise InvalidInputError(where, "must be a table of fields")
    for name in found:
        if name not in known:
            raise InvalidInputError(where, f"{name!r} is none of {', '.join(known)}")
    given = {"name": path.name, **found}
    extended = given.pop(_EXTENDS, None)
    if extended is not None and (not isinstance(extended, str) or extended not in READY):
        raise InvalidInputError(where, f"extends: {extended!r} is none of {', '.join(READY)}")
    try:
        if extended is None:
            return [BillMapping(**given)]
        return [replace(one, **given) for one in READY[extended]]
    except InvalidInputError as error:
        raise InvalidInputError(where, str(error)) from error
