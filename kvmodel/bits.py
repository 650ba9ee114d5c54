"""Integers as C stores them.

Mirrors include/linux/bits.h (BIT, GENMASK) and the fixed-width unsigned types of include/linux/types.h.
The stores truncate only where C would: everything else that does not fit is refused.
"""

from __future__ import annotations


def BIT(nr: int) -> int:
    """``BIT(nr)``: bit ``nr`` (0-63) of an unsigned long, 64 bits."""
    if not 0 <= nr < 64:
        raise ValueError(f"BIT({nr}): the bit number must be 0 to 63")
    return 1 << nr


def GENMASK(high: int, low: int) -> int:
    """``GENMASK(high, low)``: bits ``high`` down to ``low``, both included, 64 bits."""
    if not 0 <= low <= high < 64:
        raise ValueError(f"GENMASK({high}, {low}): needs 0 <= low <= high <= 63")
    return ((1 << (high - low + 1)) - 1) << low


def u8(value: int) -> int:
    """The low 8 bits, as C's conversion to ``u8`` keeps them."""
    return value & 0xFF


def u16(value: int) -> int:
    """The low 16 bits, as C's conversion to ``u16`` keeps them."""
    return value & 0xFFFF


def u32(value: int) -> int:
    """The low 32 bits, as C's conversion to ``u32`` keeps them."""
    return value & 0xFFFF_FFFF


def u64(value: int) -> int:
    """The low 64 bits, as C's conversion to ``u64`` keeps them."""
    return value & 0xFFFF_FFFF_FFFF_FFFF


def field(value: int, width: int, what: str) -> int:
    """``value`` if it fits ``width`` bits; ValueError naming ``what`` if it does not."""
    if not 0 <= value < (1 << width):
        raise ValueError(f"{what}: {value:#x} does not fit {width} bits")
    return value
