"""Reports in the kernel's log: what each says of itself, and whose it is."""

from __future__ import annotations

import pytest

from harness.hosts.channel import CommandResult
from harness.observe import reports
from harness.observe.reports import LogReport, Reported
from kvmodel.question.vector import MsrVector

# Lines in the forms that kernel/panic.c, lib/bug.c, mm/kasan/report.c, lib/ubsan.c and kernel/locking/lockdep.c print.
SAID = {
    "WARNING: CPU: 0 PID: 61 at arch/x86/kvm/mmu/spte.c:341 mark_spte+0x1c/0x60 [kvm]": "WARN in mmu/spte.c mark_spte",
    "WARNING: arch/x86/kvm/mmu/spte.c:341 at mark_spte+0x1c/0x60 [kvm], CPU#0: q/61": "WARN in mmu/spte.c mark_spte",
    "WARNING: CPU: 0 PID: 61 at make_spte+0x1c/0x60 [kvm]": "WARN in make_spte",
    "WARNING: possible recursive locking detected": "lockdep: possible recursive locking detected",
    "WARNING: bad unlock balance detected!": "lockdep: bad unlock balance detected",
    "BUG: KASAN: slab-use-after-free in kvm_free+0x1/0x2 [kvm]": "KASAN: slab-use-after-free in kvm_free",
    "UBSAN: shift-out-of-bounds in arch/x86/kvm/x86.c:12:4": "UBSAN: shift-out-of-bounds in x86.c",
    "kernel BUG at arch/x86/kvm/mmu/mmu.c:700!": "BUG in mmu/mmu.c",
    "BUG: kernel NULL pointer dereference, address: 0000000000000010": "BUG: kernel NULL pointer dereference",
    "BUG: unable to handle page fault for address: ffffc90000000000": "BUG: unable to handle page fault",
    "BUG: sleeping function called from invalid context at mm/slab.h:9": (
        "BUG: sleeping function called from invalid context in mm/slab.h"
    ),
    "BUG: spinlock recursion on CPU#0, qemu/61": "BUG: spinlock recursion",
    "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [qemu:61]": "soft lockup",
    "INFO: task qemu:61 blocked for more than 120 seconds.": "hung task",
    "rcu: INFO: rcu_preempt self-detected stall on CPU": "stall",
}


def log(*lines: str) -> str:
    return "".join(f"[{n + 1:5d}.000000] {line}\n" for n, line in enumerate(lines))


@pytest.mark.parametrize(("line", "said"), SAID.items())
def test_each_kind_of_report_says_what_it_is(line: str, said: str) -> None:
    (one,) = reports.read(log("kvm: loaded", line, "Modules linked in: kvm"))
    assert (str(one), one.time) == (said, 2.0)


def test_an_oops_is_one_report_with_its_function() -> None:
    oops = "[    1.0] BUG: kernel NULL pointer dereference, address: 0\n[    1.001] #PF: supervisor read\n"
    oops += "[    1.002] Oops: Oops: 0000 [#1]\n[    1.003] RIP: 0010:kvm_walk+0x1/0x2 [kvm]\n"
    (one,) = reports.read(oops)
    assert str(one) == "BUG: kernel NULL pointer dereference in kvm_walk" and one.fatal
    later = "[    9.0] Oops: general protection fault, probably for non-canonical address 0: 0000 [#2]\n"
    assert [str(r) for r in reports.read(oops + later)][1:] == ["general protection fault"]


def test_what_is_cut_out_without_a_known_form_is_told_in_its_own_words() -> None:
    cut = "------------[ cut here ]------------"
    (one,) = reports.read(log(cut, "something else broke at file.c:12", "RIP: 0010:f+0x1/0x2"))
    assert str(one) == "something else broke at file.c"
    (known,) = reports.read(log(cut, "WARNING: CPU: 0 PID: 1 at make_spte+0x1/0x2"))
    assert str(known) == "WARN in make_spte"
    assert reports.read(log("e1000: up", "INFO: lockdep is turned off.", "kvm: L2 BUGGY guest")) == []


def test_a_report_is_of_the_vector_that_ran() -> None:
    found = [LogReport(0.5, "early"), LogReport(2.5, "WARN", "f"), LogReport(9.0, "KASAN: x", "g")]
    begins = [(1.0, MsrVector(msr=7)), (2.0, MsrVector(msr=3)), (4.0, MsrVector(msr=5))]
    assert reports.of_vectors(found, begins) == [
        Reported(None, "early"),
        Reported(MsrVector(msr=3), "WARN in f"),
        Reported(MsrVector(msr=5), "KASAN: x in g"),
    ]


def test_the_same_report_is_told_of_the_first_vectors_only() -> None:
    found = [LogReport(t + 0.5, "WARN", "f") for t in (1, 1, 2, 3, 4)]
    begins = [(float(t), MsrVector(msr=t)) for t in range(1, 6)]
    assert [one.vector for one in reports.of_vectors(found, begins)] == [MsrVector(msr=1), MsrVector(msr=2)]


class FakeHost:
    def __init__(self) -> None:
        self.log = log("WARNING: CPU: 0 PID: 1 at boot_trouble+0x1/0x2")

    def run(self, _: str) -> CommandResult:
        return CommandResult(0, self.log.encode(), "")


def test_a_log_is_read_on_from_where_it_was_read_to() -> None:
    host = FakeHost()
    found = reports.Log(host)  # type: ignore[arg-type]
    assert found.news() == [] and not found.spoken
    host.log += "[   50.000000] UBSAN: shift-out-of-bounds in a.c:1:2\n"
    assert [str(one) for one in found.news()] == ["UBSAN: shift-out-of-bounds in a.c"]
    assert found.news() == [] and found.spoken
