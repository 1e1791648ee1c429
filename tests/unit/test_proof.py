"""The bytes that are hashed, by golden vectors and by an encoder written a second time."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import pytest

from ledger import Attribution
from ledger.core import hashing
from ledger.store.rows import COVERED, row_hash
from ledger.store.schema import entries

STORE, POOL = bytes(range(16)), bytes(range(16, 32))

# The order of the columns is part of the format: a new one goes into a new hash version.
COLUMNS = """
pool_id seq kind flags detail
estimate_input_tokens estimate_output_tokens estimate_total_tokens estimate_cost_micros_usd
budget_tokens budget_cost_micros_usd
usage_input_tokens usage_output_tokens usage_total_tokens usage_cost_micros_usd
usage_cache_creation_tokens usage_cache_read_tokens usage_reasoning_tokens
lease held_tokens held_cost_micros_usd held_requests
used_input_tokens used_output_tokens used_total_tokens used_cost_micros_usd
used_cache_creation_tokens used_cache_read_tokens used_reasoning_tokens
expires_at
committed_tokens committed_cost_micros_usd committed_requests
reserved_tokens reserved_cost_micros_usd reserved_requests
policy_seq window_seq swept_until
attribution_id attribution_digest request_id provenance recorded_at occurred_at
idempotency_key payload_digest origin_pool_id origin_seq
"""


def encoded(*values: int | str | bytes | None) -> bytes:
    """Encode columns as the format is documented, without the library."""
    out = b""
    for value in values:
        if value is None:
            out += b"\x00"
        elif isinstance(value, int):
            out += b"\x01i" + struct.pack(">Q", 8) + struct.pack(">q", value)
        else:
            data = value.encode("utf-8") if isinstance(value, str) else value
            kind = b"t" if isinstance(value, str) else b"b"
            out += b"\x01" + kind + struct.pack(">Q", len(data)) + data
    return out


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "00"),
        (0, "01690000000000000008" + "0000000000000000"),
        (258, "01690000000000000008" + "0000000000000102"),
        (-1, "01690000000000000008" + "ffffffffffffffff"),
        (2**63 - 1, "01690000000000000008" + "7fffffffffffffff"),
        (-(2**63), "01690000000000000008" + "8000000000000000"),
        ("", "01740000000000000000"),
        ("a\u00e9", "01740000000000000003" + "61c3a9"),
        (b"", "01620000000000000000"),
        (b"\x00\xff", "01620000000000000002" + "00ff"),
    ],
)
def test_a_column_is_presence_type_length_value(
    value: int | str | bytes | None, expected: str
) -> None:
    """Absent is one zero byte; integers are 8 bytes, big-endian and signed; text is UTF-8."""
    assert expected == hashing.encode([value]).hex()
    assert expected == encoded(value).hex()


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1])
def test_an_integer_that_no_column_holds_is_not_encoded(value: int) -> None:
    """It raises instead of wrapping around."""
    with pytest.raises(struct.error):
        hashing.encode([value])


def test_no_two_rows_have_the_same_bytes() -> None:
    """Neither moving a character to the next column nor another type gives the same encoding."""
    rows = [("ab", "c"), ("a", "bc"), ("abc", ""), ("abc", None), (b"ab", "c"), (None, "abc")]
    assert len(rows) == len({hashing.digest(row) for row in rows})


def test_a_digest_is_golden() -> None:
    """The digest of a settlement's kind of values, spelled out once and for all."""
    values = ("settle", 7, None, "\u00e9", b"\x01")
    expected = "b95276c71ba9b21197ac0ee44e1fb4b613722b7e741cdf46baad69a82518eff8"
    assert expected == hashing.digest(values).hex()
    assert expected == hashlib.sha256(encoded(*values)).hexdigest()


def test_the_genesis_is_golden() -> None:
    """The hash before the first one binds the store, the pool and its name."""
    expected = "aff643dfc3a9db1d22ef94354daa2d3deb56788848f99c7ea8a137451d6f130d"
    assert expected == hashing.genesis(store=STORE, pool=POOL, name="caf\u00e9").hex()
    spelled = b"budget-ledger genesis 1\x00" + STORE + POOL + b"caf\xc3\xa9"
    assert expected == hashlib.sha256(spelled).hexdigest()


def test_a_chained_hash_is_golden() -> None:
    """The version, the previous hash, then every column."""
    previous, values = bytes(range(32)), (1, 2, "reservation", 0, None)
    expected = "650c537d49250870bcdc1883df5674d07fd6c1a9073b274be448485047d71903"
    assert expected == hashing.chain(previous, hashing.encode(values)).hex()
    spelled = encoded(1) + previous + encoded(*values)
    assert expected == hashlib.sha256(spelled).hexdigest()


def test_a_chained_hash_covers_the_one_before() -> None:
    """The same row behind another entry has another hash."""
    assert hashing.chain(bytes(32), b"1") != hashing.chain(b"\x01" + bytes(31), b"1")


def test_values_in_a_tuple_are_hashed_like_values_alone() -> None:
    """Whether they are looked up together or one by one."""
    alone = (1, None, "a", b"b", None, None, 2**63 - 1)
    assert hashing.encode(alone) == hashing.encode((1, (None, "a", b"b"), (None, None), 2**63 - 1))


@pytest.mark.parametrize("totals", [(0, 1, -1, 2**63 - 1, -(2**63), 5), ("1", None, b"", 0, 0, 0)])
def test_totals_are_hashed_like_other_columns(totals: tuple[Any, ...]) -> None:
    """Those of a damaged row, too, in which they may be anything."""
    values = hashing.encode((7, *totals, "x"))
    assert hashing.chain(STORE, values) == hashing.entry_hash(STORE, (7,), totals, ("x",))


def test_an_attribution_is_golden() -> None:
    """Its content is one JSON text, sorted, without what is absent; the request id is not in it."""
    attribution = Attribution(
        tenant="caf\u00e9", run_id="r-1", request_id="req", tags={"b": "2", "a": "1"}
    )
    content = '{"run_id":"r-1","tags":{"a":"1","b":"2"},"tenant":"caf\u00e9"}'
    assert content == hashing.attribution_content(attribution)
    expected = "659595a5550fbc8d7eb8c8370d165511f0f3638186cf28cf09aa77926f8bb614"
    salt = bytes(16)
    assert expected == hashing.attribution_digest(content, salt=salt).hex()
    spelled = b"budget-ledger attribution 1\x00" + salt + content.encode("utf-8")
    assert expected == hashlib.sha256(spelled).hexdigest()
    assert hashlib.sha256(content.encode("utf-8")).digest() == hashing.content_key(content)


def test_an_attribution_s_digest_is_salted() -> None:
    """Who knows a name cannot find it in the journal by its digest."""
    assert hashing.attribution_digest("{}", salt=bytes(16)) != hashing.attribution_digest(
        "{}", salt=b"\x01" * 16
    )


@pytest.mark.parametrize(
    ("tags", "expected"), [({}, None), ({"b": "\u00e9", "a": "1"}, '{"a":"1","b":"\u00e9"}')]
)
def test_tags_are_stored_as_canonical_json(tags: dict[str, str], expected: str | None) -> None:
    """Their order does not matter; without tags there is no text."""
    assert expected == hashing.tags_text(Attribution(tags=tags))


def test_the_hash_covers_every_column_in_a_fixed_order() -> None:
    """Every column but the hash itself and its version, which the chain holds apart."""
    assert COLUMNS.split() == list(COVERED)
    assert {column.name for column in entries.columns} == (
        set(COLUMNS.split()) - {"attribution_digest"} | {"hash_version", "hash"}
    )


def test_a_row_is_hashed_by_its_columns_in_order() -> None:
    """Every column with a value of its own; the attribution's digest stands for its number too."""
    row: dict[str, int | str | bytes | None] = {
        name: number for number, name in enumerate(COLUMNS.split())
    }
    del row["attribution_digest"]
    row |= {"kind": "denial", "detail": None, "payload_digest": b"\x07", "hash": b"not this"}
    attribution_digest = b"\x01" * 32
    values = [(row | {"attribution_digest": attribution_digest})[name] for name in COLUMNS.split()]
    expected = hashlib.sha256(encoded(1) + STORE + encoded(*values)).digest()
    assert expected == row_hash(STORE, row, attribution_digest)
