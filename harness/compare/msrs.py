"""The virtual CPUs of two runs: the VMX capability MSRs as each run's L1 read them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from harness.compare.pairing import Pair
from harness.compare.reading import RunSide
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
    """The record is of an MSR of which the same bits differ, where they do, and its values at the first of these
    places.
    """

    number: int
    before: int
    after: int
    machines: tuple[str, ...]
    pairs: tuple[Pair, ...]

    @property
    def title(self) -> str:
        """The title has the MSR, and which of its bits are set on one side only."""
        return f"MSR {self.number:#x}: {apart(self.number, self.before, self.after)}"


def apart(number: int, before: int, after: int) -> str:
    """The text says which bits of MSR ``number`` (64 bits each) are set on one side only, as the SDM names them."""
    only = ((before & ~after, "A"), (after & ~before, "B"))
    return "; ".join(f"{_bits(number, mask)} in {side} only" for mask, side in only if mask)


def _bits(number: int, mask: int) -> str:
    return ", ".join(_bit(number, bit) for bit in range(mask.bit_length()) if mask >> bit & 1)


def _bit(number: int, bit: int) -> str:
    if (control := _CONTROLS.get(number)) is None:
        return f"bit {bit}"
    name = _NAMED.get((number, 1 << bit % 32))
    told = f" ({name})" if name else ""
    return f"{control} {bit % 32}{told} {'may' if bit >= 32 else 'must'} be 1"


def registers(a: RunSide, b: RunSide, pairs: Sequence[Pair]) -> list[Register]:
    """The function gives the MSRs that differ on a machine that both sides have, by number."""
    found: dict[tuple[int, str], list[tuple[int, int, str, Pair]]] = defaultdict(list)
    for pair in pairs:
        before, after = a.msrs(pair.before), b.msrs(pair.after)
        for machine in sorted(before.keys() & after.keys()):
            for number in sorted(before[machine].keys() & after[machine].keys()):
                was, now = before[machine][number], after[machine][number]
                if was != now:
                    found[number, apart(number, was, now)].append((was, now, machine, pair))
    return [
        Register(
            number,
            *where[0][:2],
            tuple(dict.fromkeys(machine for *_, machine, _ in where)),
            tuple(dict.fromkeys(pair for *_, pair in where)),
        )
        for (number, _), where in sorted(found.items())
    ]
