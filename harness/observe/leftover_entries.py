"""What KVM leaves in the entries of a page table that it takes down, read from its tracepoint.

A guest's huge page is split into small ones and comes again, for which the table of the small ones goes. Between the
entries' new values and the flush of the TLBs another CPU may walk that table, so what KVM takes for not present must be
so for the CPU as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from harness.errors import HostError
from harness.hosts import Host
from harness.observe import client, livelock
from kvmodel.question import msr
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vector import REMOVING
from kvmodel.sdm.host import left_behind

EVENT: Final = "kvm_tdp_mmu_spte_changed"
BUFFER: Final = 4096  # KiB: a line an entry
SHADOW_PRESENT: Final = 1 << 11  # KVM's own mark of an entry that it takes for present (SPTE_MMU_PRESENT_MASK)
DUMP: Final = "/sys/module/kvm_intel/parameters/dump_invalid_vmcs"
_CHANGED = re.compile(r"level (\d) old_spte ([0-9a-f]+) new_spte ([0-9a-f]+)")
_SECONDARY = re.compile(r"SecondaryExec=0x([0-9a-f]+)")


def removed(events: Iterable[livelock.TraceEvent]) -> Iterator[tuple[int, int]]:
    """(level, new value) of each entry that was present for KVM and is not any more."""
    for event in events:
        if event.name == EVENT and (match := _CHANGED.search(event.text)):
            old, new = int(match[2], 16), int(match[3], 16)
            if old & SHADOW_PRESENT and not new & SHADOW_PRESENT:
                yield int(match[1]), new


def secondary_controls(host: Host) -> int:
    """The function gives the 32 secondary controls with which KVM runs a guest, from the VMCS that it writes to its
    log.

    A parameter tells what was asked for, and nothing else on the host shows what KVM made of it.

    Raises HostError when the log has no VMCS.
    """
    before = host.run(f"cat {DUMP}", check=True).stdout.strip()
    try:
        host.run(f"echo Y > {DUMP} && {client.PATH} refused", timeout=60, check=True)
    finally:
        host.run(f"echo {before} > {DUMP}", check=True)
    found = _SECONDARY.findall(host.run("dmesg | grep SecondaryExec=", timeout=60).stdout)
    if not found:
        raise HostError(f"{host.name}: KVM wrote no VMCS to its log for a guest that cannot be entered")
    return int(found[-1], 16)


def ask(host: Host) -> Outcome:
    """The guest is run and looked at."""
    mbec = secondary_controls(host) & msr.MBEC != 0
    livelock.arm(host, (f"kvmmmu/{EVENT}",), BUFFER)
    host.run(f"{client.PATH} run", input=f"{client.request(REMOVING)}\n".encode(), timeout=60, check=True)
    found = list(removed(livelock.parse(livelock.disarm(host))))
    if not found:
        return Outcome(Kind.BLOCKED, note="no table was taken down")
    return left_behind(found, mbec=mbec)
