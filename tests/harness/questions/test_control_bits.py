"""One VM entry a control bit."""

from harness.questions.control_bits import FIELDS, alone, control_bits
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, NotApplicable
from kvmodel.question.vector import Evmcs, Mbec
from kvmodel.question.vm_entry import VmEntryVector, changes
from kvmodel.sdm import allowed

EVERY = 0xFFFF_FFFF << 32
DEFAULT_1 = {0x481: 0x16, 0x482: 0x0401_E172, 0x483: 0x3_6DFF, 0x484: 0x11FF}


def offering(**less: int) -> Cpu:
    """A CPU that lets every control be 1 but for the bits in ``less``, with the TRUE forms."""
    msrs = dict.fromkeys(range(0x480, 0x492), 0)
    msrs |= {0x480: 1 << 55, 0x485: 0x1C0, 0x486: 0x8000_0021, 0x487: 0xFFFF_FFFF, 0x488: 0x2000, 0x489: 0x77_FFFF}
    for msr, low in DEFAULT_1.items():
        msrs[msr] = EVERY | low
        msrs[msr + 0xC] = EVERY
    msrs |= {0x48B: EVERY, 0x48C: 1 << 6 | 1 << 14 | 1 << 21, 0x491: 1}
    for name, bit in less.items():
        msrs[int(name.removeprefix("m"), 16)] &= ~(1 << (32 + bit))
    return Cpu(msrs=tuple(msrs[number] for number in sorted(msrs)))


def kinds(cpu: Cpu, text: str) -> set[tuple[Kind, int]]:
    found = allowed(cpu, VmEntryVector(Mbec.OFF, changes=changes(text)))
    return set() if isinstance(found, NotApplicable) else {(a.outcome.kind, a.outcome.code) for a in found}


ENTERED, REFUSED = {(Kind.DONE, 0)}, {(Kind.ENTRY_FAIL, 7)}
# What no offer makes good: entry to SMM and the end of its treatment, and the host that is not in IA-32e mode.
NEVER = {("vm_entry_controls", 10), ("vm_entry_controls", 11)}


def test_every_bit_is_asked_set_and_cleared_with_and_without_evmcs() -> None:
    asked = list(control_bits())
    assert len({v.id for v in asked}) == len(asked) == 3 * 2 * 5 * 32
    assert {v.ev for v in asked} == set(Evmcs)


def test_a_bit_with_what_it_needs_enters_where_it_is_offered() -> None:
    decided = 0
    for field in FIELDS:
        for bit in range(32):
            found = kinds(offering(), alone(field, bit))
            assert found <= (REFUSED if (field, bit) in NEVER else ENTERED), (field, bit, found)
            decided += bool(found)
    assert decided > 100  # the others have checks of their own that are not described


def test_a_bit_that_is_not_offered_is_refused() -> None:
    assert kinds(offering(m48e=7), alone(FIELDS[1], 7)) == REFUSED
    assert kinds(offering(m48b=17), alone(FIELDS[2], 17)) == REFUSED
    assert kinds(offering(m490=14), alone(FIELDS[4], 14)) == REFUSED


def test_an_activity_state_that_is_not_offered_is_no_guest_state() -> None:
    halted = VmEntryVector(Mbec.OFF, changes=changes("guest_activity_state=1"))
    offered, less = offering(), list(offering().msrs)
    less[0x485 - 0x480] = 0x180
    (entered,) = allowed(offered, halted)
    (refused,) = allowed(Cpu(msrs=tuple(less)), halted)
    assert entered.outcome.kind is Kind.DONE
    assert (refused.outcome.kind, refused.outcome.number, refused.rule) == (
        Kind.ENTRY_EXIT,
        33,
        "entry-activity-offered",
    )
