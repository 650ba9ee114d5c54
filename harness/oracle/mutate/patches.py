"""Mutants of the series: one hunk left out, or one line it adds made wrong; the C of the result against the level's.

A hunk is left out of the whole series where its lines are still there at the end, else of the series up to its patch.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.build import Cache
from harness.errors import CompileError
from harness.oracle.image import Prepared, levels
from harness.oracle.mutate.mutation import Live
from harness.oracle.specs import SPECS
from harness.review import Versions
from harness.series import Hunk, Series, State, parse_diff, states

# What is made wrong in an added line: the first that fits.
_WRONG: Final = (
    (re.compile(r"\bif \((?=.*\)\s*\{?$)(.*)\)(\s*\{?)$"), r"if (!(\1))\2", "condition inverted"),
    (re.compile(r" && "), " || ", "&& made ||"),
    (re.compile(r" \|\| "), " && ", "|| made &&"),
    (re.compile(r" &= ~"), " &= ", "mask inverted"),
    (re.compile(r" \|= "), " &= ", "|= made &="),
    (re.compile(r"\bBIT(_ULL)?\((\d+)\)"), r"BIT\1(\2 + 1)", "bit moved"),
    (re.compile(r"(<<|>>) (\d+)"), r"\1 (\2 + 1)", "shift changed"),
    (re.compile(r" = true;"), " = false;", "true made false"),
    (re.compile(r" = false;"), " = true;", "false made true"),
    (re.compile(r"\b0x([0-9a-f]+)\b"), r"(0x\1 + 1)", "constant changed"),
    (re.compile(r"(\w+) \| (\w+)"), r"\1", "operand dropped"),
    (re.compile(r"(\b[su]32 \w+:)(\d)"), r"\g<1>(\2 - 1)", "field narrowed"),
)


@dataclass(frozen=True, slots=True)
class PatchMutant:
    """The mutant is one change of the series: hunk ``hunk`` of ``path`` in ``patch``, made at ``level``."""

    patch: int
    path: str
    hunk: int
    what: str
    level: int
    state: State

    @property
    def identity(self) -> str:
        """The identity is of one mutant of one series."""
        return str(self)

    def __str__(self) -> str:
        at = "" if self.level == self.patch else f", in the series up to {self.level}"
        return f"patch {self.patch}, {self.path}, hunk {self.hunk}: {self.what}{at}"


@dataclass(frozen=True, slots=True)
class PatchVerdict:
    """The verdict is on a mutant: ``by`` is compiler, constant, check, identity (the code is the same) or empty."""

    mutant: PatchMutant
    by: str
    caught: str


@dataclass(frozen=True, slots=True)
class _Hunk:
    path: str
    number: int
    old: tuple[bytes, ...]
    new: tuple[bytes, ...]
    added: tuple[bytes, ...]


def _hunks(diff: str) -> Iterator[_Hunk]:
    for file in parse_diff(diff, "the patch"):
        for hunk in file.hunks:

            def rows(marks: str, hunk: Hunk = hunk) -> tuple[bytes, ...]:
                return tuple(row[1:].encode() for row in hunk.rows if row[0] in marks)

            yield _Hunk(file.path, hunk.number, rows(" -"), rows(" +"), rows("+"))


def _replaced(data: bytes, block: Sequence[bytes], other: Sequence[bytes]) -> bytes | None:
    """The function gives ``data`` with the lines ``block`` as ``other``, without context that changed in both.

    None stands for lines that are not there, or more than once.
    """
    lines = data.split(b"\n")
    block, other = list(block), list(other)
    while True:
        width = len(block)
        found = [n for n in range(len(lines) - width + 1) if lines[n : n + width] == block]
        if len(found) == 1:
            return b"\n".join([*lines[: found[0]], *other, *lines[found[0] + width :]])
        if found:
            return None
        ends = [end for end in (0, -1) if len(block) > 1 and len(other) > 1 and block[end] == other[end]]
        if not ends:
            return None
        for end in ends:
            if len(block) > 1 and len(other) > 1 and block[end] == other[end]:
                del block[end], other[end]


def mutants(series: Series, pristine: Path) -> list[PatchMutant]:
    """The function gives the series with every hunk left out, and with one line of each that adds code made wrong."""
    made = states(series, pristine)
    found: list[PatchMutant] = []

    def note(patch: int, hunk: _Hunk, what: str, new: Sequence[bytes], old: Sequence[bytes]) -> None:
        for level in (series.last, patch):
            state = made[level - 1].state
            data = state[hunk.path]
            changed = None if data is None else _replaced(data, new, old)
            if changed is not None:
                found.append(PatchMutant(patch, hunk.path, hunk.number, what, level, {**state, hunk.path: changed}))
                return

    for patch in series.patches:
        for hunk in _hunks(patch.mail.diff):
            note(patch.number, hunk, "left out", hunk.new, hunk.old)
            if altered := _altered(hunk):
                what, lines = altered
                note(patch.number, hunk, what, hunk.new, lines)
    return found


def _altered(hunk: _Hunk) -> tuple[str, list[bytes]] | None:
    for line in hunk.added:
        text = line.decode()
        if text.strip().startswith(("*", "/*", "//")):
            continue
        for pattern, to, what in _WRONG:
            wrong, count = pattern.subn(to, text, count=1)
            if count and wrong != text:
                lines = list(hunk.new)
                lines[lines.index(line)] = wrong.encode()
                return f"{what}: {text.strip()}", lines
    return None


def judge(cache: Cache, prepared: Prepared, mutant: PatchMutant, level: Path, known: Live) -> PatchVerdict:
    """``mutant`` is built and asked the checks' cases; ``level`` is the image it is held against, ``known`` its C."""
    try:
        image = levels.image(
            cache, prepared, mutant.state, f"{mutant.path}, hunk {mutant.hunk} of patch {mutant.patch}"
        )
    except CompileError as error:
        return PatchVerdict(mutant, "compiler", str(error).splitlines()[-1].strip())
    mine, theirs = code(image), code(level)
    difference = differs(image, mutant.level, known, {name for name in mine if mine[name] != theirs.get(name)})
    if difference:
        return PatchVerdict(mutant, *difference)
    if mine == theirs:
        return PatchVerdict(mutant, "identity", "the machine code of every function called is the same")
    return PatchVerdict(mutant, "", "")


def differs(image: Path, level: int, known: Live, changed: Collection[str] = ()) -> tuple[str, str] | None:
    """The function gives the first constant or case in which ``image`` is not what is known of the level, or None.

    The entries ``changed`` are asked first.
    """
    with Live(image, level, known.cases, known.seed) as mine:
        for name in sorted(known.constants.keys() | mine.constants.keys()):
            if known.constants.get(name) != mine.constants.get(name):
                return "constant", name
        for key in sorted(mine.asked(), key=lambda key: SPECS[key[0]].entry not in changed):
            batch, theirs = mine.some(key, None), known.some(key, None)
            if batch.out == theirs.out and batch.status == theirs.status:
                continue
            width = len(batch.out) // len(batch.rows)
            for n, row in enumerate(batch.rows):
                a, b = (list(x.out[n * width : (n + 1) * width]) for x in (theirs, batch))
                if a != b or batch.status[n] != theirs.status[n]:
                    text = ", ".join(f"{w:#x}" for w in row)
                    return "check", f"{SPECS[key[0]].entry}({text}): {_words(a)}, with the change {_words(b)}"
    return None


def _words(row: Sequence[int]) -> str:
    text = ", ".join(f"{w:#x}" for w in row[:4])
    return f"({text}{', ...' if len(row) > 4 else ''})"


def code(image: Path) -> dict[str, str]:
    """The function gives the version of each entry of an image."""
    versions = Versions(image.parent.glob("*.o"))
    return {spec.entry: versions.digest(f"o_{spec.entry}") for spec in SPECS}
