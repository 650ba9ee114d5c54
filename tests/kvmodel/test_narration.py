"""Steps and tracepoints as they are told, and the patch that is measured for a step."""

from __future__ import annotations

import pytest

from kvmodel.mmu.spte import make_nonleaf_spte
from kvmodel.narration import Gates, narrate, trace
from kvmodel.series import Level
from kvmodel.x86_emulate import translate_nested_gpa
from tests.kvmodel.mirror import l1_at


def test_the_gate_asked_last_decides_if_it_stands_open_and_changes_something() -> None:
    gates = Gates(Level.of(12))
    assert gates.decided == 0
    assert gates.has(11) and gates.decided == 11
    assert not gates.has(15) and gates.decided == 0
    assert gates.has(2) and gates.decided == 0  # it claims no functional change


def test_a_step_is_told_of_the_caller_or_of_another() -> None:
    vcpu = l1_at(12, True)
    vcpu.steps = []
    narrate(vcpu, "spte {:#x}", 16, of=make_nonleaf_spte)
    vcpu.kvm.has(12)
    narrate(vcpu, "plain", of=make_nonleaf_spte, by=1)
    narrate(vcpu, "nothing of a patch", of=make_nonleaf_spte, by=0)
    narrate(vcpu, "a header's", of=make_nonleaf_spte, patch=13)
    assert [str(step) for step in vcpu.steps] == [
        "mmu/spte.c make_nonleaf_spte: spte 0x10 [base]",
        "mmu/spte.c make_nonleaf_spte: plain [patch 12]",
        "mmu/spte.c make_nonleaf_spte: nothing of a patch [base]",
        "mmu/spte.c make_nonleaf_spte: a header's [patch 13]",
    ]
    vcpu.steps = None
    narrate(vcpu, "nobody listens {no such field}", of=make_nonleaf_spte)
    vcpu.steps = []
    with pytest.raises(KeyError):
        narrate(vcpu, "this test mirrors no function")


def test_a_tracepoint_is_a_row() -> None:
    vcpu = l1_at(0)
    trace(vcpu, "event", 1)
    vcpu.trace = []
    trace(vcpu, "event", 1, 2)
    assert vcpu.trace == [("event", (1, 2))]
    assert translate_nested_gpa.__name__ == "translate_nested_gpa"


def test_a_load_that_is_copied_is_two() -> None:
    one = l1_at(18, True).kvm
    two = one.copy()
    two.warns.append("of the copy")
    two.generation += 1
    two.vmcs_config.nested.secondary_ctls_high = 0
    two.vmx_capability.ept = 0
    assert two.has(2) and two.gates.asked == 2
    assert (one.warns, one.generation, one.gates.asked) != (two.warns, two.generation, 2)
    assert one.vmcs_config.nested.secondary_ctls_high and one.vmx_capability.ept
