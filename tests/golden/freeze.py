"""Computes what is frozen and writes it: ``python -m tests.golden.freeze [WHAT ...]``.

Run it only where a change is meant, and read the difference in git before it is committed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.golden import doors, stored

HERE: Final = Path(__file__).parent
IDS: Final = HERE / "ids.json"
ASKED: Final = HERE / "predictions" / "asked.txt"
HELP: Final = HERE / "help"
REFUSALS: Final = HERE / "refusals.txt"

LEVELS: Final = (0, 6, 11, 14, 16, 18)
PARAMS: Final[dict[str, bool | None]] = {"unset": None, "0": False, "1": True}
CELLS: Final = tuple((level, param) for level in LEVELS for param in PARAMS)
EVERY: Final = 37  # of the whole space, one vector in so many
COLUMNS: Final = ("outcome", "exits", "outcome whole", "steps", "events", "warns", "allowed")
SAME: Final = "="  # a line that is the one of the cell before
ANEW: Final = "if the change is meant: python -m tests.golden.freeze {}, and read what git then shows"


def digest(text: str) -> str:
    """Eight hexadecimal digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


# ids


@cache
def _part(name: str) -> tuple[Any, ...]:
    return tuple(doors.part(name))


def part_ids(name: str) -> dict[str, Any]:
    """A part's ids: how many, their hash in the part's order, and the first, the middle and the last in plain sight."""
    names = [one.id for one in _part(name)]
    return {
        "count": len(names),
        "sha256": hashlib.sha256("\n".join(names).encode()).hexdigest(),
        "some": [names[0], names[len(names) // 2], names[-1]],
    }


def ids() -> dict[str, Any]:
    """``part_ids`` of every part."""
    return {name: part_ids(name) for name in doors.parts()}


# predictions


def spread() -> list[str]:
    """The ids whose predictions are frozen: every 37th of the whole space, and three of every part."""
    every = [one.id for one in _part("full")[::EVERY]]
    some = [name for known in ids().values() for name in known["some"]]
    return list(dict.fromkeys(every + some))


def full_answer(level: int, param: str, name: str) -> dict[str, str]:
    """All that mirror and contract say of a vector, by column."""
    asked, value = doors.vector(name), PARAMS[param]
    text, whole, exits, steps = doors.predict(level, value, asked)
    return {
        "outcome": text,
        "exits": str(exits),
        "outcome whole": whole,
        "steps": "\n".join(steps),
        "events": "\n".join(doors.events(level, value, asked)),
        "warns": "\n".join(doors.warns(level, value, asked)),
        "allowed": "\n".join(doors.allowed(level, value, asked)),
    }


def line(answer: dict[str, str]) -> str:
    """An answer as it is frozen: outcome and exits in plain sight, a digest of each other column that says anything."""
    return "\t".join(
        answer[name] if name in ("outcome", "exits") else digest(answer[name]) if answer[name] else "-"
        for name in COLUMNS
    )


def cell_file(level: int, param: str) -> Path:
    """Where a cell's predictions are frozen."""
    return ASKED.with_name(f"level-{level:02}-{param}.tsv")


def frozen_cells() -> dict[tuple[int, str], list[str]]:
    """The frozen lines of every cell, each line that is the one of the cell before written out."""
    found: dict[tuple[int, str], list[str]] = {}
    before: list[str] = []
    for cell in CELLS:
        lines = cell_file(*cell).read_text(encoding="utf-8").splitlines()[1:]
        before = [before[i] if text == SAME else text for i, text in enumerate(lines)]
        found[cell] = before
    return found


def _write_predictions() -> None:
    asked = spread()
    _put(ASKED, "\n".join(asked) + "\n")
    before: list[str] = []
    for level, param in CELLS:
        lines = [line(full_answer(level, param, name)) for name in asked]
        shown = [SAME if i < len(before) and text == before[i] else text for i, text in enumerate(lines)]
        _put(cell_file(level, param), "\n".join(["\t".join(COLUMNS), *shown]) + "\n")
        before = lines


# the command line


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """A user without settings, journal and cache, in an empty folder, at a terminal of 80 columns."""
    kept, at = dict(os.environ), Path.cwd()
    for name in [n for n in os.environ if n.startswith(("KVMIRROR_", "XDG_"))]:
        del os.environ[name]
    os.environ |= {name: str(folder / name.lower()) for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME")}
    os.environ |= {"COLUMNS": "80", "LINES": "24", "TZ": "UTC", "NO_COLOR": "1"}
    os.environ["KVMIRROR_CACHE"] = str(folder / "cache")
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(at)
        os.environ.clear()
        os.environ |= kept


def typed(words: list[str], folder: Path, stdin: bytes = b"") -> tuple[int, str, str]:
    """What a command line does for the user of ``alone``: exit code, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(stdin))
    try:
        with alone(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = doors.main(words)
            except SystemExit as error:  # argparse leaves by one
                code = error.code if isinstance(error.code, int) else 1
    finally:
        sys.stdin = before
    said, told = (one.getvalue().replace(str(folder), "FOLDER") for one in (out, err))
    return code, said, told


def help_file(command: str) -> Path:
    """Where the help of a command is frozen."""
    return HELP / f"{command.replace(' ', '-') or 'kvmirror'}.txt"


def help_of(command: str, folder: Path) -> str:
    """What ``kvmirror COMMAND --help`` prints."""
    code, out, err = typed([*command.split(), "--help"], folder)
    return out if (code, err) == (0, "") else f"exit code {code}\n{out}{err}"


def _write_help() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for command in doors.commands():
            _put(help_file(command), help_of(command, Path(folder)))


PLAIN: Final = (
    "e4k.l1=rwxu.l2=rwxu.mt6.xb0.ub0.read.gpuwx.guuwx.pg64.cpl0.wp1.smep0.smap0.nxe1.ad0.mbec=on.xo1.ev0.env=std"
)
WIDE: Final = 240  # characters of a refusal: some end in the names of all parts
BAD: Final = (
    "",
    "nonsense",
    "validate --levels 99",
    "validate --levels 5-3",
    "validate --levels one",
    "validate --param 2",
    "validate --levels 0 --vectors no.such.vector",
    "validate --levels 0 --vectors @missing.txt",
    "validate --no-such-option",
    "predict --level 18",
    "predict --level 19 host.param.env=std",
    "predict --level 18 --param maybe host.param.env=std",
    "predict --level 18 e4k.l1=rwxu",
    f"predict --level 18 {PLAIN.replace('cpl0', 'cpl1')}",
    f"predict --level 18 {PLAIN.replace('env=std', 'env=none')}",
    "findings",
    "explain F1",
    "changes --patch 0",
    "changes --patch 77",
    "compare 1",
    "compare 1 2",
    "compare 1@18/2 2",
    "report",
    "report --json - --junit -",
    "report --json -",
    "--config missing.toml findings",
    "completion tcsh",
    "run --level 18 e9k",
    "run --level 99 host.param.env=std",
    "bundle F1",
    "findings --run 7",
    "validate --host ftp://lab1",
    "series check --series missing",
    "series import missing.mbox",
    "check --levels 99",
    "check --levels 0 --functions no_such",
    "mutate --what nothing",
    "mutate --kind nothing",
)


def refusals() -> list[str]:
    """What bad input is told, each in an empty folder: exit code, command line, and of what is said the first line."""
    found = []
    for text in BAD:
        with tempfile.TemporaryDirectory() as folder:
            code, out, err = typed(text.split(), Path(folder))
        said = [one for one in (err or out).splitlines() if one and not one.startswith((" ", "usage: "))]
        found.append(f"{code} kvmirror {text}\n    {said[0][:WIDE] if said else ''}")
    return found


# what is printed of the stored run

OUTPUTS: Final = HERE / "outputs"
CODES: Final = "exit-codes.txt"
TESTER: Final = "--tester Tester<tester@example.org>"
PRINTED: Final = {
    "report.json": "report --json -",
    "junit.xml": "report --junit -",
    "ktap.txt": "report --ktap -",
    "markdown.md": "report --markdown -",
    "reply.eml": f"report --reply {TESTER}",
    "findings.txt": "findings",
    "findings.json": "findings --json",
    "bare.txt": "findings --bare",
    "verdict.txt": "report --exit-code",
    "baseline.txt": "report --write-baseline known.json",
    "known-verdict.txt": "report --baseline known.json --exit-code",
    "known-junit.xml": "report --baseline known.json --junit -",
    "unknown-finding.txt": "explain F99",
}
MAILED: Final = 16  # the patch that b4 asks about


def outputs(folder: Path) -> dict[str, str]:
    """What the command line prints of the stored run, by file, and how each command line ended."""
    doors.write_run(folder / "stored.sqlite", stored.load())
    found, codes = {}, []

    def ask(name: str, text: str, stdin: bytes = b"") -> None:
        words = text.split()
        code, out, err = typed([words[0], "--journal", "stored.sqlite", *words[1:]], folder, stdin)
        said = err.strip().splitlines()
        codes.append(f"{code} {text}" + (f"\n    {said[-1]}" if said else ""))
        if out:
            found[name] = out

    for name, text in PRINTED.items():
        ask(name, text)
    for finding in json.loads(found["findings.json"]):
        ask(f"explain-{finding['name']}.txt", f"explain {finding['name']}")
    for level in sorted({cell["level"] for cell in stored.load()["cells"]} - {0}):
        ask(f"changes-{level:02}.txt", f"changes --patch {level}")
    ask("b4-check.json", "report --b4-check", doors.patch_mail(MAILED))
    found["known.json"] = (folder / "known.json").read_text(encoding="utf-8")
    found[CODES] = "\n".join(codes) + "\n"
    return found


def _write_outputs() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, text in outputs(Path(folder)).items():
            _put(OUTPUTS / name, text)


# writing


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path.relative_to(HERE)} ({len(text.encode()):,} bytes)", file=sys.stderr)


def as_json(body: Any) -> str:
    """Data as the golden files have it."""
    return json.dumps(body, indent=1, ensure_ascii=False) + "\n"


PARTS: Final[dict[str, Callable[[], None]]] = {
    "ids": lambda: _put(IDS, as_json(ids())),
    "predictions": _write_predictions,
    "help": _write_help,
    "refusals": lambda: _put(REFUSALS, "\n".join(refusals()) + "\n"),
    "outputs": _write_outputs,
}


def main(argv: list[str]) -> int:
    """Write the parts named, or all."""
    if unknown := [name for name in argv if name not in PARTS]:
        print(f"{unknown[0]!r} is none of {', '.join(PARTS)}", file=sys.stderr)
        return 2
    for name in argv or PARTS:
        PARTS[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
