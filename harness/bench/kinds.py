"""The kinds of VM exits as tables and pictures name them, in one order everywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from kvmodel.machine.exits import Exit

KINDS: Final = {
    Exit("L1", "VMREAD"): "VMREAD of L1",
    Exit("L1", "VMWRITE"): "VMWRITE of L1",
    Exit("L1", "VMRESUME"): "VMRESUME of L1",
    Exit("L2", "EPT_VIOLATION", "L1"): "EPT violation of L2, to L1",
    Exit("L2", "VMCALL", "L1"): "VMCALL of L2, to L1",
    Exit("L2", "EPT_VIOLATION"): "EPT violation of L2, for KVM",
    Exit("L1", "EPT_VIOLATION"): "EPT violation of L1",
    Exit("L1", "INVEPT"): "INVEPT of L1",
}
OTHER: Final = "any other"


def by_kind(exits: Mapping[Exit, int]) -> dict[str, int]:
    """The function gives the exits under the names of ``KINDS``, every name there; the rest are under ``OTHER``."""
    found: Counter[str] = Counter(dict.fromkeys((*KINDS.values(), OTHER), 0))
    for exit, n in exits.items():
        found[KINDS.get(exit, OTHER)] += n
    return dict(found)


def runs_of(exits: list[Exit]) -> str:
    """The line has exits in order, equal ones in a row as ``9 x VMREAD of L1``."""
    words: list[tuple[str, int]] = []
    for exit in exits:
        name = KINDS.get(exit, str(exit))
        if words and words[-1][0] == name:
            words[-1] = (name, words[-1][1] + 1)
        else:
            words.append((name, 1))
    return ", ".join(f"{n} x {name}" if n > 1 else name for name, n in words) or "no exit at all"
