"""Mutants of the mirror that change no answer, each with the reason: reviewed by hand, and few.

A row that no mutant has is an error (a test), so the table cannot outlive the code it speaks of.
"""

from __future__ import annotations

from typing import Final

EQUIVALENT: Final[dict[str, str]] = {}
"""By ``Mutant.key``."""
