"""Which VM exits KVM sees while an L2 makes system calls under an L1 that guards its kernel's code.

The L1 is that of ``images/exits``: it lets L2's kernel run verified code only. Without MBEC it has two EPT12 views and
is entered at each change between user and kernel code; with MBEC one view is enough.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mix:
    """What L2 does in a window: system calls, and one in so many (0: none) something beside."""

    calls: int = 200
    fresh_every: int = 0  # writes to a data page that was never touched; its kernel reads it
    load_every: int = 0  # loads new kernel code, which L1 verifies, and runs it
    hypercall_every: int = 0  # makes hypercalls
    hypercalls: int = 1
    looks: int = 5  # VMCS fields that L1 reads at each exit beside what it needs
    warm: int = 4  # system calls before the count begins
