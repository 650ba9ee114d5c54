"""Markdown for a merge request: the verdict, what is new, the series, and how to reproduce."""

from __future__ import annotations

from harness.report.facts import FindingView, Report, plural
from harness.report.text import code, duration, markdown
from harness.results import stands

MOST = 20  # findings that are written out


def render(report: Report) -> str:
    """The function gives the text."""
    bad = report.totals.drift or report.unsteady or report.new_findings or report.broken_claims
    good = not bad and report.status == "complete"
    took = "" if report.seconds is None else f" in {duration(report.seconds)}"
    lines = [
        f"## kvmirror: {'foreseen, nothing ran' if report.foreseen else 'pass' if good else 'look at this'}",
        "",
        f"{markdown(report.verdict[0].upper() + report.verdict[1:])}. "
        f"{report.answered}, from {plural(len(report.rows), 'pair')} of level and parameter value{took}.",
        "",
    ]
    for title, views in (
        ("New findings" if report.has_baseline else "Findings", report.new_findings),
        ("Known findings", [v for v in report.findings if v.known]),
    ):
        if views:
            lines += [f"### {title}", ""]
            for view in views[:MOST]:
                lines += _finding(view, "foreseen" if report.foreseen else "seen")
            if len(views) > MOST:
                lines += [f"and {len(views) - MOST} more.", ""]
    if report.drifts:
        lines += ["### Drift: the model is wrong", ""]
        lines += ["| level | parameter | vector | mirror | seen |", "|--:|---|---|---|---|"]
        for (level, param), vector, mirror, seen in report.drifts[:10]:
            lines.append(f"| {level} | {param} | {code(vector)} | {markdown(mirror)} | {markdown(seen)} |")
        lines.append("")
    if report.unsteady:
        lines += ["### Not reproducible", "", "| level | parameter | vector | earlier run | its answer | this run |"]
        lines.append("|--:|---|---|--:|---|---|")
        for (level, param), one in report.unsteady:
            answers = f"{markdown(str(one.before))} | {markdown(str(one.now))}"
            lines.append(f"| {level} | {param} | {code(one.vector)} | {one.run} | {answers} |")
        lines.append("")
    lines += ["### Series", "", "| patch | subject | applies | builds | changes | findings first seen | drift |"]
    lines.append("|--:|---|---|---|--:|---|--:|")
    for p in report.patches:
        changes = "-" if p.changes is None else str(p.changes)
        if p.broken_claim:
            changes += " (claims none)"
        lines.append(
            f"| {p.number} | {markdown(p.subject)} | {markdown(p.applies)} | {markdown(p.builds)} | {changes}"
            f" | {', '.join(p.first_seen)} | {p.drift} |"
        )
    if left := [p for p in report.patches if p.left_out]:
        lines += ["", "### What changes when a patch is left out", ""]
        lines += [f"- patch {p.number}: {markdown(text)}" for p in left for text in p.left_out]
    if report.rules:
        lines += ["", "### Not applicable", "", "| rule | vectors | what it says |", "|---|--:|---|"]
        lines += [f"| {code(rule.name)} | {rule.vectors} | {markdown(rule.text)} |" for rule in report.rules]
    if empty := [part for part in report.parts if part.empty]:
        lines += ["", "### Nothing was asked of these parts", ""]
        lines += [f"- {code(part.name)}: {part.vectors} vectors, {markdown(part.reasons)}" for part in empty]
    return "\n".join(lines) + "\n"


def _finding(view: FindingView, word: str) -> list[str]:
    finding = view.finding
    smallest = finding.smallest
    lines = [
        f"- **{finding.name}** {markdown(finding.title)}",
        f"  - {markdown(finding.whence)}",
        f"  - levels {markdown('; '.join(view.cell_texts))}; {plural(len(finding.vectors), 'vector')}"
        + (f"; {markdown(finding.confirmed)}" if finding.confirmed else ""),
        f"  - the manual: {markdown(smallest.allowed)} ({code(smallest.rule)}, {markdown(stands(smallest.section))});"
        f" {word}: {markdown(smallest.seen)}",
    ]
    if view.moved:
        lines.append(f"  - baseline: {markdown(view.moved)}")
    return [*lines, f"  - {code(view.command)}", f"  - cause {code(finding.cause)}", ""]
