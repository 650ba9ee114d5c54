"""A comparison for a terminal or a pipe."""

from __future__ import annotations

from collections.abc import Iterator

from harness.compare.comparison import Comparison, Entry, Section, table
from harness.process import table as tables
from harness.report import text


def render(comparison: Comparison) -> str:
    """The function gives the text; a terminal breaks its lines."""
    lines = [
        f"{letter}  {text.plain(f'{title}, of {journal}')}"
        for letter, title, journal in zip("AB", (comparison.a, comparison.b), comparison.journals, strict=True)
    ]
    lines += [f"compared: {comparison.chosen}"]
    lines += [f"{comparison.verdict}.", ""]
    rows = table(comparison)
    lines += tables.lines(rows, range(1, len(rows[0])))
    if plain := sum(count.plain for count in comparison.counts):
        lines += [f"({plain} of {len(comparison.counts)} compared cells have nothing to show)"]
    for section in comparison.sections:
        lines += ["", _head(section)]
        for entry in section.entries:
            lines += [f"  {text.plain(line)}" for line in _lines(entry, comparison.chosen)]
    return "\n".join(lines) + "\n"


def _head(section: Section) -> str:
    return f"{section.title}: {len(section.entries)}" + (f" ({section.about})" if section.about else "")


def _lines(entry: Entry, chosen: str) -> Iterator[str]:
    yield entry.title
    yield f"    {entry.count}" + ("" if entry.where == chosen else f"; {entry.where}")
    yield from (f"    {fact}" for fact in entry.facts)
    if entry.again:
        return
    if entry.vector:
        yield f"    {entry.id}"
    if len(entry.where) > len(entry.at) > 0:
        yield f"      at {entry.at}"
    for letters, answer in entry.sides:
        yield f"      {letters}  {answer.seen}" + (f"; {answer.manual}" if answer.manual else "")
