"""What the contract says of a program, as tests ask it."""

from __future__ import annotations

from kvmodel import sdm
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import NotApplicable, Outcome, of_turns
from kvmodel.question.program import program
from kvmodel.sdm import program as programs


def plain(text: str, cpu: Cpu | None = None) -> tuple[Outcome, ...]:
    """The row of a CPU that caches nothing."""
    found = programs.answers(cpu or Cpu(), program(text))
    assert not isinstance(found, NotApplicable)
    return found[0].outcome.turns


def allows(text: str, *seen: Outcome) -> bool:
    """Whether the manual allows these answers."""
    found = sdm.allowed_beside(Cpu(), program(text), of_turns(seen))
    assert not isinstance(found, NotApplicable)
    return any(a.outcome.matches(of_turns(seen)) for a in found)
