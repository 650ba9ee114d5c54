"""Is the check sharp? Each mutant of the mirror is held against what C gave, and against what a run observed.

The C of a level runs once over a bounded set of cases. A mutant within a function is that function's code exchanged,
one of a module's constants is the mirror imported anew. It meets what caught it in an earlier run, if that is known,
then the checks and vectors that reach what it changes: a few cases of each check, the vectors, more cases, and all,
until it gives a wrong answer or fails. One of which it is explained that it changes nothing meets few cases only.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import re
import signal
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, Final

from harness.oracle.check import Cases, called, differing, inside, mirrored, run_c, seeded
from harness.oracle.image import Image, ImageWorker
from harness.oracle.mutate.equivalent import EQUIVALENT
from harness.oracle.mutate.mutants import MODULES, Mutant, mutated, source
from harness.oracle.specs import SPECS, Row, answers, spread
from harness.results import Mark, judge
from kvmodel import machine
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Outcome
from kvmodel.question.vector import Vector
from kvmodel.series import LAST, Level

CASES: Final = 10_000  # for each check and level
LEVELS: Final = (LAST, 0, 10, 11, 13, 15)  # beside those a gate belongs to
TIMEOUT: Final = 4.0  # seconds of CPU for one batch or vector: a mutant that hangs is caught
FEW: Final = 40  # cases of each batch, spread over it, before more of any
MORE: Final = 400  # before all of any
WATCHED: Final = 40  # cases of a batch over which the functions it reaches are noted
# What a mutant does not change, and what stays one object for all: vectors, answers, levels, CPUs.
KEPT: Final = tuple(f"kvmodel.{n}" for n in ("bits", "cpu", "mirrors", "question", "sdm", "series"))
RENEWED: Final = tuple(("harness.oracle.specs", "harness.oracle.check.constants"))
_CASE: Final = re.compile(r"(?P<entry>\w+)\((?P<row>.*)\) at level (?P<level>\d+)")
_VECTOR: Final = re.compile(r"(?P<id>.+) at level (?P<level>\d+), parameter \w+")


@dataclass(frozen=True, slots=True)
class Asked:
    """The record is of a vector as it was asked at a level, and of what was seen."""

    level: int
    param: bool | None
    mbec: bool  # of the CPU under KVM
    vector: Vector
    seen: Outcome


@dataclass(frozen=True, slots=True)
class MutantVerdict:
    """The verdict is on a mutant: ``caught`` names the check, constant or vector, and is empty for a survivor."""

    mutant: Mutant
    by: str  # check, constant, vector, failure; empty
    caught: str


Key = tuple[int, int]
"""A check and one of its states, by their numbers."""

Case = tuple[int, Key, Row | None]
"""A batch at a level, or (not None) one case of it."""


@dataclass
class CAnswers:
    """The object has what C gave at one level: a batch for each check and state, and the constants."""

    batches: dict[Key, Cases] = field(default_factory=dict)
    constants: Mapping[str, int] = field(default_factory=dict)
    _parts: dict[tuple[Key, int | None], Cases] = field(default_factory=dict)
    _digests: dict[tuple[Key, int | None], bytes] = field(default_factory=dict)

    def asked(self) -> Iterable[Key]:
        """The function gives the batches that there are."""
        return self.batches.keys()

    def rows(self, key: Key) -> Sequence[Row]:
        """The function gives the cases of one of them."""
        return self.batches[key].rows

    def given(self, key: Key, rows: Sequence[Row]) -> Cases:
        """The function gives these cases of it, with what C gave."""
        batch = self.batches[key]
        return batch.part([batch.rows.index(row) for row in rows])

    def some(self, key: Key, count: int | None) -> Cases:
        """The function gives about ``count`` cases of it, spread over it; all for None."""
        if (key, count) not in self._parts:
            rows = self.rows(key)
            wanted = rows if count is None else [rows[n] for n in spread(len(rows), count)]
            self._parts[key, count] = self.given(key, wanted)
        return self._parts[key, count]

    def digest(self, key: Key, count: int | None) -> bytes:
        """The digest stands for all that C answered to these."""
        if (key, count) not in self._digests:
            batch = self.some(key, count)
            self._digests[key, count] = hashlib.sha256(batch.out.tobytes() + bytes(batch.status)).digest()
        return self._digests[key, count]


@cache
def _rows(key: Key, cases: int, seed: int) -> Sequence[Row]:
    """The function gives the cases of a batch, which are the same at every level."""
    spec = SPECS[key[0]]
    return spec.space.rows(max(8, spec.each(cases)), seeded(spec, key[1], seed))[0]


class Live(CAnswers):
    """The object asks the C of an image for a case when that is wanted. It is a context manager."""

    def __init__(self, image: Path, level: int, cases: int = CASES, seed: int = 1) -> None:
        self._worker = ImageWorker(Image(image))
        self.level, self.cases, self.seed = Level.of(level), cases, seed
        super().__init__({}, self._worker.image.constants(self._worker))

    def asked(self) -> Iterable[Key]:
        """The function gives the batches of every check that the level has."""
        for number, spec in enumerate(SPECS):
            if spec.applies(self.level):
                yield from ((number, at) for at in range(len(spec.states)))

    def rows(self, key: Key) -> Sequence[Row]:
        """The function gives the cases of one of them."""
        return _rows(key, self.cases, self.seed)

    def given(self, key: Key, rows: Sequence[Row]) -> Cases:
        """The function gives these cases of it, with what C gives."""
        spec = SPECS[key[0]]
        return run_c(self._worker, spec, spec.states[key[1]], rows)

    def close(self) -> None:
        """The child process is ended here."""
        self._worker.close()

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """The finder gives one module from a syntax tree."""

    def __init__(self, name: str, code: CodeType) -> None:
        self._name, self._code = name, code

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self) if fullname == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)


def _renewed(name: str) -> bool:
    if name.startswith("kvmodel."):
        return not name.startswith(KEPT)
    return name.startswith(RENEWED)


@contextlib.contextmanager
def swapped(module: str, tree: ast.Module) -> Iterator[None]:
    """The block has the mirror, and all that holds its objects, imported anew with ``module`` as ``tree``."""
    before = {name: found for name, found in sys.modules.items() if _renewed(name)}
    finder = _Finder(f"kvmodel.{module}", compile(tree, f"<mutant of {module}>", "exec"))

    def forget() -> None:
        for name in [n for n in sys.modules if _renewed(n)]:
            del sys.modules[name]
            package, _, own = name.rpartition(".")
            if (above := sys.modules.get(package)) is not None and own in vars(above):
                delattr(above, own)

    forget()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        forget()
        sys.modules.update(before)
        for name, found in before.items():
            package, _, own = name.rpartition(".")
            setattr(sys.modules[package], own, found)


def _code(tree: ast.Module, names: Sequence[str]) -> CodeType | None:
    """The function gives the code of the function ``names`` (its classes before it) of a syntax tree."""
    code = compile(tree, "<mutant>", "exec")
    for name in names:
        inner = [c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == name]
        if len(inner) != 1:
            return None
        code = inner[0]
    return code


def _function(module: ModuleType, names: Sequence[str]) -> FunctionType | None:
    """The function gives a function itself, out of what is wrapped around it."""
    found: object = module
    for name in names:
        found = vars(found).get(name)
    if isinstance(found, property):
        found = found.fget
    if isinstance(found, (staticmethod, classmethod)):
        found = found.__func__
    found = getattr(found, "__wrapped__", found)
    return found if isinstance(found, FunctionType) else None


def _forget() -> None:
    """The mirror forgets what it remembers of earlier answers."""
    for name, module in list(sys.modules.items()):
        if name.startswith("kvmodel."):
            for found in list(vars(module).values()):
                if clear := getattr(found, "cache_clear", None):
                    clear()


@contextlib.contextmanager
def changed(mutant: Mutant) -> Iterator[None]:
    """The block has the mirror with ``mutant`` in it; afterwards it is as before."""
    tree = mutated(mutant)
    names = mutant.function.split(".")
    module = importlib.import_module(f"kvmodel.{mutant.module}")
    # A function within a function changes with the outer one.
    depth = 2 if isinstance(getattr(module, names[0], None), type) else 1
    function = _function(module, names[:depth]) if mutant.function else None
    code = _code(tree, names[:depth]) if function else None
    if function is None or code is None or code.co_freevars != function.__code__.co_freevars:
        with swapped(mutant.module, tree):
            yield
        return
    before = function.__code__
    function.__code__ = code
    _forget()
    try:
        yield
    finally:
        function.__code__ = before
        _forget()


class _Late(Exception):
    """The mutant's time is over."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """The block raises _Late after ``seconds`` of CPU time."""

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise _Late

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def constants_of(image: Path) -> Mapping[str, int]:
    """The function gives the constants of an image as its compiler has them."""
    with ImageWorker(Image(image)) as worker:
        return worker.image.constants(worker)


Functions = frozenset[tuple[str, str]]
"""Functions of kvmodel: (module, name)."""


def reach(recorded: CAnswers, level: int) -> dict[int, Functions]:
    """The function gives the functions that each check calls, in any state, and those that it says it reaches."""
    found: dict[int, set[tuple[str, str]]] = {}
    python = mirrored()
    for key in recorded.asked():
        spec, rows = SPECS[key[0]], recorded.rows(key)
        with called() as seen:
            side = spec.states[key[1]].side(Level.of(level))
            answers(spec, side, [rows[n] for n in spread(len(rows), WATCHED)])
        named = (python[name].rpartition(".") for name in spec.functions if name in python)
        found.setdefault(key[0], set()).update(seen, ((module, name) for module, _, name in named))
    return {number: frozenset(seen) for number, seen in found.items()}


def readers(name: str) -> Functions:
    """The function gives the functions that read the constant ``name``, or one that is made of it at import."""
    trees = {module: ast.parse(source(module).read_text(encoding="utf-8")) for module in _modules()}
    wanted = {name}
    while True:
        more = {
            made
            for tree in trees.values()
            for node in ast.walk(tree)
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None
            for made in _made(node)
            if made not in wanted and _mentions(node.value, wanted)
        }
        if not more:
            break
        wanted |= more
    return frozenset(
        (module, node.name)
        for module, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and _mentions(node, wanted)
    )


def _modules() -> list[str]:
    return [*MODULES, "machine.answers", "machine.vcpu", "machine.l2", "machine.client", "trace"]


def _made(node: ast.Assign | ast.AnnAssign) -> Iterator[str]:
    """The function gives the constants that an assignment makes."""
    for target in node.targets if isinstance(node, ast.Assign) else (node.target,):
        name = target.id if isinstance(target, ast.Name) else target.attr if isinstance(target, ast.Attribute) else ""
        if name.strip("_") and name.upper() == name:
            yield name


def _mentions(tree: ast.AST, names: Collection[str]) -> bool:
    return any(
        (isinstance(node, ast.Name) and node.id in names) or (isinstance(node, ast.Attribute) and node.attr in names)
        for node in ast.walk(tree)
    )


def levels(mutant: Mutant, others: Sequence[int] = LEVELS) -> list[int]:
    """The function gives the levels at which ``mutant`` is tried; a gate's own and the one below come first."""
    own = [mutant.patch, mutant.patch - 1] if mutant.patch else []
    return list(dict.fromkeys([*own, *others]))


@dataclass(frozen=True, slots=True)
class _Meeting:
    """A mirror is held against this: batches, or single cases, with their levels, and vectors of these levels.

    ``whole``: more cases of a batch, and in the end all, are asked as well. ``once``: what C answers as at another
    level is asked once.
    """

    levels: Collection[int]
    work: Sequence[Case]
    vectors: Sequence[Asked]
    whole: bool = False
    once: bool = True


class Judge:
    """The judge holds mutants against what was recorded; ``asked`` are vectors with what a run saw."""

    def __init__(
        self, recorded: Callable[[int], CAnswers], asked: Sequence[Asked] = (), levels: Sequence[int] = LEVELS
    ) -> None:
        self._recorded = recorded
        self._setting_up: dict[tuple[object, ...], Functions] = {}
        self._asked = asked
        self._levels = tuple(levels)
        self._readers: dict[str, Functions] = {}

    def _of_vector(self, one: Asked) -> Functions:
        """The function gives what predicting a vector calls, with the setting up of its machine, which happens once."""
        key = (one.level, one.param, one.mbec, one.vector.machine, type(one.vector))
        first = key not in self._setting_up
        if first:
            _forget()
        with called() as seen:
            machine.predict(one.level, one.param, Cpu(mbec=one.mbec), one.vector)
        if first:
            self._setting_up[key] = frozenset(seen)
        return self._setting_up[key] | seen

    @cached_property
    def _reach(self) -> tuple[dict[int, Functions], list[Functions]]:
        """These are the functions that each check calls, with all patches or none, and those that each vector calls."""
        checks: dict[int, Functions] = {}
        for level in self._levels[:2]:
            for number, functions in reach(self._recorded(level), level).items():
                checks[number] = checks.get(number, frozenset()) | functions
        return checks, [self._of_vector(one) for one in self._asked]

    def reach(self) -> dict[int, Functions]:
        """The function gives the functions that each check calls, with all patches or none."""
        return self._reach[0]

    def touched(self, mutant: Mutant) -> Functions | None:
        """The function gives the functions whose answers ``mutant`` may change; None stands for any."""
        if mutant.kind == "constant":
            name = mutant.what.split(":")[0]
            if name not in self._readers:
                self._readers[name] = readers(name)
            return self._readers[name]
        if not mutant.function or mutant.function.endswith("__init__"):
            return None
        return frozenset((mutant.module, name) for name in mutant.function.split("."))

    def judge(self, mutant: Mutant, before: str = "") -> MutantVerdict:
        """The judge tries to catch ``mutant``; ``before`` is what caught it in an earlier run, where that is known."""
        by = caught = ""
        if before:
            by, caught = self._attempt(changed(mutant), self._again(mutant, before))
        if not by:
            by, caught = self._attempt(changed(mutant), self._meeting(mutant))
        return MutantVerdict(mutant, by, caught)

    def control(self) -> tuple[str, str]:
        """The mirror as it is, imported anew, is tried: nobody may catch it, or the verdicts mean nothing."""
        level = self._levels[0]
        work = [(level, key, None) for key in self._recorded(level).asked()]
        anew = swapped("include.asm.kvm_host", ast.parse(source("include.asm.kvm_host").read_text(encoding="utf-8")))
        return self._attempt(anew, _Meeting(self._levels, work, self._asked))

    def _again(self, mutant: Mutant, before: str) -> _Meeting:
        """The function gives the cases, or the vector, that ``before`` tells of."""
        work: list[Case] = []
        vectors: list[Asked] = []
        if case := _CASE.fullmatch(before):
            level = int(case["level"])
            row = tuple(int(word, 16) for word in case["row"].split(", "))
            work = [(level, key, row) for key in self._holding(level, case["entry"], row)]
        elif vector := _VECTOR.fullmatch(before):
            level = int(vector["level"])
            vectors = [one for one in self._asked if one.level == level and one.vector.id == vector["id"]]
        return _Meeting(levels(mutant, self._levels), work, vectors)

    def _holding(self, level: int, entry: str, row: Row) -> Iterator[Key]:
        if level in self._levels:
            recorded = self._recorded(level)
            for key in recorded.asked():
                if SPECS[key[0]].entry == entry and inside(SPECS[key[0]], row):
                    yield key

    def _meeting(self, mutant: Mutant) -> _Meeting:
        """The batches and vectors that reach what ``mutant`` changes."""
        touched = self.touched(mutant)
        checks, vectors = self._reach

        def reached(functions: Functions) -> bool:
            return touched is None or bool(touched & functions)

        numbers = {n for n, functions in checks.items() if reached(functions)}
        tried = levels(mutant, self._levels)
        work: list[Case] = [
            (level, key, None) for level in tried for key in self._recorded(level).asked() if key[0] in numbers
        ]
        met = [one for one, functions in zip(self._asked, vectors, strict=True) if reached(functions)]
        return _Meeting(tried, work, met, whole=mutant.key not in EQUIVALENT, once=mutant.kind != "gate")

    def _attempt(self, mirror: contextlib.AbstractContextManager[None], meeting: _Meeting) -> tuple[str, str]:
        try:
            with mirror:
                return self._caught(meeting)
        except _Late:
            return "failure", f"it does not end within {TIMEOUT:.0f} s"
        except Exception as error:
            return "failure", f"{type(error).__name__}: {error}"

    def _caught(self, meeting: _Meeting) -> tuple[str, str]:
        constants: Any = importlib.import_module("harness.oracle.check.constants")
        for level in meeting.levels:
            _, wrong = constants.compare(Level.of(level), self._recorded(level).constants)
            if wrong:
                return "constant", f"{wrong[0].name} at level {level}"
        none = ("", "")
        if (by := self._checks(meeting, FEW, 0)) != none or (by := self._vectors(meeting)) != none:
            return by
        if not meeting.whole or (by := self._checks(meeting, MORE, FEW)) != none:
            return by
        return self._checks(meeting, None, MORE)

    def _checks(self, meeting: _Meeting, count: int | None, before: int) -> tuple[str, str]:
        """About ``count`` cases of each batch are asked, all for None; ``before`` were asked already."""
        catalogue: Any = importlib.import_module("harness.oracle.specs.catalogue")
        specs: Any = importlib.import_module("harness.oracle.specs.spec")
        seen = set()
        for level, key, row in meeting.work:
            recorded = self._recorded(level)
            if before and (row is not None or len(recorded.rows(key)) <= before):
                continue
            if row is None and meeting.once:
                answer = key, recorded.digest(key, count)
                if answer in seen:
                    continue
                seen.add(answer)
            batch = recorded.some(key, count) if row is None else recorded.given(key, [row])
            spec = catalogue.SPECS[key[0]]
            with limited(TIMEOUT):
                side = spec.states[key[1]].side(Level.of(level))
                wrong = differing(spec, specs.answers(spec, side, batch.rows), batch)
            if wrong:
                words = ", ".join(f"{w:#x}" for w in batch.rows[wrong[0]])
                return "check", f"{spec.entry}({words}) at level {level}"
        return "", ""

    @staticmethod
    def _vectors(meeting: _Meeting) -> tuple[str, str]:
        machine: Any = importlib.import_module("kvmodel.machine")
        for asked in meeting.vectors:
            if asked.level not in meeting.levels:
                continue
            with limited(TIMEOUT):
                said = machine.predict(asked.level, asked.param, Cpu(mbec=asked.mbec), asked.vector)
            if judge(said.outcome, None, asked.seen).marks & Mark.DRIFT:
                param = "unset" if asked.param is None else int(asked.param)
                return "vector", f"{asked.vector.id} at level {asked.level}, parameter {param}"
        return "", ""
