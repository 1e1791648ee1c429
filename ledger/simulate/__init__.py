"""Back-test a budget against recorded traffic, through a durable pool."""

from ledger.simulate.backtest import Backtest
from ledger.simulate.pricing import Prices, parse_count, parse_decimal, parse_usd
from ledger.simulate.running import Result, run
from ledger.simulate.runs import RunRule

__all__ = [
    "Backtest",
    "Prices",
    "Result",
    "RunRule",
    "parse_count",
    "parse_decimal",
    "parse_usd",
    "run",
]
