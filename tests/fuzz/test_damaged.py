"""Every reader, on damaged files of every kind: no traceback, and nothing of a refused file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.files.ready import READY
from tests.reconcile.test_fuzzed_files import QUICK

from .corpus import BILL, corpus
from .readers import Readers

FIRST = [*corpus()]


@pytest.fixture(scope="module")
def readers() -> Iterator[Readers]:
    """Return the readers, with one store for all that they are given."""
    with tempfile.TemporaryDirectory() as folder:
        yield Readers(Path(folder))


@st.composite
def damaged(draw: Any, first: list[bytes]) -> bytes:  # noqa: ANN401 - what hypothesis gives
    """Return one of some inputs, of which some bytes were cut out, doubled or changed."""
    data = bytearray(draw(st.sampled_from(first)))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(2, len(data)))
        size = draw(st.integers(0, 20))
        more = draw(
            st.binary(max_size=3)
            | st.just(bytes(data[at : at + size]))
            | st.sampled_from([b"-", b"9" * 18, b"e9", b"null", b'"', b",", b"[]", b"{}", b"\n"])
        )
        data[at : at + draw(st.sampled_from([0, 1, size]))] = more
    return bytes(data)


@pytest.mark.parametrize("mapping", READY)
def test_damaged_files_of_each_mapping(mapping: str, readers: Readers) -> None:
    """Each kind of file has a sample, which is read, or refused by an error of ours."""
    how = [*READY].index(mapping)
    check([one for one in FIRST if (one[0], one[1]) == (BILL, how)], readers, 25)


@pytest.mark.parametrize("which", sorted({data[0] for data in FIRST}))
def test_damaged_files_of_each_reader(which: int, readers: Readers) -> None:
    """A file is taken as a whole, or refused as a whole."""
    check([one for one in FIRST if one[0] == which], readers, 75)


def check(first: list[bytes], readers: Readers, examples: int) -> None:
    """Give the readers so many inputs."""

    @settings(QUICK, max_examples=examples)
    @given(data=damaged(first))
    def give(data: bytes) -> None:
        readers.read(data[0], data[1], data[2:])

    give()
