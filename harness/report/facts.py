"""Everything a report says, gathered once from the journal; the formats only lay it out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from harness.errors import InputError
from harness.findings import Finding, Run, finding_json
from harness.hosts import models
from harness.jsonable import Json
from harness.questions import Setting
from harness.report import baseline as known_findings
from harness.report.series import NOT_RECORDED, PatchRow, patch_rows
from harness.results import (
    BARE_HOST,
    Cell,
    Journal,
    Mark,
    NotReproduced,
    OfRun,
    PartAsked,
    Row,
    RuleRow,
    RunInfo,
    Said,
    Under,
    below,
    cell_order,
    cpus,
    of_series,
)
from kvmodel import machine

MACHINE_FACTS: Final = ("qemu", "package", "accelerator", "board", "cpu_model", "properties", "refused", "msrs")
Told = list[tuple[Cell, dict[str, Any]]]  # what the hosts of a cell said of themselves


@dataclass(slots=True)
class FindingView:
    """The view is a finding with what the mirror says of it."""

    finding: Finding
    remark: str | None  # the baseline's, where it is known
    predicted: str
    steps: list[str]
    traces: list[str] = field(default_factory=list)  # what KVM's tracepoints showed of its livelocks
    moved: str = ""  # that it begins at another level than in the run that wrote the baseline

    @property
    def known(self) -> bool:
        """The baseline holds it: True."""
        return self.remark is not None

    @property
    def cell_texts(self) -> list[str]:
        """Each text is like ``15-18 (parameter 1)``."""
        return cell_texts(self.finding.cells)

    @property
    def command(self) -> str:
        """The smallest vector is asked again by this command."""
        return self.finding.command


@dataclass(slots=True)
class Report(OfRun):
    """The report is a run as the formats see it."""

    info: RunInfo
    host: str
    rows: list[Row]
    totals: Row
    json: dict[str, Json]
    findings: list[FindingView]
    errata: list[Finding]
    patches: list[PatchRow]
    rules: list[RuleRow]
    collapsed: list[RuleRow]
    blocked: list[tuple[str, int]]  # reasons why vectors did not run, most frequent first
    parts: list[PartAsked]  # of each part that was named, how many vectors were asked
    counters: dict[str, dict[Cell, int]]  # KVM's own, by name, where the run read them
    warnings: list[tuple[str, list[Cell]]]  # of the host's kernel, with the cells that met them
    machines: list[tuple[str, list[str]]]  # what the run found out about its guests: name, distinct values
    drifts: list[tuple[Cell, str, str, str]] = field(default_factory=list)  # a few: cell, vector, mirror, seen
    has_baseline: bool = False
    unsteady: list[tuple[Cell, NotReproduced]] = field(default_factory=list)  # answers that an earlier run had not

    def unsteady_at(self, cell: Cell) -> list[str]:
        """The function gives a line for each vector of ``cell`` that an earlier run answered otherwise."""
        return [
            f"{one.vector}: run {one.run} saw {one.before}, this run {one.now}"
            for at, one in self.unsteady
            if at == cell
        ]

    @property
    def status(self) -> str:
        """This is how the run ended."""
        return self.info.status

    @property
    def begun(self) -> float:
        """The run began at this time, in seconds since 1970."""
        return self.info.begun

    @property
    def argv(self) -> list[str]:
        """These are the words that the run was typed with."""
        return self.info.argv

    @property
    def provenance(self) -> dict[str, Json]:
        """This is what the run was made of."""
        return self.info.provenance

    @property
    def seconds(self) -> float | None:
        """The run took this long, wall time in seconds."""
        ended = self.info.ended
        return None if ended is None else ended - self.begun

    @property
    def run_again(self) -> str:
        """A command that asks the same series again begins so."""
        cpu = models.option(cpus.model_of(self.provenance))
        return f"kvmirror run{of_series.of_run(self.provenance).options}{cpu}"

    @property
    def mirror_asked(self) -> bool:
        """Whether a mirror spoke: it is of one series, and a run may leave it out."""
        return of_series.mirror_asked(self.provenance)

    @property
    def levels(self) -> list[int]:
        """These levels ran."""
        return sorted({r.level for r in self.rows})

    @property
    def cells(self) -> list[Cell]:
        """The function gives (level, parameter) of every row, in order."""
        return [r.cell for r in self.rows]

    @property
    def answered(self) -> str:
        """The text says how many answers the run has, and where they are from if not all are of their own level."""
        total = self.totals
        words = [f"{total.vectors:,} answers"]
        if total.taken:
            words.append(f"{total.taken:,} of them a lower level's with the same machine code")
        if total.earlier:
            words.append(f"{total.earlier:,} of them an earlier run's, all else the same")
        return ", ".join(words)

    @property
    def new_findings(self) -> list[FindingView]:
        """Those the baseline does not hold."""
        return [f for f in self.findings if not f.known]

    @property
    def broken_claims(self) -> list[int]:
        """The function gives the patches that claim no functional change and show one."""
        return [p.number for p in self.patches if p.broken_claim]

    @property
    def verdict(self) -> str:
        """The sentence tells the run's result."""
        words = ["foreseen, nothing was observed"] if self.foreseen else []
        if self.status != "complete":
            words.append(f"the run is {self.status}")
        drift = self.totals.drift
        if not self.mirror_asked:
            words.append("no mirror was asked")
        elif not self.foreseen:
            words.append(f"{drift} answers differ from the mirror (drift)" if drift else "no drift")
        if self.totals.not_reproduced:
            words.append(f"{plural(self.totals.not_reproduced, 'answer')} not reproducible")
        new, known = len(self.new_findings), len(self.findings) - len(self.new_findings)
        words.append(f"{plural(new, 'new finding' if self.has_baseline else 'finding')}")
        if known:
            words.append(f"{plural(known, 'known finding')}")
        if moved := [f.finding.name for f in self.findings if f.moved]:
            words.append(f"{', '.join(moved)} known, but beginning at another level")
        if self.broken_claims:
            words.append(f"patch {ranges(self.broken_claims)} claims no change and shows one")
        if self.totals.blocked:
            words.append(f"{self.totals.blocked} blocked")
        return ", ".join(words)

    def tested_by_hurdles(self, last_level: int) -> list[str]:
        """The reasons say why the run does not support a Tested-by; there are none where it does."""
        hurdles = []
        if self.status != "complete":
            hurdles.append(f"the run is {self.status}")
        if missing := sorted(set(range(last_level + 1)) - set(self.levels)):
            hurdles.append(f"levels {ranges(missing)} did not run")
        if not self.totals.vectors:
            hurdles.append("no vector ran")
        if self.totals.drift:
            hurdles.append(f"{self.totals.drift} answers differ from the mirror")
        if self.totals.not_reproduced:
            hurdles.append(f"{plural(self.totals.not_reproduced, 'answer')} not reproducible")
        if self.findings:
            hurdles.append(plural(len(self.findings), "finding"))
        if self.broken_claims:
            hurdles.append(f"patch {ranges(self.broken_claims)} claims no change and shows one")
        if self.totals.blocked:
            hurdles.append(f"{self.totals.blocked} vectors were blocked")
        return hurdles


def cell_texts(cells: Iterable[Cell]) -> list[str]:
    """Each text is like ``15-18 (parameter 1)``."""
    by_params: dict[str, list[int]] = {}
    levels: dict[int, list[str]] = {}
    for level, param in sorted(cells, key=cell_order):
        levels.setdefault(level, []).append(param)
    for level, params in levels.items():
        by_params.setdefault("/".join(params), []).append(level)
    return [f"{ranges(found)} (parameter {params})" for params, found in by_params.items()]


def plural(count: int, noun: str) -> str:
    """The text is like ``1 finding``, ``2 findings``."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def ranges(numbers: list[int]) -> str:
    """The text is like ``0, 11, 16-18``."""
    found: list[list[int]] = []
    for n in sorted(numbers):
        if found and n == found[-1][1] + 1:
            found[-1][1] = n
        else:
            found.append([n, n])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def load(journal: Journal, number: int | None = None, baseline: Path | None = None) -> Report:
    """A run's report (the latest observed one's where ``number`` is None); InputError: there is none, it is empty."""
    return of(Run.open(journal, number), baseline)


def of(run: Run, baseline: Path | None = None) -> Report:
    """The function gives the report of a run.

    Raises InputError when nothing was asked.
    """
    if not run.cells:
        if run.journal.cells(run.number):
            raise InputError(
                f"run {run.number} is of the bare CPU: 'kvmirror findings --bare' lists its errata; name another with "
                "--run"
            )
        raise InputError(
            f"run {run.number} has no finished cell yet ({run.info.status}): wait for it, or name another with --run"
        )
    known = known_findings.read(baseline) if baseline else {}
    remarks = {cause: entry.remark for cause, entry in known.items()}
    body = run.as_json()
    views = [_view(f, remarks, run.under) for f in run.findings]
    for view in views:
        if view.known:
            view.moved = known[view.finding.cause].moved(view.finding, (row.level for row in run.rows))
    told = [(key.cell, recorded.facts) for key, recorded in run.cells.items()]
    traces = {(cell, v): str(text) for cell, facts in told for v, text in facts.get("livelocks", {}).items()}
    for view in views:
        found_traces = (traces.get((d.cell, d.vector.id), "") for d in view.finding.departures)
        view.traces = sorted({text for text in found_traces if text})
    if baseline is not None:
        body["findings"] = [_known_json(view) for view in views]
    return Report(
        info=run.info,
        host=run.host,
        rows=run.rows,
        totals=run.totals,
        json=body,
        findings=views,
        errata=_errata(run),
        patches=patches(run),
        rules=run.aside.rules,
        collapsed=run.aside.collapsed,
        blocked=run.aside.blocked,
        parts=run.parts,
        counters=_counters(told),
        warnings=_warnings(told),
        machines=_machines(told),
        drifts=_some_drift(run),
        has_baseline=baseline is not None,
        unsteady=[(key.cell, one) for key, one in run.not_reproduced],
    )


def _known_json(view: FindingView) -> dict[str, Json]:
    """A finding as data, with whether the baseline has it, and where it is another there."""
    moved: dict[str, Json] = {"moved": view.moved} if view.moved else {}
    return finding_json(view.finding) | {"known": view.known} | moved


def _errata(run: Run) -> list[Finding]:
    """The bare CPU's, of this run, or where it did not ask the bare CPU, of the newest run that asked its model's."""
    if run.foreseen or cpus.PROVENANCE in run.info.provenance:
        return []
    if run.errata:
        return run.errata
    model = cpus.model_of(run.info.provenance).name
    for info in reversed(run.journal.runs()):
        asked = Run(run.journal, info, BARE_HOST)
        if any(cell.facts.get("model", models.USUAL.name) == model for cell in asked.cells.values()):
            return asked.findings
    return []


def _counters(told: Told) -> dict[str, dict[Cell, int]]:
    found: dict[str, Counter[Cell]] = {}
    for cell, facts in told:
        for name, value in facts.get("counters", {}).items():
            found.setdefault(name, Counter())[cell] += value
    return {name: dict(cells) for name, cells in found.items()}


def _warnings(told: Told) -> list[tuple[str, list[Cell]]]:
    found: dict[str, set[Cell]] = {}
    for cell, facts in told:
        for text in facts.get("warnings", ()):
            found.setdefault(str(text), set()).add(cell)
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
    level, param = smallest.cell
    cpu = under(smallest.vector.machine.env.cpu_mbec)
    try:
        prediction = machine.predict(level, Setting.parse(param).own, cpu, smallest.vector, steps=True)
    except ValueError:  # a level the mirror has not: another series
        return FindingView(finding, remarks.get(finding.cause), "no mirror for this series", [])
    return FindingView(finding, remarks.get(finding.cause), str(prediction.outcome), [str(s) for s in prediction.steps])


def patches(run: Run) -> list[PatchRow]:
    """The function gives the series of a run, a row a patch: what each claims and what was seen."""
    last = max((row.level for row in run.rows), default=0)
    by_cell = {row.cell: row for row in run.rows}
    rows = patch_rows(run.info.provenance, last)
    for patch in rows:
        here = [cell for cell in by_cell if cell[0] == patch.number]
        patch.ran = bool(here)
        # A level that ran was built of its patches: what the run did not write down, it shows.
        if patch.applies == NOT_RECORDED and patch.number <= last and not run.foreseen:
            patch.applies = Said.of(True)
        if patch.builds == NOT_RECORDED and patch.ran and not run.foreseen:
            patch.builds = Said.of(True)
        patch.drift = sum(by_cell[cell].drift for cell in here)
        lower = {cell: below(*cell, run.present) for cell in here}
        if any(lower.values()):
            patch.changes = sum(by_cell[cell].changes for cell in here)
            patch.compared_with = min(cell[0] for cell in lower.values() if cell is not None)
        patch.first_seen = [f.name for f in run.findings if f.first_level == patch.number]
        patch.caused = [f.name for f in run.findings if patch.number in f.origin.patches]
    return rows


def _some_drift(run: Run, most: int = 50) -> list[tuple[Cell, str, str, str]]:
    drifting = run.journal.answers(run.number, having=Mark.DRIFT, host=run.host)
    return [(key.cell, a.vector.id, str(a.predicted), str(a.seen)) for key, a in islice(drifting, most)]
