"""KTAP version 1 (Documentation/dev-tools/ktap.rst): a subtest a level and parameter value, a line a group."""

from __future__ import annotations

from harness.report.facts import Cell, Report
from harness.report.groups import Group
from harness.report.text import ktap


def render(report: Report, groups: dict[Cell, dict[str, Group]]) -> str:
    """The document."""
    lines = ["KTAP version 1", f"1..{len(groups)}"]
    for number, ((level, param), found) in enumerate(groups.items(), 1):
        title = f"level {level} parameter {param}"
        lines += ["  KTAP version 1", f"  # Subtest: {title}", f"  1..{len(found)}"]
        good = True
        for n, (name, group) in enumerate(found.items(), 1):
            ok = not (group.drift or group.new)
            good = good and ok
            lines += [f"  # {line}" for line in _diagnostics(report, group)]
            skip = f" # SKIP {ktap(group.skipped)}" if group.skipped else ""
            lines.append(f"  {'ok' if ok else 'not ok'} {n} {ktap(name)}{skip}")
        lines.append(f"{'ok' if good else 'not ok'} {number} {title}")
    return "\n".join(lines) + "\n"


def _diagnostics(report: Report, group: Group) -> list[str]:
    lines = []
    for view in report.findings:
        if vectors := group.findings.get(view.finding.name):
            state = "known " if view.known else ""
            lines.append(ktap(f"{state}finding {view.finding.cause}: {view.finding.symptom}, {len(vectors)} vectors"))
            lines.append(ktap(vectors[0]))
    if group.drift:
        lines += [ktap(f"drift: {len(group.drift)} of {group.vectors} answers differ from the mirror")]
        lines += [ktap(group.drift[0])]
    return lines
