"""Charges as transactions in double entry, for beancount and hledger.

Each charge is money that an account of its pool owes to an account of its provider. The file ends
with the sum of each pool, which both programs check to the micro-USD. If the file has only some of
a pool's charges, the sum is a comment, since the journal may have others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from hashlib import sha256
from itertools import chain
from typing import Any, BinaryIO
from unicodedata import normalize

from ledger.core.checks import from_micros
from ledger.exports.columns import ExportCell, ExportColumn, RowGroup
from ledger.exports.text import dollars

HEADER = "; Charges of budget-ledger"
"""The first line of every such file."""

_UNSAFE = re.compile(r"[^\w ./@+-]")
"""Matches characters with a meaning in one of the programs, such as a quote, bar, bracket or
colon."""

_BEFORE_ALL = date(1900, 1, 1)
_ONE_DAY = timedelta(days=1)
_NOTES = {
    "entry": "x_EntrySequence",
    "flags": "x_EntryFlags",
    "model": "x_ModelName",
    "run": "x_RunId",
    "request": "x_RequestId",
    "reason": "x_Reason",
}
"""The metadata of a transaction, with the column of FOCUS that has each value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Syntax:
    """The syntax of one of the two programs.

    Attributes:
        begin: The lines at the top.
        opened: Declares an account.
        transaction: The first line of a transaction.
        note: A line about it.
        closing: States the balance of an account at the beginning of a day.
    """

    begin: str
    opened: str
    transaction: str
    note: str
    closing: str


BEANCOUNT = Syntax(
    begin='option "operating_currency" "USD"\n',
    opened="\n1900-01-01 open {account} USD\n",
    transaction='\n{day} * "{provider}" "{what}"\n',
    note='  {name}: "{value}"\n',
    closing="\n{day} balance {account}  {amount} ~ 0 USD\n",
)
HLEDGER = Syntax(
    begin="commodity 1000.000000 USD\n",
    opened="\naccount {account}\n",
    transaction="\n{day} * {provider} | {what}\n",
    note="    ; {name}: {value}\n",
    closing="\n{day} * what all charges come to\n  {account}  0 USD = {amount} USD\n",
)
_NOTED = "\n; {account} comes to {amount} USD in this file\n"
BEANCOUNT_PART = replace(
    BEANCOUNT,
    # An account may be opened only once in a journal, which may have other files.
    begin=BEANCOUNT.begin + 'plugin "beancount.plugins.auto_accounts"\n',
    opened="",
    closing=_NOTED,
)
HLEDGER_PART = replace(HLEDGER, closing=_NOTED)


def write_accounting(
    dialect: Syntax,
    columns: Sequence[ExportColumn],
    pages: Iterable[RowGroup],
    out: BinaryIO,
    _at: object = None,
) -> None:
    """Write the rows of charges, in FOCUS columns, as transactions."""
    names = [column.name for column in columns]
    pools: dict[str, int] = {}
    opened: set[str] = set()
    last = _BEFORE_ALL

    def say(form: str, **values: Any) -> None:  # noqa: ANN401 - texts, days and amounts
        out.write(form.format(**values).encode())

    out.write(f"{HEADER}\n{dialect.begin}".encode())
    for row in chain.from_iterable(zip(*page, strict=True) for page in pages):
        found = dict(zip(names, row, strict=True))
        cost, day = found["BilledCost"], _booked_on(found)
        assert isinstance(cost, int)  # noqa: S101 - a column of decimals
        provider = str(found["x_ProviderName"] or found["InvoiceIssuerName"])
        pool = _account("Expenses", str(found["x_PoolName"]), str(found["SubAccountId"])[:8])
        accounts = {pool: cost, _account("Liabilities", provider): -cost}
        for account in accounts:
            if account not in opened:
                opened.add(account)
                say(dialect.opened, account=account)
        what = f"{found['x_EntryKind']} in {found['x_PoolName']}"
        say(dialect.transaction, day=day, provider=_plain(provider), what=_plain(what))
        for name, column in _NOTES.items():
            if found[column] is not None:
                say(dialect.note, name=name, value=_plain(str(found[column])))
        for account, amount in accounts.items():
            say("  {account}  {amount} USD\n", account=account, amount=dollars(amount))
        pools[pool] = pools.get(pool, 0) + cost
        last = max(last, day)
    for account, amount in pools.items():
        say(dialect.closing, day=last + _ONE_DAY, account=account, amount=dollars(amount))


def _booked_on(found: dict[str, ExportCell]) -> date:
    """Return the day of a charge. A charge of an earlier month is booked when it was recorded."""
    at = found["ChargePeriodStart"] if found["ChargeClass"] is None else found["x_RecordedAt"]
    assert isinstance(at, int)  # noqa: S101 - a column of times
    return from_micros(at).date()


def _account(kind: str, name: str, mark: str | None = None) -> str:
    """Return a unique account for a name, in letters and digits that both programs accept.

    Args:
        kind: The account above.
        name: The name.
        mark: Text that makes the account unique; by default a hash if the name has other letters.
    """
    whole = normalize("NFC", name)
    spaced = "".join(one if one.isalpha() or one.isdecimal() else " " for one in whole)
    letters = "-".join(spaced.split())
    if mark is None and letters != name:
        mark = sha256(name.encode()).hexdigest()[:8]
    plain = "-".join(part for part in (letters, mark) if part)
    first = plain[0].upper()
    # Scripts without capitals have none; that of some letters is two, or a letter and marks.
    if len(first) > 1 or not (first.isupper() or first.isdecimal()):
        first = f"X-{plain[0]}"
    return f"{kind}:LLM:{first}{plain[1:]}"


def _plain(text: str) -> str:
    return _UNSAFE.sub("_", text)
