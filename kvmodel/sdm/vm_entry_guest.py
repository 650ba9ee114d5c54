"""VM entry's checks on the guest-state area but for segments (SDM 27.3.1): each that fails is exit reason 33."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvmodel.bits import BIT, GENMASK
from kvmodel.question.vmcs import REGION
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
    EXTERNAL,
    GUEST_STATE,
    NMI_EVENT,
    OTHER,
    RFLAGS_IF,
    RFLAGS_TF,
    Check,
    CheckedVmcs,
    Tri,
    cr3_beyond,
    efer_reserved,
    either,
    fixed,
    noncanonical,
    not_physical,
    pat_invalid,
)

PDPTE, NMI, LINK_POINTER = 2, 3, 4  # exit qualifications of GUEST_STATE (SDM 28.2.1 and 27.8)
RFLAGS_RESERVED: Final = GENMASK(63, 22) | BIT(15) | BIT(5) | BIT(3)
BY_STI, BY_MOV_SS, BY_SMI, BY_NMI, ENCLAVE = (BIT(n) for n in range(5))
HLT: Final = 1


def _guest_cr0(v: CheckedVmcs) -> Tri:
    """CR0's reserved bits are not changed by VM entry, which leaves open what is to be said of them."""
    free = CR0_NW | CR0_CD | (CR0_PE | CR0_PG if v.unrestricted else 0)
    if fixed(v, v["guest_cr0"], 0x486, free):
        return True
    return None if v["guest_cr0"] & (GENMASK(15, 6) | BIT(17) | GENMASK(28, 19)) else False


def _guest_pg(v: CheckedVmcs) -> Tri:
    return bool(v["guest_cr0"] & CR0_PG) and not v["guest_cr0"] & CR0_PE


def _debugctl(v: CheckedVmcs) -> Tri:
    value = v["guest_ia32_debugctl"]
    if not v.entry(2) or not value:
        return False
    return True if value & (GENMASK(63, 16) | GENMASK(5, 4)) else None


def _guest_ia32e(v: CheckedVmcs) -> Tri:
    if v.ia32e:
        return not v["guest_cr0"] & CR0_PG or not v["guest_cr4"] & CR4_PAE
    return bool(v["guest_cr4"] & CR4_PCIDE)


def _guest_efer(v: CheckedVmcs) -> Tri:
    value = v["guest_ia32_efer"]
    if not v.entry(15):
        return False
    lma, lme = bool(value & EFER_LMA), bool(value & EFER_LME)
    return efer_reserved(value) or lma is not v.ia32e or (bool(v["guest_cr0"] & CR0_PG) and lma is not lme)


def _bndcfgs(v: CheckedVmcs) -> Tri:
    value = v["guest_bndcfgs"]
    return v.entry(16) and either(bool(value & GENMASK(11, 2)), noncanonical(value & ~GENMASK(11, 0)))


def _tables(v: CheckedVmcs) -> Tri:
    return either(
        *(noncanonical(v[f"guest_{name}_base"]) for name in ("gdtr", "idtr")),
        *(bool(v[f"guest_{name}_limit"] >> 16) for name in ("gdtr", "idtr")),
    )


def _rip(v: CheckedVmcs) -> Tri:
    rip = v["guest_rip"]
    if not v.ia32e or not v.rights("cs") & BIT(13):
        return bool(rip >> 32)
    fits = [rip >> width in (0, ALL >> width) for width in (48, 57)]
    return not fits[0] if fits[0] == fits[1] else None


def _rflags(v: CheckedVmcs) -> Tri:
    flags = v["guest_rflags"]
    if flags & RFLAGS_RESERVED or not flags & BIT(1):
        return True
    if v.v8086 and (v.ia32e or not v["guest_cr0"] & CR0_PE):
        return True
    return v.event == EXTERNAL and not flags & RFLAGS_IF


def _not_offered(v: CheckedVmcs) -> Tri:
    state = v["guest_activity_state"]
    return bool(state) and (state > 3 or not v.msr(0x485) >> (5 + state) & 1)


def _activity(v: CheckedVmcs) -> Tri:
    state = v["guest_activity_state"]
    if not state or state > 3:
        return False
    if v["guest_interruptibility_info"] & (BY_STI | BY_MOV_SS) or (state == HLT and v.dpl("ss")):
        return True
    if state != HLT:
        return None
    allowed = (
        v.event in (-1, EXTERNAL, NMI_EVENT)
        or (v.event == EXCEPTION and v.vector in (1, 18))
        or (v.event == OTHER and v.vector == 0)
    )
    return not allowed


def _interruptibility(v: CheckedVmcs) -> Tri:
    state = v["guest_interruptibility_info"]
    if state & GENMASK(31, 5) or state & BY_SMI:
        return True
    if state & BY_STI and (state & BY_MOV_SS or not v["guest_rflags"] & RFLAGS_IF):
        return True
    if v.event == EXTERNAL and state & (BY_STI | BY_MOV_SS):
        return True
    if v.event == NMI_EVENT and (state & BY_MOV_SS or (state & BY_NMI and v.pin(5))):
        return True
    return None if state & ENCLAVE else False


def _pending_debug(v: CheckedVmcs) -> Tri:
    pending = v["guest_pending_dbg_exceptions"]
    if pending & (GENMASK(63, 17) | BIT(13) | GENMASK(10, 4)):
        return True
    if pending & (BIT(11) | BIT(15) | BIT(16)):
        return None
    blocked = v["guest_interruptibility_info"] & (BY_STI | BY_MOV_SS) or v["guest_activity_state"] == HLT
    if not blocked:
        return False
    if v["guest_ia32_debugctl"] or (not v.entry(2) and v["guest_rflags"] & RFLAGS_TF):
        return None  # whether this CPU has BTF, and what it is where it is not loaded
    return bool(pending & BIT(14)) is not bool(v["guest_rflags"] & RFLAGS_TF)


def _link_pointer(v: CheckedVmcs) -> Tri:
    pointer = v["vmcs_link_pointer"]
    if pointer == ALL:
        return False
    if not_physical(v, pointer) or pointer == REGION:
        return True
    word = v.memory(pointer)
    if word is None:
        return None
    return word & GENMASK(31, 0) != v.msr(0x480) & GENMASK(30, 0) | (BIT(31) if v.proc2(14) else 0)


def _pdptes(v: CheckedVmcs) -> Tri:
    """Without EPT they are in memory, where the probe's are legal."""
    if v.ia32e or not v["guest_cr0"] & CR0_PG or not v["guest_cr4"] & CR4_PAE:
        return False
    if not v.ept:
        return None if v["guest_cr3"] != v["probe_cr3"] else False
    reserved = GENMASK(2, 1) | GENMASK(8, 5) | ALL & ~(BIT(v.cpu.maxphyaddr) - 1)
    return any(value & 1 and value & reserved for value in (v[f"guest_pdptr{n}"] for n in range(4)))


def _guest(section: str, text: str, fails: Callable[[CheckedVmcs], Tri], qualification: int = 0) -> Check:
    return Check(section, text, fails, GUEST_STATE, qualification)


GUEST_CHECKS: Final[dict[str, Check]] = {
    "entry-guest-cr0": _guest("27.3.1.1", "Guest CR0 is one that VMX operation supports.", _guest_cr0),
    "entry-guest-pg": _guest("27.3.1.1", "Guest CR0.PG needs CR0.PE.", _guest_pg),
    "entry-guest-cr4": _guest(
        "27.3.1.1", "Guest CR4 is one that VMX operation supports.", lambda v: fixed(v, v["guest_cr4"], 0x488)
    ),
    "entry-guest-cet": _guest(
        "27.3.1.1",
        "Guest CR4.CET needs CR0.WP.",
        lambda v: bool(v["guest_cr4"] & CR4_CET) and not v["guest_cr0"] & CR0_WP,
    ),
    "entry-guest-debugctl": _guest("27.3.1.1", "Reserved bits of DEBUGCTL that is loaded are 0.", _debugctl),
    "entry-guest-ia32e": _guest(
        "27.3.1.1", "An IA-32e mode guest has CR0.PG and CR4.PAE; another has no CR4.PCIDE.", _guest_ia32e
    ),
    "entry-guest-cr3": _guest(
        "27.3.1.1", "Guest CR3 has no bit beyond MAXPHYADDR.", lambda v: cr3_beyond(v, v["guest_cr3"])
    ),
    "entry-guest-dr7": _guest(
        "27.3.1.1", "Bits 63:32 of DR7 that is loaded are 0.", lambda v: v.entry(2) and bool(v["guest_dr7"] >> 32)
    ),
    "entry-guest-sysenter": _guest(
        "27.3.1.1",
        "Guest SYSENTER_ESP and SYSENTER_EIP are canonical.",
        lambda v: either(noncanonical(v["guest_sysenter_esp"]), noncanonical(v["guest_sysenter_eip"])),
    ),
    "entry-guest-pat": _guest(
        "27.3.1.1",
        "PAT that is loaded has memory types only.",
        lambda v: v.entry(14) and pat_invalid(v["guest_ia32_pat"]),
    ),
    "entry-guest-efer": _guest(
        "27.3.1.1",
        "EFER that is loaded has no reserved bit, LMA of the entry control, LME of LMA if paging.",
        _guest_efer,
    ),
    "entry-guest-bndcfgs": _guest("27.3.1.1", "BNDCFGS that is loaded is canonical, bits 11:2 are 0.", _bndcfgs),
    "entry-guest-tables": _guest("27.3.1.3", "GDTR and IDTR bases are canonical, their limits have 16 bits.", _tables),
    "entry-guest-rip": _guest(
        "27.3.1.4", "RIP has 32 bits; in 64-bit code the bits beyond the address are alike.", _rip
    ),
    "entry-guest-rflags": _guest(
        "27.3.1.4",
        "RFLAGS' reserved bits, bit 1, VM and, where an interrupt is injected, IF are as they must be.",
        _rflags,
    ),
    "entry-activity-offered": _guest("27.3.1.5", "The activity state is one that MSR 0x485 offers.", _not_offered),
    "entry-guest-activity": _guest(
        "27.3.1.5", "The activity state goes with SS.DPL, blocking and the injected event.", _activity
    ),
    "entry-guest-interruptibility": _guest(
        "27.3.1.5", "Blocking by STI, MOV SS, SMI and NMI is possible in this state.", _interruptibility
    ),
    "entry-guest-nmi-sti": Check(
        "27.3.1.5",
        "A processor may refuse an NMI where STI blocks.",
        lambda v: v.event == NMI_EVENT and bool(v["guest_interruptibility_info"] & BY_STI),
        GUEST_STATE,
        NMI,
        optional=True,
        spare=0,
    ),
    "entry-guest-pending-debug": _guest(
        "27.3.1.5",
        "Pending debug exceptions have no reserved bit, and BS as TF and BTF say where events are blocked.",
        _pending_debug,
    ),
    "entry-guest-link-pointer": _guest(
        "27.3.1.5", "The VMCS link pointer is all ones or another VMCS of this revision.", _link_pointer, LINK_POINTER
    ),
    "entry-guest-pdptes": _guest("27.3.1.6", "Present PDPTEs have no reserved bit.", _pdptes, PDPTE),
}
