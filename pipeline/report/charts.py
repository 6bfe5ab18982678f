"""Charts: inline SVG, drawn once, coloured by the page's style sheet. All text is escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from pipeline.corpus.words import curve_words, number
from pipeline.report.data import Chart, Document, Histogram, Thread

# Hues that tell the pairs of a document apart; they start again after that many.
PAIR_HUES = 6
# Pixels that a bar has at least, so that one of a thousand can be seen.
SHORTEST = 1.5


def histogram(data: Histogram) -> Markup:
    """Bars of kept on top of dropped values, accepted range light, bounds as lines with their values."""
    width, height, left, top, bottom = 360, 168, 6, 22, 24
    bins = len(data.kept)
    dropped = list(data.dropped) or [0] * bins
    tallest = max((a + b for a, b in zip(data.kept, dropped, strict=True)), default=0) or 1
    first, last = data.edges[0], data.edges[-1]
    plot = width - 2 * left
    floor = height - bottom

    def x(value: float) -> float:
        low, high, at = (
            (math.log(first), math.log(last), math.log(max(value, 1e-12))) if data.log_x else (first, last, value)
        )
        share = (at - low) / (high - low) if high > low else 0.0
        return left + plot * min(max(share, 0.0), 1.0)

    def y(count: float) -> float:
        return floor - (floor - top) * count / tallest

    parts: list[Markup] = []
    for start, end in _outside(data):
        parts.append(_rect("out", x(start), top - 6, x(end) - x(start), floor - top + 6))
    for index in range(bins):
        a, b = x(data.edges[index]), x(data.edges[index + 1])
        gap = 0.6 if b - a > 2.4 else 0.0
        up = 0.0
        for name, count in (("kept", data.kept[index]), ("lost", dropped[index])):
            if count:
                tall = max(floor - y(count), SHORTEST)
                parts.append(_rect(name, a + gap, floor - up - tall, b - a - 2 * gap, tall))
                up += tall
    parts.append(_line("axis", left, floor, width - left, floor))
    free = 0.0  # labels end here so far
    for tick in _log_ticks(first, last) if data.log_x else _ticks(first, last):
        parts.append(_line("tick", x(tick), floor, x(tick), floor + 4))
        anchor, long = _anchor(x(tick), width), 6.5 * len(number(tick))
        start = x(tick) - {"start": 0.0, "middle": long / 2, "end": long}[anchor]
        if start >= free:
            parts.append(_text("label", x(tick), floor + 16, number(tick), anchor))
            free = start + long + 6
    for bound, place in zip((data.low, data.high), _places(data), strict=True):
        if bound is not None and place is not None and first <= place <= last:
            parts.append(_line("bound", x(place), top - 8, x(place), floor))
            parts.append(_text("bound-label", x(place), top - 11, number(bound), _anchor(x(place), width)))
    total, lost_total = sum(data.kept), sum(dropped)
    spoken = f"{data.title}: {total:,} {data.kept_label}, {lost_total:,} {data.dropped_label}"
    return _svg("histogram", width, height, spoken, parts)


def threads(document: Document) -> Markup:
    """A document as a line: bars are sentences, squares are images, arcs tie an image to its sentence."""
    count = len(document.threads)
    unit = 9.0
    width = max(count * unit, 90.0)
    at: dict[int, list[int]] = {}
    for index, item in enumerate(document.threads):
        if item.match is not None:
            at.setdefault(item.match, []).append(index)
    # The widest arc decides how much room there is above.
    rises = {match: min(8 + (max(places) - min(places)) * unit * 0.35, 46) for match, places in at.items()}
    floor = 22 + max(rises.values(), default=0) / 2
    parts: list[Markup] = []
    ends: dict[int, dict[str, float]] = {}
    for index, item in enumerate(document.threads):
        middle = index * unit + unit / 2
        hue = "" if item.match is None else f" hue{(item.match - 1) % PAIR_HUES + 1}"
        if item.kind == "image":
            parts.append(_rect(f"image{hue}", middle - 4, floor - 12, 8, 12, 1.5))
        else:
            tall = 4 + 14 * min(item.words / 30, 1.0)
            parts.append(_rect(f"sentence{hue}", middle - 1.6, floor - tall, 3.2, tall, 1))
        if item.match is not None:
            ends.setdefault(item.match, {})[item.kind] = middle
    for match in sorted(ends):
        if {"image", "sentence"} <= ends[match].keys():
            a, b = sorted(ends[match].values())
            tied = (match - 1) % PAIR_HUES + 1
            path = (
                f"M{a:.1f} {floor - 20:.1f}Q{(a + b) / 2:.1f} {floor - 20 - rises[match]:.1f} {b:.1f} {floor - 20:.1f}"
            )
            parts.append(Markup('<path class="tie hue{}" d="{}"/>').format(tied, path))
    spoken = f"{document.images} images and {document.sentences} sentences in reading order, {len(ends)} pairs"
    return _svg(
        "threads",
        width,
        floor + 2,
        spoken,
        parts,
        style=f"max-width:{width * 1.6:.0f}px;min-width:{width * 0.45:.0f}px",
    )


def weave(documents: Sequence[Document], rows: int = 14, columns: int = 96) -> Markup:
    """The first documents as rows of cloth, for the head of the page: decoration made of the data."""
    lines = [list(document.threads)[:columns] for document in documents[:rows] if document.threads]
    if not lines:
        lines = [[Thread("image" if (row * 5 + column) % 7 == 0 else "sentence", 12) for column in range(columns)]
                 for row in range(rows)]  # fmt: skip
    parts: list[Markup] = []
    for row in range(rows):
        line = lines[row % len(lines)]
        for column in range(columns):
            item = line[(column + 11 * (row // len(lines))) % len(line)]
            if item.kind == "image":
                parts.append(_rect("weft", column * 10 + 1, row * 10 + 1, 8, 8, 1.5))
            else:
                long = 3 + 6 * min(item.words / 24, 1.0)
                parts.append(_rect("warp", column * 10 + 4, row * 10 + (10 - long) / 2, 2, long, 1))
    body = Markup("").join(parts)
    return Markup(
        '<svg class="weave" viewBox="0 0 {} {}" preserveAspectRatio="xMaxYMid slice" aria-hidden="true">{}</svg>'
    ).format(columns * 10, rows * 10, body)


def lines(chart: Chart) -> Markup:
    """Training curves over steps, each labelled at its end."""
    width, height, left, right, top, bottom = 560, 242, 46, 96, 12, 38
    points = [point for curve in chart.curves for point in curve.points if math.isfinite(point[1])]
    if not points:
        return Markup("")
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)
    if y1 == y0:
        y0, y1 = y0 - 0.5, y1 + 0.5

    def x(value: float) -> float:
        return left + (width - left - right) * ((value - x0) / (x1 - x0) if x1 > x0 else 0.5)

    def y(value: float) -> float:
        return top + (height - top - bottom) * (1 - (value - y0) / (y1 - y0))

    parts: list[Markup] = []
    for tick in _ticks(y0, y1):
        parts.append(_line("grid", left, y(tick), width - right, y(tick)))
        parts.append(_text("label", left - 6, y(tick) + 4, number(tick), "end"))
    for tick in _ticks(x0, x1):
        parts.append(_text("label", x(tick), height - 20, number(tick), "middle"))
    parts.append(_text("label", (left + width - right) / 2, height - 4, "steps", "middle"))
    taken: list[float] = []
    for index, curve in enumerate(chart.curves):
        good = [(x(a), y(b)) for a, b in curve.points if math.isfinite(b)]
        if not good:
            continue
        path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in good)
        hue = index % PAIR_HUES + 1
        parts.append(Markup('<path class="curve hue{}" d="{}"/>').format(hue, path))
        at = good[-1][1]
        while any(abs(at - other) < 14 for other in taken):
            at += 14
        taken.append(at)
        parts.append(_text(f"curve-label hue{hue}", good[-1][0] + 8, at + 4, curve_words(curve.label), "start"))
    return _svg("lines", width, height, f"{chart.title}, {chart.unit}, over steps", parts)


def _places(data: Histogram) -> tuple[float | None, float | None]:
    """Where the bounds are drawn: of whole numbers the bound itself passes, so half a number outside."""
    half = 0.5 if data.whole else 0.0
    return None if data.low is None else data.low - half, None if data.high is None else data.high + half


def _outside(data: Histogram) -> list[tuple[float, float]]:
    """Ranges of the axis that the bounds refuse."""
    first, last = data.edges[0], data.edges[-1]
    low, high = _places(data)
    found = []
    if low is not None and low > first:
        found.append((first, min(low, last)))
    if high is not None and high < last:
        found.append((max(high, first), last))
    return found


def _ticks(first: float, last: float, about: int = 5) -> list[float]:
    """Round numbers inside a range."""
    if not last > first:
        return [first]
    raw = (last - first) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    start = math.ceil(first / step - 1e-9)
    return [round(index * step, 12) for index in range(start, math.floor(last / step + 1e-9) + 1)]


def _log_ticks(first: float, last: float) -> list[float]:
    """Powers of ten inside a range, with 2 and 5 between where there is room; round numbers in a short one."""
    decades = math.log10(last / first) if first > 0 else 0
    factors = (1, 2, 5) if decades < 2 else (1, 3) if decades < 3.2 else (1,)
    powers = range(math.floor(math.log10(first)), math.ceil(math.log10(last)) + 1)
    found = [factor * 10.0**power for power in powers for factor in factors if first <= factor * 10.0**power <= last]
    return found if len(found) > 1 else _ticks(first, last, 3)


def _anchor(x: float, width: float) -> str:
    return "start" if x < 24 else "end" if x > width - 24 else "middle"


def _svg(name: str, width: float, height: float, spoken: str, parts: Sequence[Markup], style: str = "") -> Markup:
    return Markup('<svg class="{}" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}" style="{}">{}</svg>').format(
        name, width, height, spoken, style, Markup("").join(parts)
    )


def _rect(name: str, x: float, y: float, width: float, height: float, radius: float = 0) -> Markup:
    rounding = f' rx="{radius:g}"' if radius else ""
    return Markup(
        f'<rect class="{escape(name)}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" '
        f'height="{max(height, 0):.1f}"{rounding}/>'
    )


def _line(name: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup(f'<line class="{escape(name)}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')


def _text(name: str, x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup(f'<text class="{escape(name)}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>')
