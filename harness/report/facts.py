"""Everything a report says, gathered once from the journal; the formats only lay it out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from harness.errors import InputError
from harness.findings import Finding, Row, of_run
from harness.questions import parameters, selection
from harness.report import baseline as known_findings
from harness.report.series import UNKNOWN, PatchRow, patch_rows
from harness.results import CellKey, Journal, Mark, Under, cpus, of_series
from kvmodel import machine

MACHINE_FACTS: Final = ("qemu", "package", "accelerator", "cpu_model", "properties", "refused", "msrs")
Cell = tuple[int, str]  # level, parameter
Told = list[tuple[CellKey, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A named rule that put vectors aside: where it comes from, what it says, how many it met."""

    name: str
    section: str
    text: str
    vectors: int


@dataclass(slots=True)
class FindingView:
    """A finding with what the mirror says of it."""

    finding: Finding
    remark: str | None  # the baseline's, where it is known
    predicted: str
    steps: list[str]
    traces: list[str] = field(default_factory=list)  # what KVM's tracepoints showed of its livelocks
    moved: str = ""  # that it begins at another level than in the run that wrote the baseline

    @property
    def known(self) -> bool:
        """Whether the baseline holds it."""
        return self.remark is not None

    @property
    def cell_texts(self) -> list[str]:
        """``15-18 (parameter 1)`` and the like."""
        by_params: dict[str, list[int]] = {}
        levels: dict[int, list[str]] = {}
        for level, param in sorted(self.finding.cells, key=lambda c: (c[0], parameters.order(c[1]))):
            levels.setdefault(level, []).append(param)
        for level, params in levels.items():
            by_params.setdefault("/".join(params), []).append(level)
        return [f"{ranges(found)} (parameter {params})" for params, found in by_params.items()]

    @property
    def command(self) -> str:
        """What reproduces it."""
        return self.finding.command


@dataclass(slots=True)
class Report:
    """A run as the formats see it."""

    run: int
    status: str
    begun: float
    ended: float | None
    argv: list[str]
    provenance: dict[str, Any]
    rows: list[Row]
    totals: dict[str, Any]
    json: dict[str, Any]
    findings: list[FindingView]
    errata: list[Finding]
    patches: list[PatchRow]
    rules: list[Rule]
    collapsed: list[Rule]
    blocked: list[tuple[str, int]]  # reasons why vectors did not run, most frequent first
    counters: dict[str, dict[Cell, int]]  # KVM's own, by name, where the run read them
    warnings: list[tuple[str, list[Cell]]]  # of the host's kernel, with the cells that met them
    machines: list[tuple[str, list[str]]]  # what the run found out about its guests: name, distinct values
    drifts: list[tuple[Cell, str, str, str]] = field(default_factory=list)  # a few: cell, vector, mirror, seen
    has_baseline: bool = False

    @property
    def seconds(self) -> float | None:
        """How long the run took, wall time."""
        return None if self.ended is None else self.ended - self.begun

    @property
    def mirror_asked(self) -> bool:
        """Whether a mirror spoke: it is of one series, and a run may leave it out."""
        return of_series.mirror_asked(self.provenance)

    @property
    def levels(self) -> list[int]:
        """The levels that ran."""
        return sorted({r.level for r in self.rows})

    @property
    def cells(self) -> list[Cell]:
        """(level, parameter) of every row, in order."""
        return [(r.level, r.param) for r in self.rows]

    @property
    def answered(self) -> str:
        """How many answers the run has, and where they are from if not all are of their own level."""
        taken = self.totals["taken"]
        rest = f", {taken:,} of them a lower level's with the same machine code" if taken else ""
        return f"{self.totals['vectors']:,} answers{rest}"

    @property
    def new_findings(self) -> list[FindingView]:
        """Those the baseline does not hold."""
        return [f for f in self.findings if not f.known]

    @property
    def broken_claims(self) -> list[int]:
        """Patches that claim no functional change and show one."""
        return [p.number for p in self.patches if p.broken_claim]

    @property
    def verdict(self) -> str:
        """The run in one sentence."""
        words = []
        if self.status != "complete":
            words.append(f"the run is {self.status}")
        drift = self.totals["drift"]
        if self.mirror_asked:
            words.append(f"{drift} answers differ from the mirror (drift)" if drift else "no drift")
        else:
            words.append("no mirror was asked")
        new, known = len(self.new_findings), len(self.findings) - len(self.new_findings)
        words.append(f"{plural(new, 'new finding' if self.has_baseline else 'finding')}")
        if known:
            words.append(f"{plural(known, 'known finding')}")
        if moved := [f.finding.name for f in self.findings if f.moved]:
            words.append(f"{', '.join(moved)} known, but beginning at another level")
        if self.broken_claims:
            words.append(f"patch {ranges(self.broken_claims)} claims no change and shows one")
        if self.totals["blocked"]:
            words.append(f"{self.totals['blocked']} blocked")
        return ", ".join(words)

    def tested_by_hurdles(self, last_level: int) -> list[str]:
        """Why the run does not support a Tested-by; empty where it does."""
        hurdles = []
        if self.status != "complete":
            hurdles.append(f"the run is {self.status}")
        if missing := sorted(set(range(last_level + 1)) - set(self.levels)):
            hurdles.append(f"levels {ranges(missing)} did not run")
        if not self.totals["vectors"]:
            hurdles.append("no vector ran")
        if self.totals["drift"]:
            hurdles.append(f"{self.totals['drift']} answers differ from the mirror")
        if self.findings:
            hurdles.append(plural(len(self.findings), "finding"))
        if self.broken_claims:
            hurdles.append(f"patch {ranges(self.broken_claims)} claims no change and shows one")
        if self.totals["blocked"]:
            hurdles.append(f"{self.totals['blocked']} vectors were blocked")
        return hurdles


def plural(count: int, noun: str) -> str:
    """``1 finding``, ``2 findings``."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def ranges(numbers: list[int]) -> str:
    """``0, 11, 16-18``."""
    found: list[list[int]] = []
    for n in sorted(numbers):
        if found and n == found[-1][1] + 1:
            found[-1][1] = n
        else:
            found.append([n, n])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def load(journal: Journal, run: int | None = None, baseline: Path | None = None) -> Report:
    """A run's report (the latest run's where ``run`` is None); InputError where there is none or it is empty."""
    run = journal.latest(of_run.KVM_HOST) if run is None else run
    info = journal.run_info(run)
    body = of_run.as_json(journal, run)
    cells = journal.cells(run)
    if not any(k.host == of_run.KVM_HOST for k in cells):
        if cells:
            raise InputError(
                f"run {run} is of the bare CPU: 'kvmirror findings --bare' lists its errata; name another with --run"
            )
        raise InputError(
            f"run {run} has no finished cell yet ({info['status']}): wait for it, or name another with --run"
        )
    known = known_findings.read(baseline) if baseline else {}
    remarks = {cause: entry.remark for cause, entry in known.items()}
    found = of_run.findings(journal, run)
    under = cpus.of_run(info["provenance"])
    views = [_view(f, remarks, under) for f in found]
    table = [Row(**row) for row in body["levels"]]
    for view in views:
        if view.known:
            view.moved = known[view.finding.cause].moved(view.finding, (row.level for row in table))
    told = [(k, facts) for k, (_, _, facts) in cells.items() if k.host == of_run.KVM_HOST]
    traces = {((k.level, k.param), v): str(text) for k, f in told for v, text in f.get("livelocks", {}).items()}
    for view in views:
        found_traces = (traces.get((d.cell, d.vector), "") for d in view.finding.departures)
        view.traces = sorted({text for text in found_traces if text})
    report = Report(
        run=run,
        status=info["status"],
        begun=info["begun"],
        ended=info["ended"],
        argv=info["argv"],
        provenance=info["provenance"],
        rows=table,
        totals=body["totals"],
        json=body,
        findings=views,
        errata=_errata(journal, run),
        patches=[],
        rules=[Rule(r["name"], r["section"], r["text"], r["vectors"]) for r in body["rules"]],
        collapsed=[Rule(r["name"], "", r["text"], r["vectors"]) for r in body["collapsed"]],
        blocked=[(b["reason"], b["vectors"]) for b in body["blocked"]],
        counters=_counters(told),
        warnings=_warnings(told),
        machines=_machines(told),
        has_baseline=baseline is not None,
    )
    report.patches = _patches(report)
    report.drifts = _some_drift(journal, run)
    if baseline is not None:
        for entry, view in zip(body["findings"], views, strict=True):
            entry["known"] = view.known
            if view.moved:
                entry["moved"] = view.moved
    return report


def _errata(journal: Journal, run: int) -> list[Finding]:
    """The bare CPU's, of this run, or where it did not ask the bare CPU, of the newest run that did."""
    found = of_run.findings(journal, run, of_run.BARE_HOST)
    return found or of_run.findings(journal, journal.latest(of_run.BARE_HOST), of_run.BARE_HOST)


def _counters(told: Told) -> dict[str, dict[Cell, int]]:
    found: dict[str, Counter[Cell]] = {}
    for key, facts in told:
        for name, value in facts.get("counters", {}).items():
            found.setdefault(name, Counter())[key.level, key.param] += value
    return {name: dict(cells) for name, cells in found.items()}


def _warnings(told: Told) -> list[tuple[str, list[Cell]]]:
    found: dict[str, set[Cell]] = {}
    for key, facts in told:
        for text in facts.get("warnings", ()):
            found.setdefault(str(text), set()).add((key.level, key.param))
    return [(text, sorted(cells)) for text, cells in found.items()]


def _machines(told: Told) -> list[tuple[str, list[str]]]:
    """Distinct values of the facts that name a guest's parts; a dictionary's items one by one."""
    found: dict[str, dict[str, None]] = {}
    for _, facts in told:
        for name in MACHINE_FACTS:
            value = facts.get(name)
            if isinstance(value, dict):
                for inner, what in value.items():
                    found.setdefault(f"{name} {inner}", {})[str(what)] = None
            elif value not in (None, "", []):
                text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
                found.setdefault(name, {})[text] = None
    return [(name, list(values)) for name, values in found.items()]


def _view(finding: Finding, remarks: dict[str, str], under: Under) -> FindingView:
    """Ask the mirror for steps; one that does not know the level has none."""
    smallest = finding.smallest
    if smallest.predicted is None:
        return FindingView(finding, remarks.get(finding.cause), "no mirror was asked", [])
    level = smallest.cell[0]
    (param,) = selection.params(smallest.cell[1])
    vector = selection.vector(smallest.vector)
    cpu = under(vector.machine.env.cpu_mbec)
    try:
        prediction = machine.predict(level, param, cpu, vector, steps=True)
    except ValueError:  # a level the mirror has not: another series
        return FindingView(finding, remarks.get(finding.cause), "no mirror for this series", [])
    return FindingView(finding, remarks.get(finding.cause), str(prediction.outcome), [str(s) for s in prediction.steps])


def _patches(report: Report) -> list[PatchRow]:
    rows = patch_rows(report.provenance, max(report.levels))
    present = set(report.cells)
    by_cell = {(r.level, r.param): r for r in report.rows}
    for patch in rows:
        here = [c for c in report.cells if c[0] == patch.number]
        patch.ran = bool(here)
        # A level that ran was built of its patches: what the run did not write down, it shows.
        if patch.applies == UNKNOWN and patch.number <= max(report.levels):
            patch.applies = "yes"
        if patch.builds == UNKNOWN and patch.ran:
            patch.builds = "yes"
        patch.drift = sum(by_cell[c].drift for c in here)
        below = {c: of_run.below(*c, present) for c in here}
        if any(below.values()):
            patch.changes = sum(by_cell[c].changes for c in here)
            patch.compared_with = min(b[0] for b in below.values() if b is not None)
        patch.first_seen = [v.finding.name for v in report.findings if v.finding.first_level == patch.number]
        patch.caused = [v.finding.name for v in report.findings if patch.number in v.finding.origin.patches]
    return rows


def patches(journal: Journal, run: int) -> list[PatchRow]:
    """The series of a run, a row a patch: what each claims and what was seen."""
    return load(journal, run).patches


def _some_drift(journal: Journal, run: int, most: int = 50) -> list[tuple[Cell, str, str, str]]:
    found = []
    for row in journal.results(run, having=Mark.DRIFT, host=of_run.KVM_HOST):
        predicted = row["predicted"]
        found.append(((row["level"], row["param"]), row["vector"], str(predicted), str(row["seen"])))
        if len(found) == most:
            break
    return found
