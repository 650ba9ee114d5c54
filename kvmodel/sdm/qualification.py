"""The exit qualification of an EPT violation: its bits, and which of them are defined (SDM 28.2.1, table 28-7)."""

from __future__ import annotations

from kvmodel.bits import BIT, GENMASK
from kvmodel.cpu import Cpu
from kvmodel.sdm import errata
from kvmodel.sdm.access import Linear, Use

READ = BIT(0)  # the access was a data read
WRITE = BIT(1)  # a data write
FETCH = BIT(2)  # an instruction fetch
READABLE = BIT(3)  # AND of bit 0 over the EPT entries used
WRITABLE = BIT(4)  # AND of bit 1
EXECUTABLE = BIT(5)  # AND of bit 2; with MBEC: from supervisor-mode linear addresses
USER_EXECUTABLE = BIT(6)  # with MBEC: AND of bit 10
LINEAR_VALID = BIT(7)  # the guest-linear address field is valid
FINAL = BIT(8)  # to the translation of a linear address (set) or to a paging-structure entry (clear)
LINEAR_USER = BIT(9)  # a user-mode linear address
LINEAR_WRITABLE = BIT(10)  # a read/write page
LINEAR_XD = BIT(11)  # an execute-disable page
NMI_UNBLOCKING = BIT(12)  # by IRET
SHADOW_STACK = BIT(13)  # a shadow-stack access

ADVANCED = LINEAR_USER | LINEAR_WRITABLE | LINEAR_XD
ALL = GENMASK(63, 0)
RESERVED = GENMASK(63, 17)  # read as 0

_EPT_USER_EXECUTE = BIT(10)

_KIND = {
    Use.READ: READ,
    Use.WRITE: WRITE,
    Use.RMW: WRITE,
    Use.FETCH: FETCH,
    Use.WALK: READ,
    Use.UPDATE: READ | WRITE,
}


def kind_bits(use: Use, *, ad: bool) -> int:
    """Bits 2:0 for ``use``; with EPT A/D (``ad``) any access to a guest paging-structure entry sets 0 and 1.

    Where bit 0 is the implementation's choice (``undefined`` names it) an update sets it, as Intel's CPUs do, and a
    read-modify-write does not.
    """
    return READ | WRITE if use.is_structure and ad else _KIND[use]


def permission_bits(granted: int, *, mbec: bool) -> int:
    """Bits 6:3 from the AND of the EPT entries used (its bits 2:0 and 10); bit 6 is 0 without MBEC."""
    bits = (granted & 7) << 3
    return bits | USER_EXECUTABLE if mbec and granted & _EPT_USER_EXECUTE else bits


def linear_bits(linear: Linear) -> int:
    """Bits 11:9 for an access to the translation of a linear address."""
    return (
        (LINEAR_USER if linear.user else 0)
        | (LINEAR_WRITABLE if linear.writable else 0)
        | (LINEAR_XD if linear.execute_disable else 0)
    )


def undefined(cpu: Cpu, use: Use, *, mbec: bool, ad: bool) -> dict[str, int]:
    """Rule name -> the qualification bits it leaves undefined or to the implementation."""
    masks: dict[str, int] = {}
    if not mbec:
        masks["undefined-bit6"] = USER_EXECUTABLE
    if use.is_structure or not cpu.advanced_info:
        masks["undefined-advanced"] = ADVANCED
    if use is Use.RMW:
        masks["specific-rmw-bit0"] = READ
    if use is Use.UPDATE and not ad:
        masks["specific-update-bit0"] = READ
    return masks


def violation(
    cpu: Cpu, use: Use, granted: int, linear: Linear, *, mbec: bool, ad: bool
) -> tuple[int, int, tuple[str, ...]]:
    """The 64-bit qualification, the mask of its defined bits, and the rules that undefine the others.

    ``granted`` is the AND of the entries used, 0 where one is not present. Undefined bits are 0; bit 0 is as a CPU
    chooses (``kind_bits``), and the mask leaves it out where it is a choice. A CPU with errata reports what they make
    of it; the mask is the manual's all the same.
    """
    value = kind_bits(use, ad=ad) | permission_bits(granted, mbec=mbec) | LINEAR_VALID
    if not use.is_structure:
        value |= FINAL | linear_bits(linear)
    masks = undefined(cpu, use, mbec=mbec, ad=ad)
    blank = 0
    for mask in masks.values():
        blank |= mask
    value &= ~(blank & ~READ)
    if errata.BIT6_DATA in cpu.errata and use is not Use.FETCH and value & USER_EXECUTABLE:
        value ^= USER_EXECUTABLE | SHADOW_STACK
    if errata.WALK_AD_BIT0 in cpu.errata and use.is_structure and ad:
        value &= ~READ
    return value, ALL & ~blank, tuple(masks)
