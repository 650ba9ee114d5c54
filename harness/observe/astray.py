"""What an exit or a failed VM entry left otherwise than the manual has it, whatever else the question was.

The probe looks after every VM entry (images/probe/vmx.c, vmx_astray and vmx_saved_astray): L1's registers are as the
host state of its VMCS has them (SDM 28.5), the fields of the exit that its reason does not use say so (28.2), and L2's
state was saved as it was (28.3). Where one is not, that is the answer, since no other says anything then.
"""

from __future__ import annotations

from typing import Final

from harness import protocol
from kvmodel.question.outcome import Kind, Outcome

_C: Final = protocol.CONSTANTS
ENDED: Final = range(1, 6)  # the verdicts after which the probe has looked: all but L2's livelock and its own failures
WORDS: Final = {
    "ASTRAY_CR0": "CR0 of L1",
    "ASTRAY_CR3": "CR3 of L1",
    "ASTRAY_CR4": "CR4 of L1",
    "ASTRAY_RFLAGS": "RFLAGS of L1",
    "ASTRAY_RSP": "RSP of L1",
    "ASTRAY_SELECTOR": "a selector of L1",
    "ASTRAY_INTERRUPTION": "VM-exit interruption information that is valid",
    "ASTRAY_VECTORING": "IDT-vectoring information that is valid",
    "ASTRAY_LENGTH": "the instruction length of VMCALL",
    "ASTRAY_SAVED": "the saved state of L2",
}


def outcome(bits: int, reason: int) -> Outcome:
    """The function gives the answer of an exit that left ``bits`` (ASTRAY_*) astray; ``reason`` has 32 bits, as in the
    VMCS.
    """
    return Outcome(
        Kind.ASTRAY,
        code=bits,
        number=reason & 0xFFFF,
        note=", ".join(words for name, words in WORDS.items() if bits & _C[name]),
    )
