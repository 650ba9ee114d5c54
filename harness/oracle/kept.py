"""Verdicts kept in a file, so that an interrupted run goes on, and one after a check was added tries survivors only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from harness.errors import InputError
from harness.oracle.mutants import MODULES, source

M = TypeVar("M")
V = TypeVar("V")


class Kept:
    """The verdicts of mutants that were caught, a line of JSON each; without a path nothing is kept.

    The first line tells which mirror they are of; those of another are no use, and their file is refused.
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

    def verdict(self, identity: str, mutant: M, judge: Callable[[], V], make: Callable[[M, str, str], V]) -> V:
        """The verdict on ``mutant``: the kept one, else that of ``judge``, kept where something noticed."""
        if identity in self._known:
            by, caught = self._known[identity]
            return make(mutant, by, caught)
        verdict = judge()
        by, caught = str(getattr(verdict, "by", "")), str(getattr(verdict, "caught", ""))
        if self._path is not None and by:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([identity, by, caught]) + "\n")
        return verdict


def _digest() -> str:
    h = hashlib.sha256()
    for module in MODULES:
        h.update(source(module).read_bytes())
    return h.hexdigest()[:16]
