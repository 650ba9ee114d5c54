"""An answer is an earlier run's where all that it rests on is the same, and is asked where anything is not."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HostError
from harness.findings import Run
from harness.hosts import Model, models
from harness.observe import Seen
from harness.observe.qemu import End
from harness.observe.reports import Reported
from harness.questions import ASKED_BEFORE, Load, Work, core, plan
from harness.results import Journal, Mark, cpus
from harness.run import Done, Earlier, Options, Voices, execute
from harness.run import basis as resting
from harness.run import judge as judging
from harness.run.basis import Basis, other_parts
from harness.run.earlier import AGAIN
from harness.run.workers import expected
from kvmodel import machine
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vector import Access, AccessVector, HostVector, Machine, Mbec, Perm, Vector
from tests.harness.run.conftest import PARTS
from tests.harness.settings import OFF, ON, UNSET

DONE = Outcome(Kind.DONE)
LOOP = Outcome(Kind.LIVELOCK)
DIED = Outcome(Kind.HOST, note=End.INTERNAL_ERROR.value)
VECTORS = [
    *(
        AccessVector(Mbec.OFF, leaf=leaf, access=access)
        for leaf in Perm.all()
        for access in (Access.READ, Access.FETCH)
    ),
    AccessVector(Mbec.NA),
    HostVector(),
]


@dataclass
class FakeHost:
    """A host that is only counted."""

    started: list[str]

    def __enter__(self) -> FakeHost:
        self.started.append("host")
        return self

    def __exit__(self, *_: object) -> None:
        pass


@dataclass
class FakeSession:
    """Answers DONE, or what ``says`` has for the vector; keeps what it was asked. L1 reads ``cpu``."""

    says: dict[str, Outcome] = field(default_factory=dict)
    cpu: Cpu = field(default_factory=Cpu)
    blocked: Outcome | None = None
    dies_at: int | None = None
    offers: bool = True
    asked: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    loads: int = 0
    parameter: str | None = "N"
    spent: bool = False

    def unclaimed(self, _: object = ()) -> list[Reported]:
        """The kernel's log is empty."""
        return []

    @property
    def mbec_offered(self) -> bool:
        return self.offers

    def load(self, load: Load) -> None:
        self.loads += 1
        if load.level == self.dies_at:
            raise HostError("fake host panicked")

    def value(self, key: object) -> str | None:
        return "0"

    def l1_can_run(self) -> Outcome | None:
        return self.blocked

    def ask_host(self, vectors: Iterable[Vector]) -> list[Outcome]:
        asked = list(vectors)
        self.asked += [v.id for v in asked]
        return [self.says.get(v.id, DONE) for v in asked]

    def start_l1(self, guest: object) -> None:
        pass

    def ask_l1(self, guest: object, vectors: list[Vector], deadly: object, traced: Iterable[Vector]) -> Seen:
        return Seen(self.ask_host(vectors), self.cpu, {"msrs": ["0x1"], "events": ["old"]})


def made(
    files: dict[str, Path], code: Callable[[int], str] = str, qemu: str = "11.1.3", model: Model = models.USUAL
) -> Basis:
    return Basis(code=code, qemu=qemu, model=model, **files)


def works(levels: Iterable[int] = (18,), vectors: Iterable[Vector] = VECTORS) -> list[Work]:
    return list(plan(vectors, levels, [ON]))


def run(
    journal: Journal,
    session: FakeSession,
    basis: Basis,
    asked: list[Work] | None = None,
    *,
    fresh: bool = False,
    mirror: bool = False,
    **more: Any,
) -> int:
    """A run of ``asked`` on fakes; its number."""
    number = journal.begin([], {})
    asked = works() if asked is None else asked
    known = {} if fresh else Earlier(journal, number, basis.text).known(asked)
    options = Options(basis=basis.text, known=known, **more)
    fakes: dict[str, Any] = {"open_host": lambda *_: FakeHost(session.hosts), "open_session": lambda _: session}
    voices = Voices(cpus.emulated, mirror)
    options.deadly = voices.deadly
    execute(asked, journal, number, options=options, voices=voices, progress=lambda _: None, **fakes)
    journal.end(number, "complete")
    return number


def marked(journal: Journal, number: int, mark: Mark) -> set[str]:
    return {a.vector.id for _, a in journal.answers(number, having=mark)}


IDS = {v.id for v in VECTORS}


def test_a_run_repeated_asks_its_sample_and_nothing_else(journal: Journal, files: dict[str, Path]) -> None:
    first, second = FakeSession(says={VECTORS[3].id: LOOP}), FakeSession(says={VECTORS[3].id: LOOP})
    was = run(journal, first, made(files))
    assert set(first.asked) == IDS
    now = run(journal, second, made(files))
    # Three cells (two machines and the host): one vector of the largest, and of the small ones seldom any.
    again = len(second.asked)
    assert 1 <= again <= 3 and second.hosts == ["host"]
    assert marked(journal, now, Mark.EARLIER) == IDS - set(second.asked)
    assert marked(journal, now, Mark.AGAIN) == set(second.asked)
    before, after = ({a.vector.id: a.seen for _, a in journal.answers(n)} for n in (was, now))
    assert before == after
    total = Run.open(journal, now).totals
    assert (total.earlier, total.again, total.not_reproduced, total.taken) == (len(IDS) - again, again, 0, 0)
    assert Run.open(journal, now).earlier == [was]
    collapsed = {row["name"]: row["vectors"] for row in Run.open(journal, now).as_json()["collapsed"]}
    assert collapsed[ASKED_BEFORE] == total.earlier and total.collapsed == 0


def test_what_was_taken_is_no_source_itself(journal: Journal, files: dict[str, Path]) -> None:
    first = run(journal, FakeSession(), made(files))
    second = run(journal, FakeSession(), made(files))
    third = Run.open(journal, run(journal, FakeSession(), made(files)))
    assert set(third.earlier) <= {first, second}
    taken = {key.machine: recorded.earlier for key, recorded in third.cells.items() if recorded.earlier}
    assert all(counts.get(second, 0) <= 1 for counts in taken.values())


@pytest.mark.parametrize("part", PARTS)
def test_another_file_asks_again(journal: Journal, files: dict[str, Path], part: str) -> None:
    run(journal, FakeSession(), made(files))
    files[part].write_text("another")
    session = FakeSession()
    number = run(journal, session, made(files))
    assert set(session.asked) == IDS and not marked(journal, number, Mark.EARLIER | Mark.AGAIN)


def test_another_qemu_or_machine_code_asks_again(journal: Journal, files: dict[str, Path]) -> None:
    run(journal, FakeSession(), made(files))
    for other in (made(files, qemu="11.1.4"), made(files, code=lambda level: f"patched {level}")):
        session = FakeSession()
        run(journal, session, other)
        assert set(session.asked) == IDS


@pytest.mark.parametrize("name", ["BIOS", "VGABIOS"])
def test_other_firmware_asks_again(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    load, before = works()[0].load, made(files)
    monkeypatch.setattr(resting, name, files["probe"])
    assert other_parts(before.text(load, None), made(files).text(load, None)) == ["firmware"]


def test_the_way_a_host_is_started_and_read_is_part_of_it(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    load, before = works()[0].load, made(files)
    monkeypatch.setattr(resting.rootfs, "COMMAND_LINE", "quiet")
    assert other_parts(before.text(load, None), made(files).text(load, None)) == ["host"]
    for name in resting.OBSERVER:
        place = tmp_path / name if name.endswith(".py") else tmp_path / name / "a.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text('"""Says."""\n\n\ndef f() -> int:\n    """Gives."""\n    return 1  # one\n')
    was = resting.observer(tmp_path)
    resting.observer.cache_clear()
    for path in tmp_path.rglob("*.py"):
        path.write_text('"""Is otherwise said."""\ndef f() -> int:\n    return 1\n')
    assert resting.observer(tmp_path) == was
    resting.observer.cache_clear()
    path.write_text("def f() -> int:\n    return 2\n")
    assert resting.observer(tmp_path) != was


def test_parameters_environment_cpu_and_virtual_machine_are_parts(files: dict[str, Path]) -> None:
    basis = made(files)
    by_env = {w.load.env.name: w.load for w in plan(core.core(), [18], [ON])}
    std = by_env["std"]
    guest = AccessVector(Mbec.OFF).machine

    def differ(load: Load, other: Machine | None = guest) -> set[str]:
        return set(other_parts(basis.text(std, guest), basis.text(load, other)))

    assert differ(std) == set()
    assert differ(replace(std, setting=OFF)) == differ(replace(std, setting=UNSET)) == {"parameters"}
    assert differ(replace(std, level=17)) == {"modules"}
    assert differ(by_env["ept0"]) == {"parameters", "environment"}
    assert differ(by_env["cpu0"]) == {"CPU", "environment"}
    assert basis.parts(std, guest)["CPU"] == models.USUAL.emulated_as
    assert differ(by_env["huge"]) == {"environment"}
    (other,) = models.named("skylake-x")
    assert other_parts(basis.text(std, guest), made(files, model=other).text(std, guest)) == ["CPU"]
    assert differ(std, AccessVector(Mbec.NA).machine) == differ(std, None) == {"QEMU's arguments"}


def test_a_second_version_of_a_series_is_asked_from_the_first_level_that_is_another(
    journal: Journal, files: dict[str, Path]
) -> None:
    levels = (10, 11, 18)
    run(journal, FakeSession(), made(files), works(levels))
    second = made(files, code=lambda level: f"{level}" if level < 11 else f"v2 {level}")
    session = FakeSession()
    number = run(journal, session, second, works(levels))
    asked = {level: {a.vector.id for _, a in journal.answers(number, level=level)} for level in levels}
    assert all(ids == IDS for ids in asked.values())
    taken = {key.level for key, _ in journal.answers(number, having=Mark.EARLIER)}
    assert taken == {10}
    assert 2 * len(IDS) < len(session.asked) <= 2 * len(IDS) + 3
    assert Earlier(journal, number, second.text).otherwise(works(levels)) == {("modules",): [11, 18]}


def test_the_machine_code_counts_not_the_level_nor_the_series(journal: Journal, files: dict[str, Path]) -> None:
    run(journal, FakeSession(), made(files, code=lambda _: "the same"), works([3]))
    session = FakeSession()
    run(journal, session, made(files, code=lambda _: "the same"), works([7]))
    assert 1 <= len(session.asked) <= 3


def test_fresh_asks_all(journal: Journal, files: dict[str, Path]) -> None:
    run(journal, FakeSession(), made(files))
    session = FakeSession()
    number = run(journal, session, made(files), fresh=True)
    assert set(session.asked) == IDS and not marked(journal, number, Mark.EARLIER | Mark.AGAIN)
    # ... and leaves answers for later runs.
    assert Earlier(journal, number + 1, made(files).text).known(works())


def test_only_what_was_seen_is_taken(journal: Journal, files: dict[str, Path]) -> None:
    unheard = {
        VECTORS[0].id: Outcome(Kind.BLOCKED, note="not run"),
        VECTORS[1].id: Outcome(Kind.SCAFFOLD),
        VECTORS[2].id: Outcome(Kind.HOST, note=End.HANG.value),
        VECTORS[4].id: Outcome(Kind.HOST, note=End.DEADLINE.value),
    }
    run(journal, FakeSession(says=unheard | {VECTORS[5].id: DIED}), made(files))
    session = FakeSession()
    number = run(journal, session, made(files))
    assert unheard.keys() <= set(session.asked) and len(session.asked) <= len(unheard) + 3
    assert all(a.seen.kind is Kind.DONE for _, a in journal.answers(number) if a.vector.id in unheard)


def test_nothing_is_taken_of_a_journal_of_the_version_before(tmp_path: Path, files: dict[str, Path]) -> None:
    path = tmp_path / "old.sqlite"
    with Journal(path) as journal:
        run(journal, FakeSession(), made(files))
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "DROP INDEX cell_basis; ALTER TABLE cell DROP COLUMN basis; DROP TABLE basis; PRAGMA user_version=1"
        )
    with Journal(path) as journal:
        assert len(list(journal.answers(1))) == len(IDS)
        assert Earlier(journal, 2, made(files).text).known(works()) == {}
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (1,)  # who only reads changes nothing
        session = FakeSession()
        number = run(journal, session, made(files))
        assert set(session.asked) == IDS
        assert len(list(journal.answers(1))) == len(list(journal.answers(number))) == len(IDS)
        assert len(Earlier(journal, 3, made(files).text).known(works())) == 1
    with Journal(path) as again:
        assert again.newest_basis(18, "1", "kvm", "std:load", 3) == made(files).text(works()[0].load, None)


def test_an_answer_that_is_not_reproducible_is_told_and_asked_from_then_on(
    journal: Journal, files: dict[str, Path]
) -> None:
    few = works(vectors=VECTORS[:1])  # a sample of one is all of it
    run(journal, FakeSession(), made(files), few)
    number = run(journal, FakeSession(says={VECTORS[0].id: LOOP}), made(files), few)
    ((_, answer),) = journal.answers(number)
    assert answer.seen.kind is Kind.LIVELOCK  # the live answer counts
    assert answer.verdict.marks & (Mark.AGAIN | Mark.NOT_REPRODUCED) == Mark.AGAIN | Mark.NOT_REPRODUCED
    asked = Run.open(journal, number)
    ((cell, told),) = asked.not_reproduced
    assert (cell.level, told.vector, told.run) == (18, VECTORS[0].id, 1)
    assert (told.before, told.now) == (DONE, LOOP)
    assert asked.totals.not_reproduced == 1
    (entry,) = asked.as_json()["not_reproduced"]
    assert entry["vector"] == VECTORS[0].id and entry["run"] == 1
    # Two runs that do not agree: neither is taken, however often it is asked.
    for _ in range(2):
        session = FakeSession()
        run(journal, session, made(files), few)
        assert session.asked == [VECTORS[0].id]


def test_a_note_is_no_part_of_an_answer(journal: Journal, files: dict[str, Path]) -> None:
    few = works(vectors=VECTORS[:1])
    run(journal, FakeSession(says={VECTORS[0].id: replace(LOOP, note="64 exits")}), made(files), few)
    number = run(journal, FakeSession(says={VECTORS[0].id: replace(LOOP, note="65 exits")}), made(files), few)
    assert Run.open(journal, number).totals.not_reproduced == 0


def test_one_asked_again_that_is_not_heard_leaves_the_earlier_answer(journal: Journal, files: dict[str, Path]) -> None:
    few = works(vectors=VECTORS[:1])
    run(journal, FakeSession(), made(files), few)
    number = run(journal, FakeSession(says={VECTORS[0].id: Outcome(Kind.BLOCKED, note="x")}), made(files), few)
    ((_, answer),) = journal.answers(number)
    assert answer.seen == DONE and answer.verdict.marks & (Mark.EARLIER | Mark.AGAIN) == Mark.EARLIER


def test_a_host_that_dies_takes_no_earlier_answer_with_it(journal: Journal, files: dict[str, Path]) -> None:
    run(journal, FakeSession(), made(files), works([18], VECTORS[:20]))
    number = run(journal, FakeSession(dies_at=18), made(files), works([0, 18]))
    kinds = {a.vector.id: a.seen.kind for _, a in journal.answers(number, level=18)}
    assert all(kinds[v.id] is (Kind.DONE if v in VECTORS[:20] else Kind.BLOCKED) for v in VECTORS)


def test_the_verdict_is_made_anew(journal: Journal, files: dict[str, Path]) -> None:
    fetch = AccessVector(Mbec.OFF, leaf=Perm(True, True, True, True), access=Access.FETCH)
    more = [fetch, *(v for v in VECTORS if v != fetch)]
    was = run(journal, FakeSession(says={fetch.id: LOOP}), made(files), works([0], more), mirror=False)
    with journal._db:  # the old judgement is made nonsense of: no run may read it
        journal._db.execute("UPDATE result SET predicted=NULL, contract=NULL, rule=NULL, marks=?", (Mark.AGREE.value,))
    number = run(journal, FakeSession(says={fetch.id: LOOP}), made(files), works([0], more), mirror=True)
    verdicts = {a.vector.id: a.verdict.marks for _, a in journal.answers(number)}
    assert number != was and Mark.DRIFT in verdicts[fetch.id] and Mark.FINDING in verdicts[fetch.id]


def test_one_judge_is_asked_once_of_what_was_seen_again(
    journal: Journal, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = machine.predict
    monkeypatch.setattr(judging, "_predict", lambda *a, **k: (asked.append(a[3].id), real(*a, **k))[1])
    was = run(journal, FakeSession(), made(files), mirror=True)
    assert set(asked) >= IDS
    asked.clear()
    number = run(journal, FakeSession(says={v.id: LOOP for v in VECTORS[:4]}), made(files), mirror=True, fresh=True)
    judged = set(asked)
    before, after = ({a.vector.id: a for _, a in journal.answers(n)} for n in (was, number))
    otherwise = {name for name in IDS if before[name].seen != after[name].seen}
    assert otherwise and judged == otherwise, "what was seen otherwise is judged anew, and nothing else"
    for name in IDS - otherwise:
        assert before[name] == after[name]
    asked.clear()
    monkeypatch.setattr(judging, "judges", lambda _: "other code")
    run(journal, FakeSession(), made(files), mirror=True)
    assert set(asked) >= IDS, "another judge says it anew"


def test_marks_of_another_run_and_of_traces_do_not_come_with_a_judgement(
    journal: Journal, files: dict[str, Path]
) -> None:
    run(journal, FakeSession(), made(files), mirror=True)
    with journal._db:
        journal._db.execute("UPDATE result SET marks = marks | ?", ((Mark.TRACED | Mark.EVENT_DRIFT).value,))
    number = run(journal, FakeSession(), made(files), mirror=True)
    assert not marked(journal, number, Mark.TRACED | Mark.EVENT_DRIFT)
    assert marked(journal, number, Mark.EARLIER)
    last = run(journal, FakeSession(), made(files), mirror=True, fresh=True)
    assert not marked(journal, last, Mark.EARLIER | Mark.AGAIN)


def test_a_level_that_is_a_lower_ones_code_gets_no_host_for_nothing(journal: Journal, files: dict[str, Path]) -> None:
    code = made(files, code=lambda _: "one")
    several = works([0, 1], core.core()[::40])
    run(journal, FakeSession(), code, several, twins={1: 0})
    session = FakeSession()
    run(journal, session, code, several, twins={1: 0})
    assert session.hosts == ["host"] and session.loads == 1


def test_a_load_whose_answers_are_known_costs_nothing(journal: Journal, files: dict[str, Path]) -> None:
    everything = works(vectors=[*VECTORS, AccessVector(Mbec.ON)])
    run(journal, FakeSession(offers=False), made(files), everything)
    known = Earlier(journal, 2, made(files).text).known(everything)
    (work,) = everything
    assert work.size == len(VECTORS) + 1
    # What the rules leave out (of one that wants the control, one on a machine without it) is not asked either.
    assert expected(work, Options(known=known, offered=lambda _: False)) == 0
    assert expected(work, Options(known=known)) == 2


def test_another_virtual_cpu_is_asked_whole(journal: Journal, files: dict[str, Path]) -> None:
    run(journal, FakeSession(), made(files))
    session = FakeSession(cpu=Cpu(maxphyaddr=39))
    number = run(journal, session, made(files))
    l1 = {v.id for v in VECTORS if v.machine == VECTORS[0].machine}  # one of them at least is in the sample
    assert set(session.asked) >= l1
    assert not marked(journal, number, Mark.EARLIER) & l1
    # Two CPUs on one basis: nothing of either is taken later.
    later = FakeSession()
    run(journal, later, made(files))
    assert set(later.asked) >= l1


def test_an_l1_that_cannot_run_needs_no_host_to_be_blocked_again(journal: Journal, files: dict[str, Path]) -> None:
    blocked = Outcome(Kind.BLOCKED, note="L1 cannot run: its first fetch ends in livelock")
    several = works(range(3, 19))
    run(journal, FakeSession(blocked=blocked), made(files), several)
    session = FakeSession(blocked=blocked)
    number = run(journal, session, made(files), several)
    assert session.asked == [HostVector().id]  # one load of sixteen
    rows = Run.open(journal, number).rows
    assert all(row.blocked == len(IDS) - 1 and row.earlier + row.again == 1 for row in rows)
    assert all(a.seen == blocked for _, a in journal.answers(number, having=Mark.BLOCKED))


def test_of_a_class_that_kills_l1_no_more_are_run_than_before(journal: Journal, files: dict[str, Path]) -> None:
    load = replace(works([11])[0].load, setting=OFF)
    deadly = Voices(cpus.emulated).deadly(load)
    assert deadly is not None
    plain = (v for v in core.core() if v.machine == VECTORS[0].machine)
    dying = [v for v in plain if deadly(v) == "write, MBEC off"][:6]
    assert len(dying) == 6
    asked = list(plan([*dying, *VECTORS[:8]], [11], [OFF]))

    class Sampling(FakeSession):
        """As the real one: two of a class are run."""

        def ask_l1(self, machine: Any, vectors: list[Vector], deadly: Any, traced: Iterable[Vector]) -> Seen:
            doomed = [v for v in vectors if deadly(v)]
            self.asked += [v.id for v in vectors if v not in doomed[2:]]
            spared = Outcome(Kind.BLOCKED, note="spared")
            says = {v.id: DIED if v in doomed[:2] else spared for v in doomed}
            return Seen([says.get(v.id, DONE) for v in vectors], self.cpu)

    first, second = Sampling(), Sampling()
    run(journal, first, made(files), asked, mirror=True)
    number = run(journal, second, made(files), asked, mirror=True)
    assert len(set(first.asked) & {v.id for v in dying}) == 2
    assert set(second.asked) <= set(first.asked) and len(second.asked) == 1
    spared = {a.vector.id for _, a in journal.answers(number, having=Mark.BLOCKED)}
    assert spared == {v.id for v in dying} - set(first.asked)


def test_what_a_lower_level_answers_may_be_an_earlier_runs(journal: Journal, files: dict[str, Path]) -> None:
    code = made(files, code=lambda level: "one" if level < 2 else "two")
    asked = works([0, 1], core.thin())
    run(journal, FakeSession(), code, asked, twins={1: 0})
    number = run(journal, FakeSession(), code, asked, twins={1: 0})
    whole = Run.open(journal, number)
    for row in whole.rows:
        assert row.taken + row.earlier + row.again == row.vectors
    assert next(row for row in whole.rows if row.level).taken
    marks = {a.verdict.marks & (Mark.TAKEN | Mark.EARLIER) for k, a in journal.answers(number) if k.level == 1}
    assert Mark.TAKEN | Mark.EARLIER in marks


def test_the_sample_is_one_in_so_many_and_another_in_another_run(journal: Journal, files: dict[str, Path]) -> None:
    vectors = [v for v in core.core() if v.machine == VECTORS[0].machine][: 5 * AGAIN]
    asked = works(vectors=vectors)
    run(journal, FakeSession(), made(files), asked)
    second, third = FakeSession(), FakeSession()
    run(journal, second, made(files), asked)
    run(journal, third, made(files), asked)
    assert len(second.asked) == len(third.asked) == 5
    assert set(second.asked) != set(third.asked)


def test_an_interrupted_run_takes_nothing_from_itself(journal: Journal, files: dict[str, Path]) -> None:
    number = run(journal, FakeSession(), made(files))
    assert Earlier(journal, number, made(files).text).known(works()) == {}
    assert Earlier(journal, number + 1, made(files).text).known(works())


def test_a_load_without_facts_has_a_host(journal: Journal, files: dict[str, Path]) -> None:
    run(journal, FakeSession(), made(files))
    with journal._db:
        journal._db.execute("UPDATE cell SET facts='{}' WHERE machine LIKE '%:load'")
    session = FakeSession()
    done: list[Done] = []
    run(journal, session, made(files))
    assert session.hosts == ["host"] and 1 <= len(session.asked) <= 3 and not done


def test_what_a_run_of_the_host_alone_learnt_hides_nothing_of_an_earlier_one(
    journal: Journal, files: dict[str, Path]
) -> None:
    several = works(range(3, 19))
    code = made(files, code=lambda _: "one")
    run(journal, FakeSession(), code, several[:1])
    host_alone = FakeSession()
    run(journal, host_alone, code, works(vectors=[HostVector()]), values_named=frozenset({(18, ON), (18, OFF)}))
    assert host_alone.asked == [HostVector().id]
    session = FakeSession()
    run(journal, session, code, several)
    # How an L1 starts is known of the first run: one load has a host, for the sample.
    assert session.hosts == ["host"] and len(session.asked) < 16


def test_the_sample_is_of_what_this_run_asks(journal: Journal, files: dict[str, Path]) -> None:
    run(journal, FakeSession(), made(files))
    session = FakeSession()
    run(journal, session, made(files), works(vectors=[VECTORS[7]]))
    assert session.asked == [VECTORS[7].id]


def test_loads_that_need_no_host_are_looked_at_in_a_few_of_them(journal: Journal, files: dict[str, Path]) -> None:
    vectors = [v for v in core.core() if v.machine == VECTORS[0].machine][:640]
    asked = works(range(3, 19), vectors)  # sixteen loads
    run(journal, FakeSession(), made(files), asked)
    session = FakeSession()
    number = run(journal, session, made(files), asked)
    (level,) = {key.level for key, _ in journal.answers(number, having=Mark.AGAIN)}
    assert 3 <= level <= 18 and len(session.asked) == 640 // AGAIN


def test_the_virtual_cpu_is_kept_as_l1_read_it() -> None:
    read = Cpu(mbec=False, msrs=(None, *range(17)))
    assert cpus.from_json(cpus.as_read(read)) == read
    assert cpus.from_json(cpus.as_json(read)) == Cpu(mbec=False)
