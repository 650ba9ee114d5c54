"""arch/x86/include/asm/kvm_host.h: the roles of shadow pages and MMUs.

A page role is a plain 32-bit word as in C; ``RoleLayout`` knows its fields, which patch 9 moves.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kvmodel.series import Level

# asm/kvm_host.h union kvm_mmu_page_role at the base: (name, width), lowest bit first.
_ROLE_FIELDS: Final = (
    ("level", 4),
    ("has_4_byte_gpte", 1),
    ("quadrant", 2),
    ("direct", 1),
    ("access", 3),
    ("invalid", 1),
    ("efer_nx", 1),
    ("cr0_wp", 1),
    ("smep_andnot_wp", 1),
    ("smap_andnot_wp", 1),
    ("ad_disabled", 1),
    ("guest_mode", 1),
    ("passthrough", 1),
    ("", 5),
    ("smm", 8),
)


class RoleLayout:
    """Where each field of union kvm_mmu_page_role lies in the 32-bit word, at one level (patch 9 widens access)."""

    __slots__ = ("ACCESS_MASK", "ACCESS_SHIFT", "CHILD_KEEP", "DIRECT", "HAS_4_BYTE_GPTE", "_decoded", "fields")

    def __init__(self, level: Level) -> None:
        self.fields: dict[str, tuple[int, int]] = {}
        at = 0
        for name, width in _ROLE_FIELDS:
            if level.has(9):
                width = {"access": 4, "": 4}.get(name, width)
            if name:
                self.fields[name] = (at, (1 << width) - 1)
            at += width
        self.ACCESS_SHIFT, self.ACCESS_MASK = self.fields["access"]
        self.DIRECT = 1 << self.fields["direct"][0]
        self.HAS_4_BYTE_GPTE = 1 << self.fields["has_4_byte_gpte"][0]
        passthrough = 1 << self.fields["passthrough"][0]
        self._decoded: dict[int, tuple[int, bool, int, bool, bool]] = {}
        self.CHILD_KEEP = ~(self.ACCESS_MASK << self.ACCESS_SHIFT | self.DIRECT | passthrough)

    def make(self, **values: int) -> int:
        """The 32-bit word; each value is cut to its field's width, as C's assignment to a bit-field does."""
        word = 0
        for name, value in values.items():
            shift, mask = self.fields[name]
            word |= (value & mask) << shift
        return word

    def get(self, word: int, name: str) -> int:
        """Field ``name`` of a 32-bit role word."""
        shift, mask = self.fields[name]
        return word >> shift & mask

    def decoded(self, word: int) -> tuple[int, bool, int, bool, bool]:
        """level, direct, access, ad_disabled and guest_mode of a 32-bit role word."""
        fields = self._decoded.get(word)
        if fields is None:
            get = self.get
            fields = (
                get(word, "level"),
                bool(get(word, "direct")),
                get(word, "access"),
                bool(get(word, "ad_disabled")),
                bool(get(word, "guest_mode")),
            )
            self._decoded[word] = fields
        return fields

    def set(self, word: int, **values: int) -> int:
        """``word`` with fields replaced."""
        for name, value in values.items():
            shift, mask = self.fields[name]
            word = word & ~(mask << shift) | (value & mask) << shift
        return word


@cache
def role_layout(level: Level) -> RoleLayout:
    """The layout at ``level``."""
    return RoleLayout(level)


@dataclass(frozen=True, slots=True)
class kvm_mmu_extended_role:
    """asm/kvm_host.h union kvm_mmu_extended_role, field by field."""

    valid: bool = False
    execonly: bool = False
    cr4_pse: bool = False
    cr4_pke: bool = False
    cr4_smap: bool = False
    cr4_smep: bool = False
    cr4_la57: bool = False
    efer_lma: bool = False

    @property
    def word(self) -> int:
        """The 32-bit word: the fields above from bit 0 up."""
        return sum(int(getattr(self, f.name)) << i for i, f in enumerate(fields(self)))


@dataclass(frozen=True, slots=True)
class kvm_cpu_role:
    """asm/kvm_host.h union kvm_cpu_role: the 32-bit base role word and the extended role."""

    base: int = 0
    ext: kvm_mmu_extended_role = kvm_mmu_extended_role()
