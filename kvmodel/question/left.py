"""What a VM entry or the exit behind it may leave astray: a bit each, as the probe tells it and an outcome holds it."""

from __future__ import annotations

from typing import Final

ASTRAY: Final[dict[str, int]] = {
    "ASTRAY_CR0": 1 << 0,  # of L1, as the vmcs12's host state has it, and so the rest
    "ASTRAY_CR3": 1 << 1,
    "ASTRAY_CR4": 1 << 2,
    "ASTRAY_RFLAGS": 1 << 3,
    "ASTRAY_RSP": 1 << 4,
    "ASTRAY_SELECTOR": 1 << 5,
    "ASTRAY_INTERRUPTION": 1 << 6,  # VM-exit interruption information is valid where no event caused the exit
    "ASTRAY_VECTORING": 1 << 7,  # IDT-vectoring information is valid where no event was being delivered
    "ASTRAY_LENGTH": 1 << 8,  # of VMCALL
    "ASTRAY_SAVED": 1 << 9,  # L2's state is not what it was entered with
    "ASTRAY_BASE": 1 << 10,  # of FS or GS
    "ASTRAY_SYSENTER": 1 << 11,
    "ASTRAY_EFER": 1 << 12,
    "ASTRAY_PAT": 1 << 13,
    "ASTRAY_DEBUG": 1 << 14,  # DR7 and IA32_DEBUGCTL
    "ASTRAY_TABLE": 1 << 15,  # GDTR and IDTR
    "ASTRAY_CONTROL": 1 << 16,  # a control is another one than before the VM entry
    "ASTRAY_INJECTION": 1 << 17,  # VM-entry interruption information: valid after an exit, or otherwise changed
    "ASTRAY_GUEST": 1 << 18,  # a field of the guest's state is another one though the VM entry failed
    "ASTRAY_INFORMATION": 1 << 19,  # a failed VM entry wrote an exit field that it does not have to tell
    "ASTRAY_DATA": 1 << 21,  # an access completed, and its page has not what it read or wrote
    "ASTRAY_LAUNCH": 1 << 20,  # launched after a failed VM entry, or clear after an exit
}
