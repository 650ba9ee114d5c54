"""The VMCS fields that a vector may change, by KVM's names, and one change of one of them.

Names are those of enum vmcs_field in arch/x86/include/asm/vmx.h, in lower case, encodings those of SDM appendix B. Two
more words of an id are no fields: ``mem0`` to ``mem31``, the 64-bit words of a page of L1's memory at ``SCRATCH``, that
an address field can point to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from kvmodel.question.vector import VectorError

SCRATCH: Final = 0x101D000  # L1-physical
REGION: Final = 0x101E000  # L1-physical: the VMCS itself
WORDS: Final = 32  # of the scratch page that a vector may write
MEMORY: Final = 0x10000  # the encoding of word 0, beyond those of fields

_SEGMENTS: Final = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")
FIELDS: Final[dict[str, int]] = {
    "virtual_processor_id": 0x0000,
    "posted_intr_nv": 0x0002,
    **{f"guest_{name}_selector": 0x0800 + 2 * n for n, name in enumerate(_SEGMENTS)},
    **{f"host_{name}_selector": 0x0C00 + 2 * n for n, name in enumerate((*_SEGMENTS[:6], "tr"))},
    "io_bitmap_a": 0x2000,
    "io_bitmap_b": 0x2002,
    "msr_bitmap": 0x2004,
    "vm_exit_msr_store_addr": 0x2006,
    "vm_exit_msr_load_addr": 0x2008,
    "vm_entry_msr_load_addr": 0x200A,
    "pml_address": 0x200E,
    "virtual_apic_page_addr": 0x2012,
    "apic_access_addr": 0x2014,
    "posted_intr_desc_addr": 0x2016,
    "vm_function_control": 0x2018,
    "ept_pointer": 0x201A,
    "eptp_list_address": 0x2024,
    "vmread_bitmap": 0x2026,
    "vmwrite_bitmap": 0x2028,
    "ve_information_address": 0x202A,
    "tsc_multiplier": 0x2032,
    "vmcs_link_pointer": 0x2800,
    "guest_ia32_debugctl": 0x2802,
    "guest_ia32_pat": 0x2804,
    "guest_ia32_efer": 0x2806,
    **{f"guest_pdptr{n}": 0x280A + 2 * n for n in range(4)},
    "guest_bndcfgs": 0x2812,
    "host_ia32_pat": 0x2C00,
    "host_ia32_efer": 0x2C02,
    "pin_based_vm_exec_control": 0x4000,
    "cpu_based_vm_exec_control": 0x4002,
    "exception_bitmap": 0x4004,
    "page_fault_error_code_mask": 0x4006,
    "page_fault_error_code_match": 0x4008,
    "cr3_target_count": 0x400A,
    "vm_exit_controls": 0x400C,
    "vm_exit_msr_store_count": 0x400E,
    "vm_exit_msr_load_count": 0x4010,
    "vm_entry_controls": 0x4012,
    "vm_entry_msr_load_count": 0x4014,
    "vm_entry_intr_info_field": 0x4016,
    "vm_entry_exception_error_code": 0x4018,
    "vm_entry_instruction_len": 0x401A,
    "tpr_threshold": 0x401C,
    "secondary_vm_exec_control": 0x401E,
    **{f"guest_{name}_limit": 0x4800 + 2 * n for n, name in enumerate((*_SEGMENTS, "gdtr", "idtr"))},
    **{f"guest_{name}_ar_bytes": 0x4814 + 2 * n for n, name in enumerate(_SEGMENTS)},
    "guest_interruptibility_info": 0x4824,
    "guest_activity_state": 0x4826,
    "vmx_preemption_timer_value": 0x482E,
    "cr0_guest_host_mask": 0x6000,
    "cr4_guest_host_mask": 0x6002,
    "cr0_read_shadow": 0x6004,
    "cr4_read_shadow": 0x6006,
    "guest_cr0": 0x6800,
    "guest_cr3": 0x6802,
    "guest_cr4": 0x6804,
    **{f"guest_{name}_base": 0x6806 + 2 * n for n, name in enumerate((*_SEGMENTS, "gdtr", "idtr"))},
    "guest_dr7": 0x681A,
    "guest_rsp": 0x681C,
    "guest_rip": 0x681E,
    "guest_rflags": 0x6820,
    "guest_pending_dbg_exceptions": 0x6822,
    "guest_sysenter_esp": 0x6824,
    "guest_sysenter_eip": 0x6826,
    "host_cr0": 0x6C00,
    "host_cr3": 0x6C02,
    "host_cr4": 0x6C04,
    "host_fs_base": 0x6C06,
    "host_gs_base": 0x6C08,
    "host_tr_base": 0x6C0A,
    "host_gdtr_base": 0x6C0C,
    "host_idtr_base": 0x6C0E,
    "host_ia32_sysenter_esp": 0x6C10,
    "host_ia32_sysenter_eip": 0x6C12,
    "host_rip": 0x6C16,
    **{f"mem{n}": MEMORY + n for n in range(WORDS)},
    # what an exit tells: L1 may write it where bit 29 of MSR 0x485 is set, and an entry that fails leaves it
    "guest_physical_address": 0x2400,
    "vm_exit_reason": 0x4402,
    "vm_exit_intr_info": 0x4404,
    "vm_exit_intr_error_code": 0x4406,
    "idt_vectoring_info_field": 0x4408,
    "idt_vectoring_error_code": 0x440A,
    "vm_exit_instruction_len": 0x440C,
    "vmx_instruction_info": 0x440E,
    "exit_qualification": 0x6400,
    "guest_linear_address": 0x640A,
}
EXIT_INFORMATION: Final = (
    "guest_physical_address",
    "vm_exit_reason",
    "vm_exit_intr_info",
    "vm_exit_intr_error_code",
    "idt_vectoring_info_field",
    "idt_vectoring_error_code",
    "vm_exit_instruction_len",
    "vmx_instruction_info",
    "exit_qualification",
    "guest_linear_address",
)
PLAIN_ONLY: Final = frozenset(
    (
        "posted_intr_nv",
        "pml_address",
        "apic_access_addr",
        "posted_intr_desc_addr",
        "vm_function_control",
        "eptp_list_address",
        "vmread_bitmap",
        "vmwrite_bitmap",
        "ve_information_address",
        "tsc_multiplier",
        "vm_exit_msr_store_addr",
        "vm_exit_msr_load_addr",
        "vm_entry_msr_load_addr",
        "guest_bndcfgs",
        "vm_entry_exception_error_code",
        "vm_entry_instruction_len",
        "vmx_preemption_timer_value",
        "tpr_threshold",
        "vmx_preemption_timer_value",
        *EXIT_INFORMATION,
    )
)
"""Fields that an enlightened VMCS has not, or that the probe does not reach in one."""
_ALL_ONES: Final = (1 << 64) - 1


def width(encoding: int) -> int:
    """Bits of the field ``encoding``: 16, 64, 32, or 64 for a natural width (SDM 26.11.2, bits 14:13)."""
    return 64 if encoding >= MEMORY else (16, 64, 32, 64)[encoding >> 13 & 3]


CHANGE: Final = r"(?!mbec=|env=)[a-z]\w*[=:]\w+"  # of an id; whether it is one ``FieldChange.parse`` says
_PARTS: Final = re.compile(r"(\w+)(?:=([0-9a-f]+)|:([sc])(\d+))")


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One change of one field: ``field=VALUE`` (hexadecimal), ``field:sN`` sets bit N, ``field:cN`` clears it."""

    field: str
    how: str  # "=", "s" or "c"
    value: int  # the value, or the bit's number

    @property
    def encoding(self) -> int:
        """The field's encoding; of a word of memory ``MEMORY`` and its number."""
        return FIELDS[self.field]

    @property
    def masks(self) -> tuple[int, int]:
        """(kept, set): the field becomes what it was AND ``kept``, OR ``set``."""
        if self.how == "=":
            return 0, self.value
        return (_ALL_ONES ^ 1 << self.value, 0) if self.how == "c" else (_ALL_ONES, 1 << self.value)

    def of(self, was: int) -> int:
        """What the field holds after the change where it held ``was``."""
        kept, put = self.masks
        return was & kept | put

    def __str__(self) -> str:
        return f"{self.field}={self.value:x}" if self.how == "=" else f"{self.field}:{self.how}{self.value}"

    @classmethod
    def parse(cls, text: str) -> FieldChange:
        """The change that ``text`` says.

        VectorError names the field that is none, or the value or bit that it has no room for.
        """
        m = _PARTS.fullmatch(text)
        if m is None or m[1] not in FIELDS:
            near = get_close_matches(re.split("[=:]", text)[0], FIELDS, 3)
            meant = f"; did you mean {' or '.join(near)}?" if near else ""
            raise VectorError(f"{text!r} is no change of a VMCS field: write field=hex, field:s3 or field:c3{meant}")
        bits = width(FIELDS[m[1]])
        if m[2] is not None and int(m[2], 16) >> bits:
            raise VectorError(f"{text!r}: {m[1]} has {bits} bits, too few for {m[2]}")
        if m[4] is not None and int(m[4]) >= bits:
            raise VectorError(f"{text!r}: {m[1]} has bits 0 to {bits - 1}")
        return cls(m[1], "=", int(m[2], 16)) if m[2] is not None else cls(m[1], m[3], int(m[4]))
