"""A file on disk: its hash, and its content, unpacked by its first bytes."""

from __future__ import annotations

import gzip
import io
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from hashlib import file_digest
from pathlib import Path
from typing import IO, Any, cast

from typing_extensions import override

from ledger.core.errors import LedgerError

CONTENT_MAX = 4 * 2**30
"""How many bytes a file may have, unpacked. Since it is read as a stream, this bounds only the
time."""

Refuse = Callable[[int | None, str], LedgerError]
"""Makes the error for a line of a file, or for the whole file."""


class Form(StrEnum):
    """What kind of file it is."""

    TEXT = "text"
    WORKBOOK = "workbook"
    PARQUET = "Parquet"


_FOREIGN = {
    b"%PDF": "a PDF; ask the provider for CSV or JSON",
    b"\xd0\xcf\x11\xe0": "a workbook of old Excel; save it as .xlsx or CSV",
    b"(\xb5/\xfd": "compressed by zstd; unpack it first",
    b"BZh": "compressed by bzip2; unpack it first",
    b"\xfd7zX": "compressed by xz; unpack it first",
    b"SQLi": "a database of SQLite; export its table as CSV",
}
"""The kinds of files that are not read, by their first bytes."""

_DAMAGED = (
    EOFError,
    zlib.error,
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    NotImplementedError,  # a compression that Python does not know
    RuntimeError,  # an encrypted member
    ValueError,  # a name that is marked as UTF-8 and is not
    struct.error,
)


class SourceFile:
    """An open file.

    Attributes:
        sha256: The hash of its bytes on disk, in hexadecimal digits.
        form: What kind of file it is.
        refuse: Makes the error for a line of it.
    """

    def __init__(self, file: io.BufferedIOBase, refuse: Refuse) -> None:
        self._file = file
        self.refuse = refuse
        self.sha256 = self._digest()
        self._size = file.seek(0, io.SEEK_END)
        file.seek(0)
        head = file.read(4)
        for begin, what in _FOREIGN.items():
            if head.startswith(begin):
                raise refuse(None, f"the file is {what}")
        self._member: str | None = None
        self._gzip = head.startswith(b"\x1f\x8b")
        self.form = Form.PARQUET if head == b"PAR1" else Form.TEXT
        if head == b"PK\x03\x04":
            self._look_into_zip()

    def _digest(self) -> str:
        self._file.seek(0)
        return file_digest(cast("Any", self._file), "sha256").hexdigest()

    def _look_into_zip(self) -> None:
        try:
            with zipfile.ZipFile(self._file) as archive:
                names = [
                    one.filename
                    for one in archive.infolist()
                    if not one.is_dir() and not one.filename.startswith("__MACOSX/")
                ]
        except _DAMAGED as error:
            raise self.refuse(None, f"not a zip file that can be read: {error}") from error
        if "xl/workbook.xml" in names:
            self.form = Form.WORKBOOK
        elif len(names) == 1:
            self._member = names[0]
        else:
            listed = ", ".join(map(repr, names[:5]))
            raise self.refuse(
                None,
                f"a zip of {len(names):,} files ({listed}); unpack it, and give each by itself",
            )

    @property
    def position(self) -> tuple[int, int]:
        """Return how many bytes of the file are read, and how many it has."""
        return self._file.tell(), self._size

    def require_unchanged(self) -> None:
        """Refuse a file that was written to while it was read.

        Raises:
            LedgerError: Its hash has changed.
        """
        if self._digest() != self.sha256:
            raise self.refuse(None, "the file was changed while it was read; read it again")

    def raw(self) -> io.BufferedIOBase:
        """Return the file itself, from its beginning, for formats that need to seek."""
        self._file.seek(0)
        return self._file

    @contextmanager
    def content(self) -> Iterator[io.BufferedReader]:
        """Give the unpacked bytes, from their beginning, to one reader at a time."""
        self._file.seek(0)
        inner: Any = self._file
        try:
            if self._gzip:
                inner = gzip.GzipFile(fileobj=self._file)
            elif self._member is not None:
                archive = zipfile.ZipFile(self._file)
                inner = archive.open(self._member)
        except _DAMAGED as error:
            raise self.refuse(None, f"not a file that can be unpacked: {error}") from error
        reader = io.BufferedReader(cast("Any", _Bounded(inner, self.refuse)), 1 << 16)
        try:
            yield reader
        finally:
            reader.detach()

    @contextmanager
    def text(self) -> Iterator[io.TextIOWrapper]:
        """Give the content as text of UTF-8, or of UTF-16 as spreadsheets write it.

        Bytes that are not UTF-8 become surrogates, so that the line they are on can be named.
        """
        with self.content() as content:
            encoding = _encoding(content.peek(4)[:4])
            text = io.TextIOWrapper(
                content,
                encoding=encoding,
                errors="surrogateescape" if encoding == "utf-8-sig" else "strict",
                newline="",
            )
            try:
                yield text
            except UnicodeDecodeError as error:
                raise self.refuse(None, "not UTF-16 text, as which it begins") from error
            finally:
                text.detach()


class _Bounded(io.RawIOBase):
    """The unpacked bytes, up to the limit; damage raises an error of ours."""

    def __init__(self, inner: IO[bytes], refuse: Refuse) -> None:
        self._inner = inner
        self._refuse = refuse
        self._read = 0

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int:
        try:
            data = self._inner.read(len(buffer))
        except _DAMAGED as error:
            raise self._refuse(None, f"damaged: it cannot be unpacked ({error})") from error
        self._read += len(data)
        if self._read > CONTENT_MAX:
            raise self._refuse(
                None,
                f"more than {CONTENT_MAX >> 20:,} MiB when unpacked; cut it by days",
            )
        buffer[: len(data)] = data
        return len(data)


def _encoding(head: bytes) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if len(head) == 4 and head[1] == 0 == head[3] and head[0] and head[2]:  # noqa: PLR2004 - two characters
        return "utf-16-le"
    if len(head) == 4 and head[0] == 0 == head[2] and head[1] and head[3]:  # noqa: PLR2004 - two characters
        return "utf-16-be"
    return "utf-8-sig"


@contextmanager
def opened(path: Path, refuse: Refuse) -> Iterator[SourceFile]:
    """Open a file. A pipe is copied first, since a file is read more than once.

    Raises:
        LedgerError: It cannot be read, is of a kind that is not read, or changes meanwhile.
            `refuse` makes the error.
    """
    try:
        with path.open("rb") as file, tempfile.TemporaryFile() as copy:
            whole: io.BufferedIOBase = file
            if not file.seekable():
                shutil.copyfileobj(file, copy)
                whole = cast("io.BufferedIOBase", copy)
            source = SourceFile(whole, refuse)
            yield source
            source.require_unchanged()
    except OSError as error:
        raise refuse(None, f"the file cannot be read: {error.strerror or error}") from error
