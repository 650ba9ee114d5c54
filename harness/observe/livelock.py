"""What KVM itself says happened: its tracepoints on the running host, read back and judged.

The events are those by which a livelock is told from slowness (docs/design.md): the same exit again and
again, and no shadow entry changed in between.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from harness.hosts import Host

TRACING: Final = "/sys/kernel/tracing"
EVENTS: Final = ("kvm/kvm_exit", "kvm/kvm_page_fault", "kvmmmu/kvm_mmu_set_spte", "kvmmmu/kvm_tdp_mmu_spte_changed")
BUFFER: Final = 1408  # KiB, the kernel's own default
LIVELOCK_EXITS: Final = 16  # consecutive equal exits; an instruction may legally need dozens of different ones
DEADLINE: Final = 50  # microseconds of guest time in which a livelock goes round more often: the kernel prints slowly

EPT_VIOLATION: Final = 48  # exit reasons, SDM appendix C
EPT_MISCONFIG: Final = 49

_LINE = re.compile(r"^\s*(?P<task>.+?)-\d+\s+.*?(?P<time>\d+\.\d+): (?P<name>\w+): (?P<text>.*)$")
_EXIT = re.compile(r"reason (?P<reason>\S+).* rip 0x(?P<rip>[0-9a-f]+) info1 0x(?P<info1>[0-9a-f]+)")
_FAULT = re.compile(r"address 0x(?P<address>[0-9a-f]+) error_code 0x(?P<error>[0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """The record is of one tracepoint: its name, its text as the kernel printed it, the time in seconds of the host's
    clock.
    """

    name: str
    text: str
    time: float


@dataclass(slots=True)
class Livelock:
    """The record has the longest row of equal EPT-violation exits: how many, and the exit itself."""

    exits: int = 0
    rip: int = 0
    address: int = 0
    qualification: int = 0

    @property
    def confirmed(self) -> bool:
        """The definition is met: True."""
        return self.exits >= LIVELOCK_EXITS

    def __str__(self) -> str:
        verdict = "livelock" if self.confirmed else "no livelock"
        return (
            f"{verdict}: {self.exits} equal exits at RIP {self.rip:#x}, address {self.address:#x}, "
            f"qualification {self.qualification:#x}, no shadow entry changed"
        )


def arm(
    host: Host,
    events: Iterable[str] = EVENTS,
    kilobytes: int = BUFFER,
    exits: str = f"exit_reason=={EPT_VIOLATION}",
    on: bool = True,
) -> None:
    """Empty the buffer and switch the events on; of the exits only EPT violations are kept, or what ``exits`` passes.

    Of more events than ``kilobytes`` hold the latest are kept. Unless ``on`` somebody else switches tracing on.
    """
    script = [f"echo 0 >{TRACING}/tracing_on", f"echo {kilobytes} >{TRACING}/buffer_size_kb"]
    script += [f"echo >{TRACING}/trace", f"echo 0 >{TRACING}/events/enable"]
    script.append(f"echo '{exits}' >{TRACING}/events/kvm/kvm_exit/filter")
    script += [f"echo 1 >{TRACING}/events/{event}/enable" for event in events]
    host.run("; ".join([*script, f"echo {on:d} >{TRACING}/tracing_on"]), check=True)


def disarm(host: Host) -> str:
    """Tracing is switched off; the function gives the buffer's text."""
    script = f"echo 0 >{TRACING}/tracing_on; echo 0 >{TRACING}/events/enable; cat {TRACING}/trace"
    return host.run(script, timeout=300, check=True).stdout


def parse(text: str) -> Iterator[TraceEvent]:
    """The events of a trace buffer's text; comment lines are passed over."""
    for line in text.splitlines():
        if match := _LINE.match(line):
            yield TraceEvent(match["name"], match["text"], float(match["time"]))


def livelock(events: Iterable[TraceEvent]) -> Livelock:
    """The function gives the longest row of equal exits without a change of a shadow entry."""
    best, row = Livelock(), Livelock()
    for event in events:
        if event.name == "kvm_exit" and (match := _EXIT.search(event.text)):
            rip, qualification = int(match["rip"], 16), int(match["info1"], 16)
            if (rip, qualification) != (row.rip, row.qualification):
                row = Livelock(rip=rip, qualification=qualification, address=-1)
            row.exits += 1
        elif event.name == "kvm_page_fault" and (match := _FAULT.search(event.text)):
            address = int(match["address"], 16)
            if row.address not in (-1, address):
                row = Livelock(1, row.rip, address, row.qualification)
            row.address = address
        elif event.name in ("kvm_mmu_set_spte", "kvm_tdp_mmu_spte_changed"):
            row = Livelock(rip=row.rip, qualification=row.qualification, address=row.address)
        if row.exits > best.exits:
            best = Livelock(row.exits, row.rip, row.address, row.qualification)
    return best
