"""Puts loads that were asked into the journal, judged, each with what it takes over from elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.observe import Seen, cut, reports
from harness.questions import ASKED_BEFORE, SAME_CODE, Load
from harness.results import KVM_HOST, Answer, CellKey, Journal, Mark, NotReproduced, Verdict, cpus
from harness.run.done import FACTS, HOST_CELL, SEAL, Done, Part, log_of, seal
from harness.run.earlier import CPU, same
from harness.run.judge import Voices
from kvmodel.question.vector import Machine

Rests = Callable[[Load, Machine | None], str | None]
"""Gives what answers of a load rest on, as the journal keeps it; None where later runs are to take none."""


class Book:
    """The book puts loads into the journal, each with what it takes over from the level whose machine code it is."""

    def __init__(
        self,
        journal: Journal,
        run: int,
        voices: Voices,
        progress: Callable[[Done], None],
        *,
        twins: Mapping[int, int],
        basis: Rests,
    ) -> None:
        self._journal, self._run, self._voices, self._progress = journal, run, voices, progress
        self._twins, self._basis = twins, basis
        self._kept: dict[Load, Done] = {}  # of levels that others are the machine code of
        self._waiting: list[Done] = []

    def enter(self, done: Done) -> None:
        """Record a load, and whatever waited for it; one that comes before its twin's waits."""
        if done.load.level in self._twins.values():
            self._kept[done.load] = done
        self._waiting.append(done)
        for one in list(self._waiting):
            twin = self._twins.get(one.load.level)
            if twin is None:
                taken: dict[str, Part] = {}
            elif (source := self._kept.get(replace(one.load, level=twin))) is not None:
                taken = _take_over(one, source)
            else:
                continue
            self._waiting.remove(one)
            self._record(one, taken)
            self._progress(one)

    def _record(self, done: Done, taken: Mapping[str, Part]) -> None:
        load = done.load
        before = sum(len(part.earlier) for part in done.batches.values())
        collapsed = done.collapsed | ({ASKED_BEFORE: before} if before else {})
        for name in done.batches | dict(taken):
            batch = done.batches.get(name) or Part([], Seen([]), guest=taken[name].guest)
            facts = dict(batch.seen.facts)
            if batch.told:
                facts["events"] = [one.as_json() for one in batch.told]
            others = taken.get(name)
            judge = self._judge(load, name, batch, others)
            asked = [v.id for part in (batch, others) if part is not None for v in part.vectors]
            told = {} if judge is None else self._journal.judgements(judge, asked)
            own = self._voices.answers(load, batch.vectors, batch.seen, batch.told, told)
            answers = _marked(own, batch)
            facts |= _facts_of(batch, answers)
            if others is not None:
                own = self._voices.answers(load, others.vectors, others.seen, (), told)
                answers += map(_Marking(Mark.TAKEN), _marked(own, others))
            cell = f"{load.env.name}:{name}" if name == HOST_CELL else name
            traces = list(map(cut.as_json, batch.seen.traced))
            self._enter(load, cell, answers, batch.seconds, facts, batch.guest, traces, judge)
            if logged := self._logged(load, batch):
                self._enter(load, log_of(cell), logged, 0.0, {}, batch.guest)
        said = {} if done.facts is None else {FACTS: done.facts.as_json()}
        self._enter(load, seal(load), [], 0.0, {"collapsed": collapsed} | said, None)

    def _enter(
        self,
        load: Load,
        cell: str,
        answers: list[Answer],
        seconds: float,
        facts: dict[str, Any],
        guest: Machine | None,
        traces: Sequence[Mapping[str, Any]] = (),
        judge: str | None = None,
    ) -> None:
        key = CellKey(load.level, str(load.setting), KVM_HOST, cell)
        self._journal.record(self._run, key, answers, seconds, facts, self._basis(load, guest), traces, judge)

    def _judge(self, load: Load, cell: str, *parts: Part | None) -> str | None:
        """Who judges a cell's parts; None where they are of L1s that read different CPUs."""
        read = {part.seen.cpu for part in parts if part is not None and part.vectors}
        return self._voices.judge(load, cell, next(iter(read), None)) if len(read) < 2 else None

    def _logged(self, load: Load, part: Part) -> list[Answer]:
        """The rows of what the kernel's log said, now or in the earlier runs whose answers stand here."""
        now = {answer.vector for answer in self._voices.logged(load, part.seen.reported)}
        rows = self._voices.logged(load, reports.some([*part.reported_before, *part.seen.reported]))
        earlier = _Marking(Mark.EARLIER)
        return [row if row.vector in now else earlier(row) for row in rows]


class _Marking:
    """Adds ``marks`` to answers, which share few verdicts: each of these is made once."""

    def __init__(self, marks: Mark) -> None:
        self._marks = marks
        self._known: dict[int, tuple[Verdict, Verdict]] = {}  # by identity, which holds as long as the first is kept

    def __call__(self, answer: Answer) -> Answer:
        was = answer.verdict
        if (known := self._known.get(id(was))) is None:
            known = self._known[id(was)] = was, Verdict(was.marks | self._marks, was.rule)
        return Answer(answer.vector, answer.seen, answer.predicted, answer.contract, known[1])


def _marked(answers: Iterable[Answer], part: Part) -> list[Answer]:
    """``answers`` with how they were come by."""
    earlier, again = _Marking(Mark.EARLIER), _Marking(Mark.AGAIN)
    otherwise = _Marking(Mark.AGAIN | Mark.NOT_REPRODUCED)
    found = []
    for answer in answers:
        if answer.vector.id in part.earlier:
            answer = earlier(answer)
        elif (before := part.again.get(answer.vector.id)) is not None:
            answer = (again if same(before[1], answer.seen) else otherwise)(answer)
        found.append(answer)
    return found


def _facts_of(part: Part, answers: list[Answer]) -> dict[str, Any]:
    """What a cell's facts say of earlier runs, and for later ones."""
    found: dict[str, Any] = {}
    if part.seen.cpu is not None:
        found[CPU] = cpus.as_read(part.seen.cpu)
    if part.earlier:
        found["earlier"] = Counter(part.earlier.values())
    other = {a.vector.id: a for a in answers if Mark.NOT_REPRODUCED in a.verdict.marks}
    if other:
        found["not_reproduced"] = [
            NotReproduced(name, run, before, other[name].seen).as_json()
            for name, (run, before) in part.again.items()
            if name in other
        ]
    return found


def _take_over(done: Done, source: Done) -> dict[str, Part]:
    """The answers of ``source`` to what ``done`` did not ask, by cell name; ``done`` counts them."""
    taken = {}
    for name, batch in source.batches.items():
        asked = {v.id for v in done.batches[name].vectors} if name in done.batches else set()
        rest = [(v, seen) for v, seen in zip(batch.vectors, batch.seen.outcomes, strict=True) if v.id not in asked]
        if rest:
            seen = Seen([seen for _, seen in rest], batch.seen.cpu)
            taken[name] = Part([v for v, _ in rest], seen, guest=batch.guest, earlier=batch.earlier)
    done.collapsed = source.collapsed | {SAME_CODE: sum(len(batch.vectors) for batch in taken.values())}
    return taken


def finished(cells: Iterable[CellKey]) -> set[tuple[int, str, str]]:
    """The function gives the loads of which every cell is there: level, parameter, environment."""
    return {
        (key.level, key.param, key.machine.removesuffix(f":{SEAL}"))
        for key in cells
        if key.machine.endswith(f":{SEAL}")
    }
