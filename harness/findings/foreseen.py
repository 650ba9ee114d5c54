"""What was foreseen beside what was then seen: of each finding whether it came true, as far as it was looked at."""

from __future__ import annotations

from dataclasses import dataclass

from harness.findings.group import Finding, effective
from harness.findings.run import Run


@dataclass(frozen=True, slots=True)
class Foresight:
    """A foreseen run against an observed one; a finding is its cause.

    ``came_true``: seen as well, as the observed run names it. ``unseen``: foreseen of vectors that were asked, and
    not seen. ``unasked``: of none of its vectors an answer was heard. ``unforeseen``: seen where the mirror was asked
    beforehand, and not foreseen.
    """

    run: int
    came_true: tuple[Finding, ...]
    unseen: tuple[Finding, ...]
    unasked: tuple[Finding, ...]
    unforeseen: tuple[Finding, ...]

    def lines(self) -> list[str]:
        """The lines are for the summary of the observed run."""
        found = [f"foreseen and seen: {', '.join(f.name for f in self.came_true) or 'none'} (foreseen run {self.run})"]
        found += [f"foreseen, not seen: {_told(f)}" for f in self.unseen]
        found += [f"not foreseen: {f.name} {f.title}" for f in self.unforeseen]
        if self.unasked:
            found.append(f"foreseen of vectors that this run did not ask: {len(self.unasked)} more")
        return found


def _told(f: Finding) -> str:
    level, param = f.smallest.cell
    return f"{f.title}; level {level}, parameter {param}: {f.smallest.vector.id}"


def foresight(observed: Run) -> Foresight | None:
    """The newest foreseen run of the journal beside ``observed``; None: there is none, or it is another series'."""
    if not observed.series.mirrored or (info := observed.journal.foreseen()) is None:
        return None
    foreseen = Run.open(observed.journal, info.id)
    seen = {f.cause: f for f in observed.findings}
    expected = {f.cause for f in foreseen.findings}
    missed = [f for f in foreseen.findings if f.cause not in seen]
    asked = _heard(foreseen, observed) if missed else set()
    new = [f for f in observed.findings if f.cause not in expected]
    told = _heard(observed, foreseen) if new else set()
    return Foresight(
        info.id,
        tuple(f for f in observed.findings if f.cause in expected),
        tuple(f for f in missed if _met(f, asked)),
        tuple(f for f in missed if not _met(f, asked)),
        tuple(f for f in new if _met(f, told)),
    )


Key = tuple[int, str, str]  # level, the parameter's effective value, the vector's id


def _met(f: Finding, heard: set[Key]) -> bool:
    return any((d.cell[0], effective(*d.cell), d.vector.id) in heard for d in f.departures)


def _heard(run: Run, other: Run) -> set[Key]:
    """Where ``run`` departs and ``other`` has an answer too."""
    found = run.journal.heard(run.number, run.host, other.number, other.host)
    return {
        (level, effective(level, param), name)
        for level, param, there, name in found
        if effective(level, param) == effective(level, there)
    }
