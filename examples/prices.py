"""A call is reserved at what it may cost, and recorded with what it did cost, and why.

Install: `pip install '.[prices]'`

Prints:

    may cost at most 0.093750 USD
    did cost 0.016050 USD: input 100, cache_read 5,000, cache_write 2,000, output 450
    priced by own 2026-11, kept with the entry
    a model without a price is not called: no price for the model 'experimental-9'
    by another table the same call costs 0.026750 USD
"""

import tempfile

from ledger import (
    Attribution,
    Ledger,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    UnpricedCallError,
)
from ledger.prices import PriceList, PriceTable
from ledger.reports import reprice
from ledger.reports.render import usd

# A table of one's own comes first. Without `library=False`, genai-prices is asked for the rest.
OWN = {
    "version": "2026-11",
    "price": [
        {
            "model": "claude-sonnet-4-5",
            "input": "3",
            "cache_read": "0.30",
            "cache_write": "3.75",
            "output": "15",
        }
    ],
}
OTHER = {
    "price": [
        {
            "model": "claude-sonnet-4-5",
            "input": 5,
            "cache_read": "0.50",
            "cache_write": "6.25",
            "output": 25,
        }
    ]
}

# What the provider answered. Its input tokens leave out those that were cached.
ANSWER = {
    "id": "msg_01",
    "model": "claude-sonnet-4-5",
    "usage": {
        "input_tokens": 100,
        "cache_read_input_tokens": 5_000,
        "cache_creation_input_tokens": 2_000,
        "output_tokens": 450,
    },
}


def main() -> None:
    """Price one call before and after it, and once more by another table."""
    prices = PriceList(PriceTable(OWN), library=False)
    options = SharedPoolBudgetOptions(capacity_cost_micros_usd=1_000_000)
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger.open(f"sqlite:///{folder}/ledger.db") as book,
    ):
        budget = book.pool("team", options)
        estimate = prices.estimate(
            model="claude-sonnet-4-5", input_tokens=9_000, max_output_tokens=4_000
        )
        print(f"may cost at most {usd(estimate.cost_micros_usd)} USD")
        call = RequestExtensions(Attribution(operation="summary"))
        lease = budget.reserve(call, estimate, RequestBudget.unlimited())

        it = prices.recording(ANSWER)
        budget.record_used(lease, it.usage, report=it.report)
        lines = it.price.lines if it.price is not None else ()
        parts = ", ".join(f"{line.kind} {line.count:,}" for line in lines)
        print(f"did cost {usd(it.usage.cost_micros_usd)} USD: {parts}")
        kept = list(book.entries("team"))[-1].detail["report"]["price"]
        print(f"priced by {kept['source']} {kept['version']}, kept with the entry")

        try:
            prices.estimate(model="experimental-9", input_tokens=9_000, max_output_tokens=4_000)
        except UnpricedCallError as error:
            print(f"a model without a price is not called: {str(error).partition(' at ')[0]}")

        (other,) = reprice(book, PriceList(OTHER, library=False))
        print(f"by another table the same call costs {usd(other.repriced_micros_usd or 0)} USD")


if __name__ == "__main__":
    main()
