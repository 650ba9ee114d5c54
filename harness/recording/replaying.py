"""A recording judged by today's mirror and contract, into a journal, from which every report is made as of a run.

Everything that the recording says of its run is held against what it may be before the first answer is judged, so
that a recording which is none leaves nothing in a journal.
"""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from harness.findings import PROVENANCE as CONFIRMED
from harness.findings import Run, left_out, minimise
from harness.observe import Seen, cut
from harness.process import PROGRESS, Task
from harness.questions import Load, Setting
from harness.recording import content, shapes
from harness.recording.container import refuse
from harness.recording.content import LEVEL_MAX, CellRecord, Recording
from harness.results import (
    BARE_HOST,
    Answer,
    CellKey,
    Journal,
    Mark,
    NotReproduced,
    RunInfo,
    RunSeries,
    cpus,
    judge,
    of_series,
)
from harness.run import LOG, Done, Part, Voices, beside, machine_name
from kvmodel import sdm, series
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Outcome
from kvmodel.question.vector import HostVector, LogVector, NxVector, OnHost, Vector

PROVENANCE: Final = "replayed"  # in a run's provenance: the SHA-256 of the recording that it was judged from
WIDTHS: Final = range(32, 53)  # bits of a physical address
_MSR: Final = re.compile(r"0x[0-9a-f]{1,16}")
_FORM = (KeyError, TypeError, ValueError, AttributeError)
Value = TypeVar("Value")


def replay(recording: Recording, path: Path, journal: Journal, task: Task | None = None) -> int:
    """Every answer is judged anew and put into ``journal``; the value is the number of its run there.

    Raises InputError when the recording, ``path`` by name, holds what this kvmirror cannot judge.
    """
    return _Replay(recording, path, journal).run(task)


@contextmanager
def replayed(path: Path, journal: Path | None = None) -> Iterator[Run]:
    """The block has the run of a recording's file; it is kept in ``journal``, or gone behind the block.

    Raises InputError as ``content.read`` and ``replay`` do.
    """
    with PROGRESS.task("reading"):
        recording = content.read(path)
    with (
        tempfile.TemporaryDirectory(prefix="kvmirror-replay-") as folder,
        Journal(journal or Path(folder) / "journal.sqlite") as kept,
    ):
        with PROGRESS.task("judging", total=recording.answers) as task:
            number = replay(recording, path, kept, task)
        yield Run.open(kept, number, bare=all(cell.key.host == BARE_HOST for cell in recording.cells))


class _Replay:
    """One recording on its way into a journal."""

    def __init__(self, recording: Recording, path: Path, journal: Journal) -> None:
        self._recording, self._path, self._journal = recording, path, journal
        made = recording.about.provenance
        told = self._read("its series", of_series.of_run, made)
        if not shapes.fits(told, RunSeries) or not 0 <= told.last <= LEVEL_MAX or not _typed_again(told.options):
            self._refuse("what it says of its series is none")
        self._mirror = self._read("whether its mirror was asked", of_series.mirror_asked, made)
        self._under = self._read("its CPU", cpus.of_run, made)
        for mbec in (True, False):
            self._checked("the CPU under KVM", self._read("its CPU", self._under, mbec))
        for body in self._read("what was confirmed", _values, made.get(CONFIRMED, {})):
            self._read("what was confirmed", minimise.Minimal.from_json, body)
        for body in self._read("what was left out", _values, made.get(left_out.PROVENANCE, {})):
            self._read("what was left out", left_out.from_json, body)
        self._voices = Voices(self._under, self._mirror, once=True)

    def run(self, task: Task | None) -> int:
        """The recording is judged; the value is its run's number."""
        about = self._recording.about
        cells = [(cell, self._vectors(cell), self._cpu(cell)) for cell in self._recording.cells]
        parts = self._parts(cells)
        made = {**about.provenance, PROVENANCE: self._recording.sha256}
        number = self._journal.adopt(RunInfo(0, about.begun, about.ended, about.status, about.argv, made))
        for cell, vectors, cpu in cells:
            part = parts.get(cell.key)
            answers = self._bare(cell, vectors, cpu) if part is None else self._answers(cell, part)
            facts = cell.facts | ({"events": [one.as_json() for one in part.told]} if part and part.told else {})
            traces = list(map(cut.as_json, cell.traces))
            self._journal.record(number, cell.key, answers, cell.seconds, facts, traces=traces)
            if task is not None:
                task.advance(len(answers))
        return number

    def _parts(self, cells: Iterable[tuple[CellRecord, list[Vector], Cpu | None]]) -> dict[CellKey, Part]:
        """What was seen on KVM, cell by cell, with the traces held against the mirror's load by load."""
        loads: dict[Load, Done] = {}
        parts: dict[CellKey, Part] = {}
        for cell, vectors, cpu in cells:
            if vectors and cell.key.host != BARE_HOST:
                load = Load(cell.key.level, Setting.parse(cell.key.param), vectors[0].machine.env.host)
                part = Part(vectors, Seen(self._outcomes(cell), cpu, cell.facts, list(cell.traces)), cell.seconds)
                given = zip(vectors, cell.answers, strict=True)
                part.earlier = {vector.id: 0 for vector, told in given if Mark.EARLIER in told.given}
                parts[cell.key] = loads.setdefault(load, Done(load)).batches[cell.key.machine] = part
        for done in loads.values():
            self._voices.listen(done)
        return parts

    def _outcomes(self, cell: CellRecord) -> list[Outcome]:
        return [self._recording.outcomes[told.outcome] for told in cell.answers]

    def _answers(self, cell: CellRecord, part: Part) -> list[Answer]:
        """The answers of a cell beside mirror and contract."""
        load = Load(cell.key.level, Setting.parse(cell.key.param), part.vectors[0].machine.env.host)
        if beside(cell.key.machine) is not None:
            asked = zip(part.vectors, part.seen.outcomes, strict=True)
            return _marked([self._voices.log_row(load, vector, seen) for vector, seen in asked], cell)
        return _marked(self._voices.answers(load, part.vectors, part.seen, part.told), cell)

    def _bare(self, cell: CellRecord, vectors: list[Vector], cpu: Cpu | None) -> list[Answer]:
        """The answers of the bare CPU beside the contract; none where the cell has none."""
        found = []
        for vector, seen in zip(vectors, self._outcomes(cell), strict=True):
            assert cpu is not None  # ``_cpu`` would have refused
            contract = sdm.allowed(cpu, vector)
            found.append(Answer(vector, seen, None, contract, judge(None, contract, seen)))
        return _marked(found, cell)

    # what a recording may say

    def _vectors(self, cell: CellRecord) -> list[Vector]:
        """The cell's vectors, which are of the machine that it names."""
        key = cell.key
        vectors = [self._recording.vectors[told.vector] for told in cell.answers]
        if self._mirror and key.host != BARE_HOST and key.level > series.LAST:
            self._refuse(f"it is of the mirrored series, and has a level {key.level}, which that has not")
        for vector in vectors:
            if key.host != BARE_HOST and not _is_of(vector, key):
                self._refuse(f"its cell {key.machine!r} has a vector of another machine: {vector.id}")
        asked = {(v.asked if isinstance(v, NxVector) else v).id for v in vectors}
        if stray := [one.vector.id for one in cell.traces if one.vector.id not in asked]:
            self._refuse(f"a cell has the trace of a vector that it did not ask: {stray[0]}")
        for body in cell.facts.get("not_reproduced", ()):
            self._read("what was not reproduced", NotReproduced.from_json, body)
        if not all(_MSR.fullmatch(text) for text in cell.facts.get("msrs", ())):
            self._refuse("a cell's MSRs are none")
        return vectors

    def _cpu(self, cell: CellRecord) -> Cpu | None:
        """L1's CPU, or the bare one; None where no L1 read any."""
        name = content.BARE if cell.key.host == BARE_HOST else content.VIRTUAL
        if name not in cell.facts:
            if cell.key.host == BARE_HOST:
                self._refuse("a cell of the bare CPU does not say what that CPU is")
            return None
        return self._checked("a cell's CPU", self._read("a cell's CPU", cpus.from_json, cell.facts[name]))

    def _checked(self, what: str, cpu: Cpu) -> Cpu:
        if not shapes.fits(cpu, Cpu) or cpu.maxphyaddr not in WIDTHS:
            self._refuse(f"{what} is none that there is")
        return cpu

    def _read(self, what: str, how: Callable[..., Value], *given: object) -> Value:
        """What our own reading makes of it is given.

        Raises InputError when it cannot read it.
        """
        try:
            return how(*given)
        except _FORM as error:
            refuse(self._path, f"{what} is not as a run has it ({type(error).__name__})")

    def _refuse(self, reason: str) -> NoReturn:
        refuse(self._path, reason)


def _values(told: Mapping[str, Any]) -> list[Any]:
    return list(told.values())


def _is_of(vector: Vector, key: CellKey) -> bool:
    """Whether a run puts a vector's answer into this cell. What the log said of no vector is the host's."""
    if (cell := beside(key.machine)) is None:
        return _cell_of(vector) == key.machine
    if isinstance(vector, LogVector):
        return _cell_of(vector) == cell
    return vector == HostVector(LOG, vector.machine.env.name) and _environment(cell) == vector.machine.env.name


def _environment(cell: str) -> str:
    return cell.partition(":")[0].partition("+")[0]


def _cell_of(vector: Vector) -> str:
    """The cell in which a run puts a vector's answer."""
    return f"{vector.machine.env.name}:host" if isinstance(vector, OnHost) else machine_name(vector.machine)


def _marked(answers: Iterable[Answer], cell: CellRecord) -> list[Answer]:
    """The answers with the marks that no judge gives."""
    return [
        replace(answer, verdict=replace(answer.verdict, marks=answer.verdict.marks | one.given))
        if one.given
        else answer
        for answer, one in zip(answers, cell.answers, strict=True)
    ]


def _typed_again(options: str) -> bool:
    """Whether a run's options are what our own commands write, and nothing beside: people type them again."""
    try:
        words = shlex.split(options)
    except ValueError:
        return False
    named = dict(zip(words[::2], words[1::2], strict=False))
    return options == of_series.options(named.get("--series"), named.get("--on"))
