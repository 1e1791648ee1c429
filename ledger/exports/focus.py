"""The columns of charges in the FinOps Open Cost and Usage Specification (FOCUS), 1.2 and 1.4.

docs/exports.md says of every column where its value comes from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache, lru_cache
from uuid import UUID

from ledger.core.checks import from_micros, to_micros
from ledger.exports.columns import EXPORT_COLUMNS, UNIT, ColumnType, ExportColumn, MadeOf, each


class FocusVersion(StrEnum):
    """A version of the specification."""

    V1_2 = "1.2"
    V1_4 = "1.4"


UNKNOWN = "Unknown"
"""Stands for the provider if the call named none, since the specification requires a name."""

_SECOND_US = 1_000_000
_ENTRY = {column.name: column for column in EXPORT_COLUMNS}


def focus_columns(version: FocusVersion) -> Sequence[ExportColumn]:
    """Return a version's columns: the specification's, then ours, each sorted by name."""
    return _COLUMNS[version]


_AT = ("recorded_at", "occurred_at")
"""The stored columns that tell when a charge was made, in the order of the functions below."""


def _charged_at(recorded_at: int, occurred_at: int | None) -> int:
    return _to_seconds(recorded_at if occurred_at is None else occurred_at)


def _to_seconds(micros: int) -> int:
    return micros - micros % _SECOND_US


@cache
def _months(year: int, month: int) -> tuple[int, int]:
    begin = datetime(year, month, 1, tzinfo=UTC)
    end = (begin + timedelta(days=31)).replace(day=1)
    return to_micros("month", begin), to_micros("month", end)


@lru_cache(1 << 12)  # the same time is in three columns
def _billing_period(recorded_at: int, occurred_at: int | None) -> tuple[int, int]:
    """Return the billing period of a charge: that in which it was recorded.

    A past month may have been sent already, so a later record about it is a correction, in the
    month in which it is recorded. A call that is dated ahead of the clock is billed at its date.
    """
    at = from_micros(max(_charged_at(recorded_at, occurred_at), recorded_at))
    return _months(at.year, at.month)


def _charge_class(recorded_at: int, occurred_at: int | None) -> str | None:
    """Return `Correction` if the entry corrects a charge of an earlier billing period."""
    begin = _billing_period(recorded_at, occurred_at)[0]
    return "Correction" if _charged_at(recorded_at, occurred_at) < begin else None


def _description(
    kind: str, model: str | None, tokens_in: int | None, tokens_out: int | None
) -> str:
    of = "" if model is None else f" of {model}"
    return _ascii(f"{kind.capitalize()}{of}: {tokens_in} input tokens, {tokens_out} output tokens")


def _provider(name: str | None) -> str:
    return _ascii(name or UNKNOWN)


def _ascii(text: str) -> str:
    """Return a text in ASCII, as the specification's validator requires."""
    return text if text.isascii() else text.encode("ascii", "backslashreplace").decode()


def _uuid(identity: bytes) -> str:
    return str(UUID(bytes=bytes(identity)))


def _tokens(total: int) -> int:
    # The specification's quantities are decimals, even if they are whole numbers.
    return total * UNIT


def _constant(value: str | None) -> MadeOf:
    return ["seq"], lambda seqs: [value] * len(seqs)


_PROVIDERS = (
    "HostProviderName",
    "InvoiceIssuerName",
    "ProviderName",
    "PublisherName",
    "ServiceProviderName",
)
_TEXTS: Mapping[str, MadeOf] = {
    "BillingAccountId": (["store_identity"], each(_uuid)),
    "BillingAccountName": _constant(None),
    "BillingCurrency": _constant("USD"),
    "ChargeCategory": _constant("Usage"),
    "ChargeClass": (_AT, each(_charge_class)),
    "ChargeFrequency": _constant("Usage-Based"),
    "CommitmentDiscountStatus": _constant(None),
    "ConsumedUnit": _constant("Tokens"),
    "InvoiceId": _constant(None),
    "PricingUnit": _constant("Tokens"),
    "ServiceCategory": _constant("AI and Machine Learning"),
    "ServiceName": _constant("Language Model Inference"),
    "ServiceSubcategory": _constant("Generative AI"),
    "SubAccountId": (["pool_identity"], each(_uuid)),
    "SubAccountName": (["pool"], each(_ascii)),
}
_MOMENTS: Mapping[str, MadeOf] = {
    "BillingPeriodEnd": (_AT, each(lambda *at: _billing_period(*at)[1])),
    "BillingPeriodStart": (_AT, each(lambda *at: _billing_period(*at)[0])),
    "ChargePeriodEnd": (_AT, each(lambda *at: _charged_at(*at) + _SECOND_US)),
    "ChargePeriodStart": (_AT, each(_charged_at)),
}
_COST: MadeOf = (["usage_cost_micros_usd"], None)
_TOKENS: MadeOf = (["usage_total_tokens"], each(_tokens))
_DECIMALS: Mapping[str, MadeOf] = {
    "BilledCost": _COST,
    "ConsumedQuantity": _TOKENS,
    "ContractedCost": _COST,
    "EffectiveCost": _COST,
    "ListCost": _COST,
    "PricingQuantity": _TOKENS,
}
_DESCRIBED = ("kind", "model", "usage_input_tokens", "usage_output_tokens")
_OURS = {
    "x_AgentName": "agent",
    "x_CacheCreationTokens": "usage_cache_creation_tokens",
    "x_CacheReadTokens": "usage_cache_read_tokens",
    "x_EntryFlags": "flags",
    "x_EntryHash": "hash",
    "x_EntryKind": "kind",
    "x_EntrySequence": "seq",
    "x_InputTokens": "usage_input_tokens",
    "x_LeaseSequence": "lease",
    "x_ModelName": "model",
    "x_OperationName": "operation",
    "x_OutputTokens": "usage_output_tokens",
    "x_ParentRunId": "parent_run_id",
    "x_PoolName": "pool",
    "x_Provenance": "provenance",
    "x_ProviderName": "provider",
    "x_Reason": "reason",
    "x_ReasoningTokens": "usage_reasoning_tokens",
    "x_RequestId": "request_id",
    "x_RunId": "run_id",
    "x_TenantName": "tenant",
    "x_TotalTokens": "usage_total_tokens",
}
"""Our own columns: those of an export of entries, under other names."""


def _renamed(name: str, entry: str) -> ExportColumn:
    found = _ENTRY[entry]
    return replace(found, name=name)


def _made(name: str, kind: ColumnType, read: MadeOf, *, personal: bool = False) -> ExportColumn:
    of, made = read
    return ExportColumn(name=name, kind=kind, of=of, made=made, personal=personal)


def _standard() -> list[ExportColumn]:
    provider: MadeOf = (["provider"], each(_provider))
    found = [
        *(_made(name, ColumnType.TEXT, provider, personal=True) for name in _PROVIDERS),
        *(_made(name, ColumnType.TEXT, read) for name, read in _TEXTS.items()),
        *(_made(name, ColumnType.MOMENT, read) for name, read in _MOMENTS.items()),
        *(_made(name, ColumnType.DECIMAL, read) for name, read in _DECIMALS.items()),
        _made(
            "ChargeDescription", ColumnType.TEXT, (_DESCRIBED, each(_description)), personal=True
        ),
        _renamed("Tags", "tags"),
    ]
    return sorted(found, key=lambda column: column.name)


def _columns(without: Sequence[str]) -> list[ExportColumn]:
    ours = [
        *(_renamed(name, entry) for name, entry in _OURS.items()),
        _made(
            "x_RecordedAt",
            ColumnType.MOMENT,
            (["recorded_at"], each(lambda at: _charged_at(at, None))),
        ),
    ]
    return [
        *(column for column in _standard() if column.name not in without),
        *sorted(ours, key=lambda column: column.name),
    ]


_COLUMNS: Mapping[FocusVersion, Sequence[ExportColumn]] = {
    # FOCUS 1.3 added the host provider and renamed the provider to service provider.
    FocusVersion.V1_2: _columns(["HostProviderName", "ServiceProviderName"]),
    # FOCUS 1.4 has no publisher and no old name of the provider. The two columns of a discount and
    # an invoice, which 1.2 has empty, are left out, because the journal has neither.
    FocusVersion.V1_4: _columns(
        ["CommitmentDiscountStatus", "InvoiceId", "ProviderName", "PublisherName"]
    ),
}
