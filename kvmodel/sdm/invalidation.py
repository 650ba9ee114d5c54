"""INVEPT and INVVPID: whether the CPU has them, and of which types (SDM 31.3, A.10)."""

from __future__ import annotations

from typing import Final

from kvmodel.cpu import Cpu

INVALID_OPCODE: Final = 6  # the exception where there is no such instruction
EPT, VPID = 1, 5  # secondary controls, of MSR 0x48B
INVEPT, INVVPID = 20, 32  # bits of MSR 0x48C: the instruction is there
INVEPT_TYPES: Final = {1: 25, 2: 26}  # and where it is, the bit of each type
INVVPID_TYPES: Final = {0: 40, 1: 41, 2: 42, 3: 43}


def is_there(cpu: Cpu, *, vpid: bool) -> bool:
    """Whether INVVPID (``vpid``) or INVEPT is no invalid opcode."""
    return cpu.may_set(VPID if vpid else EPT) and cpu.has_ept_vpid(INVVPID if vpid else INVEPT)


def types(cpu: Cpu, *, vpid: bool) -> frozenset[int]:
    """The types of INVVPID (``vpid``) or INVEPT that the CPU has."""
    bits = INVVPID_TYPES if vpid else INVEPT_TYPES
    return frozenset(kind for kind, bit in bits.items() if cpu.has_ept_vpid(bit))
