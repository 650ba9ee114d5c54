"""What a reviewer asks of each mail of a series: applies, builds alone, no new warning, checkpatch, what it changed."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.build import Cache, Modules, digest, kernel
from harness.build import modules as levels
from harness.errors import BuildError, SeriesError
from harness.jsonable import Json
from harness.process import programs, side_by_side, table
from harness.review import identity
from harness.review.identity import Difference
from harness.series import Offset, Patch, Series, harmless
from harness.series import folder as series_io
from kvmodel.series import Claim

CHECKERS: Final = 2  # of checkpatch at once


@dataclass(frozen=True, slots=True)
class CheckedPatch:
    """This is one patch as checked. ``verdict``: what becomes of its claim; ``finding`` where it does not hold."""

    patch: Patch
    offsets: tuple[Offset, ...]
    seconds: float
    new_warnings: tuple[str, ...]
    checkpatch: tuple[str, ...]
    difference: Difference
    image_differs: tuple[str, ...]
    back: int | None = None  # the lowest level whose machine code this one has again, though not the level below

    @property
    def number(self) -> int:
        """This is the patch's number, from 1."""
        return self.patch.number

    @property
    def effect(self) -> bool:
        """Something in the modules differs that can be seen at run time: True."""
        return not self.difference.nothing

    @property
    def finding(self) -> bool:
        """Whether the patch claims no functional change and user space meets one, or it brings a new warning."""
        return bool(self.new_warnings) or (self.patch.claim is not Claim.NONE and self.difference.interface)

    @property
    def verdict(self) -> str:
        """The text has the claim and what became of it: the same machine code proves it, other machine code of the same
        behaviour is no fault, and which it is ``kvmirror changes`` tells by vectors.
        """
        if self.patch.claim is not Claim.NONE:
            left = "does NOT hold" if self.difference.interface else "other code, ask vectors"
            return f"{self.patch.claim.value}: " + (left if self.effect else "holds")
        return "" if self.effect else "no effect alone"


def check(
    cache: Cache, series: Series, wanted: Sequence[int], *, linux: kernel.Linux | None = None
) -> list[CheckedPatch]:
    """The patches with the numbers ``wanted`` are checked.

    Raises what ``modules.build`` raises.
    """
    base = kernel.base(cache, linux)
    applied = series_io.states(series, base.pristine)
    needed = sorted({n for w in wanted for n in (w - 1, w)})
    made = levels.build(cache, series, needed, linux=linux, need_image=False)
    first: dict[str, int] = {}
    lowest = {n: first.setdefault(identity.fingerprint(cache, files(made[n])), n) for n in needed}
    rows = []
    for number in wanted:
        old, new = made[number - 1], made[number]
        rows.append(
            CheckedPatch(
                series.patches[number - 1],
                applied[number - 1].offsets,
                new.seconds,
                tuple(w for w in new.warnings if w not in old.warnings),
                checkpatch(cache, base.pristine, series.patches[number - 1]),
                identity.compare(cache, files(old), files(new)),
                new.image_differs,
                lowest[number] if lowest[number] not in (number, lowest[number - 1]) else None,
            )
        )
    return rows


@dataclass(frozen=True, slots=True)
class Glance:
    """This is one patch as far as it can be judged without a build."""

    patch: Patch
    offsets: tuple[Offset, ...]
    checkpatch: tuple[str, ...]

    @property
    def claim(self) -> str:
        """What the mail claims; only a build can hold it against the machine code."""
        return "" if self.patch.claim is Claim.NONE else f"{self.patch.claim.value}: not built"


def glance(cache: Cache, series: Series, wanted: Sequence[int], *, linux: Path | None = None) -> list[Glance]:
    """The function says whether each patch applies in its place, how, and what checkpatch says; nothing is built.

    Raises SeriesError when one does not apply, with the patch that belongs before it where there is one.
    """
    pristine = kernel.source(cache, linux)
    try:
        applied = series_io.states(series, pristine)
    except SeriesError as error:
        order = _out_of_order(series, pristine)  # where that is the reason, the base that was tried is none
        raise SeriesError(f"{str(error).splitlines()[0]}{order}" if order else str(error)) from error
    with cache.progress.task("checkpatch", total=len(wanted)) as task:

        def some(first: int) -> list[tuple[str, ...]]:
            found = []
            for number in wanted[first::CHECKERS]:
                found.append(checkpatch(cache, pristine, series.patches[number - 1]))
                task.advance()
            return found

        jobs: dict[str, Callable[[], list[tuple[str, ...]]]] = {
            str(first): functools.partial(some, first) for first in range(CHECKERS)
        }
        parts = side_by_side(jobs)
    said = [parts[str(at % CHECKERS)][at // CHECKERS] for at in range(len(wanted))]
    return [
        Glance(series.patches[number - 1], applied[number - 1].offsets, lines)
        for number, lines in zip(wanted, said, strict=True)
    ]


def _out_of_order(series: Series, pristine: Path) -> str:
    """Which patch belongs before the first that does not apply, in words; the empty text where none helps."""
    failing = next(n for n in range(1, series.last + 1) if not _applies(series, pristine, range(1, n + 1)))
    for later in range(failing + 1, series.last + 1):
        if _applies(series, pristine, [*range(1, failing), later, failing]):
            return f"; after patch {later} it applies: patch {later} belongs before it"
    return ""


def _applies(series: Series, pristine: Path, order: Sequence[int]) -> bool:
    try:
        series_io.in_order(series, pristine, order)
    except SeriesError:
        return False
    return True


def files(modules: Modules) -> dict[str, Path]:
    """The function gives a level's modules by file name, as ``identity.compare`` wants them."""
    return {path.name: path for path in (modules.irqbypass, modules.kvm, modules.kvm_intel) if path}


def checkpatch(cache: Cache, pristine: Path, patch: Patch) -> tuple[str, ...]:
    """The tree's own checkpatch says this, as ``ERROR: ...`` and ``WARNING: ...`` with the mail's line before it.

    Signed-off-by lines are left out of it: a mail of ours cannot sign for its author.
    """
    data = patch.path.read_bytes()

    def run(folder: Path) -> None:
        script = pristine / "scripts" / "checkpatch.pl"
        if not script.is_file():
            raise BuildError(f"{pristine} has no scripts/checkpatch.pl: name a whole kernel source")
        argv = ["perl", str(script), "--terse", "--no-signoff", "--no-summary", "-q", "--color=never", str(patch.path)]
        done = programs.run(argv, cwd=pristine, check=False)
        lines = [m[1] for m in re.finditer(r"^[^\n]*?:(\d+: (?:ERROR|WARNING): .*)$", done.stdout, re.M)]
        if done.returncode and not lines:
            raise BuildError(programs.failure(done))
        (folder / "checkpatch.json").write_text(json.dumps(lines), encoding="utf-8")

    key = {"source": pristine.name, "mail": digest("mail", data.decode("latin-1"))}
    folder = cache.entry("checkpatch", key, run, title=f"checkpatch {patch.number}")
    found: list[str] = json.loads((folder / "checkpatch.json").read_text(encoding="utf-8"))
    return tuple(found)


def functions(row: CheckedPatch) -> str:
    """The function gives the changed functions by name, with why where it is not plain code."""
    words = []
    for change in row.difference.functions:
        words.append(change.name if change.why == "code" else f"{change.name} ({change.why})")
    return ", ".join(words) or "none"


def in_words(difference: Difference, most: int = 6) -> str:
    """The line tells what became of the machine code: ``identical``, or what differs with the first names of each."""
    names = [change.name for change in difference.functions]
    parts = (("functions", names), ("data", difference.data), ("parameters", difference.parameters),
             ("tracepoint formats", difference.formats))  # fmt: skip
    words = [
        f"{len(found)} {what}: {', '.join(found[:most])}{', ...' if len(found) > most else ''}"
        for what, found in parts
        if found
    ]
    if difference.warns:
        words.append(f"WARNs: {difference.warns}")
    return "; ".join(words) or "identical"


def told(cache: Cache, old: Modules, new: Modules) -> str:
    """``in_words`` of two levels; kept, since functions that differ are taken apart for seconds each time."""

    def look(folder: Path) -> None:
        words = in_words(identity.compare(cache, files(old), files(new)))
        (folder / "words.txt").write_text(words, encoding="utf-8")

    key = {"old": old.folder.name, "new": new.folder.name, "recipe": 1}
    return (cache.entry("identity-words", key, look, title="machine code") / "words.txt").read_text(encoding="utf-8")


def others(row: CheckedPatch) -> list[str]:
    """These are changed as well: data, parameters, tracepoint formats, WARNs, lines of WARNs, the image."""
    d = row.difference
    parts = [("parameters", d.parameters), ("tracepoint formats", d.formats), ("data", d.data)]
    found = [f"{what}: {', '.join(names)}" for what, names in parts if names]
    if d.warns:
        found.append(f"WARNs without a change of code: {d.warns}")
    if row.back is not None:
        found.append(f"the machine code of level {row.back} again")
    if d.moved_lines:
        found.append(f"lines of WARNs moved: {d.moved_lines}")
    if row.image_differs:
        found.append(f"objects of the kernel image: {', '.join(row.image_differs)}")
    return found


GLANCED = ("patch", "applies", "checkpatch", "claim", "subject")
HEAD = ("patch", "applies", "builds", "warnings", "checkpatch", "functions", "claim", "subject")


def cells(row: CheckedPatch) -> tuple[str, ...]:
    """The row has these columns, in the order of HEAD."""
    return (
        str(row.number),
        _landed(row.offsets),
        f"{row.seconds:.0f} s",
        str(len(row.new_warnings)),
        _graded(row.checkpatch),
        str(len(row.difference.functions)),
        row.verdict,
        harmless(row.patch.subject),
    )


def _landed(offsets: Sequence[Offset]) -> str:
    return f"{len(offsets)} offsets, at most {max(abs(o.lines) for o in offsets)}" if offsets else "exact"


def _graded(lines: Sequence[str]) -> str:
    errors = sum("ERROR:" in line for line in lines)
    return f"{errors} E, {len(lines) - errors} W" if lines else "clean"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def glanced(rows: Sequence[Glance]) -> str:
    """The table has what was seen without a build, and under each patch what checkpatch says."""
    table = [GLANCED]
    for row in rows:
        subject = harmless(row.patch.subject)
        table.append((str(row.patch.number), _landed(row.offsets), _graded(row.checkpatch), row.claim, subject))
    head, *lines = _table(table)
    shown = [head]
    for row, line in zip(rows, lines, strict=True):
        shown += [line, *(f"       {harmless(said, 400)}" for said in row.checkpatch)]
    return "\n".join(shown)


def text(rows: Sequence[CheckedPatch], verbose: bool = False) -> str:
    """The table is for a terminal: it has a row a patch, and under it, indented, what changed by name."""
    head, *shown = table.lines([HEAD, *map(cells, rows)])
    lines = [head]
    for row, line in zip(rows, shown, strict=True):
        lines.append(line)
        if row.difference.functions:
            lines.append(f"       functions: {functions(row)}")
        lines += [f"       {line}" for line in (*others(row), *row.new_warnings, *row.checkpatch)]
        if verbose or row.finding:
            for change in row.difference.functions:
                lines += [f"       {change.module} {change.name}:", *(f"         {r}" for r in change.excerpt)]
    return "\n".join(lines)


def markdown(rows: Sequence[CheckedPatch]) -> str:
    """The table is for a README, in Markdown."""
    lines = ["| " + " | ".join((*HEAD[:-1], "what changed")) + " |", "|" + " --- |" * len(HEAD)]
    for row in rows:
        changed = "; ".join(([f"functions: {functions(row)}"] if row.difference.functions else []) + others(row))
        words = (*cells(row)[:-1], changed or "nothing")
        lines.append("| " + " | ".join(w.replace("|", "\\|").replace("*", "\\*") for w in words) + " |")
    return "\n".join(lines)


def glanced_json(rows: Sequence[Glance]) -> list[dict[str, Json]]:
    """The function gives the rows of a check without a build as plain values."""
    return [
        {
            "number": row.patch.number,
            "subject": row.patch.subject,
            "claim": row.patch.claim.value,
            "offsets": [{"file": o.path, "hunk": o.hunk, "lines": o.lines} for o in row.offsets],
            "checkpatch": list(row.checkpatch),
        }
        for row in rows
    ]


def as_json(rows: Sequence[CheckedPatch]) -> list[dict[str, Json]]:
    """The function gives the rows as plain values."""
    return [
        {
            "number": row.number,
            "subject": row.patch.subject,
            "claim": row.patch.claim.value,
            "verdict": row.verdict,
            "finding": row.finding,
            "offsets": [{"file": o.path, "hunk": o.hunk, "lines": o.lines} for o in row.offsets],
            "seconds": row.seconds,
            "new_warnings": list(row.new_warnings),
            "checkpatch": list(row.checkpatch),
            "functions": [
                {"module": c.module, "name": c.name, "why": c.why, "excerpt": list(c.excerpt)}
                for c in row.difference.functions
            ],
            "data": list(row.difference.data),
            "parameters": list(row.difference.parameters),
            "tracepoints": list(row.difference.formats),
            "moved_warn_lines": row.difference.moved_lines,
            "image_differs": list(row.image_differs),
            **({} if row.back is None else {"same_code_as_level": row.back}),
        }
        for row in rows
    ]
