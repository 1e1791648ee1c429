"""Draw the figures of a run: throughput, latency and growth, as SVG for docs/performance.md.

    python -m benchmarks --long --json figures.json
    python -m benchmarks.pictures figures.json docs/pictures

Needs the extra `html`. Every picture stands on a white card of its own, so that it reads the
same on a light page and on a dark one, and says of which run it is.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.stores import NAMES

try:
    import altair as alt
    import vl_convert  # noqa: F401 - altair writes SVG with it
except ImportError as error:
    raise SystemExit("pictures need altair: pip install 'budget-ledger[html]'") from error

COLOURS = ("#0b62a4", "#d95f02")
"""Blue and orange: different in grey too, and for readers who cannot tell red from green."""

_INK, _FAINT = "#222222", "#e3e3e3"
_FONT = "Helvetica, Arial, sans-serif"
_WIDTH, _HEIGHT = 330, 250

Row = dict[str, Any]


def draw(result: Mapping[str, Any]) -> dict[str, alt.FacetChart]:
    """Return the pictures of a run by name; a section that was not run has none."""
    figures: list[Row] = [
        {**one, **one["labels"], "store": NAMES[one["store"]]} for one in result["figures"]
    ]
    callers = [one for one in figures if "callers" in one]
    entries = [one for one in figures if "entries" in one]
    run = report.described(result["machine"]).splitlines()
    found = {}
    if callers:
        found["throughput"] = throughput(callers, run)
        found["latency"] = latency(callers, run)
    if entries:
        found["growth"] = growth(entries, run)
    return found


def throughput(rows: Sequence[Row], run: Sequence[str]) -> alt.FacetChart:
    """Draw the rate and the floor, by the number of callers that share a pool."""
    base = _base(rows, x="callers", title="callers on one pool", colour="kind")
    ratio, lowest = (
        alt.Y(f"{name}:Q", title="operations a second, in floors")
        for name in ("ratio", "ratio_min")
    )
    floor = alt.Chart().mark_rule(color=_INK, strokeDash=[2, 3])
    return _card(
        [
            base.mark_rule(strokeWidth=6, opacity=0.25).encode(y=lowest, y2="ratio_max:Q"),
            base.mark_line().encode(y=ratio),
            base.mark_point().encode(y=ratio),
            floor.encode(y=alt.datum(1, type="quantitative")),
        ],
        rows,
        "Throughput: callers that wait share one commit",
        [
            "Median of the rounds, lowest to highest in pale. The dotted line is the floor:",
            "one client of the raw driver, one INSERT and COMMIT an operation.",
            *run,
        ],
    )


def latency(rows: Sequence[Row], run: Sequence[str]) -> alt.FacetChart:
    """Draw how long a call takes, by the number of callers that share a pool."""
    rows = _percentiles(rows, per_unit=1_000)
    base = _base(rows, x="callers", title="callers on one pool", colour="kind")
    return _card(
        _lines(base, "latency of one operation, milliseconds"),
        rows,
        "Latency: how long a caller waits for its own verdict",
        ["Of a reservation or a settlement; all rounds together.", *run],
    )


def growth(rows: Sequence[Row], run: Sequence[str]) -> alt.FacetChart:
    """Draw how long a call takes, by the number of entries in the pool."""
    rows = _percentiles(rows, per_unit=1)
    base = _base(rows, x="entries", title="entries in the pool", colour="call")
    return _card(
        _lines(base, "latency of one call, microseconds"),
        rows,
        "Growth: what a call costs in a pool with a long history",
        ["One caller alone; all rounds together.", *run],
    )


def _percentiles(rows: Sequence[Row], *, per_unit: int) -> list[Row]:
    return [
        {**row, "percentile": name, "latency": row[column] / per_unit}
        for row in rows
        for name, column in (("median", "p50_us"), ("99th percentile", "p99_us"))
    ]


def _lines(base: alt.Chart, title: str) -> list[alt.Chart]:
    drawn = base.encode(
        y=alt.Y(
            "latency:Q",
            title=title,
            scale=alt.Scale(type="log"),
            axis=alt.Axis(format="~g", tickCount=5),
        ),
        strokeDash=alt.StrokeDash("percentile:N", title=None, sort=["median", "99th percentile"]),
    )
    return [drawn.mark_line(), drawn.mark_point(strokeDash=[1, 0])]


def _base(rows: Sequence[Row], *, x: str, title: str, colour: str) -> alt.Chart:
    names = list(dict.fromkeys(row[colour] for row in rows))
    return alt.Chart().encode(
        x=alt.X(
            f"{x}:Q",
            title=title,
            scale=alt.Scale(type="log", nice=False, padding=14),
            axis=alt.Axis(format="~s", values=sorted({row[x] for row in rows})),
        ),
        color=alt.Color(
            f"{colour}:N", title=None, sort=names, scale=alt.Scale(domain=names, range=COLOURS)
        ),
    )


def _card(
    layers: Sequence[alt.Chart], rows: Sequence[Row], title: str, notes: Sequence[str]
) -> alt.FacetChart:
    """Return one panel per store on a white card, with a title and the facts of the run."""
    stores = list(dict.fromkeys(row["store"] for row in rows))
    data = alt.Data(values=list(rows))  # type: ignore[no-untyped-call]
    card: alt.FacetChart = (
        alt.layer(*layers, data=data)
        .properties(width=_WIDTH, height=_HEIGHT)
        .facet(column=alt.Column("store:N", title=None, sort=stores))
        .properties(
            title=alt.TitleParams(title, subtitle=list(notes), anchor="start", offset=14),
            background="white",
            padding=18,
        )
        .configure(font=_FONT)
        .configure_title(fontSize=17, color=_INK, subtitleColor="#555555", subtitleFontSize=12)
        .configure_header(labelFontSize=14, labelFontWeight="bold", labelColor=_INK)
        .configure_axis(
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
            labelColor=_INK,
            titleColor=_INK,
            gridColor=_FAINT,
            titlePadding=8,
        )
        .configure_legend(
            orient="bottom",
            direction="horizontal",
            labelFontSize=13,
            symbolType="stroke",
            symbolOpacity=1,
            symbolSize=500,
            symbolStrokeWidth=2.5,
        )
        .configure_line(strokeWidth=2.5)
        .configure_point(filled=True, size=50, opacity=1)
        .configure_view(stroke=_FAINT)
    )
    return card


def main(words: Sequence[str] | None = None) -> int:
    """Draw the figures of a file into a folder."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pictures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("figures", type=Path, help="what `python -m benchmarks --json` wrote")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--format", choices=("svg", "png"), default="svg")
    chosen = parser.parse_args(words)
    result = json.loads(chosen.figures.read_text(encoding="utf-8"))
    chosen.folder.mkdir(parents=True, exist_ok=True)
    for name, chart in draw(result).items():
        path = chosen.folder / f"{name}.{chosen.format}"
        chart.save(path, format=chosen.format)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
