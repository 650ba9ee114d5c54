"""include/linux/wordpart.h: a byte repeated."""

from __future__ import annotations


def REPEAT_BYTE(x: int) -> int:
    """include/linux/wordpart.h REPEAT_BYTE: the byte ``x`` in all 8 bytes of 64 bits."""
    return x * 0x0101_0101_0101_0101
