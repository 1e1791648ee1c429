"""What the columns of a bill mean: mappings of one's own, and those that are ready."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from ledger import BillingFileError, InvalidInputError
from ledger.reconcile import Bill, BillMapping, CostUnit, TokenCounting, read_mappings
from tests.fixtures import Read, Write

OWN = {
    "request_id": "id",
    "at": "created",
    "model": "deployment",
    "input_tokens": "prompt",
    "output_tokens": ["completion", "thinking"],
    "cost": "price",
    "cost_unit": "cents",
    "zone": "Europe/Berlin",
    "models": {"prod": "gpt-5"},
}
TOML = """
request_id = "id"
at = "created"
model = "deployment"
input_tokens = "prompt"
output_tokens = ["completion", "thinking"]
cost = "price"
cost_unit = "cents"
zone = "Europe/Berlin"
[models]
prod = "gpt-5"
"""


def amounts(bill: Bill) -> list[dict[str, Any]]:
    """Return the amounts of each line by name."""
    return [dict(zip(bill.axes, line.amounts, strict=True)) for line in bill.lines]


@pytest.mark.parametrize(
    ("name", "content"), [("own.toml", TOML), ("own.json", json.dumps(OWN))], ids=["toml", "json"]
)
def test_a_mapping_of_ones_own(write: Write, bill: Read, name: str, content: str) -> None:
    """TOML and JSON describe the same: columns added up, a unit, a zone, other names of models."""
    (mapping,) = read_mappings(write(content, name))
    expected = BillMapping(name=name, **OWN)  # type: ignore[arg-type]
    assert expected == mapping
    assert CostUnit.CENTS is mapping.cost_unit
    read = bill(
        "id,created,deployment,prompt,completion,thinking,price\n"
        "r1,2024-02-29T23:30:00Z,prod,100,20,5,12.345\n"
        "r2,2024-03-01,other,1,2,3,0\n",
        [mapping],
    )
    assert ("input_tokens", "output_tokens", "total_tokens", "cost_micros_usd") == read.axes
    assert [
        {
            "input_tokens": 100,
            "output_tokens": 25,
            "total_tokens": 125,
            "cost_micros_usd": Fraction(123_450),
        },
        {"input_tokens": 1, "output_tokens": 5, "total_tokens": 6, "cost_micros_usd": 0},
    ] == amounts(read)
    assert [("r1", "gpt-5", "2024-03-01", 2), ("r2", "other", "2024-03-01", 3)] == [
        (line.request_id, line.model, line.day, line.line) for line in read.lines
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.toml", 'at = "a"\ncosts = "c"', "'costs' is none of name, request_id, within, at"),
        ("m.toml", "at = ", "not toml"),
        ("m.json", "[]", "must be a table"),
        ("m.json", "{", "not json"),
        ("m.toml", 'cost = "c"', "names no column for request_id or for at"),
        ("m.toml", 'at = "a"', "names no column for any of input_tokens"),
        ("m.toml", 'at = "a"\ncost = "c"\ncost_unit = "eur"', "'eur' is none of usd, cents"),
        ("m.toml", 'at = "a"\ncost = "c"\ntokens = "all"', "'all' is none of cache_included"),
        ("m.toml", 'at = "a"\ncost = "c"\nzone = "Mars"', "no time zone 'Mars'"),
        ("m.toml", 'at = "a"\ncost = 3', "cost: must be a column, or a list of them"),
        ("m.toml", 'at = 5\ncost = "c"', "at: must be a str"),
        ("m.toml", 'at = "a"\ncost = "c"\noptional = ["x"]', "'x' is none of request_id"),
        ("m.toml", 'at = "a"\ncost = "c"\nmodels = "x"', "models: must be a Mapping"),
    ],
)
def test_a_mapping_that_is_none(write: Write, name: str, content: str, said: str) -> None:
    """The file and what is wrong with it are named."""
    path = write(content, name)
    with pytest.raises(InvalidInputError) as caught:
        read_mappings(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_a_mapping_that_is_not_there(tmp_path: Path) -> None:
    """A missing file is an error of ours."""
    with pytest.raises(InvalidInputError, match="No such file"):
        read_mappings(tmp_path / "none.toml")


def test_a_missing_column_is_named(bill: Read) -> None:
    """The error names the columns that are missing and those that there are."""
    mapping = BillMapping(at="day", model="model", cost=["price", "fee"], optional=["model"])
    with pytest.raises(BillingFileError) as caught:
        bill("day,price,tax\n2024-02-29,1,2\n", [mapping])
    assert "no 'fee', as mapping 'mapping' wants; the file has 'day', 'price', 'tax'" in str(
        caught.value
    )


def test_optional_columns_may_be_missing(bill: Read) -> None:
    """What is optional is left out, as long as enough remains."""
    read = bill("at,total_tokens\n2024-02-29,7\n")
    assert ("total_tokens",) == read.axes
    with pytest.raises(BillingFileError, match=r"finds too little.*the file has 'at', 'x'"):
        bill("at,x\n2024-02-29,7\n")


OPENAI_USAGE = {
    "object": "page",
    "data": [
        {
            "object": "bucket",
            "start_time": 1_709_164_800,
            "end_time": 1_709_251_200,
            "results": [
                {
                    "object": "organization.usage.completions.result",
                    "input_tokens": 1000,
                    "output_tokens": 500,
                    "input_cached_tokens": 800,
                    "num_model_requests": 5,
                    "model": "gpt-5",
                    "batch": None,
                },
                {"input_tokens": 3, "output_tokens": 4, "input_cached_tokens": 0, "model": None},
            ],
        },
        {"object": "bucket", "start_time": 1_709_251_200, "results": []},
    ],
    "has_more": False,
    "next_page": None,
}
OPENAI_USAGE_CSV = (
    "start_time,end_time,start_time_iso,end_time_iso,num_model_requests,model,"
    "input_tokens,output_tokens,input_cached_tokens\n"
    "1709164800,1709251200,2024-02-29T00:00:00+00:00,2024-03-01T00:00:00+00:00,5.0,gpt-5,"
    "1000.0,500.0,800.0\n"
    "1709164800,1709251200,2024-02-29T00:00:00+00:00,2024-03-01T00:00:00+00:00,1.0,,3,4,0\n"
    "1709251200,1709337600,2024-03-01T00:00:00+00:00,2024-03-02T00:00:00+00:00\n"
)


def test_openai_usage(bill: Read) -> None:
    """The API's page and the dashboard's CSV say the same; cached tokens are among the input."""
    pages = bill(json.dumps(OPENAI_USAGE), "openai-usage", "usage.json")
    table = bill(OPENAI_USAGE_CSV, "openai-usage")
    assert amounts(pages) == amounts(table)
    assert {
        "input_tokens": 1000,
        "output_tokens": 500,
        "total_tokens": 1500,
        "cache_read_tokens": 800,
    } == amounts(pages)[0]
    for read in (pages, table):
        assert [("gpt-5", "2024-02-29"), (None, "2024-02-29")] == [
            (line.model, line.day) for line in read.lines
        ]
    # A bucket without results is an empty day, in both.
    assert (1, 1) == (pages.empty, table.empty)


def test_openai_costs(bill: Read) -> None:
    """A line item is a model and what was counted; the value is exact, finer than a micro-USD."""
    page = {
        "data": [
            {
                "start_time": 1_709_164_800,
                "results": [
                    {
                        "amount": {"value": 0.06, "currency": "usd"},
                        "line_item": "gpt-5, input",
                    },
                    {"amount": {"value": "0.0000005", "currency": "usd"}, "line_item": None},
                ],
            }
        ]
    }
    pages = bill(json.dumps(page), "openai-costs", "costs.json")
    table = bill(
        "start_time,amount_value,amount_currency,line_item\n"
        '1709164800,0.06000000000,usd,"gpt-5, input"\n'
        "1709164800,5e-7,usd,\n"
        "1709251200,,,\n",
        "openai-costs",
    )
    for read in (pages, table):
        assert [Fraction(60_000), Fraction(1, 2)] == [line.amounts[0] for line in read.lines]
        assert ["gpt-5", None] == [line.model for line in read.lines]
    assert 1 == table.empty


def test_anthropic_usage(bill: Read) -> None:
    """Cache tokens are counted apart there, and are added to the input here."""
    page = {
        "data": [
            {
                "starting_at": "2024-02-29T00:00:00Z",
                "ending_at": "2024-03-01T00:00:00Z",
                "results": [
                    {
                        "uncached_input_tokens": 1500,
                        "cache_creation": {
                            "ephemeral_1h_input_tokens": 1000,
                            "ephemeral_5m_input_tokens": 500,
                        },
                        "cache_read_input_tokens": 200,
                        "output_tokens": 50,
                        "server_tool_use": {"web_search_requests": 10},
                        "model": "claude-x",
                    }
                ],
            }
        ],
        "has_more": False,
    }
    pages = bill(json.dumps(page), "anthropic-usage", "usage.json")
    table = bill(
        "usage_date_utc,model_version,api_key,usage_input_tokens_no_cache,"
        "usage_input_tokens_cache_write_5m,usage_input_tokens_cache_write_1h,"
        "usage_input_tokens_cache_read,usage_output_tokens,web_search_count\n"
        "2024-02-29,claude-x,key,1500,500,1000,200,50,10\n",
        "anthropic-usage",
    )
    for read in (pages, table):
        assert TokenCounting.CACHE_EXCLUDED is read.mapping.tokens
        assert [
            {
                "input_tokens": 3200,
                "output_tokens": 50,
                "total_tokens": 3250,
                "cache_creation_tokens": 1500,
                "cache_read_tokens": 200,
            }
        ] == amounts(read)
        assert [("claude-x", "2024-02-29")] == [(line.model, line.day) for line in read.lines]


def test_anthropic_costs(bill: Read) -> None:
    """The API's amount is in cents, as text; the Console's CSV is in US dollars."""
    result = {"amount": "123.45", "currency": "USD", "model": "claude-x", "cost_type": "tokens"}
    page = {"data": [{"starting_at": "2024-02-29T00:00:00Z", "results": [result]}]}
    pages = bill(json.dumps(page), "anthropic-costs", "costs.json")
    table = bill(
        "usage_date_utc,model,token_type,cost_usd\n2024-02-29,claude-x,output,1.2345\n",
        "anthropic-costs",
    )
    for read in (pages, table):
        assert [(Fraction(1_234_500),)] == [line.amounts for line in read.lines]
        assert [("claude-x", "2024-02-29")] == [(line.model, line.day) for line in read.lines]


def generation(name: str, within: str | None, tokens: int, **more: object) -> dict[str, object]:
    """Return a generation as langfuse exports it."""
    return {
        "id": name,
        "parentObservationId": within,
        "type": "GENERATION",
        "startTime": "2026-03-01T10:00:00Z",
        "model": "gpt-5",
        "usageDetails": {"input": tokens, "output": 10, "total": tokens + 10},
        "calculatedTotalCost": 0.5,
        **more,
    }


def test_a_call_that_two_tracers_wrote_is_one_line(bill: Read) -> None:
    """An inner generation with the same tokens is the outer one again; with others it is a call.

    In whichever order they stand, and whatever the two say of the model and the cost.
    """
    rows = [
        generation("inner", "outer", 20, model="gpt-5-2025", calculatedTotalCost=0.25),
        generation("innermost", "inner", 20),
        generation("chain", None, 0, type="SPAN"),
        generation("outer", "chain", 20),
        generation("own", "outer", 30),
        generation("itself", "itself", 30),
        generation("", "itself", 30),
        *(generation(f"turn-{one}", f"turn-{(one + 1) % 3}", 40) for one in range(3)),
    ]
    for each in (rows, rows[::-1]):
        read = bill(json.dumps({"data": each}), "langfuse", "observations.json")
        found = {line.request_id: line.amounts[-1] for line in read.lines}
        turns = [f"turn-{one}" for one in range(3)]
        assert dict.fromkeys(["outer", "own", "itself", None, *turns], 500_000) == found
        assert 3 == read.not_selected
    for one in rows:
        del one["parentObservationId"]
    assert 9 == len(bill(json.dumps({"data": rows}), "langfuse", "observations.json").lines)


INNER = {
    "tried twice": [
        generation("outer", None, 20),
        generation("try-1", "outer", 20),
        generation("try-2", "outer", 20),
    ],
    "no tokens": [
        generation("agent", None, 0, usageDetails={}),
        generation("picture", "agent", 0, usageDetails={}, calculatedTotalCost=5),
        generation("chain", None, 20, type="SPAN"),
    ],
}


@pytest.mark.parametrize("what", INNER)
def test_calls_that_only_look_like_the_one_around_them_are_kept(bill: Read, what: str) -> None:
    """One line tells the outer call again, not two; and without tokens none does."""
    for each in (INNER[what], INNER[what][::-1]):
        read = bill(json.dumps({"data": each}), "langfuse", "observations.json")
        assert (2, 1) == (len(read.lines), read.not_selected)


def test_a_line_with_a_cost_alone_is_not_the_line_around_it(bill: Read) -> None:
    """A mapping may name no tokens."""
    mapping = BillMapping(request_id="id", within="parent", at="day", cost="usd")
    read = bill("id,parent,day,usd\nouter,,2026-03-01,0.10\nin,outer,2026-03-01,5\n", [mapping])
    assert [100_000, 5_000_000] == [line.amounts[-1] for line in read.lines]
