"""The small stored run: real answers of a real run, and all that is printed of them.

``python -m tests.golden.stored --journal FILE [--run N]`` chooses its answers from a run anew; what is printed of it
is then frozen by ``python -m tests.golden.freeze outputs``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any, Final

from tests.golden import doors

RUN: Final = Path(__file__).with_name("stored-run.json")
OF_EACH: Final = 2  # vectors of each finding, where it first shows
EVERY: Final = 3  # of the thin space, one vector in so many
FOLDERS: Final = re.compile(
    r"/(?:root|home|tmp)/(?:[^\s\"]*/)?"
)  # of files that the run names: which ones says nothing
SPARED: Final = {"host": "Linux"}  # of the provenance: where it ran is nobody's business


def load() -> dict[str, Any]:
    """The stored run."""
    found: dict[str, Any] = json.loads(RUN.read_text(encoding="utf-8"))
    return found


def choose(path: Path, number: int | None) -> dict[str, Any]:
    """A run with the answers to a few vectors, at the levels at which a finding first shows, the first and the last."""
    run = doors.read_run(path, number)
    names = [one.id for one in doors.part("thin")[::EVERY]]
    marked = _marked(run)
    names += doors.plainest(path, number, OF_EACH) + [name for _, name in marked]
    wanted = set(names)
    levels = {cell["level"] for cell in run["cells"]}
    firsts = {found["first_level"] for found in doors.core_run(path, number)["findings"]}
    some = {min(levels), max(levels), *firsts, *(first - 1 for first in firsts)} & levels
    some |= {level for level, _ in marked}
    cells = []
    for cell in run["cells"]:
        if cell["level"] not in some:
            continue
        answers = [answer for answer in cell["answers"] if answer[0] in wanted]
        if answers or not cell["answers"]:
            cells.append({**cell, "facts": _facts(cell["facts"], wanted), "answers": answers})
    about = {name: run[name] for name in ("argv", "provenance", "status", "begun", "ended")}
    about["argv"] = ["kvmirror", *about["argv"][1:]]
    about["provenance"] = {**about["provenance"], **SPARED}
    return {**about, "cells": cells}


def _marked(run: dict[str, Any]) -> list[tuple[int, str]]:
    """For every mark that the run gave: the first level and vector that got it."""
    found: dict[str, tuple[int, str]] = {}
    for cell in run["cells"]:
        for name, _, value, _ in cell["answers"]:
            for mark in doors.marks(value):
                found.setdefault(mark, (cell["level"], name))
    return list(found.values())


def _facts(facts: dict[str, Any], wanted: set[str]) -> dict[str, Any]:
    """A cell's facts without what is told of vectors that are left out."""
    told = dict(facts)
    for name in ("events", "livelocks"):
        match told.get(name):
            case dict() as by_vector:
                told[name] = {vector: text for vector, text in by_vector.items() if vector in wanted}
            case list() as rows:
                told[name] = [row for row in rows if row["vector"] in wanted]
    return told


def as_text(run: dict[str, Any]) -> str:
    """The run as JSON, an answer a line."""
    cells = []
    for cell in run["cells"]:
        head = json.dumps({name: value for name, value in cell.items() if name != "answers"})
        answers = ",\n    ".join(json.dumps(answer) for answer in cell["answers"])
        cells.append(f'{head[:-1]}, "answers": [\n    {answers}]}}' if answers else f'{head[:-1]}, "answers": []}}')
    about = ",\n ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in run.items() if name != "cells")
    return f'{{{about},\n "cells": [\n  ' + ",\n  ".join(cells) + "\n ]}\n"


def main(argv: list[str]) -> int:
    """Choose a stored run anew."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden.stored", description=__doc__)
    parser.add_argument("--journal", type=Path, required=True, help="the journal of a whole core run")
    parser.add_argument("--run", type=int, help="another run than the latest")
    args = parser.parse_args(argv)
    text = FOLDERS.sub("", as_text(choose(args.journal, args.run)))
    RUN.write_text(text, encoding="utf-8")
    count = sum(len(cell["answers"]) for cell in json.loads(text)["cells"])
    print(f"wrote {RUN.name}: {count} answers, {len(text):,} bytes", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
