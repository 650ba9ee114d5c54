"""Windows as bytes: what goes in, what is refused, and that the probe's own loop can go over them."""

from __future__ import annotations

import pytest

from harness import protocol
from harness.bench import batch, windows
from harness.bench.batch import Window
from harness.errors import GuestError, InputError
from harness.observe.batch import Observation
from kvmodel.machine.exits import Mix

C = windows.CONSTANTS


def test_a_window_takes_a_vectors_place() -> None:
    assert windows.WINDOW.size == protocol.VECTOR.size
    assert windows.WINDOW.offset("kind") == protocol.VECTOR.offset("kind")
    assert windows.WINDOW.offset("marks") == protocol.VECTOR.offset("flags")
    kinds = [value for name, value in protocol.CONSTANTS.items() if name.startswith("KIND_")]
    assert C["KIND_WINDOW"] not in kinds


def test_the_gate_lies_below_the_batch_and_above_the_pages() -> None:
    assert windows.GATE_BASE + windows.GATE.size <= protocol.BATCH_BASE
    ends = [C["FRESH_BASE"] + C["FRESH_REGIONS"] * (2 << 20), C["LOAD_BASE"] + C["LOAD_REGIONS"] * (2 << 20)]
    assert ends[0] <= C["LOAD_BASE"] and ends[1] <= batch.ARENA
    assert batch.ARENA + batch.ARENA_SIZE <= protocol.L1_MEMORY


def test_what_is_packed_is_what_was_asked() -> None:
    mix = Mix(30, fresh_every=3, load_every=5, hypercall_every=2, hypercalls=4, looks=6, warm=7)
    data = batch.pack([Window(mix, mbec=True, evmcs=True), Window(Mix(), bit10=True, gated=False, silent=True)])
    header = protocol.HEADER.unpack(data)
    assert (header["count"], header["state"]) == (2, protocol.CONSTANTS["STATE_LOADED"])
    at = header["vectors"]
    assert isinstance(at, int)
    first, second = (windows.WINDOW.unpack(data, at + i * windows.WINDOW.size) for i in range(2))
    asked = ("calls", "fresh_every", "load_every", "hypercall_every", "hypercalls", "looks", "warm")
    assert [first[name] for name in asked] == [30, 3, 5, 2, 4, 6, 7]
    assert first["flags"] == C["WINDOW_MBEC"] | C["WINDOW_EVMCS"] | C["WINDOW_GATED"]
    assert second["flags"] == C["WINDOW_BIT10"] | C["WINDOW_SILENT"]
    assert (second["index"], second["kind"], second["marks"]) == (1, C["KIND_WINDOW"], 0)


def test_observations_come_back() -> None:
    data = bytearray(batch.pack([Window(Mix())] * 2))
    at = protocol.HEADER.unpack(data)["observations"]
    assert isinstance(at, int)
    data[at + protocol.OBSERVATION.size :] = protocol.OBSERVATION.pack(index=1, verdict=1, value=200)
    seen = batch.unpack(bytes(data))
    assert [(o.verdict, o.value) for o in seen] == [(0, 0), (1, 200)]
    assert isinstance(seen[0], Observation)
    with pytest.raises(GuestError, match="not a batch"):
        batch.unpack(bytes(len(data)))


@pytest.mark.parametrize(
    "mix, words",
    [
        (Mix(windows.LOAD_PAGES + 1, load_every=1), "code loads need 129: the workload has 128"),
        (Mix(2 * windows.FRESH_PAGES + 2, fresh_every=2), "fresh pages need 513: the workload has 512"),
        (Mix(0), "0 system calls, .* at least one of each"),
        (Mix(warm=0), "before the count begins"),
        (Mix(looks=9), "9 fields looked at: L1 looks at 0 to 8"),
        (Mix(looks=-1), "L1 looks at 0 to 8"),
    ],
)
def test_a_mix_that_the_workload_has_no_room_for_is_refused(mix: Mix, words: str) -> None:
    with pytest.raises(InputError, match=words):
        batch.pack([Window(mix)])
