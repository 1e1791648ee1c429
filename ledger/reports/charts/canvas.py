"""The common parts of pictures: colours, the background, and writing to a file."""

from __future__ import annotations

import importlib
import io
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import ledger
from ledger.core.errors import InvalidInputError, MissingExtraError
from ledger.reports.output_file import GENERATOR, output_file
from ledger.reports.render.text_formats import printable

if TYPE_CHECKING:
    import altair as alt

_FORMATS: Mapping[str, Literal["png", "svg"]] = {".png": "png", ".svg": "svg"}
SERIES = ("#2f7ed8", "#e08a00", "#12946b", "#c55a9a", "#46b1d9", "#d0512f", "#8d7ae0", "#8a8f98")
"""The colours of series. They can be told apart in grey and by colour-blind people, on light and
dark."""
MILLION = 1_000_000
_PNG_HEADER_BYTES = 33
"""The length of a PNG's signature and its header chunk, which must come first."""
_FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"

Datum = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """The colours of a picture.

    Attributes:
        ink: The colour of text.
        faint: The colour of grid lines and axes.
        alert: The colour of thresholds.
        background: The colour of the background.
        width: The picture's width in pixels, or `container` for the width of its page element.
    """

    ink: str = "#1f2328"
    faint: str = "#e3e5e8"
    alert: str = "#c4342b"
    background: str = "#ffffff"
    width: int | str = 640


ON_PAPER = Palette()
"""The palette of a picture in a file: dark on white, whatever page it is put on."""

ON_PAGE = Palette(
    ink="var(--ink)",
    faint="var(--line)",
    alert="var(--alert)",
    background="transparent",
    width="container",
)
"""The palette of a picture in a page: the page's style sheet sets its colours, light or dark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A chart with a title and a description.

    Attributes:
        title: What it shows.
        words: A description of what it shows, for people who cannot see it.
        chart: The chart.
    """

    title: str
    words: str
    chart: alt.LayerChart

    def save(self, file: str | Path, *, force: bool = False, keep: Iterable[Path] = ()) -> None:
        """Write the chart as PNG or SVG, by the file's name, without a browser.

        Args:
            file: The file's name. An existing file is replaced if it is empty, or a picture or page
                of this library.
            force: Replace any other file too. A database is never replaced.
            keep: Files that are never replaced: the `files` of the ledger that the picture is of.

        Raises:
            InvalidInputError: The name ends otherwise.
            ExportError: The file cannot be written, or must not be replaced.
            MissingExtraError: The extra `html` is not installed.
        """
        kind = _FORMATS.get(Path(file).suffix.lower())
        if kind is None:
            raise InvalidInputError("out", f"{str(file)!r} must end in .png or .svg")
        needed("vl_convert")
        with output_file(file, force=force, keep=keep) as out:
            out.write(self._drawn(kind))

    def _drawn(self, kind: Literal["png", "svg"]) -> bytes:
        """Return the chart as a file that says who made it."""
        maker = f"{GENERATOR} {ledger.__version__}"
        if kind == "svg":
            text = io.StringIO()
            self.chart.save(text, format=kind)
            return text.getvalue().replace("<svg", f'<svg data-generator="{maker}"', 1).encode()
        data = io.BytesIO()
        self.chart.save(data, format=kind, scale_factor=2)
        whole = data.getvalue()
        return whole[:_PNG_HEADER_BYTES] + _png_text(maker) + whole[_PNG_HEADER_BYTES:]


def _png_text(maker: str) -> bytes:
    """Return the chunk of a PNG that names the software that made it."""
    body = b"tEXtSoftware\0" + maker.encode()
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def picture(
    layers: Sequence[alt.Chart],
    rows: Sequence[Datum],
    palette: Palette,
    *,
    title: str,
    words: str,
    height: int = 240,
) -> Picture:
    """Return layers over the same rows in the colours of a palette, with a title on paper."""
    alt = needed("altair")
    chart = alt.layer(*layers, data=alt.Data(values=list(rows))).properties(
        width=palette.width,
        height=height,
        background=palette.background,
        description=f"{title}. {words}",
    )
    if palette.width == "container":
        chart = chart.properties(padding=4)
    else:
        on_top = alt.TitleParams(title, anchor="start", offset=12)
        chart = chart.properties(padding=16, title=on_top)
    return Picture(title=title, words=words, chart=_styled(chart, palette))


def _styled(chart: Any, palette: Palette) -> alt.LayerChart:  # noqa: ANN401 - Altair's own
    styled: alt.LayerChart = (
        chart.configure(font=_FONT)
        .configure_title(fontSize=16, color=palette.ink)
        .configure_axis(
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
            labelColor=palette.ink,
            titleColor=palette.ink,
            gridColor=palette.faint,
            domainColor=palette.faint,
            tickColor=palette.faint,
            titlePadding=8,
        )
        .configure_legend(
            orient="bottom",
            labelFontSize=12,
            labelColor=palette.ink,
            labelLimit=120 if palette.width == "container" else 240,
            columns=2 if palette.width == "container" else 4,
        )
        .configure_line(strokeWidth=2)
        .configure_view(stroke=None)
    )
    return styled


def amount_axis(alt: Any) -> Any:  # noqa: ANN401 - Altair itself
    """Return an axis of amounts: 0.05, 1.5k, 20M."""
    # The SI format writes amounts below 1 in thousandths, and 400m would be read as 400 millions.
    label = "format(datum.value, abs(datum.value) < 1 ? '~g' : '~s')"
    return alt.Axis(labelExpr=label, tickCount=5)


def time_axis(alt: Any) -> Any:  # noqa: ANN401 - Altair itself
    """Return an axis of times in UTC, as ISO 8601 writes them."""
    clock = {"hours": "%H:%M", "minutes": "%H:%M", "seconds": "%H:%M:%S"}
    clock["milliseconds"] = "%H:%M:%S.%L"  # alone they would be repeated in each second
    date = {"year": "%Y", "month": "%Y-%m", "date": "%m-%d", "week": "%m-%d", "day": "%m-%d"}
    axis = alt.Axis(format={**clock, **date}, labelOverlap="greedy", labelSeparation=6)
    return alt.X("at:T", title="time (UTC)", scale=alt.Scale(type="utc"), axis=axis)


def tooltips(alt: Any, *fields: tuple[str, str]) -> list[Any]:  # noqa: ANN401 - Altair itself
    """Return the tooltips of marks: fields of a mark's row, with titles."""
    return [alt.Tooltip(f"{name}:N", title=title) for name, title in fields]


def shown_name(value: str | None) -> str:
    """Return a name as text, also for calls that named none."""
    return "(none)" if value is None else printable(value)


def distinct(names: Iterable[str]) -> list[str]:
    """Return names made distinct, so that two that look the same become two lines."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


def needed(name: str) -> Any:  # noqa: ANN401 - a module
    """Return a module of the extra `html`.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(what=name, extra="html") from error
