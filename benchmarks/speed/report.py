"""The figures as tables in Markdown, and as a plot in SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from math import log10

from benchmarks.speed.contests import OURS, Figure, exponent

PLOTTED = ("append", "newest 50", "search a user's 500, 50 hits")
_COLOURS = ("#1b6ca8", "#c8553d", "#3d8361")
_WIDTH, _HEIGHT, _LEFT, _TOP, _PANEL = 860, 330, 62, 34, 260


def tables(figures: Sequence[Figure]) -> str:
    """Write a table for each contest, and one of how times grow with the store."""
    parts = [_table(list(group)) for _, group in groupby(figures, key=lambda each: each.contest)]
    growth = list(_growth(figures))
    if growth:
        head = "| store | operation | times | exponent | the bare driver's |\n|---|---|--:|--:|--:|"
        sizes = sorted({figure.size for figure in figures})
        parts.append("\n".join([f"**Growth**, from {sizes[0]:,} to {sizes[-1]:,} messages", "", head, *growth]))
    return "\n\n".join(parts) + "\n"


def _table(figures: Sequence[Figure]) -> str:
    size = min(each.size for each in figures)
    here = [each for each in figures if each.size == size]
    others = [name for name in dict.fromkeys(each.contestant for each in here) if name != OURS]
    by_key = {(each.operation, each.contestant): each for each in here}
    lines = [f"**{figures[0].contest}**, {size:,} messages", ""]
    lines.append("| | " + " | ".join(["µs", *(f"/ {name}" for name in others)]) + " |")
    lines.append("|---|" + "--:|" * (1 + len(others)))
    for operation in dict.fromkeys(each.operation for each in here):
        cells = [f"{by_key[operation, OURS].microseconds:,.0f}"]
        for name in others:
            other = by_key.get((operation, name))
            cells.append("" if other is None else f"{other.ratio:.2f}")
        lines.append(f"| {operation} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _growth(figures: Sequence[Figure]) -> Iterator[str]:
    for (contest, operation), lines in _lines(figures).items():
        ours, bare = lines[0], lines[1] if len(lines) > 1 else []
        if len(ours) > 1:
            times = " → ".join(f"{time:,.0f}" for _, time in ours)
            fitted = [f"{exponent(*zip(*line, strict=True)):.2f}" if len(line) > 1 else "" for line in (ours, bare)]
            yield f"| {contest} | {operation} | {times} µs | {fitted[0]} | {fitted[1]} |"


def _lines(figures: Sequence[Figure]) -> dict[tuple[str, str], list[list[tuple[int, float]]]]:
    """The sizes and times of ours, and of the second contestant, by contest and operation."""
    found: dict[tuple[str, str], dict[str, list[tuple[int, float]]]] = {}
    for each in sorted(figures, key=lambda figure: figure.size):
        by_name = found.setdefault((each.contest, each.operation), {})
        by_name.setdefault(each.contestant, []).append((each.size, each.microseconds))
    return {
        key: [by_name.pop(OURS), *sorted(by_name.values(), key=len, reverse=True)] for key, by_name in found.items()
    }


def plot(figures: Sequence[Figure]) -> str | None:
    """Draw how times grow with the store: a panel for each store, ours as lines, the bare drivers dashed.

    Returns:
        The SVG; None if the stores have a single size.
    """
    lines = {key: value for key, value in _lines(figures).items() if key[1] in PLOTTED and len(value[0]) > 1}
    if not lines:
        return None
    contests = list(dict.fromkeys(contest for contest, _ in lines))
    points = [point for value in lines.values() for line in value[:2] for point in line]
    sizes, times = zip(*points, strict=True)
    low, high = int(log10(min(times)) // 1), int(-(-log10(max(times)) // 1))
    first, last = log10(min(sizes)), log10(max(sizes))
    body: list[str] = []
    for number, contest in enumerate(contests):
        left = _LEFT + number * (_PANEL + 16)
        body += _frame(contest, left, low, high, sorted(set(sizes)), first, last, labels=number == 0)
        for colour, operation in zip(_COLOURS, PLOTTED, strict=True):
            for dash, line in zip(("", "4 4"), lines.get((contest, operation), [])[:2], strict=False):
                places = [(left + _across(size, first, last), _down(time, low, high)) for size, time in line]
                path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
                style = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
                body.append(f'<polyline points="{path}" {style}/>')
    for number, (colour, operation) in enumerate(zip(_COLOURS, PLOTTED, strict=True)):
        x = _LEFT + number * 240
        body.append(f'<line x1="{x}" x2="{x + 22}" y1="318" y2="318" stroke="{colour}" stroke-width="2"/>')
        body.append(f'<text x="{x + 28}" y="322">{operation}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif"'
    return "\n".join([f'{head} font-size="12">', '<rect width="100%" height="100%" fill="white"/>', *body, "</svg>\n"])


def _frame(
    title: str, left: int, low: int, high: int, sizes: Sequence[int], first: float, last: float, *, labels: bool
) -> Iterator[str]:
    """Draw the axes of a panel."""
    yield f'<text x="{left}" y="20" font-weight="bold">{title}</text>'
    for power in range(low, high + 1):
        y = _down(10.0**power, low, high)
        yield f'<line x1="{left}" x2="{left + _PANEL}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        if labels:
            yield f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{_duration(power)}</text>'
    for size in sizes:
        x = left + _across(size, first, last)
        yield f'<text x="{x:.1f}" y="294" text-anchor="middle">{size:,}</text>'


def _across(size: float, first: float, last: float) -> float:
    return 20 + (log10(size) - first) / (last - first) * (_PANEL - 40)


def _down(time: float, low: int, high: int) -> float:
    return _TOP + (high - log10(time)) / (high - low) * 240


def _duration(power: int) -> str:
    """Name a power of ten of microseconds."""
    return f"{10 ** (power % 3)} {('µs', 'ms', 's')[power // 3]}" if power >= 0 else f"{10.0**power:g} µs"
