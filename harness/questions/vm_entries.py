"""VM entries with fields changed: for each of the manual's checks what must fail by it, and neighbours that must not.

What fails is not written down here: the contract decides it from the whole VMCS and L1's capability MSRs. The same id
may fail on one virtual CPU and enter on another that offers more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kvmodel.question.vector import Mbec, Paging
from kvmodel.question.vm_entry import VmEntryVector, changes
from kvmodel.question.vmcs import EXIT_INFORMATION, FIELDS, REGION, SCRATCH, width

NOT_CANONICAL: Final = 1 << 62  # with 48 and with 57 linear-address bits
CANONICAL: Final = 0xFFFF_8000_0000_0000
BEYOND: Final = 51  # an address bit beyond what any of our machines has
MISALIGNED: Final = SCRATCH + 0x800

# (field, the control and its bit that make it count)
PAGES: Final = (
    ("io_bitmap_a", "cpu_based_vm_exec_control:s25"),
    ("io_bitmap_b", "cpu_based_vm_exec_control:s25"),
    ("msr_bitmap", "cpu_based_vm_exec_control:s28"),
    ("virtual_apic_page_addr", "cpu_based_vm_exec_control:s21"),
    ("apic_access_addr", "secondary_vm_exec_control:s0"),
    ("pml_address", "secondary_vm_exec_control:s17"),
    ("vmread_bitmap", "secondary_vm_exec_control:s14"),
    ("vmwrite_bitmap", "secondary_vm_exec_control:s14"),
    ("ve_information_address", "secondary_vm_exec_control:s18"),
)
EXTERNAL, NMI, EXCEPTION, SOFTWARE, PRIVILEGED, SOFT_EXCEPTION, OTHER = (
    n << 8 | 1 << 31 for n in (0, 2, 3, 4, 5, 6, 7)
)
WITH_ERROR: Final = 1 << 11
SEGMENTS: Final = ("cs", "ss", "ds", "es", "fs", "gs")
UNRESTRICTED_OFF: Final = "secondary_vm_exec_control:c7"
EPT_OFF: Final = "secondary_vm_exec_control:c1+secondary_vm_exec_control:c7"
REAL_MODE: Final = "guest_cr0:c0"


def _asked(texts: Iterator[str] | list[str], paging: Paging = Paging.LONG) -> Iterator[VmEntryVector]:
    for text in texts:
        yield VmEntryVector(Mbec.OFF, changes=changes(text), paging=paging)


def _every_bit(field: str) -> Iterator[str]:
    """Each bit of a field set, and each cleared: one of the two is what the probe wrote."""
    for bit in range(width(FIELDS[field])):
        yield f"{field}:s{bit}"
        yield f"{field}:c{bit}"


def _control_bits() -> Iterator[str]:
    for field in (
        "pin_based_vm_exec_control",
        "cpu_based_vm_exec_control",
        "secondary_vm_exec_control",
        "vm_exit_controls",
        "vm_entry_controls",
    ):
        yield from _every_bit(field)


def _addresses() -> Iterator[str]:
    for field, control in PAGES:
        for value in (SCRATCH, MISALIGNED, SCRATCH | 1, 1 << BEYOND):
            yield f"{control}+{field}={value:x}"
        yield f"{field}={MISALIGNED:x}"  # of no account without its control


def _execution() -> Iterator[str]:
    for count in (0, 1, 4, 5, 0x100, 0xFFFFFFFF):
        yield f"cr3_target_count={count:x}"
    apic = f"cpu_based_vm_exec_control:s21+virtual_apic_page_addr={SCRATCH:x}"
    for threshold in (0, 1, 5, 0xF, 0x10, 0x8000_0000):
        yield f"{apic}+tpr_threshold={threshold:x}"
    for tpr in (0x4F, 0x50, 0x6F):  # byte 0x80 of the page: the virtual TPR, whose bits 7:4 count
        yield f"{apic}+tpr_threshold=5+mem16={tpr:x}"
    yield f"{apic}+tpr_threshold=5+secondary_vm_exec_control:s0+apic_access_addr={SCRATCH:x}"
    yield "tpr_threshold=10"
    yield "pin_based_vm_exec_control:s3+pin_based_vm_exec_control:s5"
    yield "pin_based_vm_exec_control:s5+pin_based_vm_exec_control:c3"
    yield "cpu_based_vm_exec_control:s22+pin_based_vm_exec_control:s3+pin_based_vm_exec_control:s5"
    yield "cpu_based_vm_exec_control:s22+pin_based_vm_exec_control:s3"
    for bit in (4, 8, 9):
        yield f"{apic}+secondary_vm_exec_control:s{bit}"
        yield f"{apic}+secondary_vm_exec_control:s{bit}+pin_based_vm_exec_control:c0"
        yield f"{apic}+secondary_vm_exec_control:s{bit}+secondary_vm_exec_control:s0"
    delivery = f"{apic}+secondary_vm_exec_control:s9+pin_based_vm_exec_control:s7"
    for nv, address in ((0xF2, SCRATCH + 0x40), (0x1F2, SCRATCH), (0xF2, SCRATCH + 0x20), (0xF2, 1 << BEYOND)):
        yield f"{delivery}+posted_intr_nv={nv:x}+posted_intr_desc_addr={address:x}"
    yield f"{delivery}+posted_intr_nv=f2+vm_exit_controls:c15"
    yield f"{apic}+pin_based_vm_exec_control:s7"
    for vpid in (0, 1, 0xFFFF):
        yield f"secondary_vm_exec_control:s5+virtual_processor_id={vpid:x}"
    for bit in (*range(12), 46, BEYOND, 52, 63):
        yield f"ept_pointer:s{bit}"
        if bit < 7:
            yield f"ept_pointer:c{bit}"
    yield "ept_pointer:c1+ept_pointer:c2"  # uncacheable
    yield "ept_pointer:s0+secondary_vm_exec_control:c1+secondary_vm_exec_control:c7"
    yield EPT_OFF
    yield "secondary_vm_exec_control:c1"
    for bit in (17, 18, 22, 23):
        yield f"{EPT_OFF}+secondary_vm_exec_control:s{bit}"
    for value in (0, 1, 2, 1 << 63):
        yield f"secondary_vm_exec_control:s13+vm_function_control={value:x}"
    for address in (SCRATCH, SCRATCH | 8, 1 << BEYOND):
        yield f"secondary_vm_exec_control:s13+vm_function_control=1+eptp_list_address={address:x}"
    yield f"{EPT_OFF}+secondary_vm_exec_control:s13+vm_function_control=1"
    for value in (0, 1 << 48):
        yield f"secondary_vm_exec_control:s25+tsc_multiplier={value:x}"


def _exit_and_entry() -> Iterator[str]:
    yield "vm_exit_controls:s22+pin_based_vm_exec_control:s6"
    for area in ("vm_exit_msr_store", "vm_exit_msr_load", "vm_entry_msr_load"):
        for address in (SCRATCH, SCRATCH | 8, SCRATCH | 1, 1 << BEYOND, (1 << 52) - 16):
            yield f"{area}_count=1+{area}_addr={address:x}+mem0=c0000102"
        yield f"{area}_addr={SCRATCH | 8:x}"
    for msr in (0xC000_0100, 0xC000_0101, 0x800, 0x8FF, 1 << 32 | 0xC000_0102):
        yield f"vm_entry_msr_load_count=1+vm_entry_msr_load_addr={SCRATCH:x}+mem0={msr:x}"
        yield f"vm_entry_msr_load_count=2+vm_entry_msr_load_addr={SCRATCH:x}+mem0=c0000102+mem2={msr:x}"
    for value in (CANONICAL, NOT_CANONICAL):
        yield f"vm_entry_msr_load_count=1+vm_entry_msr_load_addr={SCRATCH:x}+mem0=c0000102+mem1={value:x}"


def _events() -> Iterator[str]:
    def event(info: int, *rest: str) -> str:
        return "+".join([f"vm_entry_intr_info_field={info:x}", *rest])

    yield event(0x12345)  # without bit 31 nothing of it counts
    yield event(EXTERNAL | 0x20)
    yield event(EXTERNAL | 0x20, "guest_rflags:c9")
    yield event(EXTERNAL | 0x20 | 1 << 8)  # type 1 is reserved
    for vector in (1, 2, 3):
        yield event(NMI | vector)
    for vector in (0, 1, 3, 6, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 30, 31, 32, 255):
        yield event(EXCEPTION | vector)
        yield event(EXCEPTION | vector | WITH_ERROR)
    for code in (0, 0x7FFF, 0x10000, 0x8000_0000):
        yield event(EXCEPTION | WITH_ERROR | 13, f"vm_entry_exception_error_code={code:x}")
    yield event(EXCEPTION | 6, "vm_entry_exception_error_code=10000")
    for kind in (EXTERNAL | 0x20, NMI | 2, SOFTWARE | 0x20, SOFT_EXCEPTION | 3, OTHER):
        yield event(kind | WITH_ERROR, "vm_entry_instruction_len=1")
    for bit in (12, *range(14, 31)):
        yield event(EXCEPTION | 6 | 1 << bit)
    for kind in (SOFTWARE | 0x80, PRIVILEGED | 1, SOFT_EXCEPTION | 3):
        for length in (0, 1, 15, 16, 0x100):
            yield event(kind, f"vm_entry_instruction_len={length:x}")
    yield event(EXCEPTION | 6, "vm_entry_instruction_len=10")
    for vector in (0, 1):
        yield event(OTHER | vector)
    real = "vm_entry_controls:c9+guest_ia32_efer:c8+guest_ia32_efer:c10+guest_cr0:c31+guest_cr0:c0"
    yield event(EXCEPTION | 13, real)  # real mode has no error codes
    yield event(EXCEPTION | 13 | WITH_ERROR, real)


def _host() -> Iterator[str]:
    for bit in (0, 5, 31, 32, 63):
        yield f"host_cr0:{'s' if bit > 31 else 'c'}{bit}"
    for change in ("s7", "s9", "c5", "c13", "s13", "s15", "s26", "s30", "s32", "s63"):
        yield f"host_cr4:{change}"
    yield "host_cr4:s23+host_cr0:c16"
    for bit in (46, BEYOND, 52, 60, 63):
        yield f"host_cr3:s{bit}"
    for name in ("host_ia32_sysenter_esp", "host_ia32_sysenter_eip", "host_fs_base", "host_gs_base", "host_tr_base"):
        for value in (CANONICAL, NOT_CANONICAL):
            yield f"{name}={value:x}"
    for name in ("host_gdtr_base", "host_idtr_base", "host_rip"):
        yield f"{name}={NOT_CANONICAL:x}"
    for value in (0x0007_0406_0007_0406, 0x0007_0406_0007_0402, 0x0307_0406_0007_0406, 0x0807_0406_0007_0406):
        yield f"vm_exit_controls:s19+host_ia32_pat={value:x}"
    yield "host_ia32_pat=2"
    for change in ("s1", "s9", "s12", "s32", "c8", "c10", "s11", "s0"):
        yield f"host_ia32_efer:{change}"
        yield f"host_ia32_efer:{change}+vm_exit_controls:c21"
    for name in ("es", "cs", "ss", "ds", "fs", "gs", "tr"):
        for bit in range(3):
            yield f"host_{name}_selector:s{bit}"
        if name in ("cs", "tr"):
            yield f"host_{name}_selector=0"
    yield "host_ss_selector=0"
    yield "host_fs_selector=10"
    yield "vm_exit_controls:c9"
    out_of_long_mode = "vm_exit_controls:c9+vm_entry_controls:c9+guest_ia32_efer:c8+guest_ia32_efer:c10"
    yield out_of_long_mode
    yield f"{out_of_long_mode}+host_ia32_efer:c8+host_ia32_efer:c10"  # the EFER of such a host goes with it
    yield f"{out_of_long_mode}+vm_exit_controls:c21"  # or is not loaded


def _guest_registers() -> Iterator[str]:
    for bit in (0, 5, 29, 30, 31, 32, 63):
        yield f"guest_cr0:{'c' if bit in (0, 5, 31) else 's'}{bit}"
    yield from _every_bit("guest_cr4")
    yield "guest_cr4:s23+guest_cr0:c16"
    for bit in (46, BEYOND, 52, 60, 63):
        yield f"guest_cr3:s{bit}"
    for bit in (1, 4, 5, 16, 31, 32, 63):
        yield f"vm_entry_controls:s2+guest_ia32_debugctl:s{bit}"
        yield f"vm_entry_controls:c2+guest_ia32_debugctl:s{bit}"
    for bit in (31, 32, 63):
        yield f"vm_entry_controls:s2+guest_dr7:s{bit}"
        yield f"vm_entry_controls:c2+guest_dr7:s{bit}"
    for name in ("guest_sysenter_esp", "guest_sysenter_eip"):
        for value in (CANONICAL, NOT_CANONICAL):
            yield f"{name}={value:x}"
    for value in (0x0007_0406_0007_0406, 0x0007_0406_0007_0402, 0x0307_0406_0007_0406, 0x0807_0406_0007_0406):
        yield f"vm_entry_controls:s14+guest_ia32_pat={value:x}"
    yield "guest_ia32_pat=2"
    for change in ("s1", "s9", "s12", "s32", "c8", "c10", "c11", "s0"):
        yield f"guest_ia32_efer:{change}"
        yield f"guest_ia32_efer:{change}+vm_entry_controls:c15"


def _segments() -> Iterator[str]:
    for name in SEGMENTS:
        rights = 0xA09B if name == "cs" else 0xC093
        for bit in (*range(12), *range(13, 18), 31):
            yield f"guest_{name}_ar_bytes={rights ^ 1 << bit:x}"
        for kind in range(16):
            yield f"guest_{name}_ar_bytes={rights & ~0xF | kind:x}"
        for limit in (0, 0xFFFFF, 0xFFFFE, 0x100000, 0xFFF00FFF):
            yield f"guest_{name}_ar_bytes={rights:x}+guest_{name}_limit={limit:x}"
            yield f"guest_{name}_ar_bytes={rights & ~0x8000:x}+guest_{name}_limit={limit:x}"
        for base in (0x1000, 1 << 32, CANONICAL, NOT_CANONICAL):
            yield f"guest_{name}_ar_bytes={rights:x}+guest_{name}_base={base:x}"
        if name != "cs":
            yield f"guest_{name}_ar_bytes=1f00f"  # unusable: nothing of it counts but SS.DPL
            yield f"guest_{name}_ar_bytes=10000+guest_{name}_base={1 << 32:x}"
            yield f"guest_{name}_ar_bytes=10000+guest_{name}_limit=0"
        for rpl in (1, 3):
            yield f"guest_{name}_selector:s{rpl // 2}"
            yield f"guest_{name}_selector:s{rpl // 2}+{UNRESTRICTED_OFF}"
    # privilege: CS, SS and data segments together
    for cs, ss in (
        (0xA0FB, 0xC0F3),
        (0xA0FB, 0xC093),
        (0xA09B, 0xC0F3),
        (0xA0FF, 0xC0F3),
        (0xA09F, 0xC0F3),
        (0xA0FF, 0xC093),
    ):
        yield f"guest_cs_ar_bytes={cs:x}+guest_ss_ar_bytes={ss:x}"
        yield f"guest_cs_ar_bytes={cs:x}+guest_ss_ar_bytes={ss:x}+{UNRESTRICTED_OFF}"
        both = "guest_cs_selector=b+guest_ss_selector=13"
        yield f"guest_cs_ar_bytes={cs:x}+guest_ss_ar_bytes={ss:x}+{both}+{UNRESTRICTED_OFF}"
    for name in ("ds", "es", "fs", "gs"):
        yield f"guest_{name}_ar_bytes=c0f3+guest_{name}_selector=13+{UNRESTRICTED_OFF}"
        yield f"guest_{name}_ar_bytes=c0d3+guest_{name}_selector=13+{UNRESTRICTED_OFF}"
        yield f"guest_{name}_ar_bytes=c09f+guest_{name}_selector=13+{UNRESTRICTED_OFF}"  # conforming code
        yield f"guest_{name}_ar_bytes=c0d3+guest_{name}_selector=13"
    yield "guest_cs_ar_bytes=a093"  # type 3
    yield f"guest_cs_ar_bytes=a093+{UNRESTRICTED_OFF}"
    yield "guest_cs_ar_bytes=a0f3+guest_ss_ar_bytes=c0f3"
    yield "guest_cs_ar_bytes=e09b"  # L and D
    # TR and LDTR
    for bit in (*range(5), *range(7, 12), 15, 16, 17, 31):
        yield f"guest_tr_ar_bytes={0x8B ^ 1 << bit:x}"
        yield f"guest_ldtr_ar_bytes={0x82 ^ 1 << bit:x}"
    yield "guest_ldtr_ar_bytes=82+guest_ldtr_limit=fffff"
    for name, rights in (("tr", 0x8B), ("ldtr", 0x82)):
        for limit in (0x67, 0xFFFFF, 0x100000, 0xFFFFFFFF):
            for coarse in (0, 0x8000):
                yield f"guest_{name}_ar_bytes={rights | coarse:x}+guest_{name}_limit={limit:x}"
        yield f"guest_{name}_selector:s2+guest_{name}_ar_bytes={rights:x}+guest_{name}_limit=67"
        for base in (1 << 32, CANONICAL, NOT_CANONICAL):
            yield f"guest_{name}_base={base:x}+guest_{name}_ar_bytes={rights:x}+guest_{name}_limit=67"
    yield "guest_ldtr_selector:s2"
    yield f"guest_ldtr_base={NOT_CANONICAL:x}"
    for name in ("gdtr", "idtr"):
        for base in (CANONICAL, NOT_CANONICAL):
            yield f"guest_{name}_base={base:x}"
        for limit in (0xFFFF, 0x10000, 0x8000_0000):
            yield f"guest_{name}_limit={limit:x}"


def _guest_state() -> Iterator[str]:
    for rip in (CANONICAL, NOT_CANONICAL, 1 << 48, 1 << 63):
        yield f"guest_rip={rip:x}"
    yield "guest_rip:s32+guest_cs_ar_bytes=c09b"  # compatibility mode
    yield "guest_cs_ar_bytes=c09b"
    for bit in (*range(19), 21, 22, 31, 32, 63):
        yield f"guest_rflags:{'c' if bit in (1, 9) else 's'}{bit}"
    for bit in range(5):
        yield f"guest_interruptibility_info:s{bit}"
    for bit in (5, 15, 31):
        yield f"guest_interruptibility_info:s{bit}"
    yield "guest_interruptibility_info=3"
    yield "guest_interruptibility_info=1+guest_rflags:c9"
    for blocking in (1, 2, 8):
        yield f"guest_interruptibility_info={blocking}+vm_entry_intr_info_field=80000020"
        yield f"guest_interruptibility_info={blocking}+vm_entry_intr_info_field=80000202"
        yield f"guest_interruptibility_info={blocking}+vm_entry_intr_info_field=80000306"
        if (
            blocking != 8
        ):  # an NMI where virtual NMIs are blocked: KVM enters, and whose doing that is is not argued yet
            virtual = "pin_based_vm_exec_control:s3+pin_based_vm_exec_control:s5"
            yield f"guest_interruptibility_info={blocking}+vm_entry_intr_info_field=80000202+{virtual}"
    halted = "guest_activity_state=1"
    yield halted
    for state in (4, 5, 0x100, 0xFFFFFFFF):
        yield f"guest_activity_state={state:x}"
    yield f"{halted}+guest_interruptibility_info=1"
    yield f"{halted}+guest_interruptibility_info=2"
    yield f"{halted}+guest_interruptibility_info=8"
    yield f"{halted}+guest_cs_ar_bytes=a0fb+guest_ss_ar_bytes=c0f3"
    for info in (0x8000_0020, 0x8000_0202, 0x8000_0301, 0x8000_0312, 0x8000_0306, 0x8000_0B0D, 0x8000_0700):
        yield f"{halted}+vm_entry_intr_info_field={info:x}"
    for info in (0x8000_0480, 0x8000_0501, 0x8000_0603):
        yield f"{halted}+vm_entry_intr_info_field={info:x}+vm_entry_instruction_len=1"
    for bit in (0, 3, 4, 10, 12, 13, 14, 17, 31, 32, 63):
        yield f"guest_pending_dbg_exceptions:s{bit}"
    for blocking in (1, 2):
        for pending in ("0", "4000"):
            both = f"guest_interruptibility_info={blocking}+guest_pending_dbg_exceptions={pending}"
            yield both
            yield f"{both}+guest_rflags:s8+vm_entry_controls:s2"
            yield f"{both}+guest_rflags:s8+vm_entry_controls:s2+guest_ia32_debugctl:s1"
    for pointer in (SCRATCH, SCRATCH | 8, 1 << BEYOND, 1 << 52, REGION):
        yield f"vmcs_link_pointer={pointer:x}"
    yield f"vmcs_link_pointer={SCRATCH:x}+mem0=ffffffff"


def _pae() -> Iterator[str]:
    for number in range(4):
        for bit in (*range(9), 9, 12, BEYOND, 52, 63):
            yield f"guest_pdptr{number}:s0+guest_pdptr{number}:s{bit}"
        yield f"guest_pdptr{number}=1e6"
    yield "guest_pdptr1=8000000000000000"
    yield "vm_entry_controls:s9"
    yield "vm_entry_controls:s9+guest_ia32_efer:s8+guest_ia32_efer:s10"
    yield "guest_cr4:s17"
    yield "guest_tr_ar_bytes=83"
    yield "guest_rip:s32"
    yield "guest_ia32_efer:s8"
    yield "guest_ia32_efer:s10"


def _off() -> Iterator[str]:
    yield "guest_cr0:s31+guest_cr0:c0"
    yield REAL_MODE
    yield f"{REAL_MODE}+{UNRESTRICTED_OFF}"
    yield UNRESTRICTED_OFF
    yield f"{REAL_MODE}+guest_ss_ar_bytes=c0f3+guest_cs_ar_bytes=c09f"
    yield f"{REAL_MODE}+guest_rflags:s17"
    yield f"{REAL_MODE}+guest_tr_ar_bytes=83"
    yield "guest_ia32_efer:s8"  # LME without LMA is possible without paging
    yield "guest_rip:s32"


def _v8086() -> Iterator[str]:
    rights = "+".join(f"guest_{name}_ar_bytes=f3" for name in ("cs", "ss"))
    yield f"guest_rflags:s17+{rights}"
    yield "guest_rflags:s17"


def _left() -> Iterator[str]:
    """What is saved of state that VM entry did and did not load, by an exit and by an entry that fails: the fields
    hold what no L1 has."""
    fails = "guest_rflags:c1"
    for bit, value, field in ((2, 0x455, "guest_dr7"), (2, 2, "guest_ia32_debugctl"), (14, 0x60606, "guest_ia32_pat")):
        save = f"vm_exit_controls:s{2 if bit == 2 else 18}"
        for loaded in ("s", "c"):
            entered = f"{save}+vm_entry_controls:{loaded}{bit}+{field}={value:x}"
            yield entered
            yield f"{entered}+{fails}"
    for loaded in ("s", "c"):
        entered = f"vm_exit_controls:s20+vm_entry_controls:{loaded}15+guest_ia32_efer:s0"
        yield entered
        yield f"{entered}+{fails}"
    # what the field holds of an exit before: left alone by both kinds of failure, and by an exit that has none of it
    for field in EXIT_INFORMATION:
        if field not in ("vm_exit_reason", "exit_qualification", "vm_exit_intr_error_code"):
            yield f"{field}=81111111+{fails}"
        yield f"{field}=81111111+vm_exit_controls:c9"
    for field in ("vm_exit_intr_info", "idt_vectoring_info_field", "vm_exit_instruction_len"):
        yield f"{field}=81111111"
    yield f"guest_activity_state=1+{fails}"
    yield f"vm_entry_intr_info_field={EXCEPTION | 6:x}+{fails}"
    yield f"vm_entry_intr_info_field={NMI | 2:x}+guest_interruptibility_info=8+{fails}"
    for change in ("guest_fs_base=1000", "guest_gs_base=1000", "guest_gdtr_limit=1234", "guest_sysenter_esp=1000"):
        yield change
        yield f"{change}+{fails}"


def entry_checks() -> Iterator[VmEntryVector]:
    """The part asks each check of VM entry (SDM 27.2 to 27.4), on controls, host state, guest state and MSRs to load:
    VMCS fields that must fail it with the manual's number, and neighbours that must pass."""
    yield VmEntryVector(Mbec.OFF)
    for texts in (_control_bits, _addresses, _execution, _exit_and_entry, _events, _host):
        yield from _asked(texts())
    for texts in (_guest_registers, _segments, _guest_state, _left):
        yield from _asked(texts())
    for paging, texts in ((Paging.PAE, _pae), (Paging.BITS32, _v8086), (Paging.OFF, _off)):
        yield VmEntryVector(Mbec.OFF, paging=paging)
        yield from _asked(texts(), paging)
