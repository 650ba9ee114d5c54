"""One VM entry a bit of the control fields: each set alone, with what it needs, and each cleared.

Which of them a VM entry takes is not written down here: the contract decides it from the MSRs as L1 read them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Final

from kvmodel.question.vector import Evmcs, Mbec
from kvmodel.question.vm_entry import VmEntryVector, changes
from kvmodel.question.vmcs import PLAIN_ONLY, SCRATCH

PIN, PROC, PROC2, EXIT, ENTRY = FIELDS = (
    "pin_based_vm_exec_control",
    "cpu_based_vm_exec_control",
    "secondary_vm_exec_control",
    "vm_exit_controls",
    "vm_entry_controls",
)
BITS: Final = 32
_APIC: Final = f"{PROC}:s21+virtual_apic_page_addr={SCRATCH:x}"
_DELIVERY: Final = f"{_APIC}+{PROC2}:s9"
# What a control needs of other fields, so that every check of SDM 27.2.1 on it passes.
NEEDS: Final[dict[tuple[str, int], str]] = {
    (PIN, 5): f"{PIN}:s3",
    (PIN, 7): f"{_DELIVERY}+posted_intr_nv=f2+posted_intr_desc_addr={SCRATCH:x}",
    (PROC, 21): f"virtual_apic_page_addr={SCRATCH:x}",
    (PROC, 22): f"{PIN}:s3+{PIN}:s5",
    (PROC, 25): f"io_bitmap_a={SCRATCH:x}+io_bitmap_b={SCRATCH:x}",
    (PROC, 28): f"msr_bitmap={SCRATCH:x}",
    (PROC2, 0): f"apic_access_addr={SCRATCH:x}",
    (PROC2, 4): _APIC,
    (PROC2, 5): "virtual_processor_id=1",
    (PROC2, 8): _APIC,
    (PROC2, 9): _APIC,
    (PROC2, 14): f"vmread_bitmap={SCRATCH:x}+vmwrite_bitmap={SCRATCH:x}",
    (PROC2, 17): f"pml_address={SCRATCH:x}",
    (PROC2, 25): f"tsc_multiplier={1 << 48:x}",
    (EXIT, 22): f"{PIN}:s6",
}


def alone(field: str, bit: int, *, enlightened: bool = False) -> str:
    """The function gives the bit set in a VMCS that is harmless otherwise.

    What the bit needs is set with it, as far as such a VMCS has the fields.
    """
    needs = NEEDS.get((field, bit))
    if not needs or (enlightened and any(one.field in PLAIN_ONLY for one in changes(needs))):
        return f"{field}:s{bit}"
    return f"{needs}+{field}:s{bit}"


def control_bits() -> Iterator[VmEntryVector]:
    """The function gives every bit of the pin-based, primary, secondary, exit and entry controls.

    Each is set alone with what it needs, and cleared. With Hyper-V's enlightened VMCS offered, and in use, again.
    """
    for ev, field, bit in product(Evmcs, FIELDS, range(BITS)):
        text = alone(field, bit, enlightened=ev is Evmcs.USED)
        yield VmEntryVector(Mbec.OFF, ev=ev, changes=changes(text))
        yield VmEntryVector(Mbec.OFF, ev=ev, changes=changes(f"{field}:c{bit}"))


CONTROL_BITS: Final[dict[str, Callable[[], Iterator[VmEntryVector]]]] = {control_bits.__name__: control_bits}
