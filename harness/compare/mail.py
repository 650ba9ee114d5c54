"""A comparison as a mail to the list: plain text of 72 columns, to be sent or replied to."""

from __future__ import annotations

from harness.compare.comparison import Comparison, Entry, Section
from harness.report import mail, text


def render(comparison: Comparison) -> str:
    """The function gives the mail; who sends it adds From, To and what it answers."""
    made = mail.blank()
    a, b = comparison.names
    made["Subject"] = f"kvmirror: behaviour of {text.plain(a, 80)} against {text.plain(b, 80)}"
    return mail.written(made, _body(comparison))


def _body(comparison: Comparison) -> list[str]:
    lines = text.wrapped(
        "Two runs of the same questions to nested guests, answer by answer. Each answer was held against the SDM with"
        " the virtual CPU of its own side."
    )
    lines += ["", *text.wrapped(comparison.a, "     ", "  A: "), *text.wrapped(comparison.b, "     ", "  B: ")]
    lines += text.wrapped(comparison.chosen, "     ", "  compared: ")
    lines += ["", *text.wrapped(f"{comparison.verdict}.")]
    for section in comparison.sections:
        lines += ["", *_section(section)]
    return lines


def _section(section: Section) -> list[str]:
    lines = text.wrapped(f"{section.title}:")
    if section.about:
        lines += text.wrapped(f"({section.about})")
    for entry in section.entries:
        lines += ["", *_entry(entry)] if entry.vector else _entry(entry)
    return lines


def _entry(entry: Entry) -> list[str]:
    lines = text.wrapped(entry.title, "    ", "  - ")
    lines += text.wrapped(f"{entry.count}; {entry.where}", "    ")
    for fact in entry.facts:
        lines += text.wrapped(fact, "    ")
    if entry.again:
        return lines
    if entry.vector:
        lines += ["", *text.command_lines(entry.id)]
    if len(entry.where) > len(entry.at) > 0:
        lines += [f"    at {entry.at}"]
    for letters, answer in entry.sides:
        said = answer.seen + (f"; {answer.manual}" if answer.manual else "")
        lines += text.wrapped(said, "       ", f"    {letters}: ")
    return lines
