"""VM entry's checks on the guest's segment registers (SDM 27.3.1.2): each that fails is exit reason 33."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvmodel.bits import BIT, GENMASK
from kvmodel.sdm.vmcs import (
    CR0_PE,
    GUEST_STATE,
    SEGMENTS,
    Check,
    CheckedVmcs,
    Tri,
    either,
    noncanonical,
)


def _in_v8086(v: CheckedVmcs) -> Tri:
    if not v.v8086:
        return False
    return any(
        v[f"guest_{name}_base"] != v[f"guest_{name}_selector"] << 4
        or v[f"guest_{name}_limit"] != 0xFFFF
        or v.rights(name) != 0xF3
        for name in SEGMENTS
    )


def _guest_selectors(v: CheckedVmcs) -> Tri:
    if v["guest_tr_selector"] & 4 or (v.usable("ldtr") and v["guest_ldtr_selector"] & 4):
        return True
    return not v.v8086 and not v.unrestricted and v.rpl("ss") != v.rpl("cs")


def _guest_bases(v: CheckedVmcs) -> Tri:
    wide = ["tr", "fs", "gs", *(["ldtr"] if v.usable("ldtr") else [])]
    narrow = ["cs", *(name for name in ("ss", "ds", "es") if v.usable(name))]
    return either(
        *(noncanonical(v[f"guest_{name}_base"]) for name in wide),
        *(bool(v[f"guest_{name}_base"] >> 32) for name in narrow),
    )


def _types(v: CheckedVmcs) -> Tri:
    if v.v8086:
        return False
    if v.type("cs") not in ((9, 11, 13, 15, 3) if v.unrestricted else (9, 11, 13, 15)):
        return True
    if v.usable("ss") and v.type("ss") not in (3, 7):
        return True
    rest = [v.type(name) for name in ("ds", "es", "fs", "gs") if v.usable(name)]
    return any(not kind & 1 or (kind & 8 and not kind & 2) for kind in rest)


def _used(v: CheckedVmcs) -> list[str]:
    """The segments whose access rights are checked: CS always, the others where they are usable."""
    return [] if v.v8086 else [name for name in SEGMENTS if name == "cs" or v.usable(name)]


def _not_system(v: CheckedVmcs) -> Tri:
    return any(not v.rights(name) & BIT(4) for name in _used(v))


def _privilege(v: CheckedVmcs) -> Tri:
    if v.v8086:
        return False
    kind, dpl, stack = v.type("cs"), v.dpl("cs"), v.dpl("ss")
    if (kind == 3 and dpl) or (kind in (9, 11) and dpl != stack) or (kind in (13, 15) and dpl > stack):
        return True
    if (kind == 3 or not v["guest_cr0"] & CR0_PE) and stack:
        return True
    if v.unrestricted:
        return False
    rest = [name for name in ("ds", "es", "fs", "gs") if v.usable(name) and v.type(name) <= 11]
    return stack != v.rpl("ss") or any(v.dpl(name) < v.rpl(name) for name in rest)


def _present(v: CheckedVmcs) -> Tri:
    return any(not v.rights(name) & BIT(7) for name in _used(v))


def _rights_reserved(v: CheckedVmcs) -> Tri:
    system = ["tr", *(["ldtr"] if v.usable("ldtr") else [])]
    return any(v.rights(name) & (GENMASK(31, 17) | GENMASK(11, 8)) for name in (*_used(v), *system))


def _code_size(v: CheckedVmcs) -> Tri:
    return not v.v8086 and v.ia32e and v.rights("cs") & (BIT(13) | BIT(14)) == BIT(13) | BIT(14)


def _grain(v: CheckedVmcs, name: str) -> bool:
    """Whether the granularity of a segment does not fit its limit."""
    limit, coarse = v[f"guest_{name}_limit"], v.rights(name) >> 15 & 1
    return bool((limit & 0xFFF != 0xFFF) if coarse else limit >> 20)


def _granularity(v: CheckedVmcs) -> Tri:
    return any(_grain(v, name) for name in _used(v))


def _system(v: CheckedVmcs, name: str, kinds: tuple[int, ...]) -> bool:
    rights = v.rights(name)
    return v.type(name) not in kinds or bool(rights & BIT(4)) or not rights & BIT(7) or _grain(v, name)


def _tr(v: CheckedVmcs) -> Tri:
    return not v.usable("tr") or _system(v, "tr", (11,) if v.ia32e else (3, 11))


def _ldtr(v: CheckedVmcs) -> Tri:
    return v.usable("ldtr") and _system(v, "ldtr", (2,))


def _guest(section: str, text: str, fails: Callable[[CheckedVmcs], Tri], qualification: int = 0) -> Check:
    return Check(section, text, fails, GUEST_STATE, qualification)


SEGMENT_CHECKS: Final[dict[str, Check]] = {
    "entry-guest-v8086": _guest("27.3.1.2", "In virtual-8086 mode all segments are as the mode makes them.", _in_v8086),
    "entry-guest-selectors": _guest(
        "27.3.1.2", "TR and LDTR are in the GDT; SS and CS have one RPL without unrestricted guest.", _guest_selectors
    ),
    "entry-guest-bases": _guest(
        "27.3.1.2", "Bases are canonical; those of CS, SS, DS and ES have 32 bits.", _guest_bases
    ),
    "entry-guest-types": _guest("27.3.1.2", "Code, stack and data segments have their types.", _types),
    "entry-guest-s": _guest("27.3.1.2", "Code and data segments are no system segments.", _not_system),
    "entry-guest-privilege": _guest("27.3.1.2", "DPL and RPL go together as the segment's type has it.", _privilege),
    "entry-guest-present": _guest("27.3.1.2", "Code and usable data segments are present.", _present),
    "entry-guest-rights": Check(
        "27.3.1.2",
        "Reserved bits of access rights are 0; some processors drop them as they are written.",
        _rights_reserved,
        GUEST_STATE,
        optional=True,
    ),
    "entry-guest-code-size": _guest("27.3.1.2", "64-bit code has no D bit.", _code_size),
    "entry-guest-granularity": _guest("27.3.1.2", "A segment's granularity fits its limit.", _granularity),
    "entry-guest-tr": _guest("27.3.1.2", "TR is a present busy TSS.", _tr),
    "entry-guest-ldtr": _guest("27.3.1.2", "LDTR is unusable or a present LDT.", _ldtr),
}
