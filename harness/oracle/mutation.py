"""Is the check sharp? Each mutant of the mirror is held against what C gave, and against what a run observed.

The C of each level runs once over a bounded set of cases. A mutant is the mirror imported anew with one module
changed; it is caught by the first case, constant or recorded vector that it gets wrong, or because it fails.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any, Final

from harness.compare import Mark, judge
from harness.oracle.check import Batch, differing, run_c, seeded
from harness.oracle.coverage import called
from harness.oracle.mutants import Mutant, mutated
from harness.oracle.worker import Image, Worker
from kvmodel.outcome import Outcome
from kvmodel.series import LAST, Level
from kvmodel.vector import Vector

CASES: Final = 3_000  # for each check and level
LEVELS: Final = (LAST, 0, 11, 13, 15)  # beside those a gate belongs to
TIMEOUT: Final = 30.0  # seconds for one mutant: one that hangs is caught
WATCHED: Final = 40  # cases of a batch over which the functions it reaches are noted
# What a mutant does not change, and what stays one object for all: vectors, answers, levels, CPUs.
KEPT: Final = ("kvmodel.bits", "kvmodel.cpu", "kvmodel.outcome", "kvmodel.sdm", "kvmodel.series", "kvmodel.vector")
RENEWED: Final = ("harness.oracle.spec", "harness.oracle.catalogue", "harness.oracle.constants_check")


@dataclass(frozen=True, slots=True)
class Asked:
    """A vector as it was asked at a level, and what was seen."""

    level: int
    param: bool | None
    mbec: bool  # of the CPU under KVM
    vector: Vector
    seen: Outcome


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant: ``caught`` names the check, constant or vector, empty for a survivor."""

    mutant: Mutant
    caught: str
    by: str  # check, constant, vector, failure; empty


@dataclass(slots=True)
class Recorded:
    """What C gave at one level: a batch for each check and state (by their numbers), and the constants."""

    batches: dict[tuple[int, int], Batch] = field(default_factory=dict)
    constants: Mapping[str, int] = field(default_factory=dict)
    cases: int = CASES


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module from a syntax tree."""

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
    """The mirror and all that holds its objects, imported anew with ``module`` as ``tree``; as before on leaving."""
    before = {name: found for name, found in sys.modules.items() if _renewed(name)}
    finder = _Finder(f"kvmodel.{module}", compile(tree, f"<mutant of {module}>", "exec"))

    def forget() -> None:
        for name in [n for n in sys.modules if _renewed(n)]:
            del sys.modules[name]
            package, _, own = name.rpartition(".")
            if own in vars(sys.modules[package]):
                delattr(sys.modules[package], own)

    forget()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        forget()
        for name, found in before.items():
            sys.modules[name] = found
            package, _, own = name.rpartition(".")
            setattr(sys.modules[package], own, found)


class _Late(Exception):
    """The mutant's time is over."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise _Late after ``seconds``."""

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def record(image: Path, level: int, cases: int, seed: int) -> Recorded:
    """Run the C of ``level`` over ``cases`` cases of each check."""
    from harness.oracle.catalogue import SPECS

    recorded = Recorded(cases=cases)
    with Worker(Image(image)) as worker:
        recorded.constants = worker.image.constants(worker)
        for number, spec in enumerate(SPECS):
            if not spec.applies(Level.of(level)):
                continue
            each = max(8, -(-cases // len(spec.states)))
            for at, state in enumerate(spec.states):
                rows, _ = spec.space.rows(each, seeded(spec, at, seed))
                recorded.batches[number, at] = run_c(worker, spec, state, rows)
    return recorded


def constants_of(image: Path) -> Mapping[str, int]:
    """The constants of an image as its compiler has them."""
    with Worker(Image(image)) as worker:
        return worker.image.constants(worker)


def reach(recorded: Recorded, level: int) -> dict[tuple[int, int], frozenset[tuple[str, str]]]:
    """The functions of kvmodel (module, name) that each batch calls."""
    from harness.oracle import spec as specs
    from harness.oracle.catalogue import SPECS

    found = {}
    for (number, at), batch in recorded.batches.items():
        spec = SPECS[number]
        with called() as seen:
            side = spec.states[at].side(Level.of(level))
            specs.answers(spec, side, batch.rows[:WATCHED])
        found[number, at] = frozenset(seen)
    return found


class Judge:
    """Holds mutants against what was recorded; ``asked``: vectors with what a run saw."""

    def __init__(
        self, recorded: Callable[[int], Recorded], asked: Sequence[Asked] = (), levels: Sequence[int] = LEVELS
    ) -> None:
        self._recorded = recorded
        self._asked = asked
        self._levels = tuple(levels)
        self._reach: dict[int, dict[tuple[int, int], frozenset[tuple[str, str]]]] = {}

    def levels(self, mutant: Mutant) -> list[int]:
        """Where ``mutant`` is tried: a gate's own level and the one below come first."""
        own = [mutant.patch, mutant.patch - 1] if mutant.patch else []
        return list(dict.fromkeys([*own, *self._levels]))

    def reach(self, level: int) -> dict[tuple[int, int], frozenset[tuple[str, str]]]:
        """The functions that each batch of a level calls."""
        if level not in self._reach:
            self._reach[level] = reach(self._recorded(level), level)
        return self._reach[level]

    def judge(self, mutant: Mutant) -> Verdict:
        """Try to catch ``mutant``."""
        tree = mutated(mutant)
        wanted = {level: self._candidates(mutant, level) for level in self.levels(mutant)}
        try:
            with swapped(mutant.module, tree), limited(TIMEOUT):
                by, caught = self._caught(mutant, wanted)
        except _Late:
            by, caught = "failure", f"it does not end within {TIMEOUT:.0f} s"
        except Exception as error:
            by, caught = "failure", f"{type(error).__name__}: {error}"
        return Verdict(mutant, caught, by)

    def _candidates(self, mutant: Mutant, level: int) -> list[tuple[int, int]]:
        name = mutant.function.rsplit(".", 1)[-1]
        made = not name or name == "__init__"  # at import, or when a header or a structure is made
        reached = self.reach(level)
        return [key for key, functions in reached.items() if made or (mutant.module, name) in functions]

    def _caught(self, mutant: Mutant, wanted: Mapping[int, Sequence[tuple[int, int]]]) -> tuple[str, str]:
        catalogue: Any = importlib.import_module("harness.oracle.catalogue")
        specs: Any = importlib.import_module("harness.oracle.spec")
        constants: Any = importlib.import_module("harness.oracle.constants_check")
        for level in wanted:
            _, wrong = constants.compare(Level.of(level), self._recorded(level).constants)
            if wrong:
                return "constant", f"{wrong[0].name} at level {level}"
        for level, keys in wanted.items():
            batches = self._recorded(level).batches
            for number, at in keys:
                spec, batch = catalogue.SPECS[number], batches[number, at]
                side = spec.states[at].side(Level.of(level))
                wrong = differing(spec, specs.answers(spec, side, batch.rows), batch)
                if wrong:
                    row = ", ".join(f"{w:#x}" for w in batch.rows[wrong[0]])
                    return "check", f"{spec.entry}({row}) at level {level}"
        return self._vectors(wanted)

    def _vectors(self, levels: Collection[int]) -> tuple[str, str]:
        machine: Any = importlib.import_module("kvmodel.machine")
        from kvmodel.cpu import Cpu

        for asked in self._asked:
            if asked.level not in levels:
                continue
            said = machine.predict(asked.level, asked.param, Cpu(mbec=asked.mbec), asked.vector)
            if judge(said, None, asked.seen).marks & Mark.DRIFT:
                param = "unset" if asked.param is None else int(asked.param)
                return "vector", f"{asked.vector.id} at level {asked.level}, parameter {param}"
        return "", ""
