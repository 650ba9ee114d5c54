"""Vectors to records and back, and what the records' verdicts mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from harness import protocol
from harness.errors import GuestError, InputError
from harness.observe import batch as guest
from kvmodel.question.outcome import Kind, Outcome, Place
from kvmodel.question.reading import parse
from kvmodel.question.vector import (
    Access,
    AccessVector,
    CapsVector,
    ClientVector,
    EntryVector,
    GuestPerm,
    HostVector,
    Mbec,
    MmioVector,
    MsrVector,
    Paging,
    Perm,
    Vector,
)

C = protocol.CONSTANTS
TARGET = 0x4040_3000
GLA = 0x0090_0000
GPT = 0x0100_6970


def records(*vectors: Vector, flags: list[int] | None = None) -> Iterator[dict[str, int]]:
    data = guest.pack(vectors, flags=flags)
    for i in range(len(vectors)):
        fields = protocol.VECTOR.unpack(data, protocol.HEADER.size + i * protocol.VECTOR.size)
        yield {name: value for name, value in fields.items() if isinstance(value, int)}


def record(vector: Vector) -> dict[str, int]:
    return next(records(vector))


def seen(**fields: int) -> guest.Observation:
    base = {name: 0 for _, _, name, _ in protocol.OBSERVATION.rows}
    return guest.Observation(**{**base, "target_gpa": TARGET, "target_gla": GLA, "gpt_gpa": GPT, **fields})


def test_access_record_says_what_the_id_says() -> None:
    v = AccessVector(
        Mbec.ON,
        leaf_level=2,
        leaf=Perm.parse("r-xu"),
        upper_level=4,
        upper=Perm.parse("-w--"),
        memtype=5,
        leaf_bits=1 << 63 | 1 << 8,
        upper_bits=1 << 7,
        access=Access.RMW,
        gp=GuestPerm.parse("urn"),
        gu=GuestPerm.parse("swx"),
        paging=Paging.PAE,
        cpl=3,
        wp=False,
        smep=True,
        smap=True,
        nxe=False,
        ad=True,
    )
    r = record(v)
    assert r["kind"] == C["KIND_ACCESS"] and r["access"] == C["ACCESS_RMW"]
    assert (r["leaf_level"], r["upper_level"]) == (2, 4)
    assert r["leaf"] == 1 << 63 | 1 << 10 | 1 << 8 | 5 << 3 | 0b101
    assert r["upper"] == 1 << 7 | 0b010
    assert r["gp"] == 1 << 63 | 1 << 6 | 1 << 5 | 0b101
    assert r["gu"] == 1 << 5 | 0b011
    assert r["paging"] == C["PAGING_PAE"] and r["cpl"] == 3
    assert r["cr"] == C["CR_SMEP"] | C["CR_SMAP"]
    assert r["ept"] == C["EPT_ENABLE"] | C["EPT_AD"] | C["EPT_MBEC"]


@pytest.mark.parametrize(
    ("access", "accessed", "dirty"),
    [(Access.WALK, 1, 1), (Access.WALKA, 0, 0), (Access.WALKD, 1, 0), (Access.READ, 1, 1), (Access.FETCH, 1, 1)],
)
def test_guest_entry_has_the_bits_that_make_the_walk_do_what_the_access_names(
    access: Access, accessed: int, dirty: int
) -> None:
    gp = record(AccessVector(access=access))["gp"]
    assert (gp >> 5 & 1, gp >> 6 & 1) == (accessed, dirty)


def test_mbec_off_and_not_offered_both_leave_the_control_clear() -> None:
    for mbec in (Mbec.OFF, Mbec.NA):
        assert record(AccessVector(mbec))["ept"] == C["EPT_ENABLE"]
        assert record(EntryVector(mbec, ept=False))["ept"] == 0
    assert record(EntryVector(Mbec.ON, ept=False))["ept"] == C["EPT_MBEC"]


def test_other_kinds() -> None:
    assert record(MsrVector(msr=0x48C))["msr"] == 0x48C
    assert record(MsrVector())["kind"] == C["KIND_MSR"]
    assert record(MmioVector(access=Access.WRITE))["access"] == C["ACCESS_WRITE"]
    entry = record(EntryVector())
    assert entry["kind"] == C["KIND_ENTRY"] and (entry["leaf_level"], entry["upper_level"]) == (1, 2)


@pytest.mark.parametrize(
    ("vector", "why"),
    [
        (HostVector(), "not a question for the probe"),
        (ClientVector(), "not a question for the probe"),
        (MmioVector(access=Access.FETCH), "read, write or rmw"),
        (AccessVector(access=Access.WALK, paging=Paging.OFF), "no page walk"),
        (AccessVector(gp=GuestPerm.parse("uwn"), paging=Paging.BITS32), "no execute-disable"),
    ],
)
def test_what_the_probe_cannot_build_is_refused_by_its_id(vector: Vector, why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        guest.pack([vector])
    assert vector.id in str(caught.value)


def test_batch_is_as_long_as_it_says_and_its_arena_lies_behind_it() -> None:
    vectors = [AccessVector(leaf=leaf) for leaf in Perm.all()]
    data = guest.pack(vectors, start=3, deadline=250, arena_size=1 << 20)
    assert len(data) == guest.batch_size(16)
    header = protocol.HEADER.unpack(data)
    arena = header["arena"]
    assert isinstance(arena, int) and arena >= protocol.BATCH_BASE + len(data) and arena % (2 << 20) == 0
    assert (header["start"], header["deadline"], header["arena_size"]) == (3, 250, 1 << 20)


def test_too_large_a_batch_and_missing_flags_are_refused() -> None:
    with pytest.raises(InputError, match="split the batch"):
        guest.pack([AccessVector()], arena_size=protocol.L1_MEMORY)
    with pytest.raises(InputError, match="1 flags for 2 records"):
        guest.pack([AccessVector(), AccessVector()], flags=[0])


def test_flags_and_index_go_with_their_vector() -> None:
    first, second = records(AccessVector(), AccessVector(), flags=[0, C["FLAG_CONTINUE"] | C["FLAG_NO_INVEPT"]])
    assert (first["index"], first["flags"]) == (0, 0)
    assert (second["index"], second["flags"]) == (1, C["FLAG_CONTINUE"] | C["FLAG_NO_INVEPT"])


def test_observations_come_back_in_place_from_memory_and_from_the_stream() -> None:
    data = bytearray(guest.pack([AccessVector()] * 3))
    at = len(data) - 3 * protocol.OBSERVATION.size
    for i in range(3):
        record_bytes = protocol.OBSERVATION.pack(index=i, verdict=C["VERDICT_VALUE"], value=0x100 + i, tsc=7)
        data[at + i * len(record_bytes) : at + (i + 1) * len(record_bytes)] = record_bytes
    batch = guest.unpack(bytes(data))
    assert [o.value for o in batch.observations] == [0x100, 0x101, 0x102]
    assert not batch.header.done and batch.header.count == 3
    emitted = bytes(data[: protocol.HEADER.size] + data[at:])
    assert guest.unpack_emitted(emitted).observations == batch.observations
    with pytest.raises(GuestError, match="do not fit"):
        guest.unpack_emitted(emitted[:-1])


def test_foreign_bytes_are_not_a_batch() -> None:
    data = bytearray(guest.pack([AccessVector()]))
    data[0] ^= 1
    with pytest.raises(GuestError, match="different builds"):
        guest.unpack(bytes(data))
    with pytest.raises(GuestError, match="only 10"):
        guest.unpack(bytes(data[:10]))


def test_restart_goes_on_behind_the_vector_that_killed_l1() -> None:
    data = guest.pack([AccessVector()] * 4)
    fields = protocol.HEADER.unpack(data)
    ran = protocol.HEADER.pack(**{**fields, "state": C["STATE_RUNNING"], "current": 1}) + data[protocol.HEADER.size :]
    again = guest.unpack_header(guest.restart(ran, 2))
    assert (again.start, again.current, again.state) == (2, 2, C["STATE_LOADED"])
    assert guest.restart(ran, 2)[protocol.HEADER.size :] == data[protocol.HEADER.size :]


def test_msr_that_faulted_is_none() -> None:
    data = guest.pack([])
    fields = protocol.HEADER.unpack(data)
    msrs = tuple(range(100, 118))
    header = guest.unpack_header(protocol.HEADER.pack(**{**fields, "msrs": msrs, "msr_faults": 1 << 0x11}))
    assert header.msr(0x48B) == 111
    assert header.msr(0x491) is None


VIOLATION = {"verdict": C["VERDICT_EXIT"], "reason": 48}


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        ({"verdict": C["VERDICT_NONE"]}, Outcome(Kind.BLOCKED, note="not run")),
        ({"verdict": C["VERDICT_DONE"]}, Outcome(Kind.DONE)),
        (
            {**VIOLATION, "qualification": 0x781, "gpa": TARGET, "gla": GLA},
            Outcome(Kind.VIOLATION, code=0x781, gpa=Place("target"), gla=Place("target")),
        ),
        (
            {**VIOLATION, "qualification": 0x1, "gpa": TARGET + 8, "gla": GLA},
            Outcome(Kind.VIOLATION, code=0x1, gpa=Place("target", 8), gla=None),
        ),
        (
            {**VIOLATION, "qualification": 0x83, "gpa": GPT, "gla": GLA + 4},
            Outcome(Kind.VIOLATION, code=0x83, gpa=Place("gpt"), gla=Place("target", 4)),
        ),
        (
            {**VIOLATION, "qualification": 0x81, "gpa": GPT - 0x170, "gla": 0x40_0000},
            Outcome(Kind.VIOLATION, code=0x81, gpa=Place("gpt", -0x170), gla=Place("linear", 0x40_0000)),
        ),
        (
            {**VIOLATION, "gpa": 0x1000},
            Outcome(Kind.VIOLATION, gpa=Place("l2", 0x1000)),
        ),
        ({"verdict": C["VERDICT_EXIT"], "reason": 49, "gpa": TARGET}, Outcome(Kind.MISCONFIG, gpa=Place("target"))),
        (
            {"verdict": C["VERDICT_EXIT"], "reason": 2, "qualification": 5},
            Outcome(Kind.EXIT, code=5, number=2),
        ),
        (
            {"verdict": C["VERDICT_EXCEPTION"], "vector": 14, "error": 0x15, "qualification": GLA},
            Outcome(Kind.EXCEPTION, code=0x15, number=14, gla=Place("target")),
        ),
        ({"verdict": C["VERDICT_EXCEPTION"], "vector": 13}, Outcome(Kind.EXCEPTION, number=13)),
        ({"verdict": C["VERDICT_ENTRY_FAIL"], "error": 7}, Outcome(Kind.ENTRY_FAIL, code=7)),
        (
            {"verdict": C["VERDICT_ENTRY_EXIT"], "reason": 0x8000_0021, "qualification": 3},
            Outcome(Kind.ENTRY_EXIT, code=3, number=33),
        ),
        ({"verdict": C["VERDICT_VALUE"], "value": 0xAB}, Outcome(Kind.VALUE, code=0xAB)),
    ],
)
def test_outcome(fields: dict[str, int], want: Outcome) -> None:
    assert guest.outcome(AccessVector(), seen(**fields)) == want


def test_livelock_and_scaffold_say_what_is_known() -> None:
    livelock = guest.outcome(AccessVector(), seen(verdict=C["VERDICT_TIMEOUT"], reason=1, tsc=1234))
    assert livelock == Outcome(Kind.LIVELOCK)  # no word of its duration: the same answer every time
    refused = guest.outcome(AccessVector(), seen(verdict=C["VERDICT_SCAFFOLD"], error=0x1000))
    assert refused.kind is Kind.SCAFFOLD and "MAXPHYADDR" in refused.note
    broken = guest.outcome(AccessVector(), seen(verdict=C["VERDICT_SCAFFOLD"], reason=2, rip=0x40_0000))
    assert broken.kind is Kind.SCAFFOLD and "0x400000" in broken.note


def test_the_operand_without_memory_is_a_place_of_its_own() -> None:
    at = guest.outcome(
        AccessVector(), seen(verdict=C["VERDICT_EXIT"], reason=48, qualification=0x80, gla=C["GLA_MMIO"])
    )
    assert at.gla == Place("mmio")


@pytest.mark.parametrize("more", [{"paging": Paging.PAE}, {"smap": True}, {"upper_level": 4}])
def test_an_emulated_access_has_its_setting(more: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="a MOVS needs pg64 and smap0"):
        guest.pack([AccessVector(access=Access.EMUWRITE, **more)])


def test_unknown_verdict_is_a_broken_guest() -> None:
    with pytest.raises(GuestError, match="verdict 99"):
        guest.outcome(AccessVector(), seen(verdict=99))


def test_paging_off_has_no_guest_entry_to_be_mistaken_for() -> None:
    o = replace(seen(verdict=C["VERDICT_EXIT"], reason=48, gpa=0x10), gpt_gpa=0)
    assert guest.outcome(AccessVector(paging=Paging.OFF), o).gpa == Place("l2", 0x10)


def test_msrs_held_against_each_other_are_a_record_each() -> None:
    vector = CapsVector(relation="vmfunc-exist")
    assert [row["msr"] for row in records(vector, vector)] == [0x48B, 0x491]  # the first vector's
    assert guest.spans([MsrVector(), vector])[1] == slice(1, 3)
    functions = seen(verdict=C["VERDICT_VALUE"], value=1 << 45)
    faulted, one = seen(verdict=C["VERDICT_EXCEPTION"], vector=13), seen(verdict=C["VERDICT_VALUE"], value=1)
    assert guest.outcome_of(vector, [functions, one]).code == 0
    broken = guest.outcome_of(vector, [functions, faulted])
    assert (broken.code, broken.note) == (1, "0x48b 0x200000000000, 0x491 absent")
    assert guest.outcome_of(vector, [functions, seen(verdict=0)]).kind is Kind.BLOCKED


def test_a_vm_entry_is_a_record_a_change_and_one_more() -> None:
    vector = parse("vmentry.guest_rflags:c1+guest_dr7=400+mem2:s63.pgpae.mbec=off")
    assert guest.count_records(vector) == 4
    assert guest.deciding_record(vector, 0) == 3
    data = guest.pack([vector])
    at = range(protocol.HEADER.size, protocol.HEADER.size + 4 * protocol.VECTOR.size, protocol.VECTOR.size)
    rows = [protocol.VECTOR.unpack(data, offset) for offset in at]
    assert [row["kind"] for row in rows] == [*[C["KIND_CHANGE"]] * 3, C["KIND_VM_ENTRY"]]
    all_ones = (1 << 64) - 1
    assert [(row["msr"], row["leaf"], row["upper"]) for row in rows[:3]] == [
        (0x6820, all_ones ^ 2, 0),
        (0x681A, 0, 0x400),
        (C["CHANGE_MEMORY"] + 2, all_ones, 1 << 63),
    ]
    assert rows[3]["paging"] == C["PAGING_PAE"]
    observed = [*[seen(verdict=C["VERDICT_DONE"])] * 3, seen(verdict=C["VERDICT_ENTRY_FAIL"], error=8)]
    assert guest.outcome_of(vector, observed) == Outcome(Kind.ENTRY_FAIL, code=8)


def test_an_access_that_came_to_another_page_is_told() -> None:
    astray = guest.outcome(parse("e4k.l1=rwxu.read.mbec=off"), seen(verdict=1, astray=C["ASTRAY_DATA"], reason=18))
    assert astray.kind is Kind.ASTRAY
    assert "another page" in astray.note
