"""Findings of a run made smaller on hosts, one after the other; what came of it is kept with the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.errors import HostError
from harness.findings import Finding, minimise
from harness.observe import Session
from harness.questions import Setting, plan
from harness.results import Answer, Journal
from harness.run.judge import Voices
from harness.run.setup import Bench
from harness.run.workers import Options, ask
from kvmodel.question.vector import Vector

Say = Callable[[str], None]


def _cpu_mbec(finding: Finding) -> bool:
    """Whether the finding is of a host whose CPU has MBEC."""
    return finding.smallest.vector.machine.env.cpu_mbec


def _asking(session: Session, finding: Finding, voices: Voices, bench: Bench) -> minimise.Ask:
    """Asks vectors at the finding's level and parameter value, the modules loaded anew each time."""
    level, param_name = finding.smallest.cell
    settings = [Setting.parse(param_name)]

    def answers(vectors: Sequence[Vector]) -> list[Answer]:
        found: dict[str, Answer] = {}
        for work in plan(vectors, [level], settings, bench.series.parameters):
            done = ask(session, work, Options(), collapsing=False)
            for batch in done.batches.values():
                found |= {a.vector.id: a for a in voices.answers(done.load, batch.vectors, batch.seen)}
        return [found[v.id] for v in vectors]

    return answers


def minimise_all(journal: Journal, run: int, found: Sequence[Finding], bench: Bench, said: Say) -> None:
    """Make each of ``found`` smaller and run it alone three times; ``bench`` has the levels built.

    A host that fails leaves its findings unconfirmed, and ``said`` tells which.
    """
    for cpu_mbec in (True, False):
        todo = [f for f in found if _cpu_mbec(f) is cpu_mbec]
        while todo:
            try:
                with bench.open_host(cpu_mbec, "emulated host") as host:
                    session = bench.open_session(host)
                    while todo:
                        _one(journal, run, todo[0], session, bench, said)
                        del todo[0]
            except HostError as error:
                said(f"{todo.pop(0).name}: not confirmed, {str(error).splitlines()[0]}")


def _one(journal: Journal, run: int, finding: Finding, session: Session, bench: Bench, said: Say) -> None:
    voices = Voices(bench.host_cpu, finding.origin.asked)
    minimal = minimise.minimise(
        finding, _asking(session, finding, voices, bench), lambda text: said(f"{finding.name}: {text}"), bench.host_cpu
    )
    kept = journal.provenance(run).get(minimise.PROVENANCE, {})
    journal.amend(run, {minimise.PROVENANCE: kept | {finding.cause: minimal.as_json()}})
