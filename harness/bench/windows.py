"""The records of the exits workload: a window and the gate. The one definition; the C header is generated from it.

A batch is the probe's (``harness.protocol``), with windows in the vectors' place: header, ``count`` windows, as many
observations. A window is as long as a vector, so that the probe's own loop goes over them. The gate is where L1 waits
for whoever counts, before and behind the counted part of a window.
"""

from __future__ import annotations

from typing import Final

from harness import protocol
from harness.protocol import Record

FRESH_STRIDE: Final = 0x8000  # bytes: each page has the eight entries that KVM may fill ahead to itself
LOAD_STRIDE: Final = 0x8000
FRESH_REGIONS: Final = 8  # of 2 MiB
FRESH_PAGES: Final = FRESH_REGIONS * (2 << 20) // FRESH_STRIDE
LOAD_REGIONS: Final = 2  # of 2 MiB
LOAD_PAGES: Final = LOAD_REGIONS * (2 << 20) // LOAD_STRIDE
GATE_BASE: Final = protocol.BATCH_BASE - 0x1000  # L1-physical
LOOKED_AT_MOST: Final = 8

WINDOW: Final = Record(
    "kvm_window",
    (
        ("I", 1, "index", "place in the batch"),
        ("B", 1, "kind", "KIND_WINDOW"),
        ("B", 3, "unused", "0"),
        ("I", 1, "warm", "system calls before the count begins"),
        ("I", 1, "calls", "system calls that are counted"),
        ("I", 1, "fresh_every", "one in so many writes to a data page never touched before (0: none)"),
        ("I", 1, "load_every", "one in so many loads new kernel code (0: none)"),
        ("I", 1, "hypercall_every", "one in so many makes hypercalls (0: none)"),
        ("I", 1, "hypercalls", "how many it makes"),
        ("I", 1, "looks", "VMCS fields L1 reads at each exit beside what it needs"),
        ("I", 1, "flags", "WINDOW_*"),
        ("I", 2, "reserved", "0"),
        ("I", 1, "marks", "0, where a vector has its flags"),
        ("I", 1, "reserved2", "0"),
    ),
)

GATE: Final = Record(
    "kvm_gate",
    (
        ("Q", 1, "arrived", "out: how often L1 has come to the gate"),
        ("Q", 1, "opened", "in: how often it was opened"),
    ),
)

CONSTANTS: Final[dict[str, int]] = {
    "KIND_WINDOW": 0x40,  # no kind of a vector
    "WINDOW_MBEC": 1,  # one view with mode-based execute control; else two views
    "WINDOW_EVMCS": 2,  # the vmcs12 is an enlightened one
    "WINDOW_GATED": 4,  # somebody counts
    "WINDOW_SILENT": 8,  # L2's kernel runs new code without asking L1, which is not to let it
    "WINDOW_BIT10": 16,  # two views: bit 10 goes with X in EPT12's entries
    "LOOKED_AT_MOST": LOOKED_AT_MOST,
    "GATE_BASE": GATE_BASE,
    "FRESH_BASE": 64 << 20,  # L1-physical, as L2 has it
    "FRESH_REGIONS": FRESH_REGIONS,
    "FRESH_STRIDE": FRESH_STRIDE,
    "FRESH_PAGES": FRESH_PAGES,
    "LOAD_BASE": 96 << 20,
    "LOAD_REGIONS": LOAD_REGIONS,
    "LOAD_STRIDE": LOAD_STRIDE,
    "LOAD_PAGES": LOAD_PAGES,
}


def c_header() -> str:
    """The function gives the C header that the workload and the counter are compiled with."""
    return protocol.c_header(CONSTANTS, (WINDOW, GATE), "harness/bench/windows.py", "KVMIRROR_WINDOWS_H")
