"""Back-test a budget against recorded traffic, through a durable pool."""

from ledger.simulate.backtest import Backtest, Result, run
from ledger.simulate.pricing import Prices, parse_count, parse_decimal, parse_usd
from ledger.simulate.runs import RunRule
from ledger.simulate.trace import Trace, TraceRow

__all__ = [
    "Backtest",
    "Prices",
    "Result",
    "RunRule",
    "Trace",
    "TraceRow",
    "parse_count",
    "parse_decimal",
    "parse_usd",
    "run",
]
