"""KTAP version 1 (Documentation/dev-tools/ktap.rst): what the patches claim, then a subtest a level and value.

A line is a patch that says of itself that it changes nothing, or a group of vectors.
"""

from __future__ import annotations

from harness.report.facts import Report
from harness.report.groups import CaseGroup
from harness.report.series import PatchRow
from harness.report.text import ktap
from harness.results import Cell


def render(report: Report, groups: dict[Cell, dict[str, CaseGroup]]) -> str:
    """The function gives the document."""
    claims = [p for p in report.patches if p.claims_no_change]
    lines = ["KTAP version 1", f"1..{len(groups) + bool(claims)}"]
    if claims:
        lines += _claims(claims)
    for number, ((level, param), found) in enumerate(groups.items(), 1 + bool(claims)):
        title = f"level {level} parameter {param}"
        unsteady = report.unsteady_at((level, param))
        lines += ["  KTAP version 1", f"  # Subtest: {title}", f"  1..{len(found) + bool(unsteady)}"]
        good = not unsteady
        for n, (name, group) in enumerate(found.items(), 1):
            ok = not (group.drift or group.new)
            good = good and ok
            lines += [f"  # {line}" for line in _diagnostics(report, group)]
            skip = f" # SKIP {ktap(group.skipped)}" if group.skipped else ""
            lines.append(f"  {'ok' if ok else 'not ok'} {n} {ktap(name)}{skip}")
        lines += [f"  # {ktap(line)}" for line in unsteady]
        lines += [f"  not ok {len(found) + 1} reproducible"] if unsteady else []
        lines.append(f"{'ok' if good else 'not ok'} {number} {title}")
    return "\n".join(lines) + "\n"


def _claims(claims: list[PatchRow]) -> list[str]:
    """The first subtest: a line a patch that claims no functional change."""
    title = "claims of no functional change"
    lines = ["  KTAP version 1", f"  # Subtest: {title}", f"  1..{len(claims)}"]
    for n, patch in enumerate(claims, 1):
        skip = "" if patch.claim_text else f" # SKIP level {patch.number} did not run beside level {patch.number - 1}"
        if patch.broken_claim:
            lines.append(f"  # {ktap(patch.claim_text)}: kvmirror changes --patch {patch.number}")
        lines.append(f"  {'not ok' if patch.broken_claim else 'ok'} {n} patch {patch.number:04}{skip}")
    lines.append(f"{'not ok' if any(p.broken_claim for p in claims) else 'ok'} 1 {title}")
    return lines


def _diagnostics(report: Report, group: CaseGroup) -> list[str]:
    lines = []
    for view in report.findings:
        if vectors := group.findings.get(view.finding.name):
            state = "known " if view.known else ""
            lines.append(ktap(f"{state}finding {view.finding.name} ({view.finding.cause}): {view.finding.title}"))
            lines.append(ktap(f"{view.finding.whence}; {len(vectors)} vectors here"))
            lines.append(ktap(vectors[0]))
            if view.moved:
                lines.append(ktap(f"{view.finding.name} {view.moved}"))
    if group.drift:
        lines += [ktap(f"drift: {len(group.drift)} of {group.vectors} answers differ from the mirror")]
        lines += [ktap(group.drift[0])]
    return lines
