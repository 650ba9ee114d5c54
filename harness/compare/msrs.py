"""The virtual CPUs of two runs: the VMX capability MSRs as each run's L1 read them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from harness.compare.pairing import Pair
from harness.compare.reading import Side
from kvmodel.question import msr

# Controls by MSR number (SDM A.3 to A.5): bits 31:0 must be 1, bits 63:32 may be 1.
_CONTROLS: Final = {
    0x481: "pin-based control",
    0x482: "processor-based control",
    0x483: "exit control",
    0x484: "entry control",
    0x48B: "secondary control",
    0x48D: "pin-based control",
    0x48E: "processor-based control",
    0x48F: "exit control",
    0x490: "entry control",
}
_NAMED: Final = {
    (msr.PROCBASED_CTLS2, msr.ENABLE_EPT): "enable EPT",
    (msr.PROCBASED_CTLS2, msr.UNRESTRICTED_GUEST): "unrestricted guest",
    (msr.PROCBASED_CTLS2, msr.MBEC): "mode-based execute control for EPT",
}


@dataclass(frozen=True, slots=True)
class Register:
    """An MSR that reads otherwise in B than in A, and where."""

    number: int
    before: int
    after: int
    machines: tuple[str, ...]
    pairs: tuple[Pair, ...]

    @property
    def title(self) -> str:
        """The MSR, and which of its bits are set on one side only."""
        only = ((self.before & ~self.after, "A"), (self.after & ~self.before, "B"))
        words = [f"{_bits(self.number, mask)} in {side} only" for mask, side in only if mask]
        return f"MSR {self.number:#x}: {'; '.join(words)}"


def _bits(number: int, mask: int) -> str:
    return ", ".join(_bit(number, bit) for bit in range(mask.bit_length()) if mask >> bit & 1)


def _bit(number: int, bit: int) -> str:
    if (control := _CONTROLS.get(number)) is None:
        return f"bit {bit}"
    name = _NAMED.get((number, 1 << bit % 32))
    told = f" ({name})" if name else ""
    return f"{control} {bit % 32}{told} {'may' if bit >= 32 else 'must'} be 1"


def registers(a: Side, b: Side, pairs: Sequence[Pair]) -> list[Register]:
    """The MSRs that differ on a machine that both sides have, by number."""
    found: dict[tuple[int, int, int], list[tuple[str, Pair]]] = defaultdict(list)
    for pair in pairs:
        before, after = a.msrs(pair.before), b.msrs(pair.after)
        for machine in sorted(before.keys() & after.keys()):
            for number in sorted(before[machine].keys() & after[machine].keys()):
                was, now = before[machine][number], after[machine][number]
                if was != now:
                    found[number, was, now].append((machine, pair))
    return [
        Register(*key, tuple(dict.fromkeys(m for m, _ in where)), tuple(dict.fromkeys(p for _, p in where)))
        for key, where in sorted(found.items())
    ]
