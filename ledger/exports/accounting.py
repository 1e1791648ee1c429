"""Charges as transactions in double entry, for beancount and hledger.

Each charge is money that an account of its pool owes to one of its provider. The file ends with
what each pool comes to, which both programs check, to the micro-USD. A file of some of a pool's
charges only notes it: others may stand in the same journal.
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
"""How every such file begins."""

_UNSAFE = re.compile(r"[^\w ./@+-]")
"""What may mean something to one of the programs, such as a quote, a bar, a bracket or a colon."""

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
"""What is said of a transaction, by the column of FOCUS that it is in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Syntax:
    """How a program writes what both of them know.

    Attributes:
        begin: The lines at the top.
        opened: Declares an account.
        transaction: The first line of a transaction.
        note: A line about it.
        closing: Says what an account comes to at the beginning of a day.
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
    # An account may be opened once in a journal, which may have other parts.
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
    """Return the day of a charge; one of a month that was over is booked when it was recorded."""
    at = found["ChargePeriodStart"] if found["ChargeClass"] is None else found["x_RecordedAt"]
    assert isinstance(at, int)  # noqa: S101 - a column of times
    return from_micros(at).date()


def _account(kind: str, name: str, mark: str | None = None) -> str:
    """Return an account of its own for a name, in the letters and digits that both programs take.

    Args:
        kind: The account above.
        name: The name.
        mark: What tells it from another one; without it, a hash where the name has other letters.
    """
    whole = normalize("NFC", name)
    spaced = "".join(one if one.isalpha() or one.isdecimal() else " " for one in whole)
    letters = "-".join(spaced.split())
    if mark is None and letters != name:
        mark = sha256(name.encode()).hexdigest()[:8]
    plain = "-".join(part for part in (letters, mark) if part)
    first = plain[0].upper()
    if not (first[0].isupper() or first[0].isdecimal()):  # a letter of a script without capitals
        first = f"X-{plain[0]}"
    return f"{kind}:LLM:{first}{plain[1:]}"


def _plain(text: str) -> str:
    return _UNSAFE.sub("_", text)
