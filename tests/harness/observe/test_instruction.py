"""One instruction of L2's: the record of its code, and what is read back."""

from dataclasses import fields

from harness import protocol
from harness.observe import batch as guest
from harness.observe.batch import Observation
from kvmodel.question.outcome import Kind, Outcome, of_turns
from kvmodel.question.reading import parse

C = protocol.CONSTANTS
IO, EXCEPTION = 30, 0


def seen(**values: int) -> Observation:
    return Observation(**{field.name: values.get(field.name, 0) for field in fields(Observation)})


def answer(text: str, **values: int) -> Outcome:
    return guest.outcome_of(parse(f"vmdo.{text}.mbec=off"), [seen(verdict=C["VERDICT_DONE"]), seen(**values)])


def test_the_code_goes_before_the_entry() -> None:
    vector = parse("vmdo.wp-80010031.cr0_guest_host_mask=10000.mbec=off")
    assert guest.count_records(vector) == 3
    data = guest.pack([vector])
    at = range(protocol.HEADER.size, protocol.HEADER.size + 3 * protocol.VECTOR.size, protocol.VECTOR.size)
    change, code, entry = (protocol.VECTOR.unpack(data, offset) for offset in at)
    assert [row["kind"] for row in (change, code, entry)] == [C["KIND_CHANGE"], C["KIND_CODE"], C["KIND_VM_ENTRY"]]
    assert code["leaf"] == int.from_bytes(bytes.fromhex("48b8310001800000"), "little")
    assert entry["gp"] & 6 == 0  # neither writable nor a user page


def test_an_exit_has_its_place_and_length() -> None:
    here = {"verdict": C["VERDICT_EXIT"], "reason": IO, "qualification": 0x708_0008}
    good = answer("in8-708", rip=C["GLA_ASKED"] + 5, leaf_address=1, **here)
    assert good == Outcome(Kind.EXIT, code=0x708_0008, number=IO)
    for wrong in ({"rip": 6, "leaf_address": 1}, {"rip": 5, "leaf_address": 2}):
        rip = C["GLA_ASKED"] + wrong["rip"]
        assert answer("in8-708", rip=rip, leaf_address=wrong["leaf_address"], **here).kind is Kind.ASTRAY
    done = answer("in8-708", verdict=C["VERDICT_VALUE"], rip=C["GLA_ASKED"] + 6, leaf_address=3, value=7)
    assert done == Outcome(Kind.VALUE, 7)


def test_an_event_has_two_answers() -> None:
    text = "none.vm_entry_intr_info_field=80000020"
    values = {"verdict": C["VERDICT_EXCEPTION"], "vector": 13, "error": 0x103, "upper_after": 0x8000_0020}
    wanted = of_turns((Outcome(Kind.EXCEPTION, 0x103, 13), Outcome(Kind.VALUE, 0x8000_0020)))
    assert answer(text, **values) == wanted
    assert answer(text, verdict=C["VERDICT_ENTRY_FAIL"], error=7) == Outcome(Kind.ENTRY_FAIL, 7)


def test_the_timer_is_told_beside_the_end() -> None:
    text = "cpuid.pin_based_vm_exec_control:s6+vmx_preemption_timer_value=0"
    end = {"verdict": C["VERDICT_EXIT"], "reason": 52, "rip": C["GLA_ASKED"], "leaf_address": 7}
    assert answer(text, gpte_after=5, **end) == of_turns((Outcome(Kind.EXIT, number=52), Outcome(Kind.VALUE, 5)))


def test_an_access_that_came_to_another_page_is_told() -> None:
    seen_astray = guest.outcome(parse("e4k.l1=rwxu.read.mbec=off"), seen(verdict=1, astray=C["ASTRAY_DATA"], reason=18))
    assert seen_astray.kind is Kind.ASTRAY
    assert "another page" in seen_astray.note
