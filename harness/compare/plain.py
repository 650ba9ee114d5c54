"""A comparison for a terminal or a pipe."""

from __future__ import annotations

from collections.abc import Iterator

from harness.compare.comparison import Comparison, Entry, Section, table
from harness.process import table as tables
from harness.report import text


def render(comparison: Comparison) -> str:
    """The text, a terminal breaks its lines."""
    lines = [f"A  {text.plain(comparison.a)}", f"B  {text.plain(comparison.b)}", f"compared: {comparison.chosen}"]
    lines += [f"{comparison.verdict}.", ""]
    rows = table(comparison)
    lines += tables.lines(rows, range(1, len(rows[0])))
    for section in comparison.sections:
        lines += ["", _head(section)]
        for entry in section.entries:
            lines += [f"  {text.plain(line)}" for line in _lines(entry)]
    return "\n".join(lines) + "\n"


def _head(section: Section) -> str:
    return f"{section.title}: {len(section.entries)}"


def _lines(entry: Entry) -> Iterator[str]:
    yield entry.title
    yield f"    {entry.count}; {entry.where}"
    yield from (f"    {fact}" for fact in entry.facts)
    if entry.vector:
        yield f"    {entry.vector}" + (f"  at {entry.at}" if entry.at != entry.where else "")
    for letter, answer in (("A", entry.before), ("B", entry.after)):
        if answer is not None:
            yield f"      {letter}  {answer.seen}" + (f"; {answer.manual}" if answer.manual else "")
