"""How this library writes a file: whole or not at all, and never over a database.

The bytes go into a file without a name in the same folder. That file gets the target's name when
all bytes are on the disk, so a full disk, an error or an interrupt leaves the target as it was.
"""

from __future__ import annotations

import io
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ledger.core.checks import check_path, check_several, check_type
from ledger.core.errors import ExportError, InvalidInputError
from ledger.store.dialects.sqlite import SIDE_FILES

Target = str | Path | BinaryIO
"""A file's name, or an open binary stream."""

GENERATOR = "budget-ledger"
"""Written into pages and pictures, so that this library recognises them as its own."""

_MARKS = tuple(
    f"{before}{GENERATOR} ".encode()
    for before in ('<meta name="generator" content="', '<svg data-generator="', "Software\0")
)
"""The marks by which a page, an SVG and a PNG name this library as their maker."""

_HEAD_BYTES = 4_096
"""How many bytes of a file are searched for a mark, which stands near the beginning."""

_DATABASES = (
    b"SQLite format 3\0",
    b"\x37\x7f\x06\x82",
    b"\x37\x7f\x06\x83",
    b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7",
)
"""The first bytes of an SQLite database, its write-ahead log (in both byte orders) and its
journal."""

Recognises = Callable[[BinaryIO], bool]
"""Tells whether an open file is one that the same command would write."""


@contextmanager
def output_file(
    to: Target,
    *,
    force: bool = False,
    keep: Iterable[Path] = (),
    recognises: Recognises | None = None,
) -> Iterator[BinaryIO]:
    """Open a file to write into; it replaces the target when the block ends without an error.

    A file that is there already is replaced if it is empty, if this library made it, or with
    `force`. It keeps its permissions. A symbolic link is followed. Streams, pipes and devices are
    written to directly.

    Args:
        to: The target.
        force: Replace any ordinary file that is no database.
        keep: Files that are never written to, even with `force`: those of the store.
        recognises: Tells whether a file without a mark is one of ours, such as an export.

    Raises:
        InvalidInputError: The target is neither a name nor a binary stream; `keep` has something
            else than paths.
        ExportError: The target is a database, a part of one, a folder, or a file that this library
            did not make; or it cannot be written. What was there before is untouched.
    """
    check_target(to)
    check_several("keep", keep)
    for one in keep:
        check_type("keep", one, Path)
    if not isinstance(to, str | Path):
        refuse_stream_into(to, keep)
        with _named_errors("the stream"):
            yield to
            if hasattr(to, "flush"):
                to.flush()
        return
    with _named_errors(to, also="; what was there before is untouched"):
        path = Path(os.path.realpath(to))
        before = _status(path)
        if before is not None and _is_special(before):
            with path.open("wb", buffering=0) as special:
                yield special
            return
        _check(to, path, before, force=force, keep=keep, recognises=recognises)
        yield from _replaced(to, path, before, keep)


def check_target(to: object) -> None:
    """Refuse what is neither a file's name nor an open binary stream.

    Raises:
        InvalidInputError: It is something else.
    """
    if isinstance(to, str | Path):
        check_path("to", to)
    elif isinstance(to, io.TextIOBase) or not callable(getattr(to, "write", None)):
        what = type(to).__name__
        raise InvalidInputError("to", f"must be a file's name or a binary stream, not {what}")


def is_special(path: Path) -> bool:
    """Tell whether a path is a pipe, a device or a socket, which is written to and not replaced."""
    with suppress(OSError):
        return _is_special(path.stat())
    return False


def refuse_stream_into(stream: object, keep: Iterable[Path]) -> None:
    """Refuse a stream that ends in a database: `>> ledger.db`.

    Raises:
        ExportError: The stream ends in one of the files in `keep`.
    """
    try:
        found = os.fstat(stream.fileno())  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):  # in memory, or closed
        return
    if not stat.S_ISREG(found.st_mode):
        return
    for one in keep:
        with suppress(OSError):
            if os.path.samestat(found, one.stat()):
                raise ExportError(one, "output goes into the store itself; name another file")


def _check(
    to: object,
    path: Path,
    before: os.stat_result | None,
    *,
    force: bool,
    keep: Iterable[Path],
    recognises: Recognises | None,
) -> None:
    if before is not None and stat.S_ISDIR(before.st_mode):
        raise ExportError(to, "it is a folder; name a file in it")
    _refuse_database(to, path, keep)
    if before is None or before.st_size == 0 or force:
        pass
    elif not _is_ours(path, recognises):
        raise ExportError(
            to,
            "it exists, and is no file of this kind that ledger made; name another file, or "
            "replace it with --force (in Python: force=True)",
        )
    if before is not None and not os.access(path, os.W_OK):
        raise ExportError(to, "it is read-only; change its permissions, or name another file")


def _refuse_database(to: object, path: Path, keep: Iterable[Path]) -> None:
    if any(_is_same(path, one) for one in keep):
        raise ExportError(to, "it is the store itself, or a part of it; name another file")
    name = path.name.casefold()
    bases = [
        path.with_name(path.name[: -len(end)])
        for end in SIDE_FILES
        if name.endswith(end) and name != end
    ]
    for one in (path, *bases):
        if _head(one).startswith(_DATABASES):
            part = "it is a database" if one == path else f"it belongs to the database {one.name}"
            raise ExportError(to, f"{part}, which is never replaced; name another file")


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of the files does not exist
        return os.path.realpath(one) == os.path.realpath(other)


def _is_ours(path: Path, recognises: Recognises | None) -> bool:
    if any(mark in _head(path) for mark in _MARKS):
        return True
    if recognises is None:
        return False
    with path.open("rb") as file:
        return recognises(file)


def _head(path: Path) -> bytes:
    if not path.is_file():  # reading a pipe would block
        return b""
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _status(path: Path) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        return path.stat()
    return None


def _is_special(found: os.stat_result) -> bool:
    return not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode))


def _replaced(
    to: object, path: Path, before: os.stat_result | None, keep: Iterable[Path]
) -> Iterator[BinaryIO]:
    beside = path.with_name(f".ledger-{secrets.token_hex(8)}.part")
    try:
        descriptor = _unnamed(path.parent)
        named = descriptor is None
        if descriptor is None:
            descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(descriptor, "w+b") as out:
            if before is not None:
                _keep_permissions(descriptor, before)
            yield out
            out.flush()
            os.fsync(descriptor)
            _refuse_database(to, path, keep)  # the target may be a database by now
            if not named:
                # `src_dir_fd` makes Python call linkat, which follows the link in /proc. linkat
                # ignores its value, since the path is absolute.
                os.link(f"/proc/self/fd/{descriptor}", beside, src_dir_fd=descriptor)
        beside.replace(path)
        _sync(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _unnamed(folder: Path) -> int | None:
    """Open a file without a name, which vanishes with this process; None if not supported."""
    if not Path("/proc/self/fd").is_dir():  # the file could not be given a name later
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666)
    except (AttributeError, OSError):  # not Linux, or a file system without O_TMPFILE
        return None


def _keep_permissions(descriptor: int, before: os.stat_result) -> None:
    with suppress(OSError, AttributeError):  # only root gives files away; Windows has no owners
        os.fchown(descriptor, before.st_uid, before.st_gid)
    with suppress(AttributeError):
        os.fchmod(descriptor, stat.S_IMODE(before.st_mode))


def _sync(folder: Path) -> None:
    """Flush the folder to the disk, since a crash could otherwise undo the rename."""
    with suppress(OSError):  # some file systems cannot, and Windows cannot open a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _named_errors(where: object, *, also: str = "") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ExportError(where, f"{error.strerror or error}{also}") from error
