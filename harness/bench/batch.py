"""Windows of the exits workload as the bytes of a batch, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from harness import protocol
from harness.bench import windows
from harness.bench.windows import CONSTANTS
from harness.errors import InputError
from harness.observe import Observation
from harness.observe import batch as of_probe
from kvmodel.machine.exits import Mix

ARENA_SIZE: Final = 4 << 20  # bytes of L1 memory for EPT12, 30 pages a window; L1 touches it at its start
ARENA: Final = 128 << 20  # L1-physical


@dataclass(frozen=True, slots=True)
class Window:
    """A window is one counted stretch of system calls on one kind of L1."""

    mix: Mix
    mbec: bool = False
    evmcs: bool = False
    bit10: bool = False  # software MBEC: bit 10 goes with X in EPT12
    gated: bool = True
    silent: bool = False  # L2's kernel runs new code without asking L1

    @property
    def record(self) -> dict[str, int]:
        """The function gives the window's fields for ``windows.WINDOW``."""
        flags = (
            self.mbec * CONSTANTS["WINDOW_MBEC"]
            | self.evmcs * CONSTANTS["WINDOW_EVMCS"]
            | self.gated * CONSTANTS["WINDOW_GATED"]
            | self.silent * CONSTANTS["WINDOW_SILENT"]
            | self.bit10 * CONSTANTS["WINDOW_BIT10"]
        )
        mix = self.mix
        return {
            "kind": CONSTANTS["KIND_WINDOW"],
            "warm": mix.warm,
            "calls": mix.calls,
            "fresh_every": mix.fresh_every,
            "load_every": mix.load_every,
            "hypercall_every": mix.hypercall_every,
            "hypercalls": mix.hypercalls,
            "looks": mix.looks,
            "flags": flags,
        }


def pack(asked: Sequence[Window]) -> bytes:
    """The function gives the windows as the bytes of a batch.

    Raises InputError for a window that the workload has no room for.
    """
    for window in asked:
        check(window.mix)
    at = protocol.HEADER.size
    observations = at + len(asked) * windows.WINDOW.size
    header = protocol.HEADER.pack(
        magic=protocol.MAGIC,
        version=protocol.VERSION,
        count=len(asked),
        vectors=at,
        observations=observations,
        arena=ARENA,
        arena_size=ARENA_SIZE,
    )
    records = b"".join(windows.WINDOW.pack(**{**w.record, "index": i}) for i, w in enumerate(asked))
    return header + records + bytes(len(asked) * protocol.OBSERVATION.size)


def check(mix: Mix) -> None:
    """The mix has room in the workload's pages.

    Raises InputError for a mix that needs more pages than the workload has.
    """
    for name, every, most in (
        ("fresh pages", mix.fresh_every, windows.FRESH_PAGES),
        ("code loads", mix.load_every, windows.LOAD_PAGES),
    ):
        if every and mix.calls // every > most:
            raise InputError(
                f"{mix.calls} system calls with one in {every} of {name} need {mix.calls // every}: "
                f"the workload has {most}; ask for fewer"
            )
    if mix.calls < 1 or mix.warm < 1:
        raise InputError(
            f"{mix.calls} system calls, {mix.warm} before the count begins: a window has at least one of each; "
            "ask for more"
        )
    if not 0 <= mix.looks <= windows.LOOKED_AT_MOST:
        raise InputError(f"{mix.looks} fields looked at: L1 looks at 0 to {windows.LOOKED_AT_MOST}; name one of these")


def unpack(data: bytes | memoryview) -> tuple[Observation, ...]:
    """The observations of a batch read back from L1's memory. GuestError where the bytes are not one."""
    return of_probe.unpack(data).observations
