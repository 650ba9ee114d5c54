"""Verdicts kept in a file, so that an interrupted run goes on, and one after a check was added tries survivors only."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from harness.errors import InputError
from harness.oracle.mutate.mutants import MODULES, source


class Kept:
    """The file has the verdicts of mutants that were caught, a line of JSON each; without a path nothing is kept.

    The first line tells which mirror they are of; those of another are no use, and InputError is raised.
    """

    def __init__(self, path: Path | None, *parts: Path) -> None:
        self._path = path
        self._known: dict[str, tuple[str, str]] = {}
        if path is None:
            return
        head = json.dumps({"mirror": _digest(), "of": [part.name for part in parts]})
        if not path.exists():
            path.write_text(head + "\n", encoding="utf-8")
        text = path.read_text(encoding="utf-8")
        if not text.endswith("\n"):  # an interrupted run's half of a line
            path.write_text(text + "\n", encoding="utf-8")
        first, *lines = text.splitlines() or [""]
        if first != head:
            raise InputError(f"--resume {path}: those are verdicts of another mirror, or none; name a new file")
        for line in lines:
            if line.endswith("]"):  # all of it
                identity, by, caught = json.loads(line)
                self._known[identity] = (by, caught)

    def known(self, identity: str) -> tuple[str, str] | None:
        """The function says who caught the mutant in an earlier run, and by what; None where that is not known."""
        return self._known.get(identity)

    def keep(self, identity: str, by: str, caught: str) -> None:
        """A verdict is noted; a survivor's is not, as it is tried again."""
        if self._path is not None and by:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([identity, by, caught]) + "\n")


def earlier(path: Path) -> dict[str, str]:
    """The function gives what caught the mutants of an earlier run that kept its verdicts in ``path``, of any mirror.

    Raises InputError where the file holds no verdicts.
    """
    try:
        head, *lines = path.read_text(encoding="utf-8").splitlines()
        if "mirror" not in json.loads(head):
            raise ValueError
        rows = [json.loads(line) for line in lines if line.endswith("]")]
        return {identity: caught for identity, _, caught in rows}
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"--after {path}: that is no file of verdicts as --resume keeps them; name one, or leave --after out"
        ) from error


def _digest() -> str:
    h = hashlib.sha256()
    for module in MODULES:
        h.update(source(module).read_bytes())
    return h.hexdigest()[:16]
