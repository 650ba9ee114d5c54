"""The exits of an L1 that guards its L2's kernel, against counts made by hand from the code of kernel and workload."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from harness.build.probe import IMAGES
from kvmodel.machine import exits as exits_model
from kvmodel.machine.exits import Exit, Hypervisor, Mix, StuckError, Vmcs, counted, system_call, window
from kvmodel.question.outcome import Kind
from tests.kvmodel.mirror import CPU

BASE, LAST = (0, None), (18, True)
SOFTWARE = {vmcs: Hypervisor(False, vmcs) for vmcs in Vmcs}
MBEC = {vmcs: Hypervisor(True, vmcs) for vmcs in Vmcs}
TO_L1, HYPERCALL = Exit("L2", "EPT_VIOLATION", "L1"), Exit("L2", "VMCALL", "L1")
READ, WRITE, RESUME = (Exit("L1", reason) for reason in ("VMREAD", "VMWRITE", "VMRESUME"))
FILLED = Exit("L2", "EPT_VIOLATION")


def ask(where: tuple[int, bool | None], l1: Hypervisor, mix: Mix) -> Counter[Exit]:
    return counted(window(*where, CPU, l1, mix))


@pytest.mark.parametrize("looks", [0, 5, 8])
def test_two_views_cost_two_visits_of_l1_a_system_call(looks: int) -> None:
    reads = [READ] * (1 + looks + 3)  # the reason, what it looks at, then qualification, address, access rights
    assert system_call(*BASE, CPU, SOFTWARE[Vmcs.PLAIN], looks) == [TO_L1, *reads, WRITE, RESUME] * 2
    assert system_call(*BASE, CPU, SOFTWARE[Vmcs.SHADOW], looks) == [TO_L1, WRITE, RESUME] * 2
    assert system_call(*BASE, CPU, SOFTWARE[Vmcs.EVMCS], looks) == [TO_L1, RESUME] * 2


@pytest.mark.parametrize("vmcs", Vmcs)
def test_one_view_costs_none(vmcs: Vmcs) -> None:
    assert system_call(*LAST, CPU, MBEC[vmcs], 5) == []


def test_a_hypercall_costs_as_much_with_mbec_as_without() -> None:
    plain, busy = Mix(8), Mix(8, hypercall_every=2, hypercalls=3)
    for l1, where in ((SOFTWARE[Vmcs.PLAIN], BASE), (MBEC[Vmcs.PLAIN], LAST)):
        more = ask(where, l1, busy) - ask(where, l1, plain)
        assert more == Counter({HYPERCALL: 12, RESUME: 12, READ: 12 * (1 + 5 + 1), WRITE: 12})


def test_a_fresh_page_is_filled_once_a_view() -> None:
    for l1, where, views in ((SOFTWARE[Vmcs.EVMCS], BASE, 2), (MBEC[Vmcs.EVMCS], LAST, 1)):
        more = ask(where, l1, Mix(12, fresh_every=3)) - ask(where, l1, Mix(12))
        assert more == Counter({FILLED: 4 * views})


def test_code_that_is_loaded_is_filled_written_to_and_invalidated() -> None:
    invept, table = Exit("L1", "INVEPT"), Exit("L1", "EPT_VIOLATION")
    more = ask(LAST, MBEC[Vmcs.EVMCS], Mix(8, load_every=8)) - ask(LAST, MBEC[Vmcs.EVMCS], Mix(8))
    # L2's write of the code fills an entry; L1's of the table finds it write-protected. At the VM entry behind INVEPT
    # the entry is brought into step, but as one that is not accessed yet (EPT A/D are off): the fetch exits once more.
    assert more == Counter({FILLED: 2, HYPERCALL: 1, table: 1, invept: 1, RESUME: 1})


def test_the_user_view_without_bit_10_is_no_way_out_at_the_last_level_with_the_parameter_on() -> None:
    with pytest.raises(StuckError, match="user code") as stuck:
        ask(LAST, SOFTWARE[Vmcs.EVMCS], Mix(1))
    assert stuck.value.outcome.kind is Kind.LIVELOCK
    assert ask((18, False), SOFTWARE[Vmcs.EVMCS], Mix(9)) == ask(BASE, SOFTWARE[Vmcs.EVMCS], Mix(9))
    avoiding = Hypervisor(False, Vmcs.EVMCS, bit10=True)
    assert ask(LAST, avoiding, Mix(9)) == ask(BASE, SOFTWARE[Vmcs.EVMCS], Mix(9))


@pytest.mark.parametrize("where", [BASE, (18, False)])
def test_an_l1_that_is_not_offered_mbec_cannot_enter_with_it(where: tuple[int, bool | None]) -> None:
    with pytest.raises(StuckError) as stuck:
        ask(where, MBEC[Vmcs.PLAIN], Mix(1))
    assert (stuck.value.outcome.kind, stuck.value.outcome.code) == (Kind.ENTRY_FAIL, 7)


def test_windows_grow_by_the_call() -> None:
    exits = [sum(ask(BASE, SOFTWARE[Vmcs.SHADOW], Mix(n)).values()) for n in (1, 2, 5)]
    assert exits[1] - exits[0] == 6 and exits[2] - exits[1] == 18


def test_shadowed_fields_are_the_kernels(pinned_source: Path) -> None:
    x86 = pinned_source / "arch" / "x86"
    encodings, fields = x86 / "include/asm/vmx.h", x86 / "kvm/vmx/vmcs_shadow_fields.h"
    names = dict(re.findall(r"^\s+(\w+)\s+= (0x[0-9a-fA-F]{8}),", encodings.read_text(), re.MULTILINE))
    shadow: dict[str, set[int]] = {"RO": set(), "RW": set()}
    for kind, name in re.findall(r"^SHADOW_FIELD_(R[OW])\((\w+),", fields.read_text(), re.MULTILINE):
        shadow[kind].add(int(names[name], 16))
    used = {
        value
        for name, value in vars(exits_model).items()
        if name.isupper() and isinstance(value, int) and value > 0x7FF
    }
    assert used & (shadow["RO"] | shadow["RW"]) == exits_model.SHADOW_READ
    written = {exits_model.EPT_POINTER, exits_model.GUEST_RIP}
    assert written & shadow["RW"] == exits_model.SHADOW_WRITE


def test_what_l1_looks_at_is_what_the_workload_reads() -> None:
    handler = (IMAGES / "exits" / "handler.c").read_text()
    cpu = (IMAGES / "probe" / "cpu.h").read_text() + handler
    defined = dict(re.findall(r"^#define\s+(\w+)\s+(0x[0-9a-f]+)", cpu, re.MULTILINE))
    defined |= {"GUEST_CS_AR": hex(int(defined["GUEST_ES_AR"], 16) + 2)}
    body = re.search(r"looked_at\[LOOKED_AT_MOST\] = \{(.*?)\}", handler, re.DOTALL)
    assert body is not None
    there = tuple(int(defined[name], 16) for name in re.findall(r"\w+", body[1]))
    assert there == exits_model.LOOKED_AT


def test_places_are_the_workloads() -> None:
    layout = (IMAGES / "exits" / "layout.h").read_text()
    for name, value in (("L2_KERNEL", exits_model._KERNEL), ("L2_USER", exits_model._USER),
                        ("L2_KERNEL_DATA", exits_model._KERNEL_DATA), ("STRIDE", exits_model._STRIDE)):  # fmt: skip
        found = re.search(rf"^#define {name}\s+(0x[0-9a-f]+)$", layout, re.MULTILINE)
        assert found is not None and int(found[1], 16) == value, name
