"""What the host promises of the EPT entries that it makes itself, in the manual's terms."""

from __future__ import annotations

from collections.abc import Iterable

from kvmodel.question.outcome import Kind, Outcome
from kvmodel.sdm import ept


def left_behind(removed: Iterable[tuple[int, int]], *, mbec: bool) -> Outcome:
    """BYPASS with that of the ``removed`` (level, 64-bit entry) at the lowest level that a CPU takes for present.

    DONE where all are not present (SDM 29.3.2). ``mbec``: the CPU walks them with mode-based execute control.
    """
    for level, entry in sorted(removed, key=lambda found: found[0]):
        if ept.is_present(entry, mbec=mbec):
            permissions = entry & ept.permission_bits(mbec=True)
            return Outcome(Kind.BYPASS, permissions, number=level, note=f"a removed entry holds {entry:#x}")
    return Outcome(Kind.DONE)
