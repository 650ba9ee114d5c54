"""What KVM's tracepoint says of a table that was taken down."""

from __future__ import annotations

from typing import cast

import pytest

from harness.errors import HostError
from harness.hosts.base import Host
from harness.hosts.channel import CommandResult
from harness.observe import client, leftover_entries, livelock
from kvmodel.question.outcome import Kind

HEAD = "  kvmclient-71      [000] .....     7.5{n}: kvm_tdp_mmu_spte_changed: as id 0 gfn {n} level {level} "
GONE = "8000000000000{mark:03x}"


def line(n: int, level: int, old: str, new: str) -> str:
    return HEAD.format(n=n, level=level) + f"old_spte {old} new_spte {new}"


MAPPED = line(1, 1, "8000000000000000", "8610000040008877")
AGED = line(2, 1, "8610000040008877", "8750000040008870")
CHANGED = line(3, 1, "8000000000000000", "80000000000005a0")  # never was present


DUMPED = """[    3.1] CPUBased=0xb5a06dfa SecondaryExec=0x001010ab TertiaryExec=0x0000000000000000
[    4.1] CPUBased=0xb5a06dfa SecondaryExec=0x{:08x} TertiaryExec=0x0000000000000000
"""
CONTROLS = {False: 0x1010AB, True: 0x5010AB}


class FakeHost:
    """Keeps what it is told, and gives the trace and the log."""

    name = "fake"

    def __init__(self, log: str, *lines: str) -> None:
        self.log, self.lines, self.said = log, lines, list[str]()
        self.dump = "N"

    def run(self, command: str, *, input: bytes = b"", **_: object) -> CommandResult:
        self.said.append(command + input.decode())
        if command.startswith("dmesg"):
            return CommandResult(0, self.log.encode(), "")
        if command == f"cat {leftover_entries.DUMP}":
            return CommandResult(0, f"{self.dump}\n".encode(), "")
        if f"> {leftover_entries.DUMP}" in command:
            self.dump = command.split()[1]
            return CommandResult(0, b"", "")
        return CommandResult(0, "\n".join(self.lines).encode(), "")


def ask(mbec: bool, *lines: str) -> tuple[FakeHost, Kind, int]:
    host = FakeHost(DUMPED.format(CONTROLS[mbec]), *lines)
    found = leftover_entries.ask(cast(Host, host))
    return host, found.kind, found.code


def test_only_what_was_present_for_kvm_and_is_no_more_counts() -> None:
    gone = line(4, 2, "8010000040008807", "8000000000000000")
    events = list(livelock.parse("\n".join((MAPPED, AGED, CHANGED, gone))))
    assert len(events) == 4
    assert list(leftover_entries.removed(events)) == [(2, 1 << 63)]


@pytest.mark.parametrize(
    ("mark", "mbec", "kind"),
    [(0x000, True, Kind.DONE), (0x5A0, False, Kind.DONE), (0x5A0, True, Kind.BYPASS), (0x1A0, True, Kind.DONE)],
)
def test_bit_10_of_a_mark_matters_where_guests_run_with_the_control(mark: int, mbec: bool, kind: Kind) -> None:
    gone = line(5, 1, "8610000040008877", GONE.format(mark=mark))
    host, found, code = ask(mbec, MAPPED, gone)
    assert found is kind
    assert code == (0x400 if kind is Kind.BYPASS else 0)
    assert any("kvm_tdp_mmu_spte_changed/enable" in said for said in host.said)
    assert any(said.startswith(f"{client.PATH} run") for said in host.said)


def test_a_trace_without_a_removal_says_nothing() -> None:
    assert ask(True, MAPPED, AGED)[1] is Kind.BLOCKED


def test_the_controls_are_those_of_the_latest_vmcs_in_the_log_and_dumping_is_off_again() -> None:
    host = FakeHost(DUMPED.format(0x5010AB))
    assert leftover_entries.secondary_controls(cast(Host, host)) == 0x5010AB
    assert f"echo Y > {leftover_entries.DUMP} && {client.PATH} refused" in host.said
    assert host.dump == "N"


def test_a_log_without_a_vmcs_is_the_hosts_trouble() -> None:
    with pytest.raises(HostError, match="fake: KVM wrote no VMCS"):
        leftover_entries.secondary_controls(cast(Host, FakeHost("")))
