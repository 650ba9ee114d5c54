"""Captures to judge: events planted in pages as the kernel lays them out, by a real host's formats."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from harness.passive import formats, judging, saving
from harness.passive.capture import Capture
from harness.passive.judging import TraceVerdict

RECORDED: Final = Path(__file__).with_name("recorded") / "level18.capture"
TASK: Final = 77
Planted = tuple[str, dict[str, int]]


def recorded() -> Capture:
    """A capture of an emulated host by SSH, an L1 at level 18 on it."""
    return saving.read(RECORDED)


def record(form: formats.EventFormat, fields: dict[str, int], pid: int = TASK) -> bytes:
    """One record of the ring buffer, its fields where the format says; those that are not named are 0."""
    data = bytearray((form.size + 3) // 4 * 4)
    for name, value in {"common_type": form.number, "common_pid": pid, **fields}.items():
        field = form.fields[name]
        data[field.offset : field.offset + field.size] = value.to_bytes(field.size, "little")
    return struct.pack("<II", 0 | 10 << 5, len(data) + 4) + data


def page(data: bytes, time: int = 1000, flags: int = 0, size: int = 4096) -> bytes:
    """A page of the ring buffer with ``data``."""
    return struct.pack("<QQ", time, len(data) | flags) + data.ljust(size - 16, b"\0")


def captured(events: Iterable[Planted], **parameters: str) -> Capture:
    """A capture of these events, one a page, on a host with EPT on and these parameters."""
    capture = recorded()
    forms = {event.rpartition("/")[2]: formats.parsed(capture.texts[event], event) for event in capture.facts["events"]}
    capture.pages = [
        (0, page(record(forms[name], fields), time=1000 * n)) for n, (name, fields) in enumerate(events, 1)
    ]
    named = {name.replace("__", "/"): value for name, value in parameters.items()}
    capture.facts |= {"parameters": {"kvm_intel/ept": "Y", **named}, "entries": len(capture.pages)}
    return capture


def judged(*events: Planted, **parameters: str) -> TraceVerdict:
    """What is found in these events."""
    return judging.judged(captured(events, **parameters))


def exit_of(qualification: int, rip: int = 0x1000, reason: int = 48) -> Planted:
    """An exit of the vCPU, by default an EPT violation."""
    return "kvm_exit", {"exit_reason": reason, "guest_rip": rip, "info1": qualification, "isa": 1}


def fault(address: int = 0x5000) -> Planted:
    """What KVM says of the address."""
    return "kvm_page_fault", {"fault_address": address}


def asked(gfn: int = 5, level: int = 1) -> Planted:
    """The entry that KVM wants to install."""
    return "kvm_mmu_spte_requested", {"gfn": gfn, "level": level}


def installed(spte: int, gfn: int = 5, level: int = 1) -> Planted:
    """The entry that KVM installed."""
    return "kvm_mmu_set_spte", {"gfn": gfn, "spte": spte, "level": level}


def words(found: TraceVerdict) -> dict[str, Any]:
    """The rules that were broken, and how often."""
    return {rule: problem.count for rule, problem in found.problems.items()}
