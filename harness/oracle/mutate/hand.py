"""A child of ``kvmirror mutate``: judges the mutants of the mirror that it is asked for, by their identity."""

from __future__ import annotations

import atexit
import resource
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from harness.jsonable import Json
from harness.oracle import serve
from harness.oracle.mutate.mutants import mutants
from harness.oracle.mutate.mutation import Asked, Judge, Live
from harness.results import outcome_json, outcome_of
from kvmodel.question.reading import parse

CONTROL: Final = "control"  # asked for like a mutant: the mirror as it is, which nobody may catch
MEMORY: Final = 8 << 30  # bytes of address space: several times what a hand has with 10,000 cases


def setting(
    images: dict[int, Path], cases: int, seed: int, modules: Sequence[str], asked: Sequence[Asked]
) -> dict[str, Json]:
    """The function gives what a hand is told: the levels' images, the cases of each check, modules, what a run saw."""
    return {
        "images": {str(level): str(path) for level, path in images.items()},
        "cases": cases,
        "seed": seed,
        "modules": list(modules),
        "asked": [(a.level, a.param, a.mbec, a.vector.id, outcome_json(a.seen)) for a in asked],
    }


def make(told: dict[str, Any]) -> Callable[[list[str]], tuple[str, str]]:
    """The function gives a function that says who noticed a mutant, and by what; both are empty for a survivor.

    A mutant is asked for by its identity and what caught it once.
    """

    @cache
    def recorded(level: int) -> Live:
        live = Live(Path(told["images"][str(level)]), level, told["cases"], told["seed"])
        atexit.register(live.close)
        return live

    asked = [
        Asked(level, param, mbec, parse(name), outcome_of(seen)) for level, param, mbec, name, seen in told["asked"]
    ]
    judge = Judge(recorded, asked)
    made = {mutant.identity: mutant for mutant in mutants(told["modules"])}

    def answer(asked_for: list[str]) -> tuple[str, str]:
        identity, before = asked_for
        if identity == CONTROL:
            return judge.control()
        try:
            verdict = judge.judge(made[identity], before)
        except MemoryError:  # a mutant that goes on for ever and keeps what it makes
            return "failure", "out of memory"
        return verdict.by, verdict.caught

    return answer


def main() -> None:
    """The child is served within MEMORY: a mutant that wants more fails, and the machine keeps its own.

    A shift by an address makes one number that fills all memory there is, which no timer interrupts.
    """
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    serve(make)


if __name__ == "__main__":
    main()
