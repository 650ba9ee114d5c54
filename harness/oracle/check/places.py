"""Where a function of the kernel is: in C, in the mirror, in the patches; and what a line of these is part of."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import kvmodel
from harness.series import Series
from kvmodel import mirrors
from kvmodel.mirrors import Mirror, kernel_path

KVMODEL: Final = Path(next(iter(kvmodel.__path__)))
# A definition begins in the first column and does not end there, as a declaration does.
_DEFINITION: Final = re.compile(r"^(?:[A-Za-z_][\w\s*]*?[\s*])?(?:FNAME\((\w+)\)|(\w+))\s*\((?!.*;\s*$)")
_MACRO: Final = re.compile(r"^#\s*define\s+(?:FNAME\((\w+)\)|(\w+))")
_EVENT: Final = re.compile(r"^(?:TRACE_EVENT|DECLARE_EVENT_CLASS|DEFINE_EVENT|TRACE_EVENT_KVM_EXIT)\((\w*)")
_HUNK: Final = re.compile(r"^@@ -\d+(?:,\d+)? \+\d+(?:,\d+)? @@ ?(.*)$")


@dataclass(frozen=True, slots=True)
class PatchedLines:
    """The record is of a line of a patch file: the patch, the C file in the kernel's tree, and the C function that it
    is in, if told.
    """

    patch: int
    line: int
    path: str
    function: str
    changes: bool  # the line is added or removed


def names(lines: Iterable[str], context: str = "") -> Iterator[str]:
    """For each line of C the function or macro that it is in, empty for none; ``context`` is what a hunk begins in."""
    current = _begins(context) or ""
    waiting = continued = False
    for line in lines:
        begun = _begins(line)
        if waiting and (word := line.strip().rstrip(",")):
            begun, waiting = word, False
        if begun == "(":
            begun, waiting = None, True
        if begun:
            current = begun
        yield current
        macro = line.startswith("#") and begun is not None
        if line.startswith("}") or (not line.endswith("\\") and (continued or macro)):
            current = ""
        continued = line.endswith("\\") and (continued or macro)


def _begins(line: str) -> str | None:
    """The function or macro that is defined from this line on; "(" for an event that the next line names."""
    if event := _EVENT.match(line):
        return event[1] or "("
    found = _MACRO.match(line) or (None if line[:1] in "#/ \t{}*" else _DEFINITION.match(line))
    return (found[1] or found[2]) if found else None


@cache
def _lines(path: Path) -> tuple[str, ...]:
    return tuple(path.read_text(encoding="utf-8").splitlines())


def c_line(tree: Path, file: str, function: str) -> int | None:
    """The function gives the line, from 1, where ``function`` is defined in ``file`` (its path in the kernel's tree);
    None for nowhere.
    """
    path = tree / file
    if not path.is_file():
        return None
    lines = _lines(path)
    for number, line in enumerate(lines, 1):
        begun = _begins(line)
        if begun == "(" and number < len(lines):
            begun = lines[number].strip().rstrip(",")
        if begun == function:
            return number
    # A macro that makes others, a parameter of the module: the first line that names it.
    word = re.compile(rf"\b{re.escape(function)}\b")
    return next((number for number, line in enumerate(lines, 1) if word.search(line)), None)


def c_function(tree: Path, file: str, line: int) -> str:
    """The function gives the function or macro that line ``line`` of a C file is in; empty for none, or past
    its end.
    """
    lines = _lines(tree / file)
    return list(names(lines[:line]))[-1] if 0 < line <= len(lines) else ""


def changes(series: Series) -> list[PatchedLines]:
    """The function gives every row of the series' patches with the function that it is in, as far as a patch tells."""
    found = []
    for patch in series.patches:
        rows = patch.path.read_text(encoding="utf-8").splitlines()
        path, at = "", 0
        while at < len(rows):
            if rows[at].startswith("+++ b/"):
                path = rows[at].removeprefix("+++ b/")
            hunk = _HUNK.match(rows[at]) if path else None
            at += 1
            if hunk is None:
                continue
            end = at
            while end < len(rows) and rows[end][:1] in ("+", "-", " ") and not rows[end].startswith(("--- a/", "-- ")):
                end += 1
            inside = names((row[1:] for row in rows[at:end]), hunk[1])
            for number, (row, function) in enumerate(zip(rows[at:end], inside, strict=True), at + 1):
                found.append(PatchedLines(patch.number, number, path, function, row[0] in "+-"))
            at = end
    return found


def touched(rows: Iterable[PatchedLines]) -> dict[tuple[str, str], set[int]]:
    """The function gives the patches that change a C function, by its file's path and its name."""
    found: dict[tuple[str, str], set[int]] = {}
    for row in rows:
        if row.changes and row.function:
            found.setdefault((row.path, row.function), set()).add(row.patch)
    return found


def python_line(mirror: Mirror) -> int:
    """The function gives the line, from 1, of ``def`` in the mirror's file."""
    module = importlib.import_module(f"kvmodel.{mirror.module}")
    lines, first = inspect.getsourcelines(getattr(module, mirror.name))
    return first + next(n for n, line in enumerate(lines) if line.lstrip().startswith("def "))


def python_file(mirror: Mirror) -> str:
    """The function gives the mirror's file, as the project's root has it."""
    return f"kvmodel/{mirror.module.replace('.', '/')}.py"


def python_function(file: Path, line: int) -> str:
    """The function gives the function that line ``line`` of a Python file is in; empty for none."""
    inside = ""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            if first <= line <= node.end_lineno:
                inside = node.name
    return inside


def of_function(name: str) -> list[Mirror]:
    """The function gives the mirrors of a C function, or of that Python name."""
    found = mirrors.registry().values()
    return [m for m in found if name == m.name or any(name == c.partition(" ")[2] for c in m.origins)]


def of_file(path: str) -> list[Mirror]:
    """The function gives the mirrors of the functions of a C file, by its path in the kernel's tree."""
    return [m for m in mirrors.registry().values() if any(kernel_path(c.partition(" ")[0]) == path for c in m.origins)]


def known_names() -> Sequence[str]:
    """The function gives every name that ``of_function`` knows."""
    found = mirrors.registry().values()
    return sorted({m.name for m in found} | {c.partition(" ")[2] for m in found for c in m.origins})


def known_files() -> Mapping[str, str]:
    """The function gives the C files that are mirrored: as a user may shorten them, and their path in the kernel's
    tree.
    """
    found: dict[str, str] = {}
    for mirror in mirrors.registry().values():
        for c in mirror.origins:
            short = c.partition(" ")[0]
            found[short] = found[kernel_path(short)] = kernel_path(short)
    return found
