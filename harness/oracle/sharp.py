"""Is the check sharp? The mirror without one patch must differ from the C that has it.

For each patch: a case in which the mirror at the last level without that patch and the C of the last level give
something else, or none, with what that means.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.oracle.check import Mismatch, differing, minimise, run_c, seeded
from harness.oracle.spec import Spec, answers
from harness.oracle.worker import Worker
from kvmodel.series import LAST, Level

CASES = 2_000  # for each check


@dataclass(frozen=True, slots=True)
class Noticed:
    """A patch, the checks that notice its absence from the mirror, and one case; ``error`` where the mirror raised."""

    patch: int
    checks: tuple[str, ...]
    example: Mismatch | None
    error: str = ""


def noticed(worker: Worker, specs: Sequence[Spec], seed: int = 1) -> Iterator[Noticed]:
    """For each patch, who notices that the mirror lacks it; ``worker`` holds the image of the last level."""
    for patch in range(1, LAST + 1):
        yield _without(worker, specs, patch, Level.without(LAST, patch), seed)


def _without(worker: Worker, specs: Sequence[Spec], patch: int, level: Level, seed: int) -> Noticed:
    checks: list[str] = []
    example: Mismatch | None = None
    error = ""
    for spec in specs:
        each = max(1, -(-CASES // len(spec.states)))
        for number, state in enumerate(spec.states):
            if spec.entry in checks:
                break
            rows, _ = spec.space.rows(each, seeded(spec, number, seed))
            batch = run_c(worker, spec, state, rows)
            try:
                wrong = differing(spec, answers(spec, state.side(level), rows), batch)
                if wrong:
                    checks.append(spec.entry)
                    example = example or minimise(worker, spec, level, state, rows[wrong[0]])
            except (AttributeError, TypeError) as caught:
                # As in C: what a later patch uses is not there, so the level would not even compile.
                checks.append(spec.entry)
                error = error or str(caught)
    return Noticed(patch, tuple(checks), example, error)
