"""Accessed and dirty flags in the EPT entries under test after the run (SDM 29.3.5).

An optional check beside the answer itself: the flags a CPU must have set, and those it may have.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vector import Access, AccessVector
from kvmodel.sdm import guest_paging
from kvmodel.sdm.ept import ACCESSED, DIRTY


@dataclass(frozen=True, slots=True)
class Flags:
    """Bits 8 and 9 of one EPT entry: ``must`` be set, ``may`` be set; what was set before stays."""

    must: int
    may: int

    def admits(self, before: int, seen: int) -> bool:
        """Whether the flags of the 64-bit entry ``seen`` are a legal successor of those of ``before``."""
        both = ACCESSED | DIRTY
        before, seen = before & both, seen & both
        return before & ~seen == 0 and self.must & ~seen == 0 and seen & ~(before | self.may) == 0


def flags(vector: AccessVector, seen: Outcome) -> tuple[Flags, Flags]:
    """What the answer ``seen`` implies for the leaf's and the upper entry's flags.

    With EPTP bit 6 clear they are ignored bits that no one writes. With it set, a translation that was used sets
    A on the way and D on the leaf of a write; accesses to guest paging structures count as writes. A may be set
    by a translation that was tried and not used; D never.
    """
    if not vector.ad:
        return Flags(0, 0), Flags(0, 0)
    used = seen.kind is Kind.DONE or (
        vector.access.is_walk
        and seen.kind is Kind.EXCEPTION
        and not guest_paging.is_reserved(guest_paging.mode_of(vector), vector.gu)
    )
    if not used:
        return Flags(0, ACCESSED), Flags(0, ACCESSED)
    wrote = vector.access.is_walk or vector.access in (Access.WRITE, Access.RMW, Access.EMUWRITE)
    leaf = ACCESSED | DIRTY if wrote else ACCESSED
    return Flags(leaf, leaf), Flags(ACCESSED, ACCESSED)
