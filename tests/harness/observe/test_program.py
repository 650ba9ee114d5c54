"""Programs for the probe: records, L2's code, and outcomes out of observations."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from harness import protocol
from harness.observe.batch import pack, unpack
from harness.observe.program import assemble, outcome_of, records
from kvmodel.question.outcome import Kind, Outcome, Place
from kvmodel.question.program import L2Run, program
from kvmodel.question.program_layout import guest_linear, guest_physical
from kvmodel.sdm.program_tables import reached

C = protocol.CONSTANTS


@dataclass(frozen=True)
class Row:
    """An observation record."""

    verdict: int = 1
    vector: int = 0
    reason: int = 18
    error: int = 0
    qualification: int = 0
    gpa: int = 0
    gla: int = 0
    rip: int = 0
    value: int = 0
    leaf_after: int = 0
    astray: int = 0
    upper_after: int = 0


def run_of(text: str) -> L2Run:
    made = program(text).steps[-1]
    assert isinstance(made, L2Run)
    return made


def known(*numbers: int | None) -> int:
    """Bytes that tell pages, the first part's lowest."""
    return sum((0x80 | n) << 8 * place for place, n in enumerate(numbers) if n is not None)


def test_a_program_begins_with_its_tables_and_nothing_cached() -> None:
    rows = records(program("prog+m0=t1.r-x-+invept1.r0+cpl=3+read.a3"), 5)
    assert [r["access"] for r in rows] == [
        C["OP_BUILD"],
        C["OP_INVEPT"],
        C["OP_WRITE"],
        C["OP_INVEPT"],
        C["OP_CODE"],
        C["OP_RUN"],
    ]
    area = C["PROGRAM_TABLES"] + 5 * C["PROGRAM_AREA"]
    assert rows[0]["leaf"] == area
    # m0 is the sixth table, t1 the tenth; A set, bits 2:0 as written
    assert (rows[2]["leaf"], rows[2]["upper"]) == (area + 5 * 4096 + 8 * 8, area + 9 * 4096 | 0x105)
    assert rows[3]["upper"] == area | 6 | 3 << 3
    assert (rows[5]["cpl"], rows[5]["leaf"], rows[5]["ept"]) == (3, area, C["EPT_ENABLE"])


def test_programs_take_their_areas_in_turn() -> None:
    wanted = program("prog+read.a3")
    assert records(wanted, 0)[0]["leaf"] == records(wanted, C["PROGRAM_AREAS"])[0]["leaf"]
    assert records(wanted, 0)[0]["leaf"] != records(wanted, 1)[0]["leaf"]


def test_the_controls_go_with_the_entries_behind_them() -> None:
    rows = records(program("prog+mbec=on+ad=1+root=1+vpid=2+vmcs=1+smap1,read.a3+read.a4"), 0)
    first, second = (r for r in rows if r["access"] == C["OP_RUN"])
    assert first["ept"] == C["EPT_ENABLE"] | C["EPT_AD"] | C["EPT_MBEC"] | C["EPT_VPID"]
    assert first["msr"] == 2 and first["flags"] == C["FLAG_VMCS_B"]
    assert first["leaf"] == C["PROGRAM_TABLES"] + 4096
    assert first["cr"] == C["CR_WP"] | C["CR_NXE"]
    assert second["cr"] == C["CR_WP"] | C["CR_NXE"] | C["CR_SMAP"]  # as L2 left it


def test_l2s_code() -> None:
    code = assemble(run_of("prog+wp0,write.a3,read.b1"))
    address = guest_linear("a3") + 64 + 8
    assert code.data.startswith(bytes.fromhex("0f20c2480fbaf2100f22c248bf") + address.to_bytes(8, "little"))
    assert code.data.endswith(bytes.fromhex("0f01c1"))
    supervisor, user = C["GLA_PROGRAM"], C["GLA_PROGRAM"] + 4096
    assert [code.part_at(supervisor + at) for at in (0, 10, 11, len(code.data) - 4)] == [0, 0, 1, 2]
    assert code.part_at(user + 11) == 1
    assert code.part_at(supervisor - 1) is None and code.part_at(user + 4096) is None


def test_a_run_that_completes_tells_the_page_of_each_access() -> None:
    asked = program("prog+read.a3,write.b2,rmw.c1,fetch.a0")
    rows = [Row()] * (len(records(asked, 0)) - 1)
    last = Row(value=known(3), leaf_after=known(None, 2, 9), upper_after=0x80)
    assert outcome_of(asked, [*rows, last]).turns == (reached(3), reached(2), reached(9), reached(0))


def test_a_write_that_reached_no_page_is_told_so() -> None:
    asked = program("prog+write.a3")
    rows = [Row()] * (len(records(asked, 0)) - 1)
    seen = outcome_of(asked, [*rows, Row()]).turns[0]
    assert (seen.kind, seen.code) == (Kind.DONE, 0xFF)
    assert not reached(3).matches(seen)


@pytest.mark.parametrize(
    ("row", "outcome"),
    [
        (Row(verdict=4, error=7), Outcome(Kind.ENTRY_FAIL, 7)),
        (Row(verdict=5, reason=1 << 31 | 33, qualification=2), Outcome(Kind.ENTRY_EXIT, 2, number=33)),
        (
            Row(verdict=2, reason=48, qualification=0x782, gpa=guest_physical("b2") + 72, gla=guest_linear("b2") + 72),
            Outcome(Kind.VIOLATION, 0x782, gpa=Place("b2", 72), gla=Place("b2", 72)),
        ),
        (Row(verdict=2, reason=49, gpa=guest_physical("b2")), Outcome(Kind.MISCONFIG, gpa=Place("b2"))),
        (Row(verdict=2, reason=31), Outcome(Kind.EXIT, number=31)),
        (Row(verdict=6), Outcome(Kind.LIVELOCK)),
        (
            Row(verdict=3, vector=14, error=3, qualification=guest_linear("b2") + 72),
            Outcome(Kind.EXCEPTION, 3, number=14, gla=Place("b2", 72)),
        ),
        (Row(verdict=3, vector=13), Outcome(Kind.EXCEPTION, number=13)),
    ],
)
def test_what_ends_a_run_early(row: Row, outcome: Outcome) -> None:
    asked = program("prog+read.a3,write.b2,read.c1")
    part = 0 if row.verdict in (4, 5) else 1
    rip = C["GLA_PROGRAM"] + (assemble(run_of(asked.id)).ends[0] if part else 0)
    rows = [Row()] * (len(records(asked, 0)) - 1)
    last = Row(**{**row.__dict__, "rip": rip, "value": known(3)})
    unreached = Outcome(Kind.UNREACHED)
    assert outcome_of(asked, [*rows, last]).turns == (*([reached(3)] * part), outcome, *([unreached] * (2 - part)))


def test_an_l2_that_ended_elsewhere_says_nothing() -> None:
    asked = program("prog+read.a3")
    rows = [Row()] * (len(records(asked, 0)) - 1)
    seen = outcome_of(asked, [*rows, Row(verdict=2, reason=48, rip=0x1234)])
    assert seen.kind is Kind.SCAFFOLD and "RIP 0x1234" in seen.note


def test_a_look_reads_the_entry_where_the_program_has_it() -> None:
    asked = program("prog+read.a3+look.t03+look.m0+look.g.b4+look.gu.c")
    rows = records(asked, 2)
    area = C["PROGRAM_TABLES"] + 2 * C["PROGRAM_AREA"]
    looks = [r for r in rows if r["access"] == C["OP_LOOK"]]
    tables = C["PROGRAM_GPT"]
    wanted = [area + 8 * 4096 + 19 * 8, area + 5 * 4096 + 8 * 8, tables + 4096 + 20 * 8, 0x1004000 + 10 * 8]
    assert [r["leaf"] for r in looks] == wanted
    seen = [Row()] * (len(rows) - 5) + [Row(value=known(3))]
    read = (0x121_3737, area + 0x8507, 0x8101_4027, 0x100_D027)
    found = outcome_of(asked, [*seen, *(Row(verdict=7, value=value) for value in read)]).turns
    assert [turn.code for turn in found[1:]] == [read[0], 0x8507, *read[2:]]
    assert [turn.note for turn in found[1:]] == ["accessed, dirty", "accessed", "accessed", "accessed"]


def test_l2_calls_its_host_in_the_middle() -> None:
    asked = program("prog+read.a3,save,read.a4")
    code = assemble(run_of(asked.id))
    assert bytes.fromhex("ba05050000b001ee") in code.data
    rows = [Row()] * (len(records(asked, 0)) - 1)
    assert outcome_of(asked, [*rows, Row(value=known(3, None, 4))]).turns == (reached(3), reached(4))
    refused = outcome_of(asked, [*rows, Row(verdict=8, error=0x1005)])
    assert refused.kind is Kind.SCAFFOLD and "the host could not do it" in refused.note


def test_a_death_ends_the_row() -> None:
    asked = program("prog+read.a3+write.a3+read.a4")
    rows = records(asked, 0)
    at = [i for i, r in enumerate(rows) if r["access"] == C["OP_RUN"]]
    before = [Row()] * at[0] + [Row(value=known(3))] + [Row()] * (at[1] - at[0] - 1)
    death = Outcome(Kind.HOST, note="gone")
    assert outcome_of(asked, before, death).turns == (reached(3), death)


def test_a_batch_holds_programs_beside_others() -> None:
    vectors = [program("prog+read.a3"), program("prog+invept3.r0")]
    batch = unpack(pack(vectors))
    assert batch.header.count == sum(len(records(v, n)) for n, v in enumerate(vectors))
