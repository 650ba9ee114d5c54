"""Is each patch seen? What changes when one is left out, and what of it is nothing but text.

For each patch, all computed: the checks that notice when the mirror lacks it, with one case; the first vector whose
prediction changes; what its own level changed in the C called here; and, where neither check nor vector notices, what
becomes of the series without it: it does not apply, does not compile, gives another answer, or is the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache as remembered
from pathlib import Path
from typing import Final

from harness.build import Cache
from harness.errors import CompileError, SeriesError
from harness.oracle.check import Cases, Mismatch, differing, minimise, run_c, seeded
from harness.oracle.image import ImageWorker
from harness.oracle.image import levels as images
from harness.oracle.mutate import mutation, patches
from harness.oracle.specs import Spec, answers
from harness.questions import PARAM_VALUES, core
from harness.results import cpus
from harness.series import Series, level_state
from kvmodel import machine
from kvmodel.cpu import Cpu
from kvmodel.question.vector import Vector
from kvmodel.series import LAST, Level

CASES: Final = 2_000  # for each check


@dataclass(frozen=True, slots=True)
class Noticed:
    """The record is of a patch and who notices.

    ``checks``: those that notice its absence from the mirror, ``example`` one case, ``error`` where the mirror raised.
    ``vector``: the first whose prediction changes. ``own``: what its own level changed, of the functions called here
    and of the constants. ``without``: what becomes of the series when it is left out (where nothing else notices).
    """

    patch: int
    checks: tuple[str, ...]
    example: Mismatch | None
    error: str = ""
    vector: str = ""
    own: tuple[str, ...] = ()
    without: str = ""

    @property
    def accounted(self) -> bool:
        """Something says what the patch does, or that it does nothing: True."""
        return bool(self.checks or self.vector or self.without)

    @property
    def words(self) -> list[str]:
        """These lines of a report say what changes without the patch, and whether its own level shows anything."""
        told = []
        if self.vector:
            told.append(f"vector {self.vector}")
        if self.example:
            m = self.example
            told.append(f"{m.functions[0]}: {m.call} gives {m.c_words}, without the patch {m.mirror_words}")
        elif self.error:
            told.append(f"{self.checks[0]}: without the patch what a later one uses is not there ({self.error})")
        if self.without:
            told.append(self.without)
        if not self.own:
            told.append("at its own level nothing changes: same machine code, same constants")
        return told


def noticed(worker: ImageWorker, specs: Sequence[Spec], seed: int = 1) -> Iterator[Noticed]:
    """The function says for each patch who notices that the mirror lacks it; ``worker`` holds the last level."""
    asked = {}
    for spec in specs:
        for number, state in enumerate(spec.states):
            rows, _ = spec.space.rows(spec.each(CASES), seeded(spec, number, seed))
            asked[spec, number] = run_c(worker, spec, state, rows)
    for patch in range(1, LAST + 1):
        yield _without(worker, specs, asked, patch, Level.without(LAST, patch))


def _without(
    worker: ImageWorker, specs: Sequence[Spec], asked: Mapping[tuple[Spec, int], Cases], patch: int, level: Level
) -> Noticed:
    checks: list[str] = []
    example: Mismatch | None = None
    error = ""
    for spec in specs:
        for number, state in enumerate(spec.states):
            if spec.entry in checks:
                break
            batch = asked[spec, number]
            try:
                wrong = differing(spec, answers(spec, state.side(level), batch.rows), batch)
                if wrong:
                    checks.append(spec.entry)
                    example = example or minimise(worker, spec, level, state, batch.rows[wrong[0]])
            except (AttributeError, TypeError) as caught:
                # As in C: what a later patch uses is not there, so the level would not even compile.
                checks.append(spec.entry)
                error = error or str(caught)
    return Noticed(patch, tuple(checks), example, error)


@remembered
def _whole(param: bool | None, cpu: Cpu, vector: Vector) -> str:
    """The function gives the answer with every patch, as text."""
    return str(machine.predict(LAST, param, cpu, vector).outcome)


def changed_vector(patch: int, asked: Sequence[Vector] | None = None) -> str:
    """The function gives the first core vector whose prediction changes without ``patch``, or an empty text."""
    missing = Level.without(LAST, patch)
    for vector in core.core() if asked is None else asked:
        cpu = cpus.emulated(vector.machine.env.cpu_mbec)
        for name, param in PARAM_VALUES.items():
            with_it = _whole(param, cpu, vector)
            try:
                lacking = str(machine.predict(missing, param, cpu, vector).outcome)
            except (AttributeError, TypeError) as caught:
                lacking = f"no answer ({caught})"
            if lacking != with_it:
                return f"{vector.id}, parameter {name}: {with_it}; without the patch {lacking}"
    return ""


def own_change(before: Path, after: Path, constants: Callable[[Path], Mapping[str, int]]) -> tuple[str, ...]:
    """The function gives what a level changed: entries of other machine code, constants that came, went or changed."""
    old, new = patches.code(before), patches.code(after)
    functions = [f"{name} (code)" for name in new if old.get(name) != new[name]]
    was, now = constants(before), constants(after)
    values = [f"{name} (constant)" for name in sorted(was.keys() | now.keys()) if was.get(name) != now.get(name)]
    return (*functions, *values)


def left_out(cache: Cache, series: Series, patch: int, last: Path, seed: int) -> str:
    """The function says what becomes of the series without ``patch``; ``last`` is the image of the whole series."""
    prepared = images.prepare(cache)
    rest = [n for n in range(1, series.last + 1) if n != patch]
    try:
        state = level_state(series, prepared.pristine, rest)
        image = images.image(cache, prepared, state, f"the series without patch {patch}")
    except CompileError as error:
        where = str(error).splitlines()[-1].strip().rpartition("/source/")[2]  # in the tree, wherever that was built
        return f"the series without it does not compile: {where}"
    except SeriesError as error:
        return f"the series without it does not apply: {str(error).splitlines()[0]}"
    with mutation.Live(last, series.last, CASES, seed) as known:
        found = patches.differs(image, series.last, known)
    if found:
        return f"the series without it gives something else: {found[1]}"
    if patches.code(image) == patches.code(last):
        return "the series without it is the same machine code"
    return ""


def account(
    cache: Cache, series: Series, levels: Mapping[int, Path], specs: Sequence[Spec], worker: ImageWorker, seed: int = 1
) -> Iterator[Noticed]:
    """The function gives ``noticed`` with all the rest; ``levels`` are all images, ``worker`` holds the last."""
    known: dict[Path, Mapping[str, int]] = {}

    def constants(image: Path) -> Mapping[str, int]:
        if image not in known:
            known[image] = mutation.constants_of(image)
        return known[image]

    for row in noticed(worker, specs, seed):
        own = own_change(levels[row.patch - 1], levels[row.patch], constants)
        row = replace(row, vector=changed_vector(row.patch), own=own)
        if not (row.checks or row.vector):
            row = replace(row, without=left_out(cache, series, row.patch, levels[series.last], seed))
        yield row
