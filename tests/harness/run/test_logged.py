"""The kernel's log beside the answers: rows of its own, each with the vector that ran, found and told as findings."""

from __future__ import annotations

import pytest

from harness import protocol
from harness.findings.departures import LOG, departure, symptom
from harness.findings.group import group
from harness.findings.minimise import simpler
from harness.observe import batch as guest
from harness.observe.l1 import Seen
from harness.observe.reports import Reported
from harness.observe.session import _put_reports
from harness.questions.loads import Load, collapse, plan
from harness.results import KVM_HOST, Answer, CellKey, Mark, cpus
from harness.run.done import Done, Part, machine_name, merged
from harness.run.judge import Voices
from kvmodel.question.ids import expanded, named_fields, short
from kvmodel.question.outcome import Kind, Outcome, logged
from kvmodel.question.program import program
from kvmodel.question.reading import parse
from kvmodel.question.sequence import sequence
from kvmodel.question.vector import (
    ENVIRONMENTS,
    AccessVector,
    EntryVector,
    HostVector,
    LogVector,
    Mbec,
    Perm,
    Vector,
    VectorError,
)
from tests.harness.settings import UNSET

READ = AccessVector(Mbec.OFF, leaf=Perm.parse("r---"))
WRITE = AccessVector(Mbec.OFF, cpl=3)
LOAD = Load(0, UNSET, ENVIRONMENTS["std"])
DONE = Outcome(Kind.DONE)
KASAN, WARN = "KASAN: slab-use-after-free in f", "WARN in g"


def rows(reported: list[Reported], mirror: bool = True) -> list[Answer]:

    return Voices(cpus.emulated, mirror).logged(LOAD, reported)


def test_a_report_is_a_row_of_the_vector_that_ran_and_a_finding() -> None:
    of_one, of_other, of_none = rows(
        [Reported(WRITE, KASAN), Reported(READ, WARN), Reported(WRITE, WARN), Reported(None, WARN)]
    )
    assert of_one.vector == LogVector(WRITE) and of_one.seen == logged([KASAN, WARN])
    assert of_other.vector == LogVector(READ) and of_other.seen.logged == WARN
    assert of_none.vector == HostVector("log")
    assert all(Mark.FINDING in a.verdict.marks and Mark.DRIFT not in a.verdict.marks for a in (of_one, of_none))
    assert rows([Reported(READ, WARN)], mirror=False)[0].predicted is None


def test_two_reports_are_two_findings_and_one_report_is_one() -> None:
    key = CellKey(0, "unset", KVM_HOST, "std:log")
    found = [departure(key, a) for a in rows([Reported(READ, KASAN), Reported(WRITE, KASAN), Reported(None, WARN)])]
    assert [str(symptom(d)) for d in found] == [f"{LOG}: {KASAN}", f"{LOG}: {KASAN}", f"{LOG}: {WARN}"]
    assert sorted(len(f.vectors) for f in group(found)) == [1, 2]


def test_ids_are_read_back_and_go_before_questions_to_an_l1() -> None:
    asked = program("prog.noept+cpl=3+read.a3+g.a3=p5+write.a3")
    for vector in (READ, EntryVector(), sequence(WRITE, "l1=r---.noinv"), asked):
        assert parse(LogVector(vector).id) == LogVector(vector)
        assert expanded(short(LogVector(vector).id)) == LogVector(vector).id
    assert named_fields(LogVector(asked).id)[:2] == [("head", "log.prog.noept"), ("step", "cpl=3")]
    assert parse("log.e4k.l1=r---.read.mbec=off") == LogVector(READ)
    assert parse("host.log") == HostVector("log")
    for name in ("log.host.param", "log.log.entry.ept1"):
        with pytest.raises(VectorError, match="goes before a question to an L1"):
            parse(name)


def test_a_log_vector_is_asked_as_what_it_asks() -> None:
    turns = sequence(WRITE, "same", "same")
    assert guest.count_records(LogVector(turns)) == 3
    assert guest.pack([LogVector(READ)])[:8] == guest.pack([READ])[:8]
    works = list(plan([LogVector(AccessVector(Mbec.ON)), LogVector(READ)], [0], [UNSET]))
    assert collapse(works[0], same_value=False, offered=False) == {"never-offered": 1}
    assert LogVector(AccessVector(Mbec.OFF)) in simpler(LogVector(READ))


def test_every_record_of_a_marked_batch_keeps_its_flags() -> None:
    vectors = [READ, sequence(WRITE, "l1=r---.noinv")]
    data = guest.pack(vectors, marks=range(2))
    size, at = protocol.VECTOR.size, protocol.HEADER.size
    flags = [protocol.VECTOR.unpack(data, at + i * size)["flags"] for i in range(3)]
    mark = protocol.CONSTANTS["FLAG_MARK"]
    going_on = protocol.CONSTANTS["FLAG_CONTINUE"] | protocol.CONSTANTS["FLAG_NO_INVEPT"]
    assert flags == [mark, mark, going_on]


def test_who_asks_for_the_log_is_answered_by_it() -> None:
    vectors: list[Vector] = [LogVector(READ), WRITE]
    seen = Seen(
        [DONE, DONE],
        reported=[Reported(vectors[0], KASAN), Reported(vectors[0], WARN), Reported(WRITE, WARN), Reported(None, WARN)],
    )
    _put_reports(seen, vectors)
    assert seen.outcomes == [logged([KASAN, WARN]), DONE]
    assert seen.reported == [Reported(WRITE, WARN), Reported(None, WARN)]


def test_shards_keep_whose_a_report_is() -> None:
    (work,) = plan([READ, WRITE], [0], [UNSET])
    name = machine_name(READ.machine)
    shards = [
        Done(LOAD, {name: Part([WRITE], Seen([DONE], reported=[Reported(WRITE, KASAN)]), 0.0)}),
        Done(LOAD, {name: Part([READ], Seen([DONE], reported=[Reported(None, WARN)]), 0.0)}),
    ]
    part = merged(work, shards).batches[name]
    assert part.seen.reported == [Reported(WRITE, KASAN), Reported(None, WARN)]
