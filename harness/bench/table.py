"""The results as text: a table a kernel, what did not run and why, the curve."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Final

from harness.bench.kinds import KINDS, OTHER, by_kind, runs_of
from harness.bench.result import Measured, Point, Result, caused, crossing
from harness.bench.variants import COVER_RATIO, VARIANTS
from kvmodel.machine.exits import Mix

FIRST: Final = 32  # width of a table's first column
WIDE: Final = 17  # of the others
AVOIDED: Final = "counted all the same with the fault avoided: this L1 sets bit 10 beside X in its EPT entries"


def mix_text(mix: Mix) -> str:
    """The sentence says what L2 did."""
    parts = []
    for every, what in (
        (mix.hypercall_every, "makes a hypercall" if mix.hypercalls == 1 else f"makes {mix.hypercalls} hypercalls"),
        (mix.load_every, "loads new kernel code"),
        (mix.fresh_every, "touches a fresh page"),
    ):
        if every:
            parts.append(f"one in {every} {what}" if every > 1 else f"each {what}")
    beside = f"; {', '.join(parts)}" if parts else ""
    return f"{mix.calls} system calls{beside}; at each exit L1 reads {mix.looks} VMCS fields beside what the exit needs"


def _line(first: str, cells: Iterator[str] | list[str]) -> str:
    return (f"  {first:{FIRST}}" + "".join(f"{cell:>{WIDE}}" for cell in cells)).rstrip()


def _spread(row: Measured) -> str:
    spread = caused(row.spread)
    return "none" if not spread else f"{sum(spread.values())} exits"


def _mirror(row: Measured) -> str:
    if row.predicted is None:
        return "not asked"
    return "differs" if row.drift else "the same"


def ratio_text(value: float | None) -> str:
    """The text is a ratio as ``24.1 x``, a dash where there is none."""
    return "-" if value is None else f"{value:.1f} x"


def cover_text(row: Measured) -> str:
    """The text has the cover's exits a second, and its ratio."""
    cover, first = row.variant.cover, VARIANTS[0].cover
    return "-" if cover is None or first is None else f"{cover:,} ({first / cover:.0f} x)"


def kernel_lines(result: Result) -> Iterator[str]:
    """One kernel's table, then what its rows do not say."""
    yield result.kernel.name
    rows = [row for row in result.rows if row.runs]
    if rows:
        yield _line("", [row.variant.name for row in rows])
        found = [by_kind(row.counted) for row in rows]
        for name in (*KINDS.values(), OTHER):
            if any(kinds[name] for kinds in found):
                cells = [f"{kinds[name] * 1000 / r.calls:,.0f}" for kinds, r in zip(found, rows, strict=True)]
                yield _line(name, cells)
        yield _line("all", [f"{row.rate:,.0f}" for row in rows])
        yield _line(f"fewer than {VARIANTS[0].name}", [ratio_text(result.ratio(row)) for row in rows])
        yield _line("the mirror's", [_mirror(row) for row in rows])
        yield _line(f"spread of {max(len(r.runs) for r in rows)} runs", [_spread(row) for row in rows])
        yield _line("KVM's counter beside", [f"+-{row.apart}" for row in rows])
        yield _line("the cover's, a second", [cover_text(row) for row in rows])
    for row in result.rows:
        yield from _notes(row)


def _notes(row: Measured) -> Iterator[str]:
    name = row.variant.name
    if row.finding:
        yield f"  {name}: kept from running as it is by a finding: {row.finding}"
        if row.avoided:
            yield f"  {name}: {AVOIDED}"
    if row.missing:
        yield f"  {name}: not run: {row.missing}"
    for exit, (mirror, counted) in sorted(row.drift.items()):
        yield f"  {name}: drift: {exit}: the mirror has {mirror}, {counted} were counted"
    if row.trace_differs:
        yield f"  {name}: event drift: {row.trace_differs}"
    for exit, n in sorted(caused(row.spread).items()):
        yield f"  {name}: {exit} differs by {n} between runs"


def call_lines(result: Result) -> Iterator[str]:
    """The lines have one system call without anything beside it, exit by exit as the mirror has it."""
    for row in result.rows:
        if row.runs and row.call is not None:
            yield _line(row.variant.name, [""]) + f"  {runs_of(row.call)}"


def axis_text(axis: str, value: float) -> str:
    """The text is like ``1/4 hypercalls a system call``."""
    return f"{'1/' + str(round(1 / value)) if 0 < value < 1 else f'{value:g}'} {axis} a system call"


def curve_lines(points: list[Point]) -> Iterator[str]:
    """The lines say how many times fewer exits each variant has than the first, by mix, and where the cover's ratio
    lies.
    """
    names = [v.name for v in VARIANTS[1:] if any(p.ratio(v.name) is not None for p in points)]
    yield _line("", names)
    for axis, group in groupby(points, key=lambda p: p.axis):
        there = list(group)
        for point in there:
            yield _line(axis_text(axis, point.value), [ratio_text(point.ratio(name)) for name in names])
        for name in names:
            if (at := crossing(there, name)) is not None:
                yield f"  {name}: {COVER_RATIO} x lies at {at:.2f} {axis} a system call"


def lines(mix: Mix, results: list[Result]) -> Iterator[str]:
    """The function gives all lines of the report."""
    yield f"VM exits a thousand system calls: {mix_text(mix)}."
    for result in results:
        yield ""
        yield from kernel_lines(result)
    for result in results:
        if any(row.call for row in result.rows):
            yield ""
            yield f"One system call, exit by exit, on {result.kernel.name}:"
            yield from call_lines(result)
            break
    for result in results:
        if result.curve:
            yield ""
            yield f"Fewer exits than {VARIANTS[0].name}, by what L2 does beside system calls, on {result.kernel.name}:"
            yield from curve_lines(result.curve)
