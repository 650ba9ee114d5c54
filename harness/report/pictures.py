"""Inline SVG: outcomes, exits and time per level, and the lattice of outcomes. Every colour has a letter beside it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from markupsafe import Markup

from harness.questions import parameters
from harness.report.facts import Report, ranges
from harness.report.grid import COLUMNS, PERMISSIONS, Grid
from harness.report.text import duration
from harness.results import Cell
from kvmodel.question.outcome import Kind

LETTERS: Final = {
    Kind.DONE: "D",
    Kind.EXCEPTION: "P",
    Kind.VIOLATION: "V",
    Kind.MISCONFIG: "M",
    Kind.ENTRY_FAIL: "F",
    Kind.ENTRY_EXIT: "X",
    Kind.EXIT: "E",
    Kind.ASTRAY: "A",
    Kind.VALUE: "N",
    Kind.LIVELOCK: "L",
    Kind.BYPASS: "Y",
    Kind.HOST: "H",
    Kind.SCAFFOLD: "S",
    Kind.BLOCKED: "B",
    Kind.SEQUENCE: "Q",
    Kind.NOT_MIRRORED: "U",
    Kind.VMFAIL: "I",
    Kind.UNREACHED: "R",
}
MEANINGS: Final = {
    Kind.DONE: "the access completed",
    Kind.EXCEPTION: "an exception in L2, a page fault mostly",
    Kind.VIOLATION: "an EPT violation",
    Kind.MISCONFIG: "an EPT misconfiguration",
    Kind.ENTRY_FAIL: "the VM entry failed",
    Kind.ENTRY_EXIT: "the VM entry ended in an exit",
    Kind.EXIT: "another exit to L1",
    Kind.ASTRAY: "an exit left L1 or its VMCS otherwise than the manual has it",
    Kind.VALUE: "a value read",
    Kind.LIVELOCK: "no progress, the same exit for ever",
    Kind.BYPASS: "an entry that gives what the host's own rule withholds",
    Kind.HOST: "host trouble",
    Kind.SCAFFOLD: "the probe's own frame broke",
    Kind.BLOCKED: "never ran",
    Kind.SEQUENCE: "several turns of a sequence, each with an answer",
    Kind.VMFAIL: "an instruction of L1's failed with an error number",
    Kind.UNREACHED: "L2 exited before it came to this access",
    Kind.NOT_MIRRORED: "the mirror does not follow the code behind it",
}
SHORT: Final = {"unset": "u", "0": "0", "1": "1"}
LETTERED: Final = "abcdefghijklmnopqrstvwxyz"  # for other parameters' settings; u is taken
_BY_NAME: Final = {kind.value: kind for kind in Kind}

_PLOT = 170  # height of a plot, pixels
_LEFT = 56  # room for the axis
_CELL = 11  # a lattice field's side, pixels


def _svg(width: int, height: int, label: str, parts: list[Markup], scale: float = 1) -> Markup:
    return Markup(
        '<svg class="picture" role="img" aria-label="{}" viewBox="0 0 {} {}" style="width:{:.0f}px">{}</svg>'
    ).format(label, width, height, width * scale, Markup("").join(parts))


def _text(x: float, y: float, text: str, anchor: str = "middle", cls: str = "t") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(cls, x, y, anchor, text)


def _box(x: float, y: float, w: float, h: float, cls: str, title: str) -> Markup:
    return Markup(
        '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
    ).format(cls, x, y, w, h, title)


def _axis(width: int, top: float, unit: str, say: str) -> list[Markup]:
    parts = []
    for share in (0, 0.5, 1):
        y = 12 + _PLOT * (1 - share)
        parts.append(Markup('<line class="axis" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(_LEFT, width, y, y))
        value = top * share
        label = duration(value) if unit == "s" else f"{value:,.0f}"
        parts.append(_text(_LEFT - 4, y + 3, label, "end"))
    parts.append(_text(_LEFT, _PLOT + 52, say, "start"))
    return parts


def _places(cells: list[Cell]) -> tuple[dict[Cell, float], int, int]:
    """Where each cell's bar stands: bars of one level side by side. Positions, a bar's width, the whole width."""
    levels = sorted({level for level, _ in cells})
    bar = 12 if len(cells) > 30 else 18
    x = float(_LEFT + 6)
    places = {}
    for level in levels:
        for param in sorted((p for at, p in cells if at == level), key=parameters.order):
            places[level, param] = x
            x += bar
        x += 6
    return places, bar, max(int(x) + 4, 300)


def _short(cells: Iterable[Cell]) -> dict[str, str]:
    """A letter for each setting of ``cells``."""
    others = sorted({param for _, param in cells} - SHORT.keys())
    return SHORT | {text: LETTERED[n % len(LETTERED)] for n, text in enumerate(others)}


def _legend(cells: Iterable[Cell]) -> str:
    """What the letters stand for."""
    others = [f"{letter} {text}" for text, letter in _short(cells).items() if text not in SHORT]
    return ", ".join(["u unset", *(others or ["0", "1"])])


def _labels(places: dict[Cell, float], bar: int) -> list[Markup]:
    parts = []
    short = _short(places)
    for (_, param), x in places.items():
        parts.append(_text(x + bar / 2 - 1, _PLOT + 24, short[param], cls="t s"))
    for level in sorted({level for level, _ in places}):
        xs = [x for (at, _), x in places.items() if at == level]
        parts.append(_text((min(xs) + max(xs) + bar) / 2 - 1, _PLOT + 37, str(level), cls="t b"))
    return parts


def outcomes(report: Report, grid: Grid) -> Markup:
    """The picture shows how many vectors got which kind of answer, a stacked bar a cell."""
    places, bar, width = _places(report.cells)
    top = max((sum(k.values()) for k in grid.kinds.values()), default=0) or 1
    parts = _axis(width, top, "", f"level, under it the bars of its parameter values: {_legend(report.cells)}")
    for cell, x in places.items():
        y = 12.0 + _PLOT
        for kind in Kind:
            count = grid.kinds[cell].get(kind.value, 0)
            if not count:
                continue
            height = _PLOT * count / top
            y -= height
            title = f"level {cell[0]}, parameter {cell[1]}: {count} {kind.value}"
            parts.append(_box(x, y, bar - 2, height, f"k-{kind.value}", title))
            if height >= 9:
                parts.append(_text(x + bar / 2 - 1, y + height / 2 + 3, LETTERS[kind], cls="t on"))
    return _svg(width, _PLOT + 60, "Answers by kind, per level and parameter", [*parts, *_labels(places, bar)])


def _tint(param: str) -> str:
    """The class of a setting's bar."""
    return f"p-{param if param in SHORT else param[-1] if param[-1] in '01' else 'unset'}"


def _bars(report: Report, values: dict[Cell, float], unit: str, label: str, say: str) -> Markup:
    places, bar, width = _places(report.cells)
    top = max(values.values(), default=0) or 1
    parts = _axis(width, top, unit, say)
    for cell, x in places.items():
        value = values.get(cell, 0)
        height = _PLOT * value / top
        shown = duration(value) if unit == "s" else f"{value:,.0f}"
        title = f"level {cell[0]}, parameter {cell[1]}: {shown}"
        parts.append(_box(x, 12 + _PLOT - height, bar - 2, height, _tint(cell[1]), title))
    return _svg(width, _PLOT + 60, label, [*parts, *_labels(places, bar)])


def times(report: Report) -> Markup:
    """Seconds a cell took on its host."""
    values = {(r.level, r.param): r.seconds for r in report.rows}
    return _bars(report, values, "s", "Time per level and parameter", "time on the host, by level and parameter value")


COUNTED: Final = {
    "exits": "VM exits that KVM handled",
    "pf_spurious": "page faults that changed no shadow entry (pf_spurious)",
}


def counted(report: Report) -> list[tuple[str, Markup]]:
    """The picture shows KVM's own counters a cell, where the run read them; it comes with its title."""
    found = []
    for name, title in COUNTED.items():
        if any(report.counters.get(name, {}).values()):
            values: dict[Cell, float] = dict(report.counters[name])
            found.append((title, _bars(report, values, "", f"{title}, per level and parameter", title)))
    return found


def lattices(report: Report, grid: Grid) -> list[tuple[str, Cell, Markup]]:
    """The function gives a small matrix for each run of levels that look alike: title, a cell to open, picture."""
    wanted = [c for c in report.cells if c[1] == "1" or (c[0], "1") not in report.cells]
    by_level = {level: (level, param) for level, param in wanted}
    groups: list[tuple[list[int], Cell]] = []
    for _, cell in sorted(by_level.items()):
        if not any(any(row) for row in grid.lattice[cell]):
            continue
        if groups and grid.lattice[groups[-1][1]] == grid.lattice[cell]:
            groups[-1][0].append(cell[0])
        else:
            groups.append(([cell[0]], cell))
    return [_lattice(levels, cell, grid.lattice[cell]) for levels, cell in groups]


def _lattice(levels: list[int], cell: Cell, rows: list[list[str]]) -> tuple[str, Cell, Markup]:
    left, head = 34, 40
    width, height = left + _CELL * len(COLUMNS) + 18, head + _CELL * len(PERMISSIONS) + 2
    parts = []
    for n, column in enumerate(COLUMNS):
        x = left + _CELL * n + _CELL / 2 + 3
        parts.append(
            Markup('<text class="t s" transform="translate({:.1f} {}) rotate(-60)">{}</text>').format(
                x, head - 4, column
            )
        )
    for r, (permission, kinds) in enumerate(zip(PERMISSIONS, rows, strict=True)):
        y = head + _CELL * r
        parts.append(_text(left - 4, y + 8.5, permission, "end", "t m"))
        for c, kind in enumerate(kinds):
            if not kind:
                continue
            x = left + _CELL * c
            parts.append(
                Markup('<rect class="k-{}" x="{}" y="{}" width="{}" height="{}"/>').format(
                    kind, x, y, _CELL - 1, _CELL - 1
                )
            )
            parts.append(_text(x + 5, y + 8.5, LETTERS[_BY_NAME[kind]], cls="t on s"))
    title = f"level {ranges(levels)}" if len(levels) == 1 else f"levels {ranges(levels)}"
    return title, cell, _svg(width, height, f"Lattice of outcomes, {title}, parameter {cell[1]}", parts, 1.4)
