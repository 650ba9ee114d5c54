"""A finding is made smaller by asking, and run alone three times."""

from collections.abc import Sequence
from pathlib import Path

from harness.findings import Run, finding_json
from harness.findings.causes import find_cause
from harness.findings.departures import departures
from harness.findings.group import Finding, group
from harness.findings.minimise import PROVENANCE, Minimal, departure_of, minimise, simpler
from harness.results import Answer, CellKey, Journal, judge
from kvmodel import machine, sdm
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.reading import parse
from kvmodel.question.sequence import sequence
from kvmodel.question.vector import Access, AccessVector, ClientVector, Mbec, Paging, Perm, Vector

CPU = Cpu()
KEY = CellKey(18, "0", "kvm", "std")
FAR = AccessVector(
    Mbec.OFF, leaf=Perm(False, False, True, True), upper=Perm(True, True, True, True), cpl=3, smep=True, wp=False
)


def answer(vector: Vector, level: int = 18, seen: Outcome | None = None) -> Answer:
    """What the mirror shows there, as if a host had said it."""
    predicted = machine.predict(level, False, CPU, vector).outcome
    contract = sdm.allowed(machine.virtual_cpu(level, False, CPU, vector.machine), vector)
    told = seen or predicted
    return Answer(vector, told, predicted, contract, judge(predicted, contract, told))


def finding(vector: Vector = FAR) -> Finding:
    (found,) = group(departures([(KEY, answer(vector))]), find_cause)
    return found


def test_simpler_vectors_have_one_field_more_as_in_the_plain_one() -> None:
    names = [v.id for v in simpler(FAR)]
    assert len(names) == len(set(names)) == 5  # mbec, leaf, cpl, wp, smep
    assert simpler(AccessVector()) == []
    assert simpler(ClientVector()) == []
    large = simpler(AccessVector(leaf_level=2, upper_level=3))
    assert [(v.leaf_level, v.upper_level) for v in large] == [(1, 2)]
    other = simpler(AccessVector(paging=Paging.OFF, access=Access.FETCH))
    assert [(v.access, v.paging) for v in other] == [(Access.READ, Paging.OFF), (Access.FETCH, Paging.LONG)]


def test_simpler_sequences_have_fewer_turns() -> None:
    first = AccessVector(leaf=Perm(True, False, False, True))
    three = sequence(first, "l1=rwxu.b.noinv", "fetch")
    names = [v.id for v in simpler(three)]
    assert names[:3] == [turn.access.id for turn in reversed(three.turns)]
    assert names[3:] == [
        sequence(three.turns[1].access, "fetch.b").id,
        sequence(first, "l1=rwxu.fetch.b").id,
        sequence(first, "l1=rwxu.b.noinv").id,
    ]
    assert [v.id for v in simpler(sequence(first, "same"))] == [first.id]


def test_a_simpler_vm_entry_has_one_change_less() -> None:
    vector = parse("vmentry.guest_rflags:s17+guest_dr7=0+guest_cr0:c0.pgoff.mbec=off")
    assert [v.id.split(".")[1] for v in simpler(vector)] == [
        "guest_dr7=0+guest_cr0:c0",
        "guest_rflags:s17+guest_cr0:c0",
        "guest_rflags:s17+guest_dr7=0",
    ]
    assert simpler(parse("vmentry.asis.mbec=off")) == []


def test_a_sequence_becomes_the_access_that_shows_the_same() -> None:
    alone = AccessVector(Mbec.OFF, leaf=FAR.leaf)
    found = finding(sequence(AccessVector(Mbec.OFF), f"l1={FAR.leaf}"))
    minimal = minimise(found, lambda vectors: [answer(v) for v in vectors])
    assert minimal.answer.vector == alone
    assert found.cause == finding().cause


def test_the_smallest_keeps_what_the_cause_needs_and_nothing_else() -> None:
    asked: list[int] = []

    def ask(vectors: Sequence[Vector]) -> list[Answer]:
        asked.append(len(vectors))
        return [answer(v) for v in vectors]

    said: list[str] = []
    minimal = minimise(finding(), ask, said.append)
    assert minimal.answer.vector == AccessVector(Mbec.OFF, leaf=FAR.leaf)
    assert str(minimal) == "confirmed 3/3 alone"
    assert asked[-3:] == [1, 1, 1]
    assert said[-1] == "alone: livelock (the same exit again and again, no SPTE changes)"


def test_what_does_not_show_alone_is_not_confirmed() -> None:
    turns = iter(range(100))

    def ask(vectors: Sequence[Vector]) -> list[Answer]:
        if len(vectors) > 1:
            return [answer(v) for v in vectors]
        once = next(turns) == 0
        return [answer(v, seen=None if once else Outcome(Kind.DONE)) for v in vectors]

    minimal = minimise(finding(), ask)
    assert (minimal.shown, minimal.times) == (1, 3)


def test_a_run_keeps_what_was_confirmed(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        run = journal.begin([], {})
        journal.record(run, CellKey(18, "0", "kvm", "std"), [answer(FAR)], 1.0, {})
        (before,) = Run.open(journal, run).findings
        small = AccessVector(Mbec.OFF, leaf=FAR.leaf)
        for shown in (2, 3):
            minimal = Minimal(KEY, answer(small), shown, 3)
            journal.amend(run, {PROVENANCE: {before.cause: minimal.as_json()}})
            (after,) = Run.open(journal, run).findings
            assert after.cause == before.cause
            assert after.confirmed == str(minimal) == f"confirmed {shown}/3 alone"
            assert after.smallest.vector == (small if shown == 3 else FAR)
        assert finding_json(after)["confirmed"] == "confirmed 3/3 alone"


def test_an_answer_that_the_manual_allows_is_no_departure() -> None:
    legal = answer(AccessVector(Mbec.OFF))
    assert legal.predicted is not None and legal.predicted.kind is Kind.DONE
    assert departure_of(KEY, legal) is None
