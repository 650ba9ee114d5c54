"""How the generators of programs write one: its steps as a user types them."""

from __future__ import annotations

from kvmodel.question.program import PREFIX, SEPARATOR, ProgramVector, program


def of(*steps: str, env: str = "std", ept: bool = True) -> ProgramVector:
    """The program of ``steps``; without ``ept`` L1 runs L2 without EPT."""
    head = PREFIX + ("" if ept else ".noept") + (f".env={env}" if env != "std" else "")
    return program(SEPARATOR.join([head, *steps]))
