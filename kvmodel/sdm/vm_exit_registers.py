"""L2's control registers from instruction to instruction, with guest/host masks and read shadows (SDM 26.1.3, 26.3).

A VM exit that an instruction causes comes before the #GP that its operand would be. A MOV that does not exit leaves
the bits of the mask as they are and is checked as the register then would be.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from kvmodel.bits import BIT, GENMASK
from kvmodel.question.vector import Paging
from kvmodel.question.vm_exit import ABSENT, ABSENT_LINEAR, CODE, RDX, WRITTEN, Instructed
from kvmodel.question.vmcs import SCRATCH
from kvmodel.sdm.vm_entry_state import PDPTE0, ROOTS
from kvmodel.sdm.vmcs import (
    ALL,
    CR0_CD,
    CR0_NW,
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_CET,
    CR4_PAE,
    CR4_PCIDE,
    EFER_LMA,
    EFER_LME,
    EXCEPTION,
    CheckedVmcs,
    fixed,
)

DOUBLE_FAULT, GENERAL_PROTECTION, PAGE_FAULT = 8, 13, 14
EXCEPTION_EXIT, CR_ACCESS, DR_ACCESS, EPT_VIOLATION = 0, 28, 29, 48  # basic exit reasons
TO_CR, FROM_CR, CLTS, LMSW = (n << 4 for n in range(4))  # access type of a qualification, bits 5:4
CR0_TS, CR0_ET = BIT(3), BIT(4)
_FRAME: Final = GENMASK(5, 0)  # of an address: IRET may read what it pops in any order
CR4_PSE, CR4_PGE, CR4_LA57, CR4_SMEP = BIT(4), BIT(7), BIT(12), BIT(20)
LOADS_CR0: Final = CR0_CD | CR0_NW | CR0_PG  # whose change loads PDPTEs in PAE paging (SDM 4.4.1)
LOADS_CR4: Final = CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP
KEPT: Final = CR0_CD | CR0_NW  # VM entry and VM exit never modify them (SDM 27.3.2.1, 28.5.1)
_PAGE: Final = 4096
SYSENTER: Final = {0x174: "guest_sysenter_cs", 0x175: "guest_sysenter_esp", 0x176: "guest_sysenter_eip"}
DR7_GD: Final = BIT(13)  # each access to a debug register is #DB
DR7_ONE, DR7_ZERO = BIT(10), BIT(15) | BIT(14) | BIT(12)  # reserved, whatever is written (SDM 19.2.4)
WRITE_FAULT: Final = BIT(0) | BIT(1)  # of an error code: present, a write


class UndecidedError(Exception):
    """The manual leaves more open here than a row of answers says, or this model does not describe it."""


def information(kind: int, vector: int, error: int | None) -> int:
    """Interruption information, 32 bits: valid, type, vector, whether there is an error code."""
    return BIT(31) | kind << 8 | vector | (BIT(11) if error is not None else 0)


@dataclass
class ToldExit:
    """A VM exit as its information fields have it; each with the mask of the bits that are defined."""

    reason: int
    qualification: int = 0
    defined: int = ALL
    length: int | None = None  # None: undefined
    interruption: int = 0
    interruption_defined: int = BIT(31)  # where it is not valid
    error: int | None = None
    error_defined: int = GENMASK(31, 0)
    vectoring: int = 0
    vectoring_defined: int = BIT(31)
    vectoring_error: int | None = None
    gpa: int | None = None
    gla: int | None = None
    open_nmi: bool = False  # whether blocking by NMI is saved as it was before is open

    @classmethod
    def exception(cls, vector: int, error: int | None = None, qualification: int = 0) -> ToldExit:
        """The exit of a hardware exception."""
        info = information(EXCEPTION, vector, error)
        return cls(EXCEPTION_EXIT, qualification, interruption=info, interruption_defined=GENMASK(31, 0), error=error)

    @property
    def is_exception(self) -> bool:
        """Whether an exception caused it."""
        return self.reason == EXCEPTION_EXIT

    def blank(self, bits: int) -> None:
        """Takes ``bits`` from what is defined of an exception's interruption information, of another exit's
        qualification."""
        if self.is_exception:
            self.interruption_defined &= ~bits
        else:
            self.defined &= ~bits

    def add(self, bits: int) -> None:
        """Sets ``bits`` in the same place."""
        if self.is_exception:
            self.interruption |= bits
        else:
            self.qualification |= bits

    def drop(self, bits: int) -> None:
        """Clears ``bits`` there."""
        self.interruption &= ~bits
        self.qualification &= ~(0 if self.is_exception else bits)

    def blank_error(self, bits: int) -> None:
        """Takes ``bits`` of the error code from what is defined."""
        self.error_defined &= ~bits


@dataclass
class RunningGuest:
    """L2's registers, 64 bits each, and the word that it writes; ``paging`` and ``ia32e`` follow from them."""

    cr0: int
    cr3: int
    cr4: int
    efer: int
    rip: int = CODE
    rax: int = 0
    rdx: int | None = 0  # None: unknown
    dr7: int | None = None
    memory: int = 0  # mem1
    sysenter: dict[int, int] = field(default_factory=dict)  # the MSRs by number
    rax_defined: int = ALL
    cr0_defined: int = ALL
    pdptes_known: bool = True  # the registers are as memory has them, entry 0 leads to L2's code
    began: bool = False  # an instruction has completed

    @classmethod
    def entered(cls, v: CheckedVmcs) -> RunningGuest:
        """As VM entry loads them. Raises UndecidedError."""
        if not v.entry(15):  # EFER is L1's but for LMA and LME, which nobody reads here unless it is saved
            raise UndecidedError
        cr0 = v["guest_cr0"]
        found = cls(cr0, v["guest_cr3"], v["guest_cr4"], v["guest_ia32_efer"], cr0_defined=ALL & ~(cr0 & KEPT))
        found.dr7 = v["guest_dr7"] if v.entry(2) else None
        found.memory = v["mem1"]
        found.sysenter = {number: v[name] for number, name in SYSENTER.items()}
        if found.pae and v.ept and v["guest_pdptr0"] != PDPTE0:
            raise UndecidedError
        root = ROOTS[found.paging] if found.cr0 & CR0_PG else None
        if root is not None and found.cr3 & ~GENMASK(11, 0) != root and not (found.pae and found.cr3 == SCRATCH):
            raise UndecidedError
        return found

    @property
    def ia32e(self) -> bool:
        """IA-32e mode."""
        return bool(self.efer & EFER_LMA)

    @property
    def pae(self) -> bool:
        """PAE paging."""
        return bool(self.cr0 & CR0_PG and self.cr4 & CR4_PAE) and not self.ia32e

    @property
    def paging(self) -> Paging:
        """How L2 pages."""
        if not self.cr0 & CR0_PG:
            return Paging.OFF
        return Paging.LONG if self.ia32e else Paging.PAE if self.cr4 & CR4_PAE else Paging.BITS32


def intercepted(v: CheckedVmcs, vector: int, error: int) -> bool:
    """Whether an exception exits (SDM 26.2): of page faults the mask and match fields say which."""
    bit = bool(v["exception_bitmap"] >> vector & 1)
    if vector != PAGE_FAULT:
        return bit
    return bit is (error & v["page_fault_error_code_mask"] == v["page_fault_error_code_match"])


def raised(v: CheckedVmcs, vector: int, error: int | None = None) -> ToldExit:
    """The exit of a fault of L2's own; one that L1 lets L2 have is not asked. Raises UndecidedError."""
    if not intercepted(v, vector, error or 0):
        raise UndecidedError
    return ToldExit.exception(vector, error)


def page_fault(address: int) -> ToldExit:
    """The #PF of a read, at CPL 0, of a page that L2's tables do not map. Raises UndecidedError where they do."""
    if address >> 21 not in (0, 3):  # what the probe leaves unmapped (images/probe/tables.c)
        raise UndecidedError
    return ToldExit.exception(PAGE_FAULT, 0, address)


def absent_page(v: CheckedVmcs, address: int) -> ToldExit | None:
    """The EPT violation of a read of the page that EPT12 lacks; None where it is another page."""
    if not v.ept or address // _PAGE != ABSENT_LINEAR // _PAGE:
        return None
    given = BIT(0) | BIT(7) | BIT(8)
    advanced = GENMASK(11, 9)
    known = bool(v.msr(0x48C) >> 22 & 1)
    found = ToldExit(EPT_VIOLATION, given | (GENMASK(10, 9) if known else 0), ALL & ~(0 if known else advanced))
    if not v.proc2(22):
        found.blank(BIT(6))
    found.gpa, found.gla = ABSENT + address % _PAGE, address
    return found


def stack_fault(v: CheckedVmcs, g: RunningGuest) -> ToldExit:
    """What a read of L2's stack meets. Raises UndecidedError."""
    if g.paging is Paging.OFF:
        raise UndecidedError
    found = absent_page(v, v["guest_rsp"]) or page_fault(v["guest_rsp"])
    found.gpa = found.gla = None
    if found.is_exception:
        found.defined &= ~_FRAME
    if found.is_exception and not intercepted(v, PAGE_FAULT, 0):
        raise UndecidedError
    return found


# --- instructions ---


def _seen(v: CheckedVmcs, g: RunningGuest, number: int) -> int:
    """What L2 reads of a control register: the read shadow's bits where the mask has them."""
    if number == 3:
        return g.cr3
    mask = v[f"cr{number}_guest_host_mask"]
    return (g.cr0 if number == 0 else g.cr4) & ~mask | v[f"cr{number}_read_shadow"] & mask


def _reads(v: CheckedVmcs, g: RunningGuest, one: Instructed) -> ToldExit | None:
    to = RDX if one.what == "peek" else 0
    if one.operand == 3 and v.proc(16):
        return ToldExit(CR_ACCESS, 3 | FROM_CR | to << 8, length=len(one.code))
    value = _seen(v, g, one.operand)
    if one.what == "peek":
        g.rdx = value
    else:
        g.rax = value
        g.rax_defined = g.cr0_defined if one.operand == 0 else ALL
    return None


def _masked(v: CheckedVmcs, number: int, old: int, value: int) -> int | None:
    """What a MOV to CR0 or CR4 makes of the register; None where it exits."""
    mask = v[f"cr{number}_guest_host_mask"]
    if (value ^ v[f"cr{number}_read_shadow"]) & mask:
        return None
    return old & mask | value & ~mask


def _pdptes_load(v: CheckedVmcs, g: RunningGuest) -> bool:
    """Whether PDPTEs can be loaded from memory: False where one has a reserved bit. Raises UndecidedError."""
    if g.cr3 == ROOTS[Paging.PAE]:
        return True
    if g.cr3 != SCRATCH:
        raise UndecidedError
    entries = [v[f"mem{n}"] for n in range(4)]
    reserved = GENMASK(2, 1) | GENMASK(8, 5) | ALL & ~(BIT(v.cpu.maxphyaddr) - 1)
    if any(entry & 1 and entry & reserved for entry in entries):
        return False
    if entries[0] != PDPTE0:
        raise UndecidedError
    return True


def _cr0_faults(v: CheckedVmcs, g: RunningGuest, value: int) -> bool:
    """Whether a MOV that makes CR0 ``value`` is #GP(0) for the register itself."""
    free = CR0_PE | CR0_PG if v.unrestricted else 0
    if fixed(v, value, 0x486, free | KEPT | CR0_ET) or value >> 32:
        return True
    if (value & CR0_PG and not value & CR0_PE) or (value & CR0_NW and not value & CR0_CD):
        return True
    if not value & CR0_WP and g.cr4 & CR4_CET:
        return True
    if not value & CR0_PG and g.cr0 & CR0_PG:
        return bool(g.ia32e and v.rights("cs") & BIT(13)) or bool(g.cr4 & CR4_PCIDE)
    begins = value & CR0_PG and not g.cr0 & CR0_PG
    return bool(begins and g.efer & EFER_LME and not g.cr4 & CR4_PAE)


def _put_cr0(v: CheckedVmcs, g: RunningGuest, value: int) -> ToldExit | None:
    if _cr0_faults(v, g, value):
        return raised(v, GENERAL_PROTECTION, 0)
    value |= CR0_ET  # which is 1 whatever is written
    changed = value ^ g.cr0
    after = replace(g, cr0=value)
    if changed & CR0_PG:
        lma = EFER_LMA if value & CR0_PG and g.efer & EFER_LME else 0
        after.efer = g.efer & ~EFER_LMA | lma
    if after.pae and changed & LOADS_CR0 and not _pdptes_load(v, g):
        return raised(v, GENERAL_PROTECTION, 0)
    if after.pae and not changed & LOADS_CR0 and changed and g.cr3 != ROOTS[Paging.PAE]:
        raise UndecidedError  # the manual does not say that a change of another bit loads none
    if after.paging is Paging.BITS32 or (after.ia32e and g.cr3 & ~GENMASK(11, 0) != ROOTS[Paging.LONG]):
        raise UndecidedError  # L2's code is nowhere
    g.cr0, g.efer = value, after.efer
    g.cr0_defined = ALL
    return None


def _cr4_faults(v: CheckedVmcs, g: RunningGuest, value: int) -> bool:
    """Whether a MOV that makes CR4 ``value`` is #GP(0) for the register itself."""
    changed = value ^ g.cr4
    if fixed(v, value, 0x488) or (g.ia32e and changed & (CR4_PAE | CR4_LA57)):
        return True
    if value & CR4_CET and not g.cr0 & CR0_WP:
        return True
    begins = bool(value & CR4_PCIDE and not g.cr4 & CR4_PCIDE)
    return begins and (not g.ia32e or bool(g.cr3 & GENMASK(11, 0)))


def _put_cr4(v: CheckedVmcs, g: RunningGuest, value: int) -> ToldExit | None:
    if _cr4_faults(v, g, value):
        return raised(v, GENERAL_PROTECTION, 0)
    changed = value ^ g.cr4
    after = replace(g, cr4=value)
    if after.pae and changed & LOADS_CR4 and not _pdptes_load(v, g):
        return raised(v, GENERAL_PROTECTION, 0)
    if after.pae and changed and not changed & LOADS_CR4 and g.cr3 != ROOTS[Paging.PAE]:
        raise UndecidedError
    if after.paging is Paging.BITS32:
        raise UndecidedError
    g.cr4 = value
    return None


def _put_cr3(v: CheckedVmcs, g: RunningGuest, value: int, length: int) -> ToldExit | None:
    if v.proc(15):
        targets = v["cr3_target_count"]
        if targets:
            raise UndecidedError
        return ToldExit(CR_ACCESS, 3 | TO_CR | RDX << 8, length=length)
    pcid = bool(g.cr4 & CR4_PCIDE)
    above = value >> v.cpu.maxphyaddr << v.cpu.maxphyaddr
    if g.paging is not Paging.LONG:
        raise UndecidedError
    if above & ~(BIT(63) | GENMASK(62, 61)) or (above & BIT(63) and not pcid):
        return raised(v, GENERAL_PROTECTION, 0)
    if above & GENMASK(62, 61) or value & GENMASK(51, 12) != ROOTS[Paging.LONG]:
        raise UndecidedError
    g.cr3 = value & ~BIT(63)  # what it asks of the TLB is not kept
    return None


def _of_rdx(g: RunningGuest) -> int:
    if g.rdx is None:
        raise UndecidedError
    return g.rdx


def _put(v: CheckedVmcs, g: RunningGuest, one: Instructed) -> ToldExit | None:
    number, length, written = one.operand, len(one.code), _of_rdx(g)
    if number == 3:
        return _put_cr3(v, g, written, length)
    value = _masked(v, number, g.cr0 if number == 0 else g.cr4, written)
    if value is None:
        return ToldExit(CR_ACCESS, number | TO_CR | RDX << 8, length=length)
    return _put_cr0(v, g, value) if number == 0 else _put_cr4(v, g, value)


def _clts(v: CheckedVmcs, g: RunningGuest, length: int) -> ToldExit | None:
    if v["cr0_guest_host_mask"] & CR0_TS:
        return ToldExit(CR_ACCESS, CLTS, length=length) if v["cr0_read_shadow"] & CR0_TS else None
    g.cr0 &= ~CR0_TS
    return None


def _lmsw(v: CheckedVmcs, g: RunningGuest, length: int) -> ToldExit | None:
    source, mask, shadow = g.rax & 0xFFFF, v["cr0_guest_host_mask"], v["cr0_read_shadow"]
    sets_pe = source & ~shadow & mask & CR0_PE
    if sets_pe or (source ^ shadow) & mask & GENMASK(3, 1):
        return ToldExit(CR_ACCESS, LMSW | source << 16, length=length)
    low = GENMASK(3, 0) & ~mask
    value = g.cr0 & ~low | (source | g.cr0 & CR0_PE) & low  # it never clears PE
    return _put_cr0(v, g, value)


def _debug(v: CheckedVmcs, g: RunningGuest, one: Instructed) -> ToldExit | None:
    """MOV from DR7 to RAX, or to it of RDX (SDM 26.1.3)."""
    reads = one.what == "getdr7"
    if v["guest_dr7"] & DR7_GD:
        raise UndecidedError
    if v.proc(23):
        return ToldExit(DR_ACCESS, 7 | (FROM_CR if reads else RDX << 8), length=len(one.code))
    if not reads:
        g.dr7 = g.rdx
    elif g.dr7 is None:
        g.rax_defined = 0
    else:
        g.rax, g.rax_defined = g.dr7 & GENMASK(31, 0) & ~DR7_ZERO | DR7_ONE, ALL
    return None


def _write(v: CheckedVmcs, g: RunningGuest, one: Instructed) -> ToldExit | None:
    """A write at CPL 0 of a page that L2's tables make read-only: #PF where CR0.WP is 1 (SDM 4.6.1)."""
    if g.paging is Paging.OFF or not g.cr0 & CR0_WP:
        g.memory = g.memory & ~GENMASK(31, 0) | WRITTEN
        return None
    if not intercepted(v, PAGE_FAULT, WRITE_FAULT):
        raise UndecidedError
    return ToldExit.exception(PAGE_FAULT, WRITE_FAULT, one.operand)


def executed(v: CheckedVmcs, g: RunningGuest, one: Instructed) -> ToldExit | None:
    """One instruction that reads or writes a control register or prepares that; as ``vm_exit`` has it."""
    length = len(one.code)
    match one.what:
        case "get" | "peek":
            return _reads(v, g, one)
        case "set":
            g.rdx = _of_rdx(g) | BIT(one.operand)
        case "clear":
            g.rdx = _of_rdx(g) & ~BIT(one.operand)
        case "eax":
            g.rax, g.rax_defined = one.operand, ALL
        case "edx":
            g.rdx = one.operand
        case "getdr7" | "putdr7":
            return _debug(v, g, one)
        case "write":
            return _write(v, g, one)
        case "smsw":
            g.rax, g.rax_defined = _seen(v, g, 0) & 0xFFFF, GENMASK(15, 0)
        case "put":
            return _put(v, g, one)
        case "clts":
            return _clts(v, g, length)
        case "lmsw":
            return _lmsw(v, g, length)
        case _:
            raise UndecidedError
    return None
