"""The columns of charges in the FinOps Open Cost and Usage Specification (FOCUS), 1.2 and 1.4.

docs/exports.md says of every column where its value comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import cache
from uuid import UUID

from ledger.core.checks import from_micros
from ledger.exports.columns import (
    ENTRY_COLUMNS,
    Column,
    Kind,
    Value,
    dollars,
)
from ledger.store.rows import Row


class FocusVersion(StrEnum):
    """A version of the specification."""

    V1_2 = "1.2"
    V1_4 = "1.4"


UNKNOWN = "Unknown"
"""Stands for the provider if the call named none, since the specification requires a name."""

_SECOND = timedelta(seconds=1)
_ENTRY = {column.name: column for column in ENTRY_COLUMNS}


def focus_columns(version: FocusVersion) -> Sequence[Column]:
    """Return the columns of a version: the specification's, then ours, each sorted by name."""
    return _COLUMNS[version]


def _charged_at(row: Row) -> datetime:
    micros = row["recorded_at"] if row["occurred_at"] is None else row["occurred_at"]
    return from_micros(micros).replace(microsecond=0)


def _billed_at(row: Row) -> datetime:
    """Return a time in the billing period of a charge: when it was recorded.

    A month that is over may have been sent, so what is recorded of it later corrects it, in the
    month in which that is booked. A call that is dated ahead of the clock is billed at its date.
    """
    return max(_charged_at(row), from_micros(row["recorded_at"]))


@cache
def _months(year: int, month: int, zone: object) -> tuple[datetime, datetime]:
    begin = datetime(year, month, 1, tzinfo=zone)  # type: ignore[arg-type]
    return begin, (begin + timedelta(days=31)).replace(day=1)


def _billing_period(row: Row) -> tuple[datetime, datetime]:
    at = _billed_at(row)
    return _months(at.year, at.month, at.tzinfo)


def _charge_class(row: Row) -> str | None:
    """Return `Correction` if the entry corrects a charge of an earlier billing period."""
    return "Correction" if _charged_at(row) < _billing_period(row)[0] else None


def _description(row: Row) -> str:
    model = "" if row["model"] is None else f" of {row['model']}"
    return _ascii(
        f"{row['kind'].capitalize()}{model}: {row['usage_input_tokens']} input tokens, "
        f"{row['usage_output_tokens']} output tokens"
    )


def _provider(row: Row) -> str:
    return _ascii(row["provider"] or UNKNOWN)


def _ascii(text: str) -> str:
    """Return a text as the specification's validator wants its columns: in ASCII."""
    return text if text.isascii() else text.encode("ascii", "backslashreplace").decode()


def _uuid(name: str) -> Callable[[Row], str]:
    return lambda row: str(UUID(bytes=bytes(row[name])))


def _cost(row: Row) -> Decimal | None:
    return dollars(row["usage_cost_micros_usd"])


def _tokens(row: Row) -> Decimal:
    # The specification's quantities are decimals, even where they are whole numbers.
    return Decimal(row["usage_total_tokens"]).quantize(Decimal("0.000001"))


def _constant(value: str | None) -> Callable[[Row], str | None]:
    return lambda _row: value


def _to_seconds(row: Row) -> datetime:
    return from_micros(row["recorded_at"]).replace(microsecond=0)


_Read = Callable[[Row], Value]

_PROVIDERS = (
    "HostProviderName",
    "InvoiceIssuerName",
    "ProviderName",
    "PublisherName",
    "ServiceProviderName",
)
_TEXTS: Mapping[str, _Read] = {
    "BillingAccountId": _uuid("store_identity"),
    "BillingAccountName": _constant(None),
    "BillingCurrency": _constant("USD"),
    "ChargeCategory": _constant("Usage"),
    "ChargeClass": _charge_class,
    "ChargeFrequency": _constant("Usage-Based"),
    "CommitmentDiscountStatus": _constant(None),
    "ConsumedUnit": _constant("Tokens"),
    "InvoiceId": _constant(None),
    "PricingUnit": _constant("Tokens"),
    "ServiceCategory": _constant("AI and Machine Learning"),
    "ServiceName": _constant("Language Model Inference"),
    "ServiceSubcategory": _constant("Generative AI"),
    "SubAccountId": _uuid("pool_identity"),
    "SubAccountName": lambda row: _ascii(row["pool"]),
}
_MOMENTS: Mapping[str, _Read] = {
    "BillingPeriodEnd": lambda row: _billing_period(row)[1],
    "BillingPeriodStart": lambda row: _billing_period(row)[0],
    "ChargePeriodEnd": lambda row: _charged_at(row) + _SECOND,
    "ChargePeriodStart": _charged_at,
}
_DECIMALS: Mapping[str, _Read] = {
    "BilledCost": _cost,
    "ConsumedQuantity": _tokens,
    "ContractedCost": _cost,
    "EffectiveCost": _cost,
    "ListCost": _cost,
    "PricingQuantity": _tokens,
}
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
"""Our own columns that are columns of an export of entries under another name."""


def _renamed(name: str, entry: str) -> Column:
    found = _ENTRY[entry]
    return Column(name=name, kind=found.kind, read=found.read, personal=found.personal)


def _standard() -> list[Column]:
    found = [
        *(Column(name=name, kind=Kind.TEXT, read=_provider, personal=True) for name in _PROVIDERS),
        *(Column(name=name, kind=Kind.TEXT, read=read) for name, read in _TEXTS.items()),
        *(Column(name=name, kind=Kind.MOMENT, read=read) for name, read in _MOMENTS.items()),
        *(Column(name=name, kind=Kind.DECIMAL, read=read) for name, read in _DECIMALS.items()),
        Column(name="ChargeDescription", kind=Kind.TEXT, read=_description, personal=True),
        _renamed("Tags", "tags"),
    ]
    return sorted(found, key=lambda column: column.name)


def _columns(without: Sequence[str]) -> list[Column]:
    ours = [
        *(_renamed(name, entry) for name, entry in _OURS.items()),
        Column(name="x_RecordedAt", kind=Kind.MOMENT, read=_to_seconds),
    ]
    return [
        *(column for column in _standard() if column.name not in without),
        *sorted(ours, key=lambda column: column.name),
    ]


_COLUMNS: Mapping[FocusVersion, Sequence[Column]] = {
    # FOCUS 1.3 added the host provider and renamed the provider to service provider.
    FocusVersion.V1_2: _columns(["HostProviderName", "ServiceProviderName"]),
    # FOCUS 1.4 has no publisher and no old name of the provider. The two columns of a discount and
    # an invoice, which 1.2 has empty, are left out, because the journal has neither.
    FocusVersion.V1_4: _columns(
        ["CommitmentDiscountStatus", "InvoiceId", "ProviderName", "PublisherName"]
    ),
}
