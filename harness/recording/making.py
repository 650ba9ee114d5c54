"""A recording made of a run: what was observed and what it was made of, and nothing that was judged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from harness import protocol
from harness.errors import InputError
from harness.findings import Run
from harness.observe import Traced, cut, matching
from harness.recording import container, content
from harness.recording.content import BARE, VIRTUAL, About, CellRecord, Recording, Told
from harness.report import baseline
from harness.results import (
    GIVEN,
    KVM_HOST,
    Cell,
    CellKey,
    Mark,
    Recorded,
    below,
    cell_order,
    cpus,
    outcome_json,
    outcome_of,
)
from kvmodel.question import msr
from kvmodel.question.outcome import Kind
from kvmodel.question.reading import parse
from kvmodel.question.vector import ENVIRONMENTS

DERIVED: Final = ("events",)  # of a cell's facts: what the mirror said of the traces, which it says anew
# Of the occasion, and left out on request: times, and counts that depend on them.
TIMED: Final = ("start_seconds", "l1_seconds", "emulated_seconds", "counters", "warnings", "livelocks")
# Of the provenance, and kept even then: what a run of the same questions has as well, however its host was reached.
KEPT: Final = ("kernel", "config", "compiler", "series", "patches", "modules", "probe", cpus.UNDER)
_BUILT: Final = ("builds",)  # of a patch: how long it took to build


def of_run(run: Run, *, times: bool = True) -> Recording:
    """The function makes the recording of a run; without ``times`` what the occasion alone decided is left out.

    Raises InputError when nothing was observed.
    """
    if run.foreseen:
        raise InputError(
            f"run {run.number} is foreseen, nothing was observed: 'kvmirror foresee' says it again on any machine; "
            "name an observed run with --run"
        )
    if not run.cells:
        raise InputError(
            f"{run.name} has no finished cell ({run.info.status}): wait for it, name another with --run, or --bare for "
            "one of the bare CPU"
        )
    journal = run.journal
    names, bodies = journal.texts("vector"), journal.texts("outcome")
    told: dict[int, list[tuple[int, int, int]]] = {recorded.number: [] for recorded in run.cells.values()}
    for number, vector, seen, _, _, marks, _ in journal.numbers(run.number, run.host):
        told[number].append((vector, seen, marks))
    rows = [row for each in told.values() for row in each]
    asked = sorted({vector for vector, _, _ in rows}, key=names.__getitem__)
    vector_at = {number: at for at, number in enumerate(asked)}
    bodies = {number: _placeless(bodies[number]) for number in {seen for _, seen, _ in rows}}
    different = sorted(set(bodies.values()))
    outcome_at = {number: different.index(body) for number, body in bodies.items()}
    traces = journal.traces(run.number)
    cells = []
    for key, recorded in _ordered(run):
        answers = sorted(
            (Told(vector_at[v], outcome_at[o], Mark(marks) & GIVEN) for v, o, marks in told[recorded.number]),
            key=lambda one: one.vector,
        )
        taken = any(Mark.TAKEN in one.given for one in answers)
        facts = _facts(run, key, recorded, taken=taken, times=times)
        traced = tuple(map(_traced, traces.get(recorded.number, ())))
        cells.append(CellRecord(key, recorded.seconds if times else 0.0, facts, tuple(answers), traced))
    return Recording(
        _about(run, times),
        [parse(names[number]) for number in asked],
        list(map(outcome_of, different)),
        cells,
        bodies=different,
    )


def _traced(body: dict[str, Any]) -> Traced:
    """The trace without the host's addresses."""
    traced = cut.from_json(body)
    return replace(traced, exits=matching.without_places(traced.exits))


def _placeless(body: str) -> str:
    """The outcome's text; where its note is an event of KVM's, without the host's addresses."""
    outcome = outcome_of(body)
    if outcome.kind is not Kind.BYPASS:
        return body
    (((_, note),),) = matching.without_places([(("kvm_mmu_set_spte", outcome.note),)])
    return outcome_json(replace(outcome, note=note))


def _ordered(run: Run) -> list[tuple[CellKey, Recorded]]:
    """The cells level by level; those of a load in the order in which it was asked."""
    return sorted(run.cells.items(), key=lambda item: (cell_order(item[0].cell), _load(item[0]), item[1].number))


def _load(key: CellKey) -> str:
    """A load's environment, by which its cells are together."""
    return key.machine.partition(":")[0].partition("+")[0]


def _about(run: Run, times: bool) -> About:
    info = run.info
    made = {**info.provenance, cpus.UNDER: {name: cpus.as_json(run.under(name == cpus.WITH)) for name in _kinds(run)}}
    if isinstance(bochs := made.get("bochs"), dict):
        made["bochs"] = {name: value for name, value in bochs.items() if name != "path"}
    if times:
        return About(info.begun, info.ended, info.status, info.argv, made)
    made = {name: made[name] for name in KEPT if name in made}
    made["patches"] = [{n: v for n, v in row.items() if n not in _BUILT} for row in made.get("patches", ())]
    return About(0.0, None, info.status, [], _in_order(made))


def _in_order(body: dict[str, Any]) -> dict[str, Any]:
    """The same with its names in order: that in which a run came by them is the occasion's."""
    ordered: dict[str, Any] = json.loads(json.dumps(body, sort_keys=True))
    return ordered


def _kinds(run: Run) -> list[str]:
    """Which CPUs under KVM the run had: with the control, without."""
    there = {ENVIRONMENTS[load].cpu_mbec for key in run.cells if (load := _load(key)) in ENVIRONMENTS}
    return [name for name in (cpus.WITH, cpus.WITHOUT) if (name == cpus.WITH) in there]


def _facts(run: Run, key: CellKey, recorded: Recorded, *, taken: bool, times: bool) -> dict[str, Any]:
    """What the cell's host said of itself, with the CPU that the contract is held against."""
    left_out = (*DERIVED, *(() if times else TIMED))
    facts = {name: value for name, value in recorded.facts.items() if name not in left_out}
    if (cpu := _virtual(run, key, taken)) is not None:
        facts[VIRTUAL if key.host == KVM_HOST else BARE] = cpu
    return facts if times else _in_order(facts)


def _virtual(run: Run, key: CellKey, taken: bool) -> dict[str, Any] | None:
    """L1's CPU as it read it, None where no L1 read any; where all answers are a lower level's, as L1 read it there.

    Older journals keep its MSRs alone.
    """
    cell: Cell | None = key.cell
    while cell is not None:
        facts = there.facts if (there := run.cells.get(CellKey(*cell, key.host, key.machine))) is not None else {}
        if (cpu := facts.get(VIRTUAL) or facts.get(BARE)) is not None:
            return dict(cpu)
        msrs = [int(text, 16) for text in facts.get("msrs", ())]
        if any(msrs):
            secondary, capability = (msrs[n - protocol.MSR_FIRST] for n in (msr.PROCBASED_CTLS2, msr.EPT_VPID_CAP))
            width = run.under(True).maxphyaddr
            return cpus.as_json(msr.described(secondary, capability, vmx=True, maxphyaddr=width))
        cell = below(*cell, run.present) if taken and not msrs else None
    return None


def write(recording: Recording, path: Path) -> int:
    """The file is written whole or not at all; the value is its bytes.

    Raises InputError when it cannot be written.
    """
    data = container.packed(content.lines(recording))
    baseline.write_whole(path, data)
    return len(data)
