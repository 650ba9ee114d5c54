"""What KVM leaves in the entries of a page table that it takes down, read from its tracepoint.

A guest's huge page is split into small ones and comes again, for which the table of the small ones goes. Between the
entries' new values and the flush of the TLBs another CPU may walk that table, so what KVM takes for not present must be
so for the CPU as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from harness import client, trace
from harness.hosts.base import Host
from kvmodel.outcome import Kind, Outcome
from kvmodel.sdm.host import left_behind
from kvmodel.vector import REMOVING

EVENT: Final = "kvm_tdp_mmu_spte_changed"
BUFFER: Final = 4096  # KiB: a line an entry
SHADOW_PRESENT: Final = 1 << 11  # KVM's own mark of an entry that it takes for present (SPTE_MMU_PRESENT_MASK)
_CHANGED = re.compile(r"level (\d) old_spte ([0-9a-f]+) new_spte ([0-9a-f]+)")


def removed(events: Iterable[trace.Event]) -> Iterator[tuple[int, int]]:
    """(level, new value) of each entry that was present for KVM and is not any more."""
    for event in events:
        if event.name == EVENT and (match := _CHANGED.search(event.text)):
            old, new = int(match[2], 16), int(match[3], 16)
            if old & SHADOW_PRESENT and not new & SHADOW_PRESENT:
                yield int(match[1]), new


def ask(host: Host, mbec: bool) -> Outcome:
    """Run the guest and look; ``mbec``: KVM runs its guests with mode-based execute control."""
    trace.arm(host, (f"kvmmmu/{EVENT}",), BUFFER)
    host.run(f"{client.PATH} run", input=f"{client.request(REMOVING)}\n".encode(), timeout=60, check=True)
    found = list(removed(trace.parse(trace.disarm(host))))
    if not found:
        return Outcome(Kind.BLOCKED, note="no table was taken down")
    return left_behind(found, mbec=mbec)
