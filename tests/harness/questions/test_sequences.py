"""Sequences on their way: the space, their records, an L1 that dies in the middle, departures turn by turn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import protocol
from harness.errors import InputError
from harness.findings.causes import find_cause, without_history
from harness.findings.departures import Departure, departures, symptom
from harness.findings.group import group, weight
from harness.observe import bare, l1
from harness.observe import batch as guest
from harness.observe.qemu import BatchRun, End
from harness.questions.core import CORE, full
from harness.questions.loads import Load, collapse, plan
from harness.questions.sequences import SEQUENCES
from harness.results import (
    Answer,
    CellKey,
    Contract,
    Journal,
    Verdict,
    outcome_json,
    outcome_of,
)
from harness.results.verdict import Mark, departing, judge
from harness.run.judge import Voices
from kvmodel import machine, sdm
from kvmodel.cpu import Cpu
from kvmodel.machine import l2
from kvmodel.question.outcome import THEN, Allowed, Kind, Outcome, of_turns
from kvmodel.question.reading import parse
from kvmodel.question.sequence import sequence
from kvmodel.question.vector import ENVIRONMENTS, RWXU, Access, AccessVector, Mbec, MsrVector, Perm, Vector
from tests.harness.settings import UNSET

C = protocol.CONSTANTS
READ = AccessVector(mbec=Mbec.OFF)
WRITE = replace(READ, access=Access.WRITE)
LOWERED = sequence(WRITE, "l1=r---", "noinv")
DONE = Outcome(Kind.DONE)
DIED = Outcome(Kind.HOST, note="died")
LOOP = Outcome(Kind.LIVELOCK)


# ---- the space --------------------------------------------------------------------------------------------------


def test_every_sequence_of_the_space_is_typed_as_it_is_printed() -> None:
    ids = set()
    for part in SEQUENCES.values():
        for vector in part():
            assert parse(vector.id) == vector
            assert len(vector.id) < 300
            assert vector.id not in ids
            ids.add(vector.id)
    assert 3000 < len(ids) < 10000
    assert [v.id for part in SEQUENCES.values() for v in part()] == [v.id for p in SEQUENCES.values() for v in p()]


def test_the_full_space_is_the_core_and_more() -> None:
    vectors = full()
    assert len({v.id for v in vectors}) == len(vectors)
    assert {type(v) for v in vectors} > {type(v) for part in CORE.values() for v in part()}


def test_a_predicted_space_is_diverse() -> None:
    rows = {
        tuple(turn.kind for turn in machine.predict(18, None, Cpu(maxphyaddr=40), v).outcome.turns)
        for v in SEQUENCES["sequence_sampled"]()
    }
    assert len(rows) > 60
    assert {kind for row in rows for kind in row} >= {Kind.DONE, Kind.VIOLATION, Kind.MISCONFIG}


def test_what_l1_was_never_offered_collapses() -> None:
    mixed, off = sequence(READ, "mbec=on"), sequence(READ, "same")
    unadvertised = sequence(replace(READ, mbec=Mbec.NA), "same")
    works = list(plan([mixed, off, unadvertised], [16], [UNSET]))
    counts: dict[str, int] = {}
    for work in works:
        for rule, n in collapse(work, same_value=False, offered=False).items():
            counts[rule] = counts.get(rule, 0) + n
    assert counts == {"never-offered": 1, "not-advertised": 1}
    assert [v for w in works for batch in w.batches.values() for v in batch] == [off]


# ---- records ----------------------------------------------------------------------------------------------------


def records(data: bytes) -> list[dict[str, Any]]:
    header = protocol.HEADER.unpack(data)
    size = protocol.VECTOR.size
    return [protocol.VECTOR.unpack(data, protocol.HEADER.size + i * size) for i in range(header["count"])]  # type: ignore


def test_a_sequence_is_a_record_a_turn() -> None:
    vector = sequence(WRITE, "l1=r---.noinv", "mbec=on.b", "ad1.mbec=off")
    rows = records(guest.pack([READ, vector, MsrVector()]))
    assert [row["index"] for row in rows] == list(range(6))
    on, no, b = C["FLAG_CONTINUE"], C["FLAG_NO_INVEPT"], C["FLAG_VMCS_B"]
    assert [row["flags"] for row in rows] == [0, 0, on | no, on | b, on | b, 0]
    assert [row["leaf"] & 0x407 for row in rows[1:5]] == [0x407, 1, 1, 1]
    assert [row["ept"] for row in rows[1:5]] == [1, 1, 1 | C["EPT_MBEC"], 1 | C["EPT_AD"]]
    assert guest.spans([READ, vector, MsrVector()]) == [slice(0, 1), slice(1, 5), slice(5, 6)]
    assert guest.count_records(vector) == 4
    with pytest.raises(InputError, match="2 flags for 6 records"):
        guest.pack([READ, vector, MsrVector()], flags=[0, 0])


def seen(verdict: str, **fields: int) -> guest.Observation:
    base = {name: 0 for _, _, name, _ in protocol.OBSERVATION.rows}
    return guest.Observation(**{**base, "verdict": C[verdict], **fields})


def test_turns_are_put_together_again() -> None:
    done, stuck = seen("VERDICT_DONE"), seen("VERDICT_TIMEOUT")
    assert guest.outcomes([READ, LOWERED], [done, done, stuck, done]) == [DONE, of_turns([DONE, LOOP, DONE])]
    broken = guest.outcome_of(LOWERED, [done, seen("VERDICT_SCAFFOLD", error=0x1001), done])
    assert broken.kind is Kind.SCAFFOLD and broken.note.startswith("turn 2: a sequence step without")
    assert guest.outcome_of(LOWERED, [done, done, seen("VERDICT_NONE")]).kind is Kind.BLOCKED


def test_the_bare_cpu_is_asked_what_it_can_be() -> None:
    assert bare.askable(LOWERED)
    assert not bare.askable(sequence(replace(READ, env="huge"), "same"))


# ---- an L1 that dies --------------------------------------------------------------------------------------------


class FakeQemu:
    """Runs a batch up to the records that kill, one a run, and marks all before as done."""

    machine = AccessVector().machine

    def __init__(self, deaths: dict[int, End], log: list[int]) -> None:
        self.deaths, self.log = deaths, log

    def __call__(self, *_: object) -> FakeQemu:
        return self

    def __enter__(self) -> FakeQemu:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def counters(self) -> dict[str, int]:
        return {}

    def run(self, data: bytes, **_: object) -> BatchRun:
        header = protocol.HEADER.unpack(data)
        start, count, at = header["start"], header["count"], header["observations"]
        assert isinstance(start, int) and isinstance(count, int) and isinstance(at, int)
        self.log.append(start)
        memory = bytearray(data)
        end = End.POWEROFF
        state, current = C["STATE_DONE"], count
        for i in range(start, count):
            if i in self.deaths:
                end, state, current = self.deaths.pop(i), C["STATE_RUNNING"], i
                break
            record = protocol.OBSERVATION.pack(index=i, verdict=C["VERDICT_DONE"])
            memory[at + i * len(record) : at + (i + 1) * len(record)] = record
        header.update(state=state, current=current)
        memory[: protocol.HEADER.size] = protocol.HEADER.pack(**header)
        return BatchRun(end, "", 0.0, bytes(memory), current, state, ())


def ask(
    monkeypatch: pytest.MonkeyPatch, vectors: list[Vector], deaths: dict[int, End]
) -> tuple[list[Outcome], list[int]]:
    log: list[int] = []
    monkeypatch.setattr(l1, "Qemu", FakeQemu(deaths, log))
    monkeypatch.setattr(l1, "qemu_facts", lambda _: {})
    batch = l1.L1(None, READ.machine, Path(), vectors)  # type: ignore[arg-type]
    return batch.run().outcomes, log


@pytest.mark.parametrize("end", [End.DIED, End.INTERNAL_ERROR])
def test_behind_a_sequence_of_which_l1_died_comes_the_next_vector(monkeypatch: pytest.MonkeyPatch, end: End) -> None:
    outcomes, log = ask(monkeypatch, [READ, LOWERED, WRITE], {2: end})
    assert log == [0, 4]
    assert [turn.kind for turn in outcomes[1].turns] == [Kind.DONE, Kind.HOST]
    assert (outcomes[0], outcomes[2]) == (DONE, DONE)


def test_the_last_vector_may_be_a_sequence_that_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    for end in (End.DIED, End.INTERNAL_ERROR):
        outcomes, log = ask(monkeypatch, [READ, LOWERED], {1: end})
        assert log == [0]
        assert [turn.kind for turn in outcomes[1].turns] == [Kind.HOST]


# ---- verdicts, journal, findings --------------------------------------------------------------------------------


def allows(*rows: list[Outcome]) -> tuple[Allowed, ...]:
    return tuple(
        Allowed(of_turns(row), THEN.join(f"r{i}" for i in range(len(row))), THEN.join("s" for _ in row)) for row in rows
    )


def test_the_turn_that_departs_is_named() -> None:
    violation = Outcome(Kind.VIOLATION, 0x182)
    contract = allows([DONE, violation, DONE], [DONE, DONE, violation])
    assert departing(contract, of_turns([DONE, LOOP, DONE])) == (1, Allowed(violation, "r1", "s"))
    assert departing(contract, of_turns([DONE, DONE, DONE])) == (2, Allowed(violation, "r2", "s"))
    assert departing(contract, of_turns([DONE, violation, DIED])) == (2, Allowed(DONE, "r2", "s"))
    assert departing(allows([DONE])[:1], LOOP)[0] == 0
    verdict = judge(of_turns([DONE, DONE, DONE]), contract, of_turns([DONE, DONE, DONE]))
    assert (verdict.marks, verdict.rule) == (Mark.FINDING, "r2")
    assert judge(None, contract, of_turns([DONE, DONE, violation])).rule == "r0 > r1 > r2"


def test_a_sequence_that_was_spared_is_no_drift() -> None:
    blocked = Outcome(Kind.BLOCKED, note="spared")
    assert judge(of_turns([DONE, DIED]), (), blocked).marks == Mark.BLOCKED
    assert judge(of_turns([DONE, DONE]), (), blocked).marks == Mark.BLOCKED | Mark.DRIFT
    refused = of_turns([DONE, Outcome(Kind.ENTRY_FAIL, 7)])
    assert judge(refused, None, refused).marks == Mark.ENTRY_FAILURE


def test_the_class_of_a_sequence_that_kills_l1() -> None:
    name = Voices(lambda _: Cpu(maxphyaddr=40)).deadly(Load(11, UNSET, ENVIRONMENTS["std"]))
    assert name is not None
    assert name(sequence(WRITE, "l1=r--u")) == "a sequence's write, MBEC off"
    assert name(sequence(WRITE, "l1=r---")) is None
    assert name(replace(WRITE, leaf=Perm.parse("r--u"))) == "write, MBEC off"
    assert name(MsrVector()) is None


def test_the_journal_keeps_all_turns(tmp_path: Path) -> None:
    outcome = of_turns([DONE, Outcome(Kind.VIOLATION, 0x182, defined=0xFFF), DIED])
    assert outcome_of(outcome_json(outcome)) == outcome
    contract = sdm.allowed(Cpu(maxphyaddr=40), LOWERED)
    stale = of_turns([DONE, DONE, DONE])
    answer = Answer(LOWERED, stale, stale, contract, judge(None, contract, stale))
    with Journal(tmp_path / "j") as journal:
        run = journal.begin([], {})
        journal.record(run, CellKey(18, "1", "kvm", "std"), [answer], 1.0, {})
        (found,) = departures(journal.answers(run, having=Mark.FINDING))
    assert (found.vector, found.turn, found.seen) == (LOWERED, 1, DONE)
    assert (found.allowed.kind, found.rule, found.section) == (Kind.VIOLATION, "ept-permission", "29.3.3.2")
    assert found.stale
    assert str(symptom(found)) == "stale translation: an access that completes where the manual has an EPT violation"


def row(
    vector: Vector, seen: Outcome, contract: Contract, predicted: Outcome | None = None, level: int = 18
) -> tuple[CellKey, Answer]:
    param = "1" if level == 18 else "unset"
    return CellKey(level, param, "kvm", "std"), Answer(vector, seen, predicted, contract, Verdict(Mark.FINDING))


def test_what_shows_without_its_history_is_not_stale() -> None:
    """MBEC off is not honoured: after MBEC on that looks like a translation of then, but it is so from the start."""
    cpu = Cpu(maxphyaddr=40)
    page = AccessVector(mbec=Mbec.OFF, leaf=Perm.parse("r--u"), access=Access.FETCH, cpl=3)
    later = sequence(replace(page, mbec=Mbec.ON), "mbec=off")
    rows = [row(later, of_turns([DONE, DONE]), sdm.allowed(cpu, later))]
    (alone,) = departures(rows)
    assert alone.stale
    rows.append(row(page, DONE, sdm.allowed(cpu, page)))
    both = departures(rows)
    assert not any(d.stale for d in both)
    (finding,) = group(both)
    assert finding.symptom.severity == "permission not enforced"
    assert finding.smallest.vector == page
    assert without_history(alone).stale  # without a mirror nothing says so
    assert not without_history(replace(alone, predicted=of_turns([DONE, DONE]))).stale
    assert without_history(replace(both[0], predicted=DONE)) == replace(both[0], predicted=DONE)


def test_what_the_access_alone_shows_has_the_same_cause() -> None:
    cpu = Cpu(maxphyaddr=40)
    page = AccessVector(mbec=Mbec.OFF, leaf=Perm.parse("r--u"), access=Access.FETCH, cpl=3)
    vectors: tuple[Vector, ...] = (page, sequence(replace(page, leaf=Perm.parse("----")), "l1=r--u"))
    rows = []
    for vector in vectors:
        told = machine.predict(18, True, cpu, vector).outcome
        contract = sdm.allowed(machine.virtual_cpu(18, True, cpu, vector.machine), vector)
        rows.append(row(vector, told, contract, told))
    (finding,) = group(departures(rows), find_cause)
    assert finding.vectors == list(vectors)
    assert finding.title.endswith("(fetch, MBEC off, bit 10 set in the leaf, bit 2 clear in an entry)")


def test_a_kvm_that_ignores_invept_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The space and the contract together notice what the series does not break: INVEPT without a sync."""
    cpu = Cpu(maxphyaddr=40)
    monkeypatch.setattr(l2, "handle_invept", lambda _: None)
    rows = []
    for vector in SEQUENCES["sequence_permissions_without_mbec"]():
        told = machine.predict(0, None, cpu, vector).outcome
        contract = sdm.allowed(machine.virtual_cpu(0, None, cpu, vector.machine), vector)
        if Mark.FINDING in judge(None, contract, told).marks:
            rows.append(row(vector, told, contract))
    found = group(departures(rows))
    assert len(rows) > 20
    assert {f.symptom.severity for f in found} == {"stale translation"}
    assert "noinv" not in found[0].smallest.vector.id


def test_a_single_access_is_smaller_than_any_sequence() -> None:
    far = AccessVector(leaf=Perm.parse("----"), upper=Perm.parse("r---"), access=Access.RMW, cpl=3, smep=True)
    assert weight(far) < weight(sequence(AccessVector(), "same")) < weight(LOWERED)


def test_the_cause_is_asked_of_the_turn_that_departs() -> None:
    cpu = Cpu(maxphyaddr=40)
    vector = sequence(WRITE, "l1=r--u")
    told = machine.predict(11, None, cpu, vector).outcome
    assert [t.kind for t in told.turns] == [Kind.DONE, Kind.HOST]
    contract = sdm.allowed(machine.virtual_cpu(11, None, cpu, vector.machine), vector)
    (d,) = departures([row(vector, told, contract, told, 11)])
    assert d.turn == 1
    assert 11 in find_cause(d).patches
    assert not find_cause(replace(d, seen=LOOP)).predicted
    assert not find_cause(replace(d, turn=2)).predicted


def test_departures_say_which_turn() -> None:
    d = Departure(
        LOWERED, (0, "unset"), "kvm", DONE, (Outcome(Kind.VIOLATION, 2),), "ept-permission", "29.3.3.2", turn=1
    )
    assert d.turn == 1 and not d.stale
    assert d.access == LOWERED.turns[1].access
    assert LOWERED.turns[0].access.leaf == RWXU
