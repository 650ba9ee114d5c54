"""VM entry's checks on the control fields (SDM 27.2.1): each that fails is VMfail, error 7."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvmodel.bits import BIT, GENMASK
from kvmodel.sdm.vmcs import (
    CONTROLS,
    CR0_PE,
    EXCEPTION,
    NMI_EVENT,
    OTHER,
    PRIVILEGED,
    SOFT_EXCEPTION,
    SOFTWARE,
    Check,
    CheckedVmcs,
    Tri,
    bits,
    governing,
    not_physical,
)

ERROR_CODE_VECTORS: Final = frozenset({8, 10, 11, 12, 13, 14, 17})

# Controls of which every check is described here, or which have none.
PIN_KNOWN: Final = bits(0, 1, 2, 3, 4, 5, 6, 7)
PROC_KNOWN: Final = GENMASK(31, 0) & ~bits(17)
PROC2_KNOWN: Final = GENMASK(23, 0) & ~bits(21) | bits(25, 26)
EXIT_KNOWN: Final = GENMASK(23, 0)
ENTRY_KNOWN: Final = GENMASK(16, 0)


def _disallowed(controls: int, msr: int) -> bool:
    """Whether ``controls`` (32 bits) has a 0 or a 1 that the capability ``msr`` does not allow (SDM A.2)."""
    return bool(~controls & msr & GENMASK(31, 0) or controls & ~(msr >> 32))


def _unknown(controls: int, known: int) -> Tri:
    """None where a control is 1 whose own checks are not described here."""
    return None if controls & ~known else False


def _pin(v: CheckedVmcs) -> Tri:
    value = v["pin_based_vm_exec_control"]
    return _disallowed(value, governing(v.cpu, 0)) or _unknown(value, PIN_KNOWN)


def _proc(v: CheckedVmcs) -> Tri:
    value = v["cpu_based_vm_exec_control"]
    return _disallowed(value, governing(v.cpu, 1)) or _unknown(value, PROC_KNOWN)


def _proc2(v: CheckedVmcs) -> Tri:
    if not v.proc(31):
        return False
    value = v["secondary_vm_exec_control"]
    return _disallowed(value, v.msr(0x48B)) or _unknown(value, PROC2_KNOWN)


def _exit(v: CheckedVmcs) -> Tri:
    value = v["vm_exit_controls"]
    return _disallowed(value, governing(v.cpu, 2)) or _unknown(value, EXIT_KNOWN)


def _entry(v: CheckedVmcs) -> Tri:
    value = v["vm_entry_controls"]
    return _disallowed(value, governing(v.cpu, 3)) or _unknown(value, ENTRY_KNOWN)


def _tpr_threshold(v: CheckedVmcs) -> Tri:
    if not v.proc(21) or v.proc2(9):
        return False
    return bool(v["tpr_threshold"] >> 4)


def _tpr_below(v: CheckedVmcs) -> Tri:
    if not v.proc(21) or v.proc2(9) or v.proc2(0) or not v["tpr_threshold"] & 0xF:
        return False
    word = v.memory(v["virtual_apic_page_addr"] + 0x80)
    return None if word is None else v["tpr_threshold"] & 0xF > word >> 4 & 0xF


def _ept_pointer(v: CheckedVmcs) -> Tri:
    if not v.ept:
        return False
    pointer, caps = v["ept_pointer"], v.msr(0x48C)
    if pointer & 7 not in (0, 6) or not caps >> (8 if pointer & 7 == 0 else 14) & 1:
        return True
    if pointer >> 3 & 7 not in (3, 4) or not caps >> (6 if pointer >> 3 & 7 == 3 else 7) & 1:
        return True
    if (pointer & BIT(6) and not caps >> 21 & 1) or (pointer & BIT(7) and not caps >> 23 & 1):
        return True
    return bool(pointer & GENMASK(11, 8) or pointer >> v.cpu.maxphyaddr)


def _functions(v: CheckedVmcs) -> Tri:
    return v.proc2(13) and bool(v["vm_function_control"] & ~v.msr(0x491))


def _eptp_list(v: CheckedVmcs) -> Tri:
    return v.proc2(13) and bool(v["vm_function_control"] & 1) and (not v.ept or not_physical(v, v["eptp_list_address"]))


def _posted(v: CheckedVmcs) -> Tri:
    if not v.pin(7):
        return False
    return (
        not v.proc2(9)
        or not v.exit(15)
        or v["posted_intr_nv"] > 0xFF
        or not_physical(v, v["posted_intr_desc_addr"], low=6)
    )


def _msr_area(name: str) -> Callable[[CheckedVmcs], Tri]:
    def fails(v: CheckedVmcs) -> Tri:
        count, address = v[f"{name}_count"], v[f"{name}_addr"]
        if not count:
            return False
        beyond = (address + 16 * count - 1) >> v.cpu.maxphyaddr
        # more MSRs than MSR 0x485 recommends: undefined behaviour (SDM A.6), and memory that nobody described
        return True if not_physical(v, address, low=4) or beyond else None if count > 512 else False

    return fails


def _type(v: CheckedVmcs) -> Tri:
    return v.event == 1 or (v.event == OTHER and not governing(v.cpu, 1) >> (32 + 27) & 1)


def _vector(v: CheckedVmcs) -> Tri:
    return (
        (v.event == NMI_EVENT and v.vector != 2)
        or (v.event == EXCEPTION and v.vector > 31)
        or (v.event == OTHER and v.vector != 0)
    )


def _protected(v: CheckedVmcs) -> bool:
    return not v.unrestricted or bool(v["guest_cr0"] & CR0_PE)


def _error_code(v: CheckedVmcs) -> Tri:
    if v.event < 0:
        return False
    given = bool(v["vm_entry_intr_info_field"] & BIT(11))
    if v.event != EXCEPTION or not _protected(v):
        return given
    if v.msr(0x480) >> 56 & 1:  # any hardware exception with or without one
        return False
    if v.vector == 21:  # #CP has one where the CPU has CET
        return None
    return given != (v.vector in ERROR_CODE_VECTORS)


def _injected(v: CheckedVmcs) -> Tri:
    info = v["vm_entry_intr_info_field"]
    if v.event < 0 or not info & GENMASK(30, 12):
        return False
    return None if info & BIT(13) else True  # FRED's nested exception, NMI unblocking aside


def _error_code_bits(v: CheckedVmcs) -> Tri:
    if v.event < 0 or not v["vm_entry_intr_info_field"] & BIT(11):
        return False
    code = v["vm_entry_exception_error_code"]
    return True if code >> 16 else None if code >> 15 else False  # bit 15 is #PF's for SGX


def _length(v: CheckedVmcs) -> Tri:
    if v.event not in (SOFTWARE, PRIVILEGED, SOFT_EXCEPTION):
        return False
    length = v["vm_entry_instruction_len"]
    return length > 15 or (length == 0 and not v.msr(0x485) >> 30 & 1)


def _controls(section: str, text: str, fails: Callable[[CheckedVmcs], Tri]) -> Check:
    return Check(section, text, fails, CONTROLS)


CONTROL_CHECKS: Final[dict[str, Check]] = {
    # --- VM-execution controls ---
    "entry-pin-controls": _controls("27.2.1.1", "Reserved bits of the pin-based controls are as MSR 0x48D says.", _pin),
    "entry-primary-controls": _controls(
        "27.2.1.1", "Reserved bits of the primary processor-based controls are as MSR 0x48E says.", _proc
    ),
    "entry-secondary-controls": _controls(
        "27.2.1.1", "Reserved bits of the secondary processor-based controls are as MSR 0x48B says.", _proc2
    ),
    "entry-cr3-targets": _controls(
        "27.2.1.1",
        "The CR3-target count is not above what MSR 0x485 says.",
        lambda v: v["cr3_target_count"] > v.msr(0x485) >> 16 & 0x1FF,
    ),
    "entry-io-bitmaps": _controls(
        "27.2.1.1",
        "The I/O bitmaps lie on pages of physical memory.",
        lambda v: v.proc(25) and (not_physical(v, v["io_bitmap_a"]) or not_physical(v, v["io_bitmap_b"])),
    ),
    "entry-msr-bitmap": _controls(
        "27.2.1.1",
        "The MSR bitmap lies on a page of physical memory.",
        lambda v: v.proc(28) and not_physical(v, v["msr_bitmap"]),
    ),
    "entry-virtual-apic": _controls(
        "27.2.1.1",
        "The virtual-APIC page lies on a page of physical memory.",
        lambda v: v.proc(21) and not_physical(v, v["virtual_apic_page_addr"]),
    ),
    "entry-tpr-threshold": _controls("27.2.1.1", "Bits 31:4 of the TPR threshold are 0.", _tpr_threshold),
    "entry-tpr-below": _controls("27.2.1.1", "The TPR threshold is not above bits 7:4 of the virtual TPR.", _tpr_below),
    "entry-nmi-exiting": _controls("27.2.1.1", "Virtual NMIs need NMI exiting.", lambda v: v.pin(5) and not v.pin(3)),
    "entry-nmi-window": _controls(
        "27.2.1.1", "NMI-window exiting needs virtual NMIs.", lambda v: v.proc(22) and not v.pin(5)
    ),
    "entry-apic-access": _controls(
        "27.2.1.1",
        "The APIC-access page lies on a page of physical memory.",
        lambda v: v.proc2(0) and not_physical(v, v["apic_access_addr"]),
    ),
    "entry-needs-tpr-shadow": _controls(
        "27.2.1.1",
        "x2APIC mode, APIC-register virtualisation and virtual-interrupt delivery need the TPR shadow.",
        lambda v: not v.proc(21) and (v.proc2(4) or v.proc2(8) or v.proc2(9)),
    ),
    "entry-x2apic-mode": _controls(
        "27.2.1.1", "Virtualise x2APIC mode excludes virtualise APIC accesses.", lambda v: v.proc2(4) and v.proc2(0)
    ),
    "entry-interrupt-delivery": _controls(
        "27.2.1.1",
        "Virtual-interrupt delivery needs external-interrupt exiting.",
        lambda v: v.proc2(9) and not v.pin(0),
    ),
    "entry-posted-interrupts": _controls(
        "27.2.1.1",
        "Posted interrupts need virtual-interrupt delivery, acknowledging at exit, a vector up to 255, a descriptor of "
        "64 bytes by its own size.",
        _posted,
    ),
    "entry-vpid": _controls(
        "27.2.1.1", "VPID 0 is the host's.", lambda v: v.proc2(5) and not v["virtual_processor_id"]
    ),
    "entry-ept-pointer": _controls("27.2.1.1", "The EPT pointer is one that MSR 0x48C allows.", _ept_pointer),
    "entry-needs-ept": _controls(
        "27.2.1.1",
        "Page-modification logging, unrestricted guest, mode-based execute control and sub-page write permissions need "
        "EPT.",
        lambda v: not v.ept and any(v.proc2(bit) for bit in (7, 17, 22, 23)),
    ),
    "entry-pml-address": _controls(
        "27.2.1.1",
        "The log of modified pages lies on a page.",
        lambda v: v.proc2(17) and not_physical(v, v["pml_address"]),
    ),
    "entry-vm-functions": _controls("27.2.1.1", "Reserved VM functions are off.", _functions),
    "entry-eptp-list": _controls("27.2.1.1", "EPTP switching needs EPT, and a list on a page.", _eptp_list),
    "entry-shadow-bitmaps": _controls(
        "27.2.1.1",
        "The VMREAD and VMWRITE bitmaps lie on pages of physical memory.",
        lambda v: v.proc2(14) and (not_physical(v, v["vmread_bitmap"]) or not_physical(v, v["vmwrite_bitmap"])),
    ),
    "entry-ve-information": _controls(
        "27.2.1.1",
        "The virtualisation-exception information lies on a page of physical memory.",
        lambda v: v.proc2(18) and not_physical(v, v["ve_information_address"]),
    ),
    "entry-tsc-multiplier": _controls(
        "27.2.1.1", "The TSC multiplier is not 0.", lambda v: v.proc2(25) and not v["tsc_multiplier"]
    ),
    # --- VM-exit controls ---
    "entry-exit-controls": _controls("27.2.1.2", "Reserved bits of the VM-exit controls are as MSR 0x48F says.", _exit),
    "entry-save-timer": _controls(
        "27.2.1.2", "Saving the preemption timer needs it activated.", lambda v: v.exit(22) and not v.pin(6)
    ),
    "entry-exit-msr-store": _controls(
        "27.2.1.2", "The VM-exit MSR-store area is aligned and in physical memory.", _msr_area("vm_exit_msr_store")
    ),
    "entry-exit-msr-load": _controls(
        "27.2.1.2", "The VM-exit MSR-load area is aligned and in physical memory.", _msr_area("vm_exit_msr_load")
    ),
    # --- VM-entry controls and event injection ---
    "entry-entry-controls": _controls(
        "27.2.1.3", "Reserved bits of the VM-entry controls are as MSR 0x490 says.", _entry
    ),
    "entry-smm": _controls(
        "27.2.1.3",
        "Outside SMM no entry to SMM, and the dual-monitor treatment stays.",
        lambda v: v.entry(10) or v.entry(11),
    ),
    "entry-entry-msr-load": _controls(
        "27.2.1.3", "The VM-entry MSR-load area is aligned and in physical memory.", _msr_area("vm_entry_msr_load")
    ),
    "entry-event-type": _controls("27.2.1.3", "The type of an injected event is not reserved.", _type),
    "entry-event-vector": _controls("27.2.1.3", "The vector of an injected event fits its type.", _vector),
    "entry-event-error-code": _controls(
        "27.2.1.3", "An injected event has an error code where the exception has one.", _error_code
    ),
    "entry-event-reserved": _controls("27.2.1.3", "Reserved bits of the interruption information are 0.", _injected),
    "entry-error-code-bits": _controls("27.2.1.3", "Bits 31:16 of an injected error code are 0.", _error_code_bits),
    "entry-instruction-length": _controls(
        "27.2.1.3",
        "The instruction length of an injected software event is 1 to 15, or 0 where MSR 0x485 lets it.",
        _length,
    ),
}
