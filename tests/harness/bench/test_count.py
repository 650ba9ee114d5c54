"""The counter's numbers and KVM's trace turned into exits."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from harness.bench import count
from harness.bench.count import OTHER, exits_of, rows, sequence, specs
from harness.errors import GuestError
from harness.observe import livelock
from kvmodel.machine.exits import REASONS, Exit


def numbers(**by_event: dict[str, int]) -> list[int]:
    """A row of counts in the order of ``specs``: by event and reason, ``total`` where it is more than the sum."""
    found = []
    for event in ("kvm_exit", "kvm_nested_vmexit", "kvm_nested_vmexit_inject"):
        given = by_event.get(event, {})
        each = [given.get(reason, 0) for reason in REASONS.values()]
        found += [given.get("total", sum(each)), *each]
    return found


def test_each_event_is_asked_in_all_and_by_reason() -> None:
    asked = specs()
    assert len(asked) == len(set(asked)) == 3 * (1 + len(REASONS))
    assert asked[0] == "kvm:kvm_exit" and "kvm:kvm_exit:exit_reason==48" in asked
    assert "kvm:kvm_nested_vmexit_inject:exit_code==18" in asked


def test_exits_are_told_apart_by_guest_and_by_who_deals_with_them() -> None:
    row = numbers(
        kvm_exit={"EPT_VIOLATION": 9, "VMREAD": 4, "VMCALL": 2},
        kvm_nested_vmexit={"EPT_VIOLATION": 7, "VMCALL": 2},
        kvm_nested_vmexit_inject={"EPT_VIOLATION": 5, "VMCALL": 2},
    )
    assert exits_of(row) == Counter(
        {
            Exit("L1", "EPT_VIOLATION"): 2,
            Exit("L2", "EPT_VIOLATION"): 2,
            Exit("L2", "EPT_VIOLATION", "L1"): 5,
            Exit("L1", "VMREAD"): 4,
            Exit("L2", "VMCALL", "L1"): 2,
        }
    )


def test_what_no_filter_names_is_another_exit() -> None:
    assert exits_of(numbers(kvm_exit={"VMREAD": 4, "total": 7})) == Counter(
        {Exit("L1", "VMREAD"): 4, Exit("L1", OTHER): 3}
    )


def test_counts_that_cannot_be_are_refused() -> None:
    with pytest.raises(GuestError, match="contradict each other"):
        exits_of(numbers(kvm_exit={"VMCALL": 1}, kvm_nested_vmexit={"VMCALL": 2}))
    with pytest.raises(GuestError, match="gave 3 counts"):
        exits_of([1, 2, 3])


def test_a_line_that_is_not_the_counters_is_refused() -> None:
    assert list(rows(json.dumps({"window": 0}) + "\n")) == [{"window": 0}]
    with pytest.raises(GuestError, match="the counter wrote 'Killed'"):
        list(rows('{"window": 0}\nKilled\n'))


TRACE = """\
# tracer: nop
 qemu-system-x86-92 [000] d.... 1.000001: kvm_exit: vcpu 0 reason EPT_VIOLATION rip 0x402000 info1 0x3bc info2 0x0 intr_info 0x0 error_code 0x0
 qemu-system-x86-92 [000] d.... 1.000002: kvm_nested_vmexit: vcpu 0 reason EPT_VIOLATION rip 0x402000 info1 0x3bc info2 0x0 intr_info 0x0 error_code 0x0
 qemu-system-x86-92 [000] d.... 1.000003: kvm_nested_vmexit_inject: reason: EPT_VIOLATION ext_inf1: 0x1bc ext_inf2: 0x0 ext_int: 0x0 ext_int_err: 0x0
 qemu-system-x86-92 [000] d.... 1.000004: kvm_exit: vcpu 0 reason EXTERNAL_INTERRUPT rip 0x101000 info1 0x0 info2 0x0 intr_info 0x800000ec error_code 0x0
 qemu-system-x86-92 [000] d.... 1.000005: kvm_exit: vcpu 0 reason VMREAD rip 0x101000 info1 0x0 info2 0x0 intr_info 0x0 error_code 0x0
 qemu-system-x86-92 [000] d.... 1.000006: kvm_exit: vcpu 0 reason EPT_VIOLATION rip 0x402000 info1 0x181 info2 0x0 intr_info 0x0 error_code 0x0
 qemu-system-x86-92 [000] d.... 1.000007: kvm_nested_vmexit: vcpu 0 reason EPT_VIOLATION rip 0x402000 info1 0x181 info2 0x0 intr_info 0x0 error_code 0x0
 qemu-system-x86-92 [000] d.... 1.000008: kvm_page_fault: vcpu 0 rip 0x402000 address 0x4000000 error_code 0x181
"""  # noqa: E501


def test_a_trace_is_the_exits_in_order_without_the_hosts_own() -> None:
    found = sequence(livelock.parse(TRACE))
    assert found == [Exit("L2", "EPT_VIOLATION", "L1"), Exit("L1", "VMREAD"), Exit("L2", "EPT_VIOLATION")]


def test_a_trace_that_begins_within_an_exit_is_no_trouble() -> None:
    tail = "\n".join(TRACE.splitlines()[2:])
    assert sequence(livelock.parse(tail)) == [Exit("L1", "VMREAD"), Exit("L2", "EPT_VIOLATION")]


def test_reasons_of_the_trace_are_those_that_are_counted() -> None:
    assert count.HOSTS_OWN in REASONS.values()
