"""L2's code in records, and an observation as the row that the contract speaks of."""

from __future__ import annotations

import pytest

from harness import protocol
from harness.observe import batch as guest
from kvmodel.question.outcome import Kind, Place
from kvmodel.question.reading import parse
from kvmodel.question.vm_exit import ABSENT, CODE, TOLD
from tests.harness.observe.test_batch import C, seen


def test_code_goes_before_the_changes_and_the_entry() -> None:
    vector = parse("vmexit.cr0s30s29+cr0c30+cr0c29+getcr0.guest_dr7=400.pgpae.mbec=off")
    data = guest.pack([vector])
    count = guest.count_records(vector)
    at = range(protocol.HEADER.size, protocol.HEADER.size + count * protocol.VECTOR.size, protocol.VECTOR.size)
    records = [protocol.VECTOR.unpack(data, offset) for offset in at]
    kinds = [record["kind"] for record in records]
    assert kinds == [C["KIND_STEP"]] * (count - 2) + [C["KIND_CHANGE"], C["KIND_VM_EXIT"]]
    assert [record["msr"] for record in records[:-2]] == [32 * n for n in range(count - 2)]
    assert records[0]["leaf"] & 0xFFFFFF == 0xC2200F  # mov %cr0, %edx
    assert records[-1]["paging"] == C["PAGING_PAE"]
    assert guest.deciding_record(vector, 0) == guest.deciding_record(vector, 7) == count - 1
    assert (C["VM_EXIT_ABSENT"], CODE) == (ABSENT, 0x100_E000)


def test_an_exit_is_a_row() -> None:
    vector = parse("vmexit.nop.mbec=off")
    before = [seen(verdict=C["VERDICT_DONE"])] * (guest.count_records(vector) - 1)
    last = seen(
        verdict=C["VERDICT_EXIT"], reason=28, qualification=0x203, gla=0x99, rip=CODE, value=1, leaf_after=2,
        upper_after=3, gpte_after=4, error=0x77, target_gpa=5, target_gla=6, gpt_gpa=7, leaf_address=3 | 8 << 32,
    )  # fmt: skip
    row = guest.outcome_of(vector, [*before, last])
    assert (row.turns[0].number, row.turns[0].code) == (28, 0x203)
    assert [turn.code for turn in row.turns[1:]] == [5, 6, CODE, 3, 8, 1, 2, 4, 3, 7, 0x99, 0x77]
    assert tuple(turn.note for turn in row.turns[1:]) == TOLD[1:]


def test_a_violation_has_its_addresses() -> None:
    vector = parse("vmexit.none.mbec=off")
    last = seen(verdict=C["VERDICT_EXIT"], reason=48, qualification=0x181, gpa=ABSENT + 8, gla=CODE + 0x1008)
    before = [seen(verdict=C["VERDICT_DONE"])] * (guest.count_records(vector) - 1)
    first = guest.outcome_of(vector, [*before, last]).turns[0]
    assert (first.gpa, first.gla) == (Place("l2", ABSENT + 8), Place("linear", CODE + 0x1008))


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        ("VERDICT_ENTRY_FAIL", Kind.ENTRY_FAIL),
        ("VERDICT_ENTRY_EXIT", Kind.ENTRY_EXIT),
        ("VERDICT_TIMEOUT", Kind.LIVELOCK),
    ],
)
def test_what_is_no_exit_is_told_as_it_is(verdict: str, kind: Kind) -> None:
    vector = parse("vmexit.none.mbec=off")
    before = [seen(verdict=C["VERDICT_DONE"])] * (guest.count_records(vector) - 1)
    assert guest.outcome_of(vector, [*before, seen(verdict=C[verdict])]).kind is kind
