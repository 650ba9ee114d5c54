"""A run is cut into shares of which none is lost: not where it is interrupted, not where hosts die."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from harness.cli.validate import _untouched, resumed, unfinished
from harness.errors import GuestError, HostError, InputError
from harness.findings import Run
from harness.observe import TROUBLE
from harness.observe.l1 import Seen
from harness.observe.reports import Reported
from harness.questions.core import CORE, core, thin
from harness.questions.loads import Load, Work, plan, settled
from harness.results import Journal, Mark, cpus, rows
from harness.results.of_series import ASKED
from harness.run.done import Done
from harness.run.judge import Voices
from harness.run.workers import SPLITS, Options, ask, costs, execute
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vector import AccessVector, NxVector, Vector
from tests.harness.settings import OFF, ON, UNSET

NAMED = Options(values_named=frozenset((level, value) for level in (16, 17, 18) for value in (OFF, ON)))


class FakeHost:
    """A host that is only counted."""

    started = 0

    def __init__(self, worker: str = "") -> None:
        self.worker = worker

    def __enter__(self) -> FakeHost:
        FakeHost.started += 1
        return self

    def __exit__(self, *_: object) -> None:
        pass


class FakeSession:
    """Answers each vector with DONE; dies where ``deadly`` names the load's level."""

    spent = False

    def unclaimed(self, _: object = ()) -> list[Reported]:
        return []

    def __init__(self, deadly: int | None = None) -> None:
        self.deadly = deadly
        self.loads: list[Load] = []
        self.traced: list[str] = []
        self.parameter: str | None = None
        self.mbec_offered = False

    def load(self, load: Load) -> None:
        self.loads.append(load)
        if load.level == self.deadly:
            raise HostError("fake host panicked\nits console")
        self.parameter = None if load.level < 3 else "Y" if load.param else "N"
        self.mbec_offered = load.level >= 16 and bool(load.param)

    def value(self, key: object) -> str | None:
        return None if self.parameter is None else str(int(self.parameter == "Y"))

    def l1_can_run(self) -> None:
        pass

    def ask_host(self, vectors: Iterable[Vector]) -> list[Outcome]:
        return [Outcome(Kind.DONE) for _ in vectors]

    def start_l1(self, machine: object) -> None:
        pass

    def ask_l1(self, machine: object, vectors: list[Vector], deadly: object, traced: Iterable[Vector]) -> Seen:
        self.traced += [v.id for v in traced]
        return Seen([Outcome(Kind.DONE) for _ in vectors])


def run(
    works: list[Work],
    journal: Journal,
    number: int,
    session: FakeSession,
    stop_after: int = -1,
    options: Options = NAMED,
) -> None:
    """``execute`` on fake hosts; interrupted when so many loads are in."""
    left = stop_after

    def progress(_: Done) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    fakes: dict[str, Any] = {"open_host": lambda *_: FakeHost(), "open_session": lambda _: session}
    execute(works, journal, number, options=options, voices=Voices(cpus.emulated), progress=progress, **fakes)


VICTIM = "host 2"


class Mortal:
    """Hosts of which host 2 dies once it was asked ``after`` batches, and stays dead where ``for_good``."""

    def __init__(self, after: int, for_good: bool = False) -> None:
        self.after, self.for_good = after, for_good
        self.dead = False
        self.asked: Counter[str] = Counter()  # batches by the worker that got their answers

    def open_host(self, _: bool, worker: str) -> Any:
        if worker == VICTIM and self.dead and self.for_good:
            raise HostError(f"{worker} does not answer\nany more")
        return FakeHost(worker)

    def open_session(self, host: Any) -> Any:
        return MortalSession(self, host.worker)


class MortalSession(FakeSession):
    def __init__(self, hosts: Mortal, worker: str) -> None:
        super().__init__()
        self.hosts, self.worker = hosts, worker

    def ask_l1(self, machine: object, vectors: list[Vector], deadly: object, traced: Iterable[Vector]) -> Seen:
        time.sleep(0.01)  # so that both workers get something to do
        if self.worker == VICTIM and not self.hosts.dead and self.hosts.asked[self.worker] >= self.hosts.after:
            self.hosts.dead = True
            raise HostError("the plug was pulled")
        self.hosts.asked[self.worker] += 1
        return super().ask_l1(machine, vectors, deadly, traced)


def asked_of(hosts: Mortal, works: list[Work], journal: Journal, jobs: int = 2) -> dict[tuple[str, str], str]:
    """A run on ``hosts``: every answer by cell and vector."""
    number = journal.begin(["kvmirror", "validate"], {})
    fakes: dict[str, Any] = {"open_host": hosts.open_host, "open_session": hosts.open_session}
    options = Options(jobs=jobs, values_named=NAMED.values_named)
    execute(
        works,
        journal,
        number,
        options=options,
        voices=Voices(cpus.emulated, mirror=False),
        progress=lambda _: None,
        **fakes,
    )
    rows = [((str(key), answer.vector.id), str(answer.seen)) for key, answer in journal.answers(number)]
    assert len(dict(rows)) == len(rows)
    return dict(rows)


@pytest.mark.parametrize("for_good", [False, True], ids=["comes back", "stays dead"])
def test_what_a_dead_host_was_asking_is_asked_of_another(tmp_path: Path, for_good: bool) -> None:
    works = list(plan(core()[::4], [17, 18], [ON]))
    with Journal(tmp_path / "journal.sqlite") as journal:
        alone = asked_of(Mortal(after=9999), works, journal, jobs=1)
        hosts = Mortal(after=2, for_good=for_good)
        shared = asked_of(hosts, works, journal)
        assert hosts.dead and set(hosts.asked) == {"host 1", "host 2"}
        assert shared == alone
        assert len(alone) == sum(work.size for work in works)


def test_a_load_that_is_cut_is_one_cell_and_one_step_of_the_table(tmp_path: Path) -> None:
    work = max(plan(core(), [18], [ON]), key=lambda work: work.size)
    with Journal(tmp_path / "journal.sqlite") as journal:
        number = journal.begin([], {})
        session, loads = FakeSession(), []
        fakes: dict[str, Any] = {"open_host": lambda *_: FakeHost(), "open_session": lambda _: session}
        voices = Voices(cpus.emulated, mirror=False)
        execute([work], journal, number, options=Options(), voices=voices, progress=loads.append, **fakes)
        assert len(session.loads) == 4
        assert [done.load for done in loads] == [work.load]
        row: Any = next(iter(Run.open(journal, number).rows))
        assert row.vectors + row.collapsed == work.size


def test_where_no_host_is_left_the_run_ends_with_what_the_last_one_said(tmp_path: Path) -> None:
    works = list(plan(thin(), [0, 16], [ON]))
    with Journal(tmp_path / "journal.sqlite") as journal:

        def refuse(*_: object) -> Any:
            raise HostError("no route to lab1")

        number = journal.begin([], {})
        fakes: dict[str, Any] = {"open_host": refuse, "open_session": lambda _: FakeSession()}
        voices = Voices(cpus.emulated)
        with pytest.raises(HostError, match=r"loads not asked: no route to lab1"):
            execute(works, journal, number, options=Options(), voices=voices, progress=lambda _: None, **fakes)
        assert journal.cells(number) == {}


def test_a_machine_that_is_lost_is_replaced_and_nothing_is_lost_with_it(tmp_path: Path) -> None:
    works = list(plan(thin(), [0, 16], [ON]))
    lost, opened, replaced = {"lab1"}, [], []
    machine = {"now": "lab1"}

    def open_host(*_: object) -> Any:
        opened.append(machine["now"])
        if machine["now"] in lost:
            raise HostError("no route to lab1")
        return FakeHost()

    def replace() -> bool:
        replaced.append(machine["now"])
        machine["now"] = "lab2"
        return True

    with Journal(tmp_path / "journal.sqlite") as journal:
        cells = []
        for _ in range(2):  # the second time on the machine that was had instead
            number = journal.begin([], {})
            fakes: dict[str, Any] = {"open_host": open_host, "open_session": lambda _: FakeSession()}
            fakes |= {"replace": replace, "progress": lambda _: None}
            execute(works, journal, number, options=Options(jobs=1), voices=Voices(cpus.emulated), **fakes)
            cells.append(set(journal.cells(number)))
        assert replaced == ["lab1"] and opened == ["lab1"] * 3 + ["lab2"] * (len(opened) - 3)
        assert cells[0] == cells[1] and len(cells[0]) > 3


def planned() -> list[Work]:
    """A few loads on both CPUs."""
    vectors = {v.id: v for v in (*thin(), *CORE["controls"](), *CORE["host_itself"]())}
    return list(plan(vectors.values(), [0, 16, 18], [UNSET, OFF, ON]))


def totals(journal: Journal, number: int) -> dict[str, Any]:
    """A run's counts."""
    found: dict[str, Any] = Run.open(journal, number).as_json()["totals"]
    del found["seconds"]
    return found


def test_an_interrupted_run_goes_on_and_counts_as_one_that_was_not(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        whole, broken = (journal.begin(["kvmirror", "validate"], {}) for _ in range(2))
        run(planned(), journal, whole, FakeSession())
        assert unfinished(planned(), journal, whole) == []
        with pytest.raises(KeyboardInterrupt):
            run(planned(), journal, broken, FakeSession(), stop_after=5)
        left = unfinished(planned(), journal, broken)
        assert len(left) == len(planned()) - 5
        again = FakeSession()
        run(left, journal, broken, again)
        hosted = [w.load for w in left if settled(w, NAMED.values_named, {})[0].size]
        assert sorted(map(str, again.loads)) == sorted(map(str, hosted))
        assert unfinished(planned(), journal, broken) == []
        assert totals(journal, broken) == totals(journal, whole)


def test_a_load_without_its_last_cell_is_asked_again(tmp_path: Path) -> None:
    works = list(plan(core(), [0], [UNSET]))
    with Journal(tmp_path / "j.sqlite") as journal:
        number = journal.begin(["kvmirror", "validate"], {})

        class Interrupted(Voices):
            """Ctrl-C while the second batch is judged."""

            def answers(self, *args: Any) -> Any:
                if journal.cells(number):
                    raise KeyboardInterrupt
                return super().answers(*args)

        fakes: dict[str, Any] = {"open_host": lambda *_: FakeHost(), "open_session": lambda _: FakeSession()}
        with pytest.raises(KeyboardInterrupt):
            execute(
                works,
                journal,
                number,
                options=NAMED,
                voices=Interrupted(cpus.emulated),
                progress=lambda _: None,
                **fakes,
            )
        assert len(journal.cells(number)) == 1
        assert len(unfinished(works, journal, number)) == len(works)


def test_a_host_that_dies_of_a_load_blocks_it_and_the_others_go_on(tmp_path: Path) -> None:
    works = list(plan(thin(), [0, 16], [ON]))
    before = [dict(work.batches) for work in works]
    with Journal(tmp_path / "j.sqlite") as journal:
        number = journal.begin(["kvmirror", "validate"], {})
        run(works, journal, number, FakeSession(deadly=16))
        counted = {row.level: row for row in Run.open(journal, number).rows}
        assert counted[16].blocked == counted[16].vectors == len(thin())
        assert counted[0].blocked == 0
        (why,) = {
            a.seen.note for _, a in journal.answers(number, level=16) if a.seen.kind is Kind.BLOCKED
        }  # the first line of what the host said
        assert why == "fake host panicked"
    assert [work.batches for work in works] == before


def test_a_resumed_run_is_the_one_that_was_asked(tmp_path: Path) -> None:
    args = argparse.Namespace(levels="0-18", param="all", vectors=["core"], no_mirror=False, jobs=1)
    asked = {"levels": "0,12", "param": "1", "vectors": ["thin"], "no_mirror": True}
    with Journal(tmp_path / "j.sqlite") as journal:
        with pytest.raises(InputError, match="no run yet"):
            resumed(args, journal)
        journal.begin(["kvmirror", "validate", "--bare"], {})
        with pytest.raises(InputError, match="run 1 cannot be resumed"):
            resumed(args, journal)
        journal.begin(["kvmirror", "validate"], {ASKED: asked})
        assert vars(resumed(args, journal)) == asked | {"jobs": 1}


def test_a_level_with_a_lower_ones_machine_code_has_its_answers(tmp_path: Path) -> None:
    works = list(plan(core(), [0, 1, 2], [UNSET]))
    with Journal(tmp_path / "journal.sqlite") as journal:
        whole, thinned = journal.begin([], {}), journal.begin([], {})
        run(works, journal, whole, FakeSession())
        session = FakeSession()
        run(list(reversed(works)), journal, thinned, session, options=Options(twins={1: 0, 2: 0}))
        assert {load.env.name for load in session.loads if load.level} == {"std"}
        a, b = totals(journal, whole), totals(journal, thinned)
        taken = b.pop("taken")
        assert a.pop("taken") == 0 and taken > 0.8 * b["vectors"] * 2 / 3
        assert a == b
        levels = [key.level for key, _ in journal.answers(thinned, having=Mark.TAKEN)]
        assert len(levels) == taken and set(levels) == {1, 2}
        rules = {rule.name: rule.vectors for rule in rows.aside(journal, thinned).collapsed}
        assert rules["same-code"] == taken


def test_a_resumed_run_takes_over_from_no_level_that_was_begun_before() -> None:
    works = list(plan(core(), [0, 1, 3, 4], [UNSET]))
    left = [w for w in works if w.load != Load(3, UNSET, w.load.env)]
    assert _untouched({1: 0, 4: 3}, works, left) == {1: 0}


def test_what_rules_leave_out_takes_no_time() -> None:
    works = list(plan(core(), [0, 1, 3], [UNSET, OFF, ON]))
    options = Options(values_named=frozenset({(3, OFF), (3, ON)}), twins={1: 0})
    found = costs(works, options)
    assert set(found) == {w.load for w in works}
    by_level = {level: sum(c for load, c in found.items() if load.level == level) for level in (0, 1)}
    assert by_level[1] < by_level[0] / 4
    assert all(found[w.load] == 0 for w in works if w.load.param is None and w.load.level == 3 and not w.host)


def test_what_only_a_trace_answers_is_traced_without_being_told() -> None:
    session = FakeSession()
    nx, plain = NxVector(), AccessVector(env="hugenx")
    (work,) = plan([nx, plain], [18], [ON])
    ask(session, work, Options())  # type: ignore[arg-type]
    assert session.traced == [nx.id]


class DeadlyVectors(FakeSession):
    """A host that dies of some vectors, whatever else is asked with them."""

    def __init__(self, names: set[str], deaths: list[int]) -> None:
        super().__init__()
        self.names, self.deaths = names, deaths

    def ask_l1(self, machine: object, vectors: list[Vector], deadly: object, traced: Iterable[Vector]) -> Seen:
        if any(vector.id in self.names for vector in vectors):
            self.deaths.append(len(vectors))
            raise HostError("the host hit a BUG: kernel BUG at mmu.c\nits console")
        return super().ask_l1(machine, vectors, deadly, traced)


@pytest.mark.parametrize("places", [(3,), (0, 30)], ids=["one", "two"])
def test_what_hosts_die_of_is_halved_down_to_the_vectors_that_kill(tmp_path: Path, places: tuple[int, ...]) -> None:
    (work,) = plan([v for v in thin() if v.id.startswith("e4k")], [0], [ON])
    (asked,) = work.batches.values()
    names, deaths = {asked[n].id for n in places}, []  # type: ignore[var-annotated]
    with Journal(tmp_path / "j.sqlite") as journal:
        number = journal.begin([], {})
        fakes: dict[str, Any] = {
            "open_host": lambda *_: FakeHost(),
            "open_session": lambda _: DeadlyVectors(names, deaths),
        }
        voices = Voices(cpus.emulated, mirror=False)
        execute([work], journal, number, options=Options(jobs=1), voices=voices, progress=lambda _: None, **fakes)
        answers = {answer.vector.id: answer for _, answer in journal.answers(number)}
        assert answers.keys() == {v.id for v in asked}
        killers = {name for name, answer in answers.items() if answer.seen.kind is Kind.HOST}
        assert killers == names
        assert all(answers[name].seen.note == "the host hit a BUG: kernel BUG at mmu.c" for name in names)
        assert all(answers[name].seen.kind is Kind.DONE for name in answers.keys() - names)
    assert deaths[:2] == [len(asked)] * 2 and deaths.count(1) == len(names)
    assert len(deaths) <= 2 + 6 * len(names)


def test_a_kernel_that_dies_of_anything_is_not_asked_for_ever(tmp_path: Path) -> None:
    plain = [v for v in core() if v.id.startswith("e4k") and v.id.endswith("mbec=off.xo1.ev0.env=std")]
    (work,) = plan(plain[:400], [0], [ON])
    deaths: list[int] = []
    everything = {v.id for batch in work.batches.values() for v in batch}
    with Journal(tmp_path / "j.sqlite") as journal:
        number = journal.begin([], {})
        fakes: dict[str, Any] = {
            "open_host": lambda *_: FakeHost(),
            "open_session": lambda _: DeadlyVectors(everything, deaths),
        }
        voices = Voices(cpus.emulated, mirror=False)
        execute([work], journal, number, options=Options(jobs=1), voices=voices, progress=lambda _: None, **fakes)
        seen = [answer.seen for _, answer in journal.answers(number) if answer.vector.id in everything]
    assert len(seen) == len(everything) and {one.kind for one in seen} == {Kind.HOST, Kind.BLOCKED}
    assert len(deaths) <= 2 * SPLITS + 4


class Broken(FakeSession):
    """A machine of which every L1's start breaks the connection, from its ``good`` th on; also with nothing to do."""

    started = 0

    def __init__(self, good: int = 0) -> None:
        super().__init__()
        self.good = good

    def start_l1(self, machine: object) -> None:
        Broken.started += 1
        if Broken.started > self.good:
            raise HostError("the connection to lab1 is gone: broken pipe")

    def ask_l1(self, machine: object, vectors: list[Vector], deadly: object, traced: Iterable[Vector]) -> Seen:
        self.start_l1(machine)
        return super().ask_l1(machine, vectors, deadly, traced)


@pytest.mark.parametrize("good", [0, 3], ids=["never worked", "breaks under the run"])
def test_a_machine_that_breaks_at_every_start_of_l1_is_given_up_and_nothing_is_halved(
    tmp_path: Path, good: int
) -> None:
    works = list(plan(core()[::4], [0, 16, 17, 18], [ON]))
    Broken.started = 0
    with Journal(tmp_path / "j.sqlite") as journal:
        number = journal.begin([], {})
        fakes: dict[str, Any] = {"open_host": lambda *_: FakeHost(), "open_session": lambda _: Broken(good)}
        options, voices = Options(jobs=1), Voices(cpus.emulated, mirror=False)
        with pytest.raises(HostError, match=r"hosts stopped with \d+ loads not asked: the connection to lab1 is gone"):
            execute(works, journal, number, options=options, voices=voices, progress=lambda _: None, **fakes)
        kinds = {answer.seen.kind for _, answer in journal.answers(number)}
    assert Broken.started <= good + 3
    assert kinds <= {Kind.DONE}


def test_what_a_broken_machine_was_to_ask_another_asks(tmp_path: Path) -> None:
    works = list(plan(core()[::4], [0, 18], [ON]))
    machine = {"now": "lab1"}
    Broken.started = 0

    def session(_: object) -> Any:
        return Broken() if machine["now"] == "lab1" else FakeSession()

    def replace() -> bool:
        machine["now"] = "lab2"
        return True

    with Journal(tmp_path / "j.sqlite") as journal:
        number = journal.begin([], {})
        fakes: dict[str, Any] = {"open_host": lambda *_: FakeHost(), "open_session": session, "replace": replace}
        options, voices = Options(jobs=1), Voices(cpus.emulated, mirror=False)
        execute(works, journal, number, options=options, voices=voices, progress=lambda _: None, **fakes)
        found = Run.open(journal, number).totals
    assert found.vectors + found.collapsed == sum(work.size for work in works) and found.blocked == 0
    assert Broken.started == 3


@pytest.mark.parametrize("levels", [[16], [0, 3, 12, 16, 18]])
def test_hosts_of_which_every_load_fails_say_so_and_answer_nothing(tmp_path: Path, levels: list[int]) -> None:
    vectors = list({v.id: v for v in (*thin(), *CORE["host_itself"]())}.values())

    class NeverLoads(FakeSession):
        def load(self, load: Load) -> None:
            raise HostError("insmod: kvm.ko: invalid module format")

    with Journal(tmp_path / "j.sqlite") as journal:
        number = journal.begin([], {})
        with pytest.raises(HostError, match=r"loads not asked: insmod: kvm\.ko: invalid module format") as told:
            run(list(plan(vectors, levels, [ON])), journal, number, NeverLoads())
        assert told.value.exit_code == 4
        assert list(journal.answers(number)) == []


def test_an_l1_that_is_never_heard_of_is_no_answer(tmp_path: Path) -> None:
    class NoQemu(FakeSession):
        def ask_l1(self, machine: object, vectors: list[Vector], deadly: object, traced: Iterable[Vector]) -> Seen:
            why = "QEMU did not start: it ended with status 1"
            return Seen([Outcome(Kind.BLOCKED, note=why)] * len(vectors), None, {TROUBLE: why})

    vectors = list({v.id: v for v in (*thin(), *CORE["host_itself"]())}.values())
    works = list(plan(vectors, [0, 16], [ON]))
    with Journal(tmp_path / "j.sqlite") as journal:
        number = journal.begin([], {})
        with pytest.raises(GuestError, match="no L1 could be asked anything: QEMU did not start") as told:
            run(works, journal, number, NoQemu())
        assert told.value.exit_code == 4
        assert unfinished(works, journal, number) == [work for work in works if work.batches]  # is asked again


def test_a_host_that_is_spent_starts_anew_before_it_is_asked_more(tmp_path: Path) -> None:
    works = list(plan(thin(), [0, 16, 18], [ON]))
    opened: list[FakeSession] = []

    def session(_: object) -> Any:
        opened.append(FakeSession())
        opened[-1].spent = True
        return opened[-1]

    with Journal(tmp_path / "j.sqlite") as journal:
        number = journal.begin([], {})
        fakes: dict[str, Any] = {"open_host": lambda *_: FakeHost(), "open_session": session}
        voices = Voices(cpus.emulated, mirror=False)
        execute(works, journal, number, options=Options(jobs=1), voices=voices, progress=lambda _: None, **fakes)
        asked = [(load.level, str(load.env.name)) for one in opened for load in one.loads]
        assert len(asked) == len(set(asked)) == len(works)
        assert all(len(one.loads) == 1 for one in opened)
