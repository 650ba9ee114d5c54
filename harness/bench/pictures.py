"""The results as SVG that stands by itself or in a page: bars by kind of exit, and the curve."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import groupby
from typing import Final

from markupsafe import Markup

from harness.bench.kinds import KINDS, OTHER, by_kind
from harness.bench.result import Measured, Point, Result, crossing
from harness.bench.table import axis_text, ratio_text
from harness.bench.variants import COVER_RATIO, VARIANTS

STYLE: Final = """\
svg{font:12px system-ui,"DejaVu Sans",sans-serif}
.t{fill:#1b1f24}.s{fill:#57606a;font-size:11px}.b{font-weight:600}.axis{stroke:#d0d7de}.goal{stroke:#a40e26}
.line{fill:none;stroke-width:2}.paper{fill:#ffffff}
.k0{fill:#a9cdf3}.k1{fill:#6aa5dc}.k2{fill:#c7c3ea}.k3{fill:#f6cf7d}.k4{fill:#a6d8b8}.k5{fill:#e2b6dd}
.k6{fill:#d9c9a5}.k7{fill:#b4bac4}.k8{fill:#e06c9a}
.v1{color:#7a838d}.v2{color:#3a7fca}.v3{color:#459460}.v4{color:#b067a8}.v5{color:#c9741a}
.line{stroke:currentColor}circle,text.v{fill:currentColor}
@media (prefers-color-scheme: dark){.paper{fill:#0f1419}.t{fill:#e3e8ee}.s{fill:#9aa7b4}.axis{stroke:#38424d}
.goal{stroke:#ff8f8f}}"""

_BAR, _ROW, _LEFT, _WIDTH = 16, 24, 150, 560
_PLOT_W, _PLOT_H = 560, 280
_LABEL = 14  # height of a line's name, pixels


def svg(width: int, height: int, label: str, parts: Iterable[Markup]) -> Markup:
    """The function gives a picture with its style, for a file of its own or a page."""
    head = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" class="picture" role="img" aria-label="{}" viewBox="0 0 {} {}" '
        'width="{}" height="{}"><style>{}</style><rect class="paper" width="{}" height="{}"/>'
    ).format(label, width, height, width, height, Markup(STYLE), width, height)
    return head + Markup("").join(parts) + Markup("</svg>")


def _text(x: float, y: float, text: str, cls: str = "t", anchor: str = "start") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(cls, x, y, anchor, text)


def _line(x1: float, y1: float, x2: float, y2: float, cls: str = "axis", extra: str = "") -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"{}/>').format(
        cls, x1, y1, x2, y2, Markup(extra)
    )


def _cover(row: Measured) -> str:
    cover, first = row.variant.cover, VARIANTS[0].cover
    return f"; the cover {first / cover:.0f} x" if cover and first else ""


def _bar(row: Measured, result: Result, y: float, scale: float) -> list[Markup]:
    parts = [_text(_LEFT - 8, y + 12, row.variant.name, anchor="end")]
    x = float(_LEFT)
    for number, (kind, n) in enumerate(by_kind(row.counted).items()):
        value = n * 1000 / row.calls
        if not value:
            continue
        width = value * scale
        parts.append(
            Markup(
                '<rect class="k{}" x="{:.2f}" y="{:.1f}" width="{:.2f}" height="{}"><title>{}</title></rect>'
            ).format(number, x, y, width, _BAR, f"{row.variant.name}: {value:,.0f} {kind}")
        )
        x += width
    told = f"{row.rate:,.0f}"
    if (ratio := result.ratio(row)) is not None and row.variant is not VARIANTS[0]:
        told += f"  ({ratio_text(ratio)} fewer{_cover(row)})"
    parts.append(_text(x + 6, y + 12, told + (" *" if row.avoided else "")))
    return parts


def _legend(y: float, kinds: Iterable[tuple[int, str]]) -> tuple[list[Markup], float]:
    parts = []
    x = 10.0
    for number, name in kinds:
        width = 26 + 6.6 * len(name)
        if x + width > _LEFT + _WIDTH + 130:
            x, y = 10.0, y + 18
        parts.append(Markup('<rect class="k{}" x="{:.1f}" y="{:.1f}" width="11" height="11"/>').format(number, x, y))
        parts.append(_text(x + 15, y + 10, name, "s"))
        x += width
    return parts, y + 26


def bars(results: list[Result]) -> Markup:
    """The picture has a stacked bar a variant: exits a thousand system calls by kind, all kernels to one scale."""
    counted = [(result, [row for row in result.rows if row.runs]) for result in results]
    top = max((row.rate for _, rows in counted for row in rows), default=1) or 1
    scale = _WIDTH / top
    used = {kind for _, rows in counted for row in rows for kind, n in by_kind(row.counted).items() if n}
    names = [(i, name) for i, name in enumerate((*KINDS.values(), OTHER)) if name in used]
    parts, y = _legend(34, names)
    parts.append(_text(10, 20, "VM exits a thousand system calls of L2", "t b"))
    for result, rows in counted:
        if not rows:
            continue
        parts.append(_text(10, y + 14, result.kernel.name, "t b"))
        y += 22
        for row in rows:
            parts += _bar(row, result, y, scale)
            y += _ROW
        y += 8
    if any(row.avoided for _, rows in counted for row in rows):
        parts.append(_text(10, y + 10, "* a fault of this kernel avoided: this L1 sets bit 10 beside X", "s"))
        y += 22
    return svg(_LEFT + _WIDTH + 170, int(y + 4), "VM exits a thousand system calls, by variant and kind", parts)


def _places(points: list[Point]) -> list[float]:
    step = _PLOT_W / max(1, len(points) - 1)
    return [_LEFT / 2 + step * n for n in range(len(points))]


def _labels(ends: list[tuple[float, int, str]], x: float, taken: float) -> list[Markup]:
    """The lines' names behind their ends, from above; those of one height share a line, none covers another."""
    parts = []
    free = 0.0
    for height, group in groupby(sorted(ends), key=lambda end: round(end[0])):
        there = list(group)
        y = max(height + 4.0, free)
        if abs(y - taken - 4) < _LABEL:
            y = taken + 4 + _LABEL
        parts.append(_text(x, y, ", ".join(name for _, _, name in there), f"v v{there[-1][1]}"))
        free = y + _LABEL
    return parts


def curve(points: list[Point], axis: str) -> Markup:
    """The curve shows how many times fewer exits there are than with the first variant, against one axis; the ratio is
    on a logarithmic scale.
    """
    there = [p for p in points if p.axis == axis]
    names = [(i, v.name) for i, v in enumerate(VARIANTS) if i and any(p.ratio(v.name) for p in there)]
    ratios = [r for p in there for _, name in names if (r := p.ratio(name)) is not None]
    if not ratios:
        return Markup("")
    low, high = 0.0, math.ceil(math.log2(max(*ratios, COVER_RATIO)))
    xs = _places(there)

    def height(ratio: float) -> float:
        return 40 + _PLOT_H * (1 - (math.log2(ratio) - low) / (high - low))

    title = f"Fewer exits than {VARIANTS[0].name}, by {axis} a system call"
    parts = [_text(10, 20, title, "t b")]
    for power in range(int(low), int(high) + 1):
        y = height(2**power)
        parts += [_line(xs[0], y, xs[-1], y), _text(xs[0] - 8, y + 4, f"{2**power} x", "s", "end")]
    for point, x in zip(there, xs, strict=True):
        label = axis_text(axis, point.value).partition(" ")[0]
        parts.append(_text(x, 40 + _PLOT_H + 18, label, "s", "middle"))
    y = height(COVER_RATIO)
    parts.append(_line(xs[0], y, xs[-1], y, "goal", ' stroke-dasharray="5 4"'))
    parts.append(_text(xs[-1] + 8, y + 4, f"the cover's {COVER_RATIO} x", "s"))
    ends: list[tuple[float, int, str]] = []
    for number, name in names:
        dots = [(x, height(r)) for p, x in zip(there, xs, strict=True) if (r := p.ratio(name)) is not None]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in dots)
        parts.append(Markup('<path class="line v{}" d="{}"/>').format(number, path))
        parts += [Markup('<circle class="v{}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(number, *dot) for dot in dots]
        ends.append((dots[-1][1], number, name))
    parts += _labels(ends, xs[-1] + 8, taken=y)
    foot = [
        f"{name}: {COVER_RATIO} x at {where:.2f}" for _, name in names if (where := crossing(there, name)) is not None
    ]
    if foot:
        parts.append(_text(10, 40 + _PLOT_H + 40, "; ".join(foot) + f" {axis} a system call", "s"))
    return svg(_PLOT_W + 330, _PLOT_H + 92, title, parts)


def both(results: list[Result]) -> Markup:
    """The file has the bars, and under them the curve of the first axis where there is one: one file for a document."""
    upper = bars(results)
    points = next((r.curve for r in results if r.curve), [])
    lower = curve(points, points[0].axis) if points else Markup("")
    return upper if not lower else _stacked(upper, lower)


def _stacked(upper: Markup, lower: Markup) -> Markup:
    sizes = []
    for picture in (upper, lower):
        head = str(picture).partition(">")[0]
        sizes.append(tuple(int(head.partition(f'{name}="')[2].partition('"')[0]) for name in (" width", " height")))
    width, height = max(w for w, _ in sizes), sum(h for _, h in sizes)
    inner = Markup(str(lower).replace("<svg ", f'<svg y="{sizes[0][1]}" ', 1))
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" width="{}" height="{}">{}{}</svg>'
    ).format(width, height, width, height, upper, inner)
