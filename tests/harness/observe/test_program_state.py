"""L2's own paging registers in programs: their records, L2's code in both modes, and what is read out of a run."""

from __future__ import annotations

from harness import protocol
from harness.observe.program import assemble, outcome_of, records
from harness.observe.program_state import CodeFrame
from kvmodel.question.outcome import Kind, Outcome, Place
from kvmodel.question.program import L2Run, program
from kvmodel.question.program_layout import guest_linear
from kvmodel.sdm.program_tables import reached
from tests.harness.observe.test_program import Row, known

C = protocol.CONSTANTS
PAE = CodeFrame(pae=True)


def run_of(text: str) -> L2Run:
    made = program(text).steps[-1]
    assert isinstance(made, L2Run)
    return made


def test_the_windows_are_a_gigabyte_apart_in_pae_paging() -> None:
    assert guest_linear("b3", pae=True) == 1 << 30 | guest_linear("b3")
    assert guest_linear("a3", pae=True) == guest_linear("a3")


def test_l2s_code_in_32_bit_mode() -> None:
    code = assemble(run_of("prog+pg=pae+smep1,read.b3,cr3.1,write.a3"), PAE)
    result = (C["GLA_PROGRAM"] + C["PROGRAM_RESULTS"] + 1).to_bytes(4, "little")
    wanted = (
        bytes.fromhex("0f20e20fbaea140f22e2")  # mov %cr4, %edx; bts $20, %edx; mov %edx, %cr4
        + b"\xbf"
        + guest_linear("b3", pae=True).to_bytes(4, "little")  # mov $address, %edi
        + bytes.fromhex("8b07c1e8088805")
        + result  # mov (%edi), %eax; shr $8, %eax; mov %al, address
        + bytes.fromhex("be204002010f22de")  # mov $k1, %esi; mov %esi, %cr3
    )
    assert code.data.startswith(wanted)
    user = assemble(run_of("prog+pg=pae+read.b3"), CodeFrame(pae=True, cpl=3)).data
    assert (C["GLA_PROGRAM"] + 4096 + C["PROGRAM_RESULTS"]).to_bytes(4, "little") in user


def test_an_entry_of_8_bytes_is_not_present_until_it_is_whole() -> None:
    code = assemble(run_of("prog+pg=pae+pte.k13=e1.x8000000000000000,read.b3"), PAE).data
    where = (C["GLA_PROGRAM"] + 5 * 4096 + 32 + 24).to_bytes(4, "little")
    clear, high, low = "c70700000000", "c7470400000080", "c70701000201"
    assert code.startswith(b"\xbf" + where + bytes.fromhex(clear + high + low))


def test_efer_and_cr3_in_long_mode() -> None:
    code = assemble(run_of("prog+nxe1,cr3.2,read.a3")).data
    assert code.startswith(bytes.fromhex("b9800000c0b8000d000031d20f3049b90820020100000000410f22d9"))


def test_the_records_of_a_vm_entry() -> None:
    rows = records(program("prog+pg=pae+cr3=1+pge=1+efer=0+msrs=write+cr3exit=1+targets=2+target0=1+read.a3"), 0)
    pdptes = [r for r in rows if r["access"] == C["OP_PDPTES"]]
    assert [(r["leaf"], r["flags"]) for r in pdptes] == [
        (C["PROGRAM_PDPTS"], 0),
        (C["PROGRAM_PDPTS"], C["FLAG_VMCS_B"]),
    ]
    fields = {r["leaf"]: r["upper"] for r in rows if r["access"] == C["OP_FIELD"] and not r["flags"]}
    assert fields[0x6008] == C["PROGRAM_PDPTS"] + 32 and fields[0x600A] == 0xFFFF_F000
    counts = [r["upper"] for r in rows if r["access"] == C["OP_FIELD"] and r["leaf"] == 0x400A]
    assert counts == [2, 0, 0]  # no later vector finds it
    (run,) = (r for r in rows if r["access"] == C["OP_RUN"])
    assert (run["paging"], run["gu"], run["flags"]) == (C["PAGING_PAE"], C["PROGRAM_PDPTS"] + 32, C["FLAG_KEEP_EFER"])
    assert run["upper"] == 1 << 15 | 1 << 28
    assert run["cr"] == C["CR_WP"] | C["CR_NXE"] | C["CR_PGE"]
    bitmap = [(r["leaf"], r["upper"]) for r in rows if r["access"] == C["OP_WRITE"]]
    assert bitmap == [(0x102_5410, 0), (0x102_5C10, 1)]


def test_what_l2_made_of_its_registers_holds_for_the_entries_behind() -> None:
    rows = records(program("prog+pg=pae+msrs=pass+nxe0,cr3.2,read.a3+read.a3"), 0)
    first, second = (r for r in rows if r["access"] == C["OP_RUN"])
    assert (first["cr"], second["cr"]) == (C["CR_WP"] | C["CR_NXE"], C["CR_WP"])
    assert (first["gu"], second["gu"]) == (C["PROGRAM_PDPTS"], C["PROGRAM_PDPTS"] + 32 | 8)


def test_an_exit_is_told_where_it_was_in_the_mode_that_l2_ran_in() -> None:
    asked = program("prog+pg=pae+read.a3,read.b3+look.pdptr1+read.b3")
    rows = [Row()] * (len(records(asked, 0)) - 4)  # up to the first run; then a look, L2's code and a run
    rip = C["GLA_PROGRAM"] + assemble(run_of("prog+pg=pae+read.a3,read.b3"), PAE).ends[0]
    fault = Row(verdict=3, vector=14, error=4, qualification=guest_linear("b3", pae=True), rip=rip, value=known(3))
    look = Row(verdict=7, value=0x102_0001)
    seen = outcome_of(asked, [*rows, fault, look, Row(), Row(value=known(11))])
    gone = Outcome(Kind.EXCEPTION, 4, number=14, gla=Place("b3"))
    assert seen.turns[:2] == (reached(3), gone)
    assert (seen.turns[2].code, seen.turns[2].note) == (0x102_0001, "leads to e1")
    assert seen.turns[3] == reached(11)


def test_a_look_at_cr3_reads_its_field() -> None:
    asked = program("prog+cr3.1,read.a3+look.cr3")
    rows = records(asked, 0)
    assert (rows[-1]["access"], rows[-1]["leaf"]) == (C["OP_LOOK_FIELD"], 0x6802)
    seen = outcome_of(
        asked, [*[Row()] * (len(rows) - 2), Row(value=known(None, 3)), Row(verdict=7, value=0x1_0000_1000)]
    )
    assert seen.turns == (reached(3), Outcome(Kind.VALUE, 0x1_0000_1000))
