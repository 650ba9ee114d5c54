"""What KVM's tracepoints and the kernel's log told of a vector goes along with its answer into later runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from harness.observe import Seen, Traced, cut
from harness.observe.reports import MOST, Reported
from harness.questions import Work
from harness.results import Answer, Journal, Mark
from kvmodel.question.outcome import logged
from kvmodel.question.vector import (
    Access,
    AccessVector,
    HostVector,
    LogVector,
    Mbec,
    NxVector,
    Perm,
    Vector,
)
from tests.harness.run.test_earlier import FakeSession, made, marked, run, works
from tests.harness.run.test_sample import LAST, as_told

WARN, BUG = "WARN in f", "BUG in g"
VECTORS: list[Vector] = [AccessVector(Mbec.OFF, leaf=leaf) for leaf in Perm.all()]
A, B, C = VECTORS[:3]
LOG = HostVector("log")


@dataclass
class Telling(FakeSession):
    """Its log speaks when one of ``reports`` is asked, once a load; the vectors to trace are traced."""

    reports: dict[str, str] = field(default_factory=dict)  # by vector; "" for what is asked with none to blame
    traces: list[str] = field(default_factory=list)
    exits: int = 1

    def ask_l1(self, machine: object, vectors: list[Vector], deadly: object, traced: Iterable[Vector]) -> Seen:
        seen = super().ask_l1(machine, vectors, deadly, traced)
        seen.reported = [Reported(v, self.reports[v.id]) for v in vectors if v.id in self.reports]
        seen.reported += [Reported(None, self.reports[""])] if "" in self.reports else []
        told = [access for v in traced if (access := cut.access_of(v)) is not None]
        self.traces += [access.id for access in told]
        seen.traced = [Traced(access, ((("kvm_exit", f"{self.exits}"),),)) for access in told]
        return seen


def asked(vectors: Iterable[Vector] = VECTORS) -> list[Work]:
    return works(vectors=vectors)


def log(journal: Journal, number: int) -> dict[Vector, Answer]:
    """The rows of the kernel's log in a run."""
    return {a.vector: a for key, a in journal.answers(number) if key.machine.endswith(":log")}


def test_a_report_is_taken_with_the_answer_of_its_vector(journal: Journal, files: dict[str, Path]) -> None:
    reports = {A.id: WARN, "": BUG}
    was = run(journal, Telling(reports=reports), made(files), asked())
    again = Telling(reports={})
    now = run(journal, again, made(files), asked())
    assert len(again.asked) == 1  # the sample, whose log says nothing
    before, after = log(journal, was), log(journal, now)
    assert before.keys() == {LogVector(A), LOG} == after.keys() | ({LogVector(A)} if again.asked == [A.id] else set())
    assert after[LOG].seen == logged([BUG]) and Mark.FINDING in after[LOG].verdict.marks
    assert marked(journal, now, Mark.EARLIER) == {v.id for v in VECTORS} - set(again.asked) | {v.id for v in after}
    # What was taken is no source: the third run has it of the first, whatever the second's sample.
    third = log(journal, run(journal, Telling(), made(files), asked()))
    assert third[LOG].seen == logged([BUG])


def test_a_report_of_nobody_goes_with_all_that_was_asked_or_with_none(journal: Journal, files: dict[str, Path]) -> None:
    run(journal, Telling(reports={"": BUG}), made(files), asked())
    part = Telling()
    number = run(journal, part, made(files), asked(VECTORS[:4]))
    assert set(part.asked) == {v.id for v in VECTORS[:4]} and not log(journal, number)
    more = Telling()
    number = run(journal, more, made(files), asked([*VECTORS, AccessVector(Mbec.OFF, access=Access.FETCH)]))
    assert len(more.asked) == 2 and log(journal, number)[LOG].seen == logged([BUG])


def test_of_a_vectors_report_that_vectors_answer_is_enough(journal: Journal, files: dict[str, Path]) -> None:
    run(journal, Telling(reports={A.id: WARN}), made(files), asked())
    part = Telling()
    number = run(journal, part, made(files), asked([B, C]))
    assert len(part.asked) == 1 and not log(journal, number)


def test_a_report_is_told_of_no_more_vectors_for_being_asked_again(journal: Journal, files: dict[str, Path]) -> None:
    everywhere = {v.id: WARN for v in VECTORS[:MOST]}
    run(journal, Telling(reports=everywhere), made(files), asked())
    for _ in range(4):
        number = run(journal, Telling(reports={v.id: WARN for v in VECTORS}), made(files), asked())
        assert len(log(journal, number)) == MOST


def test_a_trace_is_taken_with_the_answer_of_its_vector(journal: Journal, files: dict[str, Path]) -> None:
    huge = NxVector(AccessVector(Mbec.OFF, env="hugenx"))
    all_of_it = asked([*VECTORS, huge])

    def traced(_: object, vectors: list[Vector]) -> list[Vector]:
        return [v for v in vectors if v in (A, B, huge)]

    first, second = Telling(), Telling()
    was = run(journal, first, made(files), all_of_it, traced=traced)
    assert sorted(first.traces) == sorted([A.id, B.id, huge.asked.id])
    now = run(journal, second, made(files), all_of_it, traced=traced)
    assert len(second.asked) == 1 and set(second.traces) <= {*second.asked, huge.asked.id}
    assert _traces(journal, was) == _traces(journal, now)
    # A vector that was never traced is asked for its trace's sake.
    third = Telling()
    run(journal, third, made(files), all_of_it, traced=lambda _, vectors: [v for v in vectors if v == C])
    assert third.traces == [C.id] and C.id in third.asked


def test_traces_that_are_not_the_same_are_made_again(journal: Journal, files: dict[str, Path]) -> None:
    few = asked([A])
    for exits in (1, 2):
        run(journal, Telling(exits=exits), made(files), few, traced=lambda _, vectors: vectors)
    for _ in range(2):
        session = Telling(exits=2)
        run(journal, session, made(files), few, traced=lambda _, vectors: vectors)
        assert session.traces == [A.id]


def test_a_load_without_a_host_is_told_what_the_mirror_says_of_its_traces(
    journal: Journal, files: dict[str, Path]
) -> None:
    works_ = works(range(15, 19), VECTORS)

    class Right(Telling):
        """Traces as the mirror says them."""

        def ask_l1(self, machine: object, vectors: list[Vector], deadly: object, traced: Iterable[Vector]) -> Seen:
            seen = super().ask_l1(machine, vectors, deadly, traced)
            seen.traced = [as_told(LAST, one.vector) for one in seen.traced]
            return seen

    def traced(_: object, vectors: list[Vector]) -> list[Vector]:
        return vectors[:3]

    run(journal, Right(), made(files), works_, traced=traced, mirror=True)
    session = Right()
    number = run(journal, session, made(files), works_, traced=traced, mirror=True)
    told = {key: cell.events for key, cell in journal.cells(number).items() if cell.events}
    assert {key.level for key in told} == {15, 16, 17, 18} and len(session.hosts) == 1
    assert all(len(events) == 3 for events in told.values())
    assert not [one.difference for key, events in told.items() if key.level == 18 for one in events if one.difference]


def _traces(journal: Journal, number: int) -> list[str]:
    return sorted(str(body) for bodies in journal.traces(number).values() for body in bodies)
