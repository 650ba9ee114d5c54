"""What exits tell, field by field: L2's own control registers, what it executes, and events that cannot be delivered.

What each must tell is not written down here: the contract makes it of the whole VMCS (kvmodel.sdm.vm_exit).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Final

from harness.questions.vm_entries import (
    EXCEPTION,
    EXTERNAL,
    NMI,
    OTHER,
    PRIVILEGED,
    SOFT_EXCEPTION,
    SOFTWARE,
    UNRESTRICTED_OFF,
    WITH_ERROR,
)
from kvmodel.question.vector import Mbec, Paging, Vector
from kvmodel.question.vm_entry import changes
from kvmodel.question.vm_exit import ABSENT_LINEAR, NOTHING, VmExitVector, steps
from kvmodel.question.vmcs import SCRATCH

_EPT_OFF: Final = "secondary_vm_exec_control:c1+secondary_vm_exec_control:c7"
_UNMAPPED: Final = 0x60_0000  # L2-linear: none of its tables' pages
_PAE_IN_MEMORY: Final = f"guest_cr3={SCRATCH:x}+mem0=1004001"  # PDPTEs that a vector writes
_SAVE_EFER: Final = "vm_exit_controls:s20"
_EVERY_PORT: Final = "cpu_based_vm_exec_control:s24"
_PORTS: Final = f"cpu_based_vm_exec_control:s25+io_bitmap_a={SCRATCH:x}+io_bitmap_b={SCRATCH:x}"
_MSRS: Final = f"cpu_based_vm_exec_control:s28+msr_bitmap={SCRATCH:x}"
_TIMER: Final = "pin_based_vm_exec_control:s6+vmx_preemption_timer_value"
_PE, _TS, _WP = 1 << 0, 1 << 3, 1 << 16
_CR0: Final = 0x8001_0031  # PG, WP, NE, ET, PE: what L2 is entered with
_MODES: Final = (  # L2 takes paging, protection or both, and gives them back
    "cr0c31",
    "cr0s31",
    "cr0c31+cr0s31",
    "cr0c31+cr0c0",
    "cr0c31+cr0c0+cr0s0+cr0s31",
    "cr0c31+cr4c5+cr4s5+cr0s31",
    "cr0c31c0",
    "cr0s31s0",
    "cr0c0",
)
_PAGINGS: Final = (Paging.LONG, Paging.PAE, Paging.OFF)


def _of(done: str, changed: str = "asis", paging: Paging = Paging.LONG, env: str = "std") -> VmExitVector:
    return VmExitVector(Mbec.OFF, env=env, steps=steps(done), changes=changes(changed), paging=paging)


def exit_without_unrestricted_guest() -> Iterator[Vector]:
    """L2 takes paging and protection from itself where L1 is not offered unrestricted guest, or KVM has none: #GP."""
    for env, way, done in product(("no_unrestricted_guest", "ug0"), ("asis", "secondary_vm_exec_control:c1"), _MODES):
        yield _of(f"{done}+getcr0", way, Paging.PAE, env)
        yield _of(f"{done}+getcr0", way, Paging.LONG, env)
    for way in ("asis", "secondary_vm_exec_control:c1"):
        for source in (0, 1, 0xE, 0xF):
            yield _of(f"lmsw{source:x}+getcr0", way, Paging.LONG, "no_unrestricted_guest")
    for done in ("cr0c31", "cr0s30", "cr0s29", "cr4c5", "cr4s7", "cr4s12", "clts", "lmsw8", "cr0s30+cr4s7"):
        yield _of(f"{done}+getcr0", _EPT_OFF, Paging.PAE, "ept0")
        yield _of(f"{done}+getcr0", _EPT_OFF, Paging.LONG, "ept0")
    for event in _events():
        yield _of(NOTHING, f"{event}+{_EPT_OFF}", Paging.LONG, "ept0")


def _owned(register: int, mask: int, shadow: int) -> str:
    return f"cr{register}_guest_host_mask={mask:x}+cr{register}_read_shadow={shadow:x}"


def _shadowed(register: int, bit: int) -> Iterator[str]:
    """Mask and read shadow of one bit of CR0 or CR4, in all four states; the register's own bit is the probe's."""
    for mask, shadow in product((0, 1), (0, 1)):
        yield _owned(register, mask << bit, shadow << bit)


def _once(vectors: Iterator[Vector], elsewhere: Iterable[Vector] = ()) -> Iterator[Vector]:
    """Each of ``vectors`` once, without those that are asked ``elsewhere``."""
    asked = {v.id for v in elsewhere}
    for vector in vectors:
        if vector.id not in asked:
            asked.add(vector.id)
            yield vector


def exit_control_registers() -> Iterator[Vector]:
    """L2 itself changes bits of CR0, CR3 and CR4 with MOV, CLTS and LMSW, under masks and read shadows: which exit,
    which are #GP, and what the register then holds for L2 and for L1.
    """
    yield from _once(_of_control_registers())


def _of_control_registers() -> Iterator[VmExitVector]:
    ways = ("asis", _EPT_OFF, UNRESTRICTED_OFF)
    for paging, way in product((Paging.LONG, Paging.PAE), ways):
        for bits in ("s30", "s29", "s30s29", "c31", "c0", "s1", "s3", "s18", "c5", "c16", "c4"):
            if (bits, paging) != ("c31", Paging.PAE) or way == "asis":  # else see exit_without_unrestricted_guest
                yield _of(f"cr0{bits}+getcr0", way, paging)
        yield _of("cr0s30s29+cr0c30+getcr0", way, paging)
        yield _of("cr0s30s29+cr0c30c29+getcr0", way, paging)
        yield _of("cr0s3+clts+getcr0", way, paging)
        for source in (0, 1, 2, 8, 0xE, 0xF):
            yield _of(f"lmsw{source:x}+getcr0", way, paging)
        for bit in (0, 2, 4, 5, 7, 9, 11, 12, 13, 14, 15, 17, 18, 20, 21, 22, 23, 24, 25, 31):
            yield _of(f"cr4s{bit}+getcr4", way, paging)
            yield _of(f"cr4c{bit}+getcr4", way, paging)
    for bit in (32, 63):
        yield _of(f"cr0s{bit}+getcr0")
        yield _of(f"cr4s{bit}+getcr4")
    for bit in (3, 4, 39, 51, 52, 60, 63):
        yield _of(f"cr3s{bit}+getcr3")
        yield _of(f"cr4s17+cr3s{bit}+getcr3")
    yield _of("cr3s3+cr4s17+getcr4")  # CR3 bits 11:0 are 0 where PCIDE is set
    yield _of("cr3s3+cr3c3+cr4s17+getcr4")
    yield _of("cr4s17+cr3s0+getcr3")
    yield _of("cr4s17+cr3s0+cr4c17+getcr3")
    yield _of("cr4s17+cr0c31+getcr0")
    for paging in (Paging.PAE, Paging.OFF):
        for done in _MODES:
            yield _of(f"{done}+getcr0", "asis", paging)
        for done in ("cr4c5", "cr4s5", "cr4s5+cr4c5", "cr4s17"):
            yield _of(f"{done}+getcr4", "asis", paging)
    for word, number in product(("1", "3", "20", "80", "200", "8000000000000001", "0"), (1, 2, 3)):
        memory = f"{_PAE_IN_MEMORY}+mem{number}={int(word, 16) | 0x1004001 if word != '0' else 0:x}"
        fields = f"{memory}+guest_pdptr0=1004001"
        yield _of("cr0c31+cr0s31+getcr0", fields, Paging.PAE)
        yield _of("cr4s7+getcr4", fields, Paging.PAE)
        yield _of("cr0s30+getcr0", fields, Paging.PAE)
        yield _of("cr4s7+getcr4", f"{fields}+{_EPT_OFF}", Paging.PAE)
        yield _of("cr4s5+cr0s31+getcr0", f"{memory}", Paging.OFF)
    wide = f"guest_cr3=1001000+guest_ia32_efer:s8+{_SAVE_EFER}"
    for done in ("cr4s5+cr0s31+getcr0", "cr0s31", "cr4s5+cr0s31+cr0c31+getcr0", "cr4s5+cr0s31+cr4c5"):
        yield _of(done, wide, Paging.OFF)
    for bit, paging in product((0, 1, 2, 3, 5, 16, 18, 29, 30, 31), _PAGINGS):
        for masked in _shadowed(0, bit):
            for done in (f"cr0s{bit}", f"cr0c{bit}"):
                yield _of(f"{done}+getcr0", masked, paging)
                if bit in (1, 2, 3, 18):  # with a bit that a hypervisor under L1 keeps for itself
                    yield _of(f"{done}s30+getcr0", masked, paging)
            if bit < 4:
                yield _of(f"lmsw{1 << bit:x}+getcr0", masked, paging)
                yield _of(f"lmsw{0xF & ~(1 << bit):x}+smsw", masked, paging)
        if bit == 3:
            for masked, own in product(_shadowed(0, bit), ("s3", "c3")):
                yield _of("clts+getcr0", f"{masked}+guest_cr0:{own}", paging)
                yield _of("clts+smsw", f"{masked}+guest_cr0:{own}+{_EPT_OFF}", Paging.LONG)
    for bit, paging in product((4, 5, 7, 9, 13, 17, 18, 20), _PAGINGS):
        for masked in _shadowed(4, bit):
            for done in (f"cr4s{bit}", f"cr4c{bit}"):
                yield _of(f"{done}+getcr4", masked, paging)
    for bit in (15, 16):
        for done in ("cr3s3+getcr3", "getcr3", "cr3s63"):
            yield _of(done, f"cpu_based_vm_exec_control:s{bit}")


def _of_owned_bits() -> Iterator[VmExitVector]:
    for mask, shadow, own in product((0, _TS, _TS | _PE), (0, _TS, _TS | _PE, _CR0), "sc"):
        for done in ("clts+getcr0", "getcr0"):
            yield _of(done, f"{_owned(0, mask, shadow)}+guest_cr0:{own}3")
    for source, mask, shadow in product((0, 1, 3, 8, 9, 0xFFF1), (0, 1, 2, 8, 0xF), (0, 1, 8, 9)):
        yield _of(f"lmsw{source:x}+getcr0", _owned(0, mask, shadow))
    for bit in (1, 3, 16, 18):
        for masked, how in product(_shadowed(0, bit), "sc"):
            yield _of(f"cr0{how}{bit}+getcr0", masked)
            yield _of(f"cr0{how}{bit}s2+getcr0", masked)  # with a bit beside it that is L2's own
    for shadow, how, beside in product((0, _WP), "sc", ("", "s18", "s18s1")):
        for mask, own in product((0, _WP), "sc"):
            yield _of(f"cr0{how}16{beside}+write", f"{_owned(0, mask, shadow)}+guest_cr0:{own}16")
    for bit in (2, 4, 7):
        for masked, how in product(_shadowed(4, bit), "sc"):
            yield _of(f"cr4{how}{bit}+getcr4", masked)
            yield _of("getcr4", f"{masked}+guest_cr4:{how}{bit}")


def exit_owned_bits() -> Iterator[Vector]:
    """L1 owns bits of CR0 and CR4, several at once: MOV, CLTS and LMSW exit by the read shadow and leave what L1 owns;
    with CR0.WP a write of L2's to a page that its tables make read-only faults or does not.
    """
    yield from _once(_of_owned_bits(), exit_control_registers())


def exit_bitmaps() -> Iterator[Vector]:
    """I/O and MSR bitmaps have a bit set: that of the port or MSR, its neighbours, of accesses over several ports and
    over both bitmaps.
    """
    for done, (word, bit) in product(
        ("inb0707", "inb0708", "inb0709", "inw0707", "inw0708", "inl0706", "inl0707", "inl0708", "inl0709"),
        ((28, 7), (28, 8), (28, 9)),
    ):
        yield _of(done, f"{_PORTS}+mem{word}={1 << bit:x}")
    for done in ("inb0708", "inw0708", "inl0708"):
        for way in ("asis", _EVERY_PORT, _PORTS, f"{_PORTS}+{_EVERY_PORT}"):  # with bitmaps the one control is nothing
            yield _of(done, way)
    for done, bit in product(("inb8000", "inb8001", "inw7fff", "inl7ffe", "inl7fff"), (0, 1, 2)):
        yield _of(done, f"{_PORTS}+mem0={1 << bit:x}")
    for done, bit in product(("rdmsr174", "rdmsr175", "rdmsr176", "wrmsr174"), (51, 52, 53, 54)):
        yield _of(done, f"{_MSRS}+mem5={1 << bit:x}")
    for done in ("rdmsr174", "wrmsr174", "rdmsrc0000080"):
        yield _of(done)
        yield _of(done, _MSRS)
    yield _of("eax12345678+wrmsr174+rdmsr174", _MSRS)
    yield _of("rdmsr2000")
    yield _of("wrmsrc0002000", _MSRS)


def _idts() -> Iterator[str]:
    """Where L2's IDT lies: nowhere, on a page that its tables lack, on one that EPT12 lacks."""
    yield ""
    for base in (_UNMAPPED, ABSENT_LINEAR):
        yield f"+guest_idtr_base={base:x}+guest_idtr_limit=fff"


def _events() -> Iterator[str]:
    yield f"vm_entry_intr_info_field={EXTERNAL | 0x20:x}"
    yield f"vm_entry_intr_info_field={NMI | 2:x}"
    for vector in (0, 1, 4, 5, 6, 7, 9, 16, 18, 19, 3):
        yield f"vm_entry_intr_info_field={EXCEPTION | vector:x}"
    for vector, code in product((10, 11, 12, 13, 14), (0, 0x1234)):
        yield f"vm_entry_intr_info_field={EXCEPTION | WITH_ERROR | vector:x}+vm_entry_exception_error_code={code:x}"
    yield f"vm_entry_intr_info_field={EXCEPTION | WITH_ERROR | 8:x}"
    yield f"vm_entry_intr_info_field={EXCEPTION | WITH_ERROR | 17:x}"
    for info, length in product(
        (SOFTWARE | 0x20, SOFTWARE | 0xFF, PRIVILEGED | 1, SOFT_EXCEPTION | 3, SOFT_EXCEPTION | 4), (1, 2)
    ):
        yield f"vm_entry_intr_info_field={info:x}+vm_entry_instruction_len={length:x}"


def exit_events() -> Iterator[Vector]:
    """Events injected at VM entry, and INT n, INT3 and INT1 of L2's own, cannot be delivered: the exit has the fault,
    and IDT-vectoring information the event; double and triple faults.
    """
    bitmaps = ("", "+exception_bitmap=ffffdfff", "+exception_bitmap=ffffdeff", "+exception_bitmap=ffffbfff")
    for event, idt, bitmap in product(_events(), _idts(), bitmaps):
        for paging in (Paging.LONG, Paging.PAE) if not bitmap else (Paging.LONG,):
            yield _of(NOTHING, f"{event}{idt}{bitmap}", paging)
    for event in _events():
        yield _of(NOTHING, f"{event}+{_EPT_OFF}")
    for event in (
        f"{EXTERNAL | 0xFF:x}",
        f"{SOFTWARE | 0x80:x}+vm_entry_instruction_len=2",
        f"{EXCEPTION | WITH_ERROR | 17:x}+vm_entry_exception_error_code=7ff8",
    ):
        yield _of(NOTHING, f"vm_entry_intr_info_field={event}")
    for done, idt, bitmap in product(("int20", "int03", "int0d", "intff"), _idts(), bitmaps):
        yield _of(f"nop+{done}", f"exception_bitmap=ffffffff{idt}{bitmap}")
    for done, idt in product(("int3", "int1", "ud2"), _idts()):
        for bitmap in ("ffffffff", "fffffff7", "fffffffd", "ffffdff7"):
            yield _of(f"nop+{done}", f"exception_bitmap={bitmap}{idt}")
    for mask, match in ((0, 1), (1, 1), (1, 0), (4, 4), (4, 0)):
        for bitmap in ("ffffffff", "ffffbfff"):
            matching = f"page_fault_error_code_mask={mask:x}+page_fault_error_code_match={match:x}"
            yield _of(
                "int20", f"exception_bitmap={bitmap}+{matching}+guest_idtr_base={_UNMAPPED:x}+guest_idtr_limit=fff"
            )
    blocked = ("guest_interruptibility_info=0", "guest_interruptibility_info=8")
    virtual = ("", "+pin_based_vm_exec_control:s3", "+pin_based_vm_exec_control:s3+pin_based_vm_exec_control:s5")
    for blocking, pin, stack in product(blocked, virtual, (_UNMAPPED, ABSENT_LINEAR + 0x100)):
        yield _of("nop+iret", f"{blocking}{pin}+guest_rsp={stack:x}")
    for blocking, pin in product(blocked, virtual):
        yield _of("nop", f"{blocking}{pin}")
        yield _of("nop", f"{blocking}{pin}+cpu_based_vm_exec_control:s22")
        yield _of(NOTHING, f"{blocking}{pin}+vm_entry_intr_info_field={EXCEPTION | 6:x}")


def exit_reasons() -> Iterator[Vector]:
    """L2 executes what exits always, by a control, or by a bitmap of I/O ports or MSRs, and L1 has MTF, a preemption
    timer of 0, interrupt and NMI windows, MSRs to load and to store: each with all that the exit tells.
    """
    for done, paging in product(("cpuid", "invd", "vmlaunch", "vmresume", "vmxoff", "nop", "wbinvd"), _PAGINGS):
        yield _of(f"nop+{done}", "asis", paging)
    yield _of("wbinvd", "secondary_vm_exec_control:s6")
    for done, bit in (
        ("hlt", 7),
        ("invlpg", 9),
        ("mwait", 10),
        ("rdpmc", 11),
        ("rdtsc", 12),
        ("monitor", 29),
        ("pause", 30),
    ):
        for paging in _PAGINGS:
            yield _of(f"nop+{done}", f"cpu_based_vm_exec_control:s{bit}", paging)
    for paging in _PAGINGS:
        for done in ("rdtsc", "pause", "eax800000+invlpg"):
            yield _of(done, "asis", paging)
        yield _of("eax800000+invlpg", "cpu_based_vm_exec_control:s9", paging)
        for done in ("putdr7+getdr7", "getdr7", "putdr7"):
            yield _of(done, "cpu_based_vm_exec_control:s23", paging)
        yield _of("putdr7+getdr7", "asis", paging)
        yield _of("getdr7", "guest_dr7=400", paging)
    for way in (_EVERY_PORT, *(f"{_PORTS}+mem2={word:x}" for word in (1, 2, 0, (1 << 64) - 2))):
        for done in ("out80", "in80", "out81"):
            yield _of(done, way)
            yield _of(done, f"{way}+{_EVERY_PORT}")
    for bits in (0, 1 << 53, 1 << 52, (1 << 64) - 1 - (1 << 53)):  # MSR 0x175 is bit 53 of word 5
        yield _of("rdmsr175", f"{_MSRS}+mem5={bits:x}+guest_sysenter_esp=12345678")
    yield _of("rdmsr175", "guest_sysenter_esp=12345678")
    for msr in ("c0000102", "2000", "40000000", "c0002000", "bfffffff", "ffffffff"):
        yield _of(f"rdmsr{msr}", _MSRS)
        yield _of(f"wrmsr{msr}", "asis")
    loaded = f"vm_entry_msr_load_count=1+vm_entry_msr_load_addr={SCRATCH:x}+mem0=c0000102"
    for value in (0, 0x1234_5678, 0xFFFF_8000_0000_1000):
        yield _of("rdmsrc0000102", f"{loaded}+mem1={value:x}+{_MSRS}")
    for value in (0, 0x1234_5678, 0xFFFF_8000_0000_1000):
        stored = f"vm_exit_msr_store_count=1+vm_exit_msr_store_addr={SCRATCH:x}+mem0=175+guest_sysenter_esp={value:x}"
        for done in (NOTHING, "cpuid", "int20"):
            yield _of(done, stored)
        yield _of(NOTHING, f"{stored}+guest_cr0:c0")  # an entry that fails stores none
    trap, timer = "cpu_based_vm_exec_control:s27", f"{_TIMER}=0"
    for done in (NOTHING, "nop", "cr0s3", "clts", "cr4s7", "getcr0", "cpuid", "ud2", "int20", "out80", "rdmsr175"):
        for paging in _PAGINGS:
            yield _of(done, trap, paging)
            yield _of(done, timer, paging)
    yield _of("cr0s3", f"{trap}+cr0_guest_host_mask=8+cr0_read_shadow=8")
    yield _of("clts", f"{trap}+cr0_guest_host_mask=8")
    yield _of("nop", f"{trap}+{timer}")
    yield _of("rdtsc", timer)
    for done, save in product((NOTHING, "cpuid", "getcr0", "rdtsc"), ("", "+vm_exit_controls:s22")):
        yield _of(done, f"{_TIMER}={1 << 30:x}{save}")  # with long to go, saved or left alone
    for done in ("nop", NOTHING, "cpuid"):
        yield _of(done, f"vm_entry_intr_info_field={OTHER:x}")
    yield _of("nop", f"vm_entry_intr_info_field={OTHER:x}+guest_interruptibility_info=8")
    for flags, blocking in product(("guest_rflags:s9", "guest_rflags:c9"), (0, 8)):
        yield _of("nop", f"cpu_based_vm_exec_control:s2+{flags}+guest_interruptibility_info={blocking:x}")
    yield _of("nop", f"vm_entry_intr_info_field={EXCEPTION | 6:x}+{timer}")
    yield _of("nop", f"vm_entry_intr_info_field={EXTERNAL | 0x20:x}+cpu_based_vm_exec_control:s2")


VM_EXITS: Final[dict[str, Callable[[], Iterator[Vector]]]] = {
    part.__name__: part
    for part in (
        exit_control_registers,
        exit_without_unrestricted_guest,
        exit_owned_bits,
        exit_bitmaps,
        exit_events,
        exit_reasons,
    )
}
