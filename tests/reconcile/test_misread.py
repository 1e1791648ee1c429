"""What a file could be misread as: refused, or read right, and never dropped without a word."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ledger import BillingFileError, InvalidInputError, Ledger, LedgerBudgetManager, Usage
from ledger.reconcile import (
    READY,
    BillMapping,
    Identical,
    Outcome,
    Reconciliation,
    Repeats,
    Status,
    apply,
    reconcile,
)
from ledger.reconcile.sheets import about
from ledger.reports.buckets import Unit
from tests.fixtures import Read

Spend = Callable[..., Any]
Used = Callable[..., Usage]

HEADER = "request_id,at,model,total_tokens,cost_usd\n"
GENERIC = READY["generic"][0]

# A session log that says a message's usage with each block of its content.
LOG = "".join(
    json.dumps(
        {
            "timestamp": f"2024-02-29T12:00:0{second}Z",
            "message": {
                "id": name,
                "model": "gpt-5",
                "content": [{"type": "text", "text": "..."}],
                "usage": {"input_tokens": 10, "output_tokens": output},
            },
        }
    )
    + "\n"
    for second, name, output in [(1, "a", 1), (2, "a", 7), (3, "b", 2), (4, "b", 2)]
)
LOGGED = BillMapping(
    request_id="message.id",
    at="timestamp",
    model="message.model",
    input_tokens=["message.usage.input_tokens"],
    output_tokens=["message.usage.output_tokens"],
)


def statuses(result: Reconciliation) -> list[Status]:
    """Return how each match came out."""
    return [one.status for one in result.matches]


def test_a_log_that_repeats_a_usage_is_refused(bill: Read) -> None:
    """The lines of one request cannot be told from parts: the mapping must say what they mean."""
    with pytest.raises(BillingFileError, match="'a' has input_tokens on line 1 already") as caught:
        bill(LOG, [LOGGED])
    assert 2 == caught.value.line
    assert "as an option: repeats 'add'" in str(caught.value)


def test_the_last_line_of_a_request_counts(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """Of running figures the last is the usage; the lines it replaced are counted and named."""
    spend(team, used(10, 7, 0), request_id="a")
    spend(team, used(10, 2, 0), request_id="b")
    result = reconcile(book, bill(LOG, [replace(LOGGED, repeats=Repeats.LAST)]))
    assert result.agrees
    assert (2, 2) == (result.lines, result.replaced_lines)
    assert "2 replaced by a later line of their request" in about(result)
    added = bill(LOG, [replace(LOGGED, repeats=Repeats.ADD)])
    assert 4 == len(added.lines)


def test_parts_of_a_request_need_no_word(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """Lines of one request with different amounts can only be parts."""
    spend(team, used(10, 7, 0), request_id="a")
    content = "request_id,input_tokens,output_tokens\na,10,\na,,7\n"
    assert reconcile(book, bill(content)).agrees


OVERLAPPING = f"{HEADER}a,2024-02-29,gpt-5,2,0\nb,2024-02-29,gpt-5,3,0\na,2024-02-29,gpt-5,2,0\n"


def test_identical_lines_are_named_and_not_applied(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """Exports that overlap: what was billed is not known, so that nothing is corrected."""
    spend(team, used(2, 0, 0), request_id="a")
    spend(team, used(3, 0, 0), request_id="b")
    parts = replace(GENERIC, repeats=Repeats.ADD)
    result = reconcile(book, bill(OVERLAPPING, [parts]))
    assert [4] == result.identical_lines
    assert "1 line repeats an earlier one (counted each), first line 4" in about(result)
    with pytest.raises(InvalidInputError, match="line 4 repeats an earlier line in every cell"):
        apply(book, result)
    assert 2 == team.usage_of(3).total_tokens
    once = reconcile(book, bill(OVERLAPPING, [replace(parts, identical=Identical.ONCE)]))
    assert once.agrees
    each = reconcile(book, bill(OVERLAPPING, [replace(parts, identical=Identical.ADD)]))
    assert [Outcome.APPLIED] == [one.outcome for one in apply(book, each).matches if one.outcome]
    assert 4 == team.usage_of(3).total_tokens


CREDITED = json.dumps(
    {
        "rows": [
            {
                "day": "2024-02-29",
                "cost": 5,
                "credits": [{"amount": -1.25, "name": "x"}, {"amount": -0.75, "name": "y"}],
                "labels": [{"key": "team"}],
            },
            {"day": "2024-02-29", "cost": 1, "credits": []},
        ],
        "adjustments": [{"amount": -3}],
    }
)


def test_lists_are_summed_or_named(book: Ledger, bill: Read) -> None:
    """A mapping adds a list's amounts up; every other list is named with its size."""
    plain = BillMapping(at="day", cost="cost", rows=["rows"])
    read = bill(CREDITED, [plain])
    assert [5_000_000, 1_000_000] == [line.amounts[0] for line in read.lines]
    assert {"adjustments": 1, "credits": 4, "labels": 1} == read.unread_lists
    assert "not read, with the number of values: adjustments (1), credits (4), labels (1)" in about(
        reconcile(book, read)
    )
    less = bill(CREDITED, [replace(plain, cost=["cost", "credits[].amount"])])
    assert [3_000_000, 1_000_000] == [line.amounts[0] for line in less.lines]
    with pytest.raises(InvalidInputError, match=r"model: \[\] is for amounts"):
        replace(plain, model="credits[].name")


def test_a_second_list_beside_the_results(bill: Read) -> None:
    """The results of a bucket are its rows; what stands beside them is named."""
    bucket = {
        "start_time": 1_709_164_800,
        "results": [{"amount": {"value": 1, "currency": "usd"}, "line_item": "m, input"}],
        "refunds": [{"amount": {"value": 2, "currency": "usd"}}],
    }
    read = bill(json.dumps({"data": [bucket]}), "openai-costs")
    assert 1 == len(read.lines)
    assert {"refunds": 2} == read.unread_lists


def page(*days: int, **said: object) -> dict[str, object]:
    """Return a page of the days of a February, with what it says of other pages."""
    rows = [{"at": f"2024-02-{day:02}", "total_tokens": day} for day in days]
    return {"data": rows, **said}


def bucketed(*days: int, more: bool) -> dict[str, object]:
    """Return a page of buckets of one day."""
    starts = [datetime(2024, 2, day, tzinfo=UTC) for day in days]
    return {
        "data": [
            {
                "starting_at": start.isoformat(),
                "ending_at": (start + timedelta(days=1)).isoformat(),
                "results": [{"amount": str(start.day), "currency": "USD"}],
            }
            for start in starts
        ],
        "has_more": more,
    }


@pytest.mark.parametrize(
    ("pages", "said"),
    [
        ([page(1, next_page="abc")], "there are more (next_page)"),
        ([page(1, next_cursor="abc")], "there are more (next_cursor)"),
        ([page(1, nextLink="https://example.com/2")], "there are more (nextLink)"),
        ([page(1, NextPageLink="https://example.com/2")], "there are more (NextPageLink)"),
        ([page(1, NextPageToken="x")], "there are more (NextPageToken)"),
        ([page(1, links={"next": "https://example.com/2"})], "there are more (next)"),
        ([page(1, has_more=True), page(2, has_more=True)], "there are more (has_more)"),
        ([page(1, page=1, total_pages=5)], "of 5 pages the file has only 1"),
        ([page(1, meta={"page": 1, "totalPages": 2})], "of 2 pages the file has only 1"),
        (
            [page(1, page=1, total_pages=3), page(3, page=3, total_pages=3)],
            "of 3 pages the file has only 1, 3",
        ),
        ([page(2, page=2, total_pages=2)], "of 2 pages the file has only 2"),
        ([page(1), page(2), page(1)], "pages 1 and 3 are the same"),
        (
            [bucketed(1, 2, more=True), bucketed(4, more=False)],
            "page 1 ends at 2024-02-03T00:00:00+00:00, and page 2 begins at 2024-02-04",
        ),
        (
            [bucketed(1, more=True), bucketed(more=True), bucketed(4, more=False)],
            "page 1 ends at 2024-02-02T00:00:00+00:00, and page 3 begins at 2024-02-04",
        ),
    ],
)
def test_pages_that_are_missing_or_doubled(
    bill: Read, pages: list[dict[str, object]], said: str
) -> None:
    """A file that is not the whole answer is refused, as a list of pages and as a page a line."""
    mapping = "anthropic-costs" if "ending_at" in json.dumps(pages) else "generic"
    for content in (json.dumps(pages), "\n".join(map(json.dumps, pages))):
        with pytest.raises(BillingFileError) as caught:
            bill(content, mapping)
        assert said in str(caught.value)
        assert "put all pages into the file" in str(caught.value)


def test_all_pages_are_read(bill: Read) -> None:
    """Whole answers, one after the other, and pages that count from 0 or name the last."""
    for pages in (
        [page(1, next_page="abc"), page(2, next_page=None)],
        [page(1, has_more=False, next_cursor="later"), page(2, has_more=False)],
        [page(1, page=0, total_pages=2), page(2, page=1, total_pages=2)],
        [page(1, page=1, total_pages=1), page(2, page=1, total_pages=1)],
        [page(1), page(), page(), page(2)],
    ):
        assert [1, 2] == [line.amounts[0] for line in bill(json.dumps(pages)).lines]
    read = bill(json.dumps([bucketed(1, 2, more=True), bucketed(3, more=False)]), "anthropic-costs")
    assert 3 == len(read.lines)


MONTH = "start,end,cost_usd\n2024-02-01,2024-03-01,0.00001\n"
MONTHLY = BillMapping(at="start", end="end", cost="cost_usd")


def test_a_line_for_a_month(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """It is refused by the day and compared with the whole month by the month."""
    for day in (1, 15, 29):
        spend(team, used(1, 0, 3), at=datetime(2024, 2, day, 12, tzinfo=UTC))
    spend(team, used(1, 0, 3), at=datetime(2024, 3, 1, 0, tzinfo=UTC))
    read = bill(MONTH, [MONTHLY])
    for unit in (Unit.HOUR, Unit.DAY, Unit.WEEK):
        with pytest.raises(InvalidInputError, match=f"line 2 of bill.csv .* longer than a {unit}"):
            reconcile(book, read, by=unit)
    result = reconcile(book, read, by=Unit.MONTH)
    assert ["2024-02"] == [one.day for one in result.matches]
    assert (9, 10) == (result.recorded.cost_micros_usd, result.billed.cost_micros_usd)
    assert "months of UTC" in about(result)
    with pytest.raises(BillingFileError, match="end: is not after the beginning"):
        bill("start,end,cost_usd\n2024-02-01,2024-02-01,1\n", [MONTHLY])


def test_lines_dated_by_the_first_of_a_month(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """Compared by the month they are for the whole of it; days of a month are for themselves."""
    for day in (1, 15, 29):
        spend(team, used(1, 0, 3), at=datetime(2024, 2, day, 12, tzinfo=UTC))
    dated = BillMapping(at="at", cost="cost_usd")
    whole = reconcile(book, bill("at,cost_usd\n2024-02-01,0.000009\n", [dated]), by=Unit.MONTH)
    assert whole.agrees
    assert datetime(2024, 3, 1, tzinfo=UTC) == whole.until
    days = "at,cost_usd\n2024-02-01,0.000003\n2024-02-15,0.000003\n"
    assert reconcile(book, bill(days, [dated]), by=Unit.MONTH).agrees


def test_identical_lines_of_a_request(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """What they mean is said once: as one line, or as what was billed twice."""
    spend(team, used(2, 0, 0), request_id="a")
    spend(team, used(3, 0, 0), request_id="b")
    with pytest.raises(BillingFileError, match="identical 'once'"):
        bill(OVERLAPPING)
    once = bill(OVERLAPPING, [replace(GENERIC, identical=Identical.ONCE)])
    assert reconcile(book, once).agrees
    each = bill(OVERLAPPING, [replace(GENERIC, identical=Identical.ADD)])
    assert 3 == len(each.lines)


@pytest.mark.parametrize("column", ["currency", "billing_currency", "amount.currency"])
def test_a_currency_that_no_mapping_names(bill: Read, column: str) -> None:
    """A cost in euro is not taken for one in US dollars; tokens have no currency."""
    plain = BillMapping(at="at", cost="cost_usd")
    content = f"at,cost_usd,total_tokens,{column}\n2024-02-29,1,5,EUR\n"
    with pytest.raises(BillingFileError, match=f"{column}: 'EUR' is not USD"):
        bill(content, [plain])
    assert 1 == len(bill(content.replace("EUR", "usd"), [plain]).lines)
    assert 1 == len(bill(content, [BillMapping(at="at", total_tokens="total_tokens")]).lines)


def test_an_empty_day_at_the_end_is_compared(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """The bill's buckets say what time it is for, with those in which it has nothing."""
    spend(team, used(1, 0, 3), at=datetime(2024, 2, 1, 12, tzinfo=UTC))
    spend(team, used(1, 0, 3), at=datetime(2024, 2, 2, 12, tzinfo=UTC))
    spend(team, used(1, 0, 3), at=datetime(2024, 2, 3, 12, tzinfo=UTC))
    answer = bucketed(1, 2, more=False)
    answer["data"][0]["results"][0]["amount"] = "0.0003"  # type: ignore[index]
    answer["data"][1]["results"] = []  # type: ignore[index]
    table = "usage_date_utc,model,cost_usd\n2024-02-01,,0.000003\n2024-02-02,,\n"
    for content in (json.dumps(answer), table):
        result = reconcile(book, bill(content, "anthropic-costs"))
        assert [Status.MATCHED, Status.RECORDED_ONLY] == statuses(result)
        assert datetime(2024, 2, 3, tzinfo=UTC) == result.until


def test_an_empty_day_at_the_beginning_is_compared(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """What the journal has on it was not billed."""
    for day in (1, 2, 3):
        spend(team, used(1, 0, 3), at=datetime(2024, 2, day, 12, tzinfo=UTC))
    answer = bucketed(2, 3, more=False)
    answer["data"][0]["results"] = []  # type: ignore[index]
    answer["data"][1]["results"][0]["amount"] = "0.0003"  # type: ignore[index]
    table = "usage_date_utc,model,cost_usd\n2024-02-02,,\n2024-02-03,,0.000003\n"
    for content in (json.dumps(answer), table):
        result = reconcile(book, bill(content, "anthropic-costs"))
        assert [Status.MATCHED, Status.RECORDED_ONLY] == statuses(result)
        assert datetime(2024, 2, 2, tzinfo=UTC) == result.since


@pytest.mark.parametrize(
    ("text", "form", "day"),
    [
        ("2024-02-29", None, "2024-02-29"),
        ("20240229", None, "2024-02-29"),
        ("1709164800", None, "2024-02-29"),
        ("1709164800000", None, "2024-02-29"),
        ("1712011010000", None, "2024-04-01"),
        ("02/29/2024", "%m/%d/%Y", "2024-02-29"),
        ("2024022923", "%Y%m%d%H", "2024-02-29"),
        ("1709164800", "seconds", "2024-02-29"),
        ("1709164800000", "milliseconds", "2024-02-29"),
    ],
)
def test_times_that_are_read(bill: Read, text: str, form: str | None, day: str) -> None:
    """Each by its form, which is found out or said."""
    read = bill(f"at,total_tokens\n{text},1\n", [replace(GENERIC, at_format=form)])
    assert [day] == [line.day for line in read.lines]


@pytest.mark.parametrize(
    ("text", "form", "said"),
    [
        ("2026100200", None, "2026100200 may be an hour (YYYYMMDDHH) or seconds since 1970"),
        ("20261002001530", None, "'20261002001530' is neither an ISO 8601"),
        ("202411151230", None, "'202411151230' is neither an ISO 8601"),
        ("202401011", None, "'202401011' is neither an ISO 8601"),
        ("20261002001530", "seconds", "is outside the years 1 to 9999"),
        ("2026-W10", None, "'2026-W10' is neither an ISO 8601"),
        ("2024-02", None, "'2024-02' is neither an ISO 8601"),
        ("29/02/2024", "%m/%d/%Y", "'29/02/2024' is not of the form %m/%d/%Y"),
        ("1e9", "seconds", "'1e9' is not of the form seconds"),
    ],
)
def test_times_that_are_refused(bill: Read, text: str, form: str | None, said: str) -> None:
    """What could be two times, or is longer than a day, is not guessed."""
    with pytest.raises(BillingFileError) as caught:
        bill(f"at,total_tokens\n{text},1\n", [replace(GENERIC, at_format=form)])
    assert said in str(caught.value)


def test_a_format_without_a_day() -> None:
    """A line for a month is not taken for its first day."""
    with pytest.raises(InvalidInputError, match="nor has it a day"):
        replace(GENERIC, at_format="%Y-%m")


def test_columns_that_are_not_read_are_named(book: Ledger, bill: Read) -> None:
    """The closing line names them, the first twelve of many."""
    more = [f"c{number}" for number in range(13)]
    content = f"at,total_tokens,{','.join(more)}\n2024-02-29,1\n"
    result = reconcile(book, bill(content))
    assert more == result.unread_columns
    assert f"columns not read: {', '.join(more[:12])} and 1 more" in about(result)


def test_nothing_on_both_sides_is_no_difference(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """A line of nothing that nobody recorded, and a free call that is not billed, both match."""
    spend(team, used(0, 0, 0), request_id="free")
    assert reconcile(book, bill(f"{HEADER}zero,2024-02-29,gpt-5,0,0\n")).agrees
    spend(team, used(1, 0, 0), request_id="small")
    result = reconcile(book, bill(f"{HEADER}zero,2024-02-29,gpt-5,0,0\n"))
    assert Status.RECORDED_ONLY in statuses(result)


def test_rounding_each_call_up_is_no_difference(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """The journal has whole micros a call: less than one a call more than the bill is explained."""
    for _ in range(4):
        spend(team, used(1, 0, 1))
    spend(team, used(1, 0, 0))
    result = reconcile(book, bill(f"{HEADER},2024-02-29,gpt-5,5,0.0000004\n"))
    assert [Status.MATCHED] == statuses(result)
    assert 3 == result.explained_micros_usd
    assert "matches hold 0.000003 USD more than billed, as each call was rounded up" in about(
        result
    )
    # Four calls explain less than four micros; and nothing explains that the bill is higher.
    zero = reconcile(book, bill(f"{HEADER},2024-02-29,gpt-5,5,0\n"))
    higher = reconcile(book, bill(f"{HEADER},2024-02-29,gpt-5,5,0.000005\n"))
    for result in (zero, higher):
        assert [Status.DIFFERING] == statuses(result)
        assert 0 == result.explained_micros_usd


def test_corrections_explain_nothing(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """They are no calls that were rounded up."""
    spend(team, used(1, 0, 5), request_id="a")
    for cost in (6, 7):
        team.correct(3, used(1, 0, cost), "by hand")
    result = reconcile(book, bill(f"{HEADER}a,2024-02-29,gpt-5,1,0.000005\n"))
    assert [Status.DIFFERING] == statuses(result)


def test_a_settlement_days_later_is_found_by_its_request(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """A request is billed on the day of the call, however late its usage was recorded."""
    spend(team, used(2, 0, 0), request_id="late", at=datetime(2024, 3, 9, tzinfo=UTC))
    spend(team, used(9, 0, 0), request_id="next", at=datetime(2024, 3, 9, tzinfo=UTC))
    result = reconcile(book, bill(f"{HEADER}late,2024-02-29,gpt-5,2,0\n"))
    assert [("late", Status.MATCHED)] == [(one.request_id, one.status) for one in result.matches]


def test_one_axis_after_the_other(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """A bill that was applied by its tokens is applied by its cost later, and no axis twice."""
    spend(team, used(1, 0, 5), request_id="a")
    read = bill(f"{HEADER}a,2024-02-29,gpt-5,2,0.000009\n")

    def applied(*axes: str) -> Outcome | None:
        result = apply(book, reconcile(book, read, axes=axes))
        return result.matches[0].outcome

    assert Outcome.APPLIED is applied("total_tokens")
    assert (2, 5) == (team.usage_of(3).total_tokens, team.usage_of(3).cost_micros_usd)
    assert Outcome.APPLIED is applied()
    assert (2, 9) == (team.usage_of(3).total_tokens, team.usage_of(3).cost_micros_usd)
    team.correct(3, replace(team.usage_of(3), total_tokens=7), "after all")
    for axes in (("total_tokens",), ()):
        assert Outcome.NOT_APPLIED is applied(*axes)
    assert 7 == team.usage_of(3).total_tokens


def test_requests_on_one_line_are_applied_apart(
    book: Ledger, team: LedgerBudgetManager, spend: Spend, used: Used, bill: Read
) -> None:
    """A page a line has several requests on one line; each is corrected."""
    spend(team, used(1, 0, 0), request_id="a")
    spend(team, used(1, 0, 0), request_id="b")
    rows = [{"request_id": name, "at": "2024-02-29", "total_tokens": 5} for name in "ab"]
    pages = [{"data": rows, "has_more": True}, {"data": [], "has_more": False}]
    result = apply(book, reconcile(book, bill("\n".join(map(json.dumps, pages)))))
    assert result.agrees
    assert [5, 5] == [team.usage_of(seq).total_tokens for seq in (3, 5)]
