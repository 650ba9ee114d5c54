"""VM entry's checks on the host-state area (SDM 27.2.2 to 27.2.4): each that fails is VMfail, error 8."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvmodel.sdm.vmcs import (
    CR0_WP,
    CR4_CET,
    CR4_PAE,
    EFER_LMA,
    EFER_LME,
    HOST_STATE,
    SEGMENTS,
    Check,
    CheckedVmcs,
    Tri,
    cr3_beyond,
    efer_reserved,
    either,
    fixed,
    noncanonical,
    pat_invalid,
)


def _host_efer(v: CheckedVmcs) -> Tri:
    value = v["host_ia32_efer"]
    return v.exit(21) and (
        efer_reserved(value) or any(bool(value & bit) is not v.host64 for bit in (EFER_LMA, EFER_LME))
    )


def _selectors(v: CheckedVmcs) -> Tri:
    return any(v[f"host_{name}_selector"] & 7 for name in (*SEGMENTS, "tr"))


def _null_selectors(v: CheckedVmcs) -> Tri:
    return not v["host_cs_selector"] or not v["host_tr_selector"] or (not v.host64 and not v["host_ss_selector"])


def _host_bases(v: CheckedVmcs) -> Tri:
    return either(*(noncanonical(v[f"host_{name}_base"]) for name in ("fs", "gs", "gdtr", "idtr", "tr")))


def _host_size(v: CheckedVmcs) -> Tri:
    """L1 is in IA-32e mode."""
    if not v.host64:
        return True
    return either(not v["host_cr4"] & CR4_PAE, noncanonical(v["host_rip"]))


def _host(section: str, text: str, fails: Callable[[CheckedVmcs], Tri]) -> Check:
    return Check(section, text, fails, HOST_STATE)


HOST_CHECKS: Final[dict[str, Check]] = {
    "entry-host-cr0": _host(
        "27.2.2", "Host CR0 is one that VMX operation supports.", lambda v: fixed(v, v["host_cr0"], 0x486)
    ),
    "entry-host-cr4": _host(
        "27.2.2", "Host CR4 is one that VMX operation supports.", lambda v: fixed(v, v["host_cr4"], 0x488)
    ),
    "entry-host-cet": _host(
        "27.2.2",
        "Host CR4.CET needs CR0.WP.",
        lambda v: bool(v["host_cr4"] & CR4_CET) and not v["host_cr0"] & CR0_WP,
    ),
    "entry-host-cr3": _host("27.2.2", "Host CR3 has no bit beyond MAXPHYADDR.", lambda v: cr3_beyond(v, v["host_cr3"])),
    "entry-host-sysenter": _host(
        "27.2.2",
        "Host SYSENTER_ESP and SYSENTER_EIP are canonical.",
        lambda v: either(noncanonical(v["host_ia32_sysenter_esp"]), noncanonical(v["host_ia32_sysenter_eip"])),
    ),
    "entry-host-pat": _host(
        "27.2.2", "Host PAT has memory types only.", lambda v: v.exit(19) and pat_invalid(v["host_ia32_pat"])
    ),
    "entry-host-efer": _host(
        "27.2.2", "Host EFER has no reserved bit; LMA and LME are the host address-space size.", _host_efer
    ),
    "entry-host-selectors": _host("27.2.3", "Host selectors have RPL 0 and TI 0.", _selectors),
    "entry-host-null": _host("27.2.3", "Host CS and TR, and SS of a 32-bit host, are not null.", _null_selectors),
    "entry-host-bases": _host("27.2.3", "Host FS, GS, GDTR, IDTR and TR bases are canonical.", _host_bases),
    "entry-host-size": _host(
        "27.2.4", "From IA-32e mode the host is 64-bit, with CR4.PAE and a canonical RIP.", _host_size
    ),
}
