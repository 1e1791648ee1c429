"""The first inputs of the fuzzer: real files of every kind, with the reader that they are for."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Iterator

from ledger.files.ready import READY
from tests.reconcile.samples import SAMPLES
from tests.reconcile.test_fuzzed_files import made

BILL, IMPORT, MAPPING, PRICES, LITELLM, EXPORT, APPLY, SIMULATE = range(8)
"""The readers, in the order of `Readers.all`."""

_MAPPING = b'extends = "openai-costs"\nzone = "Europe/Berlin"\nmodels = {"a*" = "b"}\n'
_PRICES = b"""
currency = "USD"
[[price]]
model = "m"
provider = "p"
since = 2024-01-01
input = "0.5"
output = 2
"""
_LITELLM = b'{"m": {"input_cost_per_token": 5e-7, "output_cost_per_token": 2e-6}}'


def corpus() -> Iterator[bytes]:
    """Yield inputs."""
    names = [*READY]
    for sample in SAMPLES.values():
        how, content = names.index(sample.mapping), sample.content.encode()
        for reader in (BILL, IMPORT, APPLY, SIMULATE):
            yield bytes((reader, how)) + content
        yield bytes((BILL, how)) + gzip.compress(content, mtime=0)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a", "at,cost_usd\n2024-02-29,1\n")
    generic = names.index("generic")
    yield bytes((BILL, generic)) + packed.getvalue()
    for kind in ("xlsx", "parquet"):
        yield bytes((BILL, generic)) + made(kind)
    yield bytes((MAPPING, 1)) + _MAPPING
    yield bytes((MAPPING, 0)) + b'{"at": "a", "cost": ["b"], "extends": null}'
    yield bytes((PRICES, 0)) + _PRICES
    yield bytes((LITELLM, 0)) + _LITELLM
    yield bytes((EXPORT, 0)) + b"pool,seq,kind\nteam,1,opening\n"
