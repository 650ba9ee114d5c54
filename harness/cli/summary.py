"""What a run comes to, as ``kvmirror validate`` and ``kvmirror replay`` print it, and the exit code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from harness.cli.findings import brought, listed
from harness.findings import Finding, Run, foresight
from harness.report import facts
from harness.results import Row, of_series, parts


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run comes to: a patch that claims to change nothing and does is a finding too.

    ``findings`` are all, or with ``new`` those that the series brings, which alone are counted then.
    """

    asked: Run
    total: Row
    findings: list[Finding]
    claims: list[tuple[int, str]]  # patches, and what became of what each claims
    new: bool

    @classmethod
    def of(cls, asked: Run, new: bool) -> Summary:
        """The summary is made of a run as it stands in its journal."""
        claims = [(p.number, p.claim_text) for p in facts.patches(asked) if p.broken_claim]
        total = asked.totals
        found = brought(asked) if new else asked.findings
        if new:
            total = replace(total, findings=sum(len(f.departures) for f in found))
        return cls(asked, total, found, claims, new)

    @property
    def code(self) -> int:
        """The value is the exit code of the command."""
        total = self.total
        if total.drift or total.event_drift:
            return 3
        return 1 if total.findings or self.claims or total.not_reproduced else 0

    def lines(self, seconds: float) -> Iterator[str]:
        """The lines are what is printed behind the table; the run took ``seconds``."""
        asked, total = self.asked, self.total
        mirrored = of_series.mirror_asked(asked.info.provenance)
        drift = f"{total.drift} drift" if mirrored else "no mirror was asked"
        yield (
            f"{total.vectors} answers in {seconds:.0f} s: {total.agree} agree, {drift}, {total.findings} findings, "
            f"{total.not_applicable} not applicable, {total.blocked} blocked, {total.entry_failures} refused entries, "
            f"{total.collapsed} merged by rule"
        )
        if total.taken:
            yield f"{total.taken} of the answers are taken from a lower level that is the same machine code"
        if total.not_mirrored:
            yield f"{total.not_mirrored} answers were held against the manual alone, in whole or in part: not mirrored"
        if asked.earlier:
            yield (
                f"{total.earlier} of the answers are taken from run {facts.ranges(asked.earlier)}, where all that they "
                f"rest on was the same; {total.again} were asked again, {total.not_reproduced} of them came out "
                "otherwise (--fresh asks all)"
            )
        for cell, unsteady in asked.not_reproduced:
            yield f"NOT REPRODUCIBLE: level {cell.level}, parameter {cell.param}: {unsteady.vector}"
            yield (
                f"     run {unsteady.run} saw {unsteady.before}, this run {unsteady.now}; nothing that it rests on has "
                "changed"
            )
        yield from parts.lines(asked.parts)
        if mirrored:
            yield f"{total.traced} answers traced event by event: {total.event_drift} differ from the mirror"
        for cell, one in asked.event_drift:
            yield f"     level {cell.level}, parameter {cell.param}: {one.vector}\n     {one.difference}"
        for f in self.findings:
            yield from listed(f)
        if self.new:
            yield f"the base has {len(asked.findings) - len(self.findings)} findings of its own, which are not counted"
        if (foreseen := foresight(asked)) is not None:
            yield from foreseen.lines()
        for number, text in self.claims:
            yield f"patch {number} {text}: kvmirror changes --patch {number}"
