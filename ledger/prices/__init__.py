"""Real prices: what a call may cost before it is made, and what it did cost afterwards.

Prices are exact decimals in US dollars. A call's cost is rounded up once, to the next micro-USD.
Your own table is asked first, then the installed genai-prices; nothing is fetched. The extra
`prices` is needed unless only your own table is used.
"""

from ledger.prices.answers import Answer, read_answer
from ledger.prices.counts import Counts
from ledger.prices.kept import exact_cost
from ledger.prices.pricelist import PriceList, Recording
from ledger.prices.rates import Line, Price, Rate, Rates
from ledger.prices.table import PriceTable
from ledger.prices.tokens import count_tokens

__all__ = [
    "Answer",
    "Counts",
    "Line",
    "Price",
    "PriceList",
    "PriceTable",
    "Rate",
    "Rates",
    "Recording",
    "count_tokens",
    "exact_cost",
    "read_answer",
]
