"""The CPU under KVM is the one that the run names."""

from pathlib import Path

from harness.cli.findings import explanation
from harness.findings import Run
from harness.report import facts
from harness.results import cpus
from harness.results.journal import Answer, CellKey, Journal
from harness.results.verdict import judge
from kvmodel import machine, sdm
from kvmodel.cpu import Cpu
from kvmodel.question.vector import Access, AccessVector, Mbec, Perm, Vector

LAB = Cpu(execonly=False, maxphyaddr=46)
READ_USER = Perm(True, False, False, True)
TOLD_APART = AccessVector(Mbec.OFF, leaf=READ_USER, upper=READ_USER, access=Access.RMW)  # by execute-only


def answer(vector: Vector, cpu: Cpu) -> Answer:
    """What the mirror shows at level 18 on that CPU, as if a host had said it."""
    seen = machine.predict(18, False, cpu, vector).outcome
    contract = sdm.allowed(machine.virtual_cpu(18, False, cpu, vector.machine), vector)
    return Answer(vector, seen, seen, contract, judge(seen, contract, seen))


def test_a_cpu_comes_back_from_its_text() -> None:
    assert cpus.from_json(cpus.as_json(LAB)) == LAB
    assert cpus.from_json({"execonly": False, "a feature of tomorrow": True}) == Cpu(execonly=False)


def test_a_run_that_names_no_cpu_is_the_emulated_hosts() -> None:
    assert [cpus.of_run({})(mbec) for mbec in (True, False)] == [Cpu(), Cpu(mbec=False)]
    assert [cpus.of_run({cpus.PROVENANCE: cpus.as_json(LAB)})(mbec) for mbec in (True, False)] == [LAB, LAB]


def test_a_lab_run_is_explained_on_its_own_cpu(tmp_path: Path) -> None:
    made = {"with": {cpus.PROVENANCE: cpus.as_json(LAB)}, "without": {}}
    told = {}
    for name, provenance in made.items():
        with Journal(tmp_path / name) as journal:
            run = journal.begin([], provenance)
            journal.record(run, CellKey(18, "0", "kvm", "std"), [answer(TOLD_APART, LAB)], 1.0, {})
            journal.end(run, "complete")
            (finding,) = Run.open(journal, run).findings
            (view,) = facts.load(journal, run).findings
            lines = explanation(finding, cpus.of_run(journal.provenance(run)))
            told[name] = view.predicted
            assert f"  mirror      {view.predicted}" in lines
            if name == "with":
                assert finding.origin.known and finding.origin.patches == (11,)
                assert view.steps and view.predicted == str(answer(TOLD_APART, LAB).seen)
    assert told["with"] != told["without"]
