"""Rendering: ReportData to one HTML page that asks nothing of any server."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from itertools import groupby
from urllib.parse import urlsplit

import jinja2
from markupsafe import Markup

from pipeline.corpus.funnel import FunnelRow
from pipeline.corpus.words import (
    action_words,
    bounds_words,
    counted,
    curve_note,
    duration,
    guard_words,
    number,
    phase_words,
    row_words,
    rule_words,
)
from pipeline.report import charts
from pipeline.report.data import Document, Figure, Paragraph, ReportData

# Blocks of a document that stand open; the rest is one click away.
OPEN_BLOCKS = 7
KINDS = {
    "page": "Pages",
    "document": "Documents",
    "paragraph": "Paragraphs",
    "image": "Images",
    "sentence": "Sentences",
    "pair": "Pairs",
    "negative": "Negatives",
}


@dataclass(frozen=True)
class FunnelBar:
    """A row of the funnel with the length of its bar, percent of the largest of its kind."""

    row: FunnelRow
    share: float


def render(data: ReportData, max_bytes: int | None = None) -> str:
    """The page; documents of the gallery are left out from the end until it has at most max_bytes of UTF-8.

    Everything that pages or people wrote is escaped, and a Content-Security-Policy forbids scripts and requests.
    """
    page = _page(data)
    left_out = 0
    while max_bytes is not None and len(page.encode()) > max_bytes and data.documents:
        gone = max(1, len(data.documents) // 5)
        left_out += gone
        data = replace(data, documents=data.documents[:-gone])
        gone_words = counted(left_out, "document")
        said = (
            f"{gone_words} of the gallery {'is' if left_out == 1 else 'are'} left out to keep this page under "
            f"{max_bytes / 1e6:g} MB."
        )
        page = _page(replace(data, notes=[*data.notes, said]))
    return page


def _page(data: ReportData) -> str:
    style = resources.files("pipeline.report").joinpath("page.css").read_text(encoding="utf-8")
    sections = [
        ("flow", "Pages to shards", data.steps),
        ("funnel", "What was dropped", data.funnel),
        ("scores", "Scores and bounds", data.histograms),
        ("gallery", "Gallery", data.documents),
        ("duplicates", "Near-duplicates", data.clusters),
        ("guards", "Negatives held back", data.guards),
        ("samples", "Samples", data.samples),
        ("training", "Training", data.charts),
        ("retrieval", "Retrieval", data.retrieval),
        ("time", "Time", data.times),
        ("spec", "Made from", data.spec),
    ]
    return _environment().get_template("page.html.j2").render(
        data=data,
        style=Markup(style),
        sections=[(name, title) for name, title, there in sections if there],
        titles={name: title for name, title, _ in sections},
        funnel=_funnel(data.funnel),
        slowest=max((time.seconds for time in data.times), default=0) or 1,
        most_guarded=max((guard.pairs for guard in data.guards), default=0) or 1,
    )  # fmt: skip


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        histogram=charts.histogram,
        threads=charts.threads,
        weave=charts.weave,
        lines=charts.lines,
        opened=opened,
        folded=folded,
        hues=charts.PAIR_HUES,
    )
    environment.filters.update(
        number=number,
        duration=duration,
        rule=lambda row: rule_words(row.kind, row.rule),
        phase=phase_words,
        guard=guard_words,
        action=action_words,
        rows=row_words,
        curve_notes=lambda chart: [note for curve in chart.curves if (note := curve_note(curve.label))],
        bounds=lambda row: bounds_words(row.low, row.high),
        kind=lambda name: KINDS.get(name, name),
        count=lambda value: f"{value:,}",
        counted=counted,
        address=address,
        host=lambda url: urlsplit(url).hostname or url[:60],
        cosine=hundredths,
        fraction=lambda value: hundredths(value, missing="–"),
        rank=lambda value: "–" if value is None else f"{value:.1f}",
        is_figure=lambda block: isinstance(block, Figure),
    )
    return environment


def hundredths(value: float | None, missing: str = "") -> str:
    """Two decimals without the leading zero, `missing` for None."""
    return missing if value is None else f"{value:.2f}".replace("0.", ".", 1)


def address(url: str) -> str | None:
    """The URL when it is safe to link to: http and https only, so that no script hides behind a link."""
    try:
        return url if urlsplit(url).scheme in ("http", "https") else None
    except ValueError:
        return None


def opened(document: Document) -> Sequence[Paragraph | Figure]:
    """The blocks that stand open: some, and on until the first image has been seen."""
    first = next((i for i, block in enumerate(document.blocks) if isinstance(block, Figure)), 0)
    return document.blocks[: max(OPEN_BLOCKS, min(first + 2, 2 * OPEN_BLOCKS))]


def folded(document: Document) -> Sequence[Paragraph | Figure]:
    """The blocks behind "read on"."""
    return document.blocks[len(opened(document)) :]


def _funnel(rows: Sequence[FunnelRow]) -> list[tuple[str, int, list[tuple[str, list[FunnelBar]]]]]:
    """[(kind, total, [(phase, bars)])]: kinds in the order of KINDS, phases as they ran."""
    found = []
    order = {kind: place for place, kind in enumerate(KINDS)}
    for kind in sorted({row.kind for row in rows}, key=lambda name: (order.get(name, 99), name)):
        mine = [row for row in rows if row.kind == kind]
        largest = max(row.dropped for row in mine) or 1
        bars = [FunnelBar(row, 100 * row.dropped / largest) for row in mine]
        phases = [(phase, list(group)) for phase, group in groupby(bars, key=lambda bar: bar.row.phase)]
        found.append((kind, sum(row.dropped for row in mine), phases))
    return found
