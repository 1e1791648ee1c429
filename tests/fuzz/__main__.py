"""Fuzz every reader of files with atheris, which looks for inputs that reach new code.

`python -m tests.fuzz` runs until it is interrupted, or as long as options of libFuzzer say, such as
`-max_total_time=600` (seconds) or `-runs=100000`. What it finds it writes to the current folder, as
`crash-...`; `python -m tests.fuzz crash-...` reads that file again.

The first byte of an input chooses the reader, the second how it is called; the rest is the file.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ledger.files", "ledger.prices", "ledger.exports"]):
    from tests.fuzz.readers import Readers

from tests.fuzz.corpus import corpus


def main() -> None:
    """Run, with the samples of the tests as the first inputs."""
    with tempfile.TemporaryDirectory() as folder:
        readers = Readers(Path(folder))
        first = Path(folder) / "corpus"
        first.mkdir()
        for number, data in enumerate(corpus()):
            (first / f"{number:03}").write_bytes(data)
        given = [one for one in sys.argv[1:] if not one.startswith("-")]
        words = [sys.argv[0], *sys.argv[1:], *([] if given else [str(first)])]

        def run(data: bytes) -> None:
            with suppress(IndexError):
                readers.read(data[0], data[1], data[2:])

        atheris.Setup(words, run)
        atheris.Fuzz()


main()
