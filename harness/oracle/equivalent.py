"""Mutants of the mirror that change no answer, each with the reason: reviewed by hand, and few.

A row that no mutant has is an error (a test), so the table cannot outlive the code it speaks of.
"""

from __future__ import annotations

from typing import Final

EQUIVALENT: Final[dict[str, str]] = {
    "hyperv: _EVMCS1_SUPPORTED_EXEC_CTRL: bit 32 flipped": "the table is of 32-bit controls: both who read it take "
    "32 bits, of the MSR's upper half and of the value checked",
    "hyperv.nested_evmcs_filter_control_msr: forced: gate of patch 17": "before patch 17 the table of supported "
    "controls lacks the bit that the gate would take away",
    "mmu.is_access_allowed: forced: gate of patch 14": "before patch 14 is_executable_pte looks at neither of the two "
    "arguments that the gate adds: its own gate is shut",
}
"""By ``Mutant.key``."""
