"""Causes by leaving patches out: kernels that lack a patch each are built and asked the findings' smallest vectors.

A finding is asked at the level at which most findings show theirs, so that few kernels serve all of them; of two such
levels at the lower. Every kernel is a module load on one running host. One whose machine code another has that was
asked already has that one's answer, and a patch that changes no machine code where it stands is not left out. Levels
that the run did not ask are asked first, by halves, for the first that shows the finding.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from harness.build import Modules, variants
from harness.errors import HostError
from harness.findings import (
    Became,
    Departure,
    Finding,
    LeavingOut,
    LeftOut,
    LeftOutPart,
    Run,
    left_out,
    symptom,
    symptom_of,
)
from harness.observe import Session
from harness.process import PROGRESS
from harness.questions import Setting, parameters, plan
from harness.results import UNHEARD, Cell, asked_at
from harness.review import check, identity
from harness.run.setup import Bench
from harness.run.workers import Options, ask
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Outcome
from kvmodel.question.vector import Vector

DEATHS: Final = 2  # hosts that die of one load's questions before they count as not asked
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Question:
    """The question is a finding's smallest vector as it departs at the level at which it is asked; ``first`` is the
    finding's first.
    """

    name: str
    departure: Departure
    first: int

    @property
    def level(self) -> int:
        """This is the level whose patches are left out."""
        return self.departure.cell[0]

    @property
    def setting(self) -> Setting:
        """The modules are loaded with the parameters so."""
        return Setting.parse(self.departure.cell[1])

    @property
    def vector(self) -> Vector:
        """This is the vector that is asked."""
        return self.departure.vector

    @property
    def cpu_mbec(self) -> bool:
        """It is of a host whose CPU has MBEC: True."""
        return self.vector.machine.env.cpu_mbec

    def shown_by(self, outcome: Outcome) -> bool:
        """The outcome is like the departure, of a sequence in the same turn: True."""
        d = self.departure
        there = outcome.turn(d.turn)
        return there is not None and symptom_of(self.vector, there, d.legal, stale=d.stale) == symptom(d)


@dataclass(frozen=True, slots=True)
class Answered:
    """The record is of one answer, and what the kernel that gave it offers: its parameters' values, L1's CPU, the
    control.
    """

    outcome: Outcome
    values: tuple[str | None, ...]
    cpu: Cpu | None
    mbec_offered: bool
    seconds: float


@dataclass(slots=True, eq=False)
class PatchedTree:
    """A kernel to ask: a level (``patch`` None), or the level without a patch; no modules: it is not to be asked.

    ``without`` is what was built, None for the level and for a patch that changes no machine code where it stands.

    ``same_as``: the tree of the same machine code that is asked in its place. ``answers`` by question; a text says why
    there is none.
    """

    level: int
    modules: Modules | None
    patch: int | None = None
    without: variants.Without | None = None
    same_as: PatchedTree | None = None
    answers: dict[Question, Answered | str] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.without is None:
            return f"level {self.level}"
        return f"level {self.level} without patch {', '.join(map(str, self.without.left_out))}"


@dataclass(frozen=True, slots=True)
class Job:
    """Questions that one load of a kernel's modules answers; ``take`` is told each answer, or why there is none."""

    number: int  # of the modules, for the session
    questions: tuple[Question, ...]
    take: Callable[[Question, Answered | str], None]

    @property
    def cpu_mbec(self) -> bool:
        """They are of a host whose CPU has MBEC: True."""
        return self.questions[0].cpu_mbec


def questions(found: Iterable[Finding]) -> list[Question]:
    """The function gives each finding's smallest vector, at as few levels as serve all."""
    choices: dict[str, dict[int, Question]] = {}
    for finding in found:
        smallest = finding.smallest
        alike = [d for d in finding.departures if d.vector.id == smallest.vector.id and d.cell[1] == smallest.cell[1]]
        first = finding.first_level
        choices[finding.name] = {d.cell[0]: Question(finding.name, d, first) for d in [*alike, smallest]}
    chosen: list[Question] = []
    while choices:
        levels = [level for by_level in choices.values() for level in by_level]
        best = max(sorted(set(levels)), key=levels.count)
        chosen += [by_level[best] for by_level in choices.values() if best in by_level]
        choices = {name: by_level for name, by_level in choices.items() if best not in by_level}
    return sorted(chosen, key=lambda q: (q.level, q.departure.cell[1], q.name))


def find_causes(run: Run, found: Sequence[Finding], bench: Bench, said: Say) -> None:
    """Find what is behind each of ``found`` on real kernels, and keep it with the run; ``bench`` has been built."""
    asked = questions(found)
    firsts = first_levels(run.present, asked, bench, said)
    for level in sorted({q.level for q in asked}):
        here = [q for q in asked if q.level == level]
        deep = [q for q in here if firsts[q.name] > 0]
        trees = _trees(bench, level, said) if deep else []
        _ask_trees(trees, deep, bench)
        for question in here:
            told = _told(question, trees, bench.base.release, firsts[question.name])
            (finding,) = (f for f in found if f.name == question.name)
            kept = run.journal.provenance(run.number).get(left_out.PROVENANCE, {})
            run.journal.amend(run.number, {left_out.PROVENANCE: kept | {finding.cause: told.as_json()}})
            said(f"{question.name}: {told.trouble or told.cause}")


def first_levels(present: Collection[Cell], asked: Iterable[Question], bench: Bench, said: Say) -> dict[str, int]:
    """The function gives the first level that shows each question's finding, by the finding's name.

    ``present`` are the run's cells. Of the levels between the last that it asked in vain and the first that showed it,
    half are left out with each answer.
    """
    found: dict[str, int] = {}
    open_: dict[Question, tuple[int, int]] = {}
    for question in asked:
        first, param = question.first, question.departure.cell[1]
        low = max((level for level in range(first) if asked_at(level, param, present) is not None), default=-1)
        found[question.name] = first
        if first - low > 1:
            open_[question] = (low, first)

    def take(question: Question, answer: Answered | str) -> None:
        low, high = open_[question]
        middle = (low + high) // 2
        shown = isinstance(answer, Answered) and question.shown_by(answer.outcome)
        open_[question] = (low, middle) if shown else (middle, high)
        words = answer if isinstance(answer, str) else "shows" if shown else "does not show"
        said(f"{question.name}: level {middle}: {words}")

    while left := {q: span for q, span in open_.items() if span[1] - span[0] > 1}:
        jobs: dict[tuple[int, Setting, bool], list[Question]] = defaultdict(list)
        for question, (low, high) in left.items():
            jobs[(low + high) // 2, question.setting, question.cpu_mbec].append(question)
        modules = [bench.level(level) for level, _, _ in jobs]
        bench.carry(modules)
        _ask_hosts([Job(n, tuple(qs), take) for n, qs in enumerate(jobs.values())], modules, bench)
    return found | {question.name: high for question, (_, high) in open_.items()}


def _trees(bench: Bench, level: int, said: Say) -> list[PatchedTree]:
    """The level, then the level without each of its patches."""
    whole = PatchedTree(level, bench.level(level))
    trees = [whole]
    prints = {identity.fingerprint(bench.cache, check.files(bench.level(level))): whole}
    with PROGRESS.task(f"kernels of level {level} without a patch", total=level) as task:
        for patch in range(level, 0, -1):
            task.advance(1)
            if bench.changes_nothing(patch):
                trees.append(PatchedTree(level, None, patch))
                continue
            made = variants.build(bench.cache, bench.base, bench.series, level, patch)
            tree = PatchedTree(
                level, None if made.modules and made.modules.image_differs else made.modules, patch, made
            )
            trees.append(tree)
            if tree.modules is not None:
                code = identity.fingerprint(bench.cache, check.files(tree.modules))
                tree.same_as = prints.get(code)
                prints.setdefault(code, tree)
            words = "cannot be built" if tree.modules is None else f"has the machine code of {tree.same_as}"
            if tree.modules is None or tree.same_as is not None:
                said(f"{tree}: {words}")
    return trees


def _ask_trees(trees: Sequence[PatchedTree], asked: Sequence[Question], bench: Bench) -> None:
    """Put the questions to every tree of its own code; the whole level comes first, and what it does not show is not
    asked of the others."""
    there = [tree for tree in trees if tree.same_as is None and tree.modules is not None]
    modules = [tree.modules for tree in there if tree.modules is not None]
    bench.carry(modules)
    jobs = []
    for number, tree in enumerate(there):
        loads: dict[tuple[Setting, bool], list[Question]] = defaultdict(list)
        for question in asked:
            loads[question.setting, question.cpu_mbec].append(question)
        jobs += [Job(number, tuple(questions), tree.answers.__setitem__) for questions in loads.values()]

    def open_(question: Question) -> bool:
        return question not in trees[0].answers or _shows(question, trees[0])

    _ask_hosts(jobs, modules, bench, open_)


def _ask_hosts(
    jobs: Sequence[Job], modules: Sequence[Modules], bench: Bench, still: Callable[[Question], bool] = lambda _: True
) -> None:
    """All ``jobs``, those of one CPU on one host; a host that dies is switched on again.

    ``still`` tells, when a question's turn has come, whether it is still to be asked.
    """
    with PROGRESS.task("asking", total=len(jobs)) as task:
        for cpu_mbec in (True, False):
            todo = [job for job in jobs if job.cpu_mbec is cpu_mbec]
            deaths = 0
            while todo:
                try:
                    with bench.open_host(cpu_mbec, "emulated host") as host:
                        session = bench.open_session(host, modules.__getitem__)
                        while todo:
                            if questions := [q for q in todo[0].questions if still(q)]:
                                _ask(session, replace(todo[0], questions=tuple(questions)))
                            deaths = 0
                            del todo[0]
                            task.advance(1)
                except HostError as error:
                    deaths += 1
                    if deaths >= DEATHS:
                        job = todo.pop(0)
                        for question in job.questions:
                            job.take(question, str(error).splitlines()[0])
                        deaths = 0
                        task.advance(1)


def _ask(session: Session, job: Job) -> None:
    """One load's questions; all of them are taken, or none where the host dies."""
    vectors = {q.vector.id: q.vector for q in job.questions}
    told: dict[str, Answered] = {}
    for work in plan(vectors.values(), [job.number], [job.questions[0].setting], ()):
        begun = time.monotonic()
        done = ask(session, work, Options(), collapsing=False)
        share = (time.monotonic() - begun) / work.size
        keys = dict.fromkeys((parameters.OWN.key, *work.load.setting.values))
        values = tuple(map(session.value, keys))
        for batch in done.batches.values():
            for vector, outcome in zip(batch.vectors, batch.seen.outcomes, strict=True):
                told[vector.id] = Answered(outcome, values, batch.seen.cpu, session.mbec_offered, share)
    for question in job.questions:
        job.take(question, told[question.vector.id])


def _shows(question: Question, tree: PatchedTree) -> bool:
    answer = tree.answers.get(question)
    return isinstance(answer, Answered) and question.shown_by(answer.outcome)


def _told(question: Question, trees: Sequence[PatchedTree], kernel: str, first: int) -> LeavingOut:
    """What the trees' answers say."""
    level, param = question.departure.cell
    told = LeavingOut(question.vector.id, level, param, kernel, first)
    if first == 0:
        return told
    whole = trees[0].answers[question]
    if not isinstance(whole, Answered):
        return replace(told, trouble=f"level {level} could not be asked: {whole}")
    if not question.shown_by(whole.outcome):
        return replace(told, trouble=f"level {level} no longer shows it: {whole.outcome}")
    seconds = sum(a.seconds for tree in trees if isinstance(a := tree.answers.get(question), Answered))
    without = tuple(_without(question, tree, whole) for tree in trees[1:])
    return replace(told, without=tuple(reversed(without)), seconds=round(seconds, 1))


def _without(question: Question, tree: PatchedTree, whole: Answered) -> LeftOut:
    made = tree.without
    if made is None:
        assert tree.patch is not None  # the whole level is none of these
        return LeftOut(tree.patch, (tree.patch,), "", "", Became.NO_CODE)
    source = tree.same_as or tree
    answer = source.answers.get(question, made.why or "other objects of the kernel image would be needed")
    told = LeftOut(made.patch, made.left_out, made.how.value, made.why, Became.UNASKED, same_as=str(tree.same_as or ""))
    if not isinstance(answer, Answered):
        return replace(told, answer=answer)
    told = replace(told, answer=str(answer.outcome))
    if answer.outcome.last.kind in UNHEARD:
        return replace(told, became=Became.SILENT)
    if question.shown_by(answer.outcome):
        return replace(told, became=Became.SHOWS)
    if answer.values != whole.values:
        return replace(told, became=Became.GONE, part=LeftOutPart.SWITCH)
    offer = (answer.cpu, answer.mbec_offered) != (whole.cpu, whole.mbec_offered)
    return replace(told, became=Became.GONE, part=LeftOutPart.OFFER if offer else LeftOutPart.RULE)
