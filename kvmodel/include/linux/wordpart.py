"""include/linux/wordpart.h: a byte repeated."""

from __future__ import annotations

from kvmodel.mirrors import mirrors


@mirrors("include/linux/wordpart.h REPEAT_BYTE")
def REPEAT_BYTE(x: int) -> int:
    """The byte ``x`` stands in all 8 bytes of the ``unsigned long``."""
    return x * 0x0101_0101_0101_0101
