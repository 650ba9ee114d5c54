"""A running guest watched through KVM's tracepoints: a trace instance of its own, bounded, and gone afterwards.

Nothing is loaded, no parameter is touched, the guest is not paused. The instance is removed at the end, on a failure
and on Ctrl-C; where the connection breaks, a process on the host removes it in the end.
"""

from __future__ import annotations

import gzip
import os
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from harness.errors import HostError, InputError
from harness.hosts import Host
from harness.passive import formats
from harness.passive.ring import check_head
from harness.process import PROGRESS

TRACING: Final = "/sys/kernel/tracing"
NEEDED: Final = "kvm/kvm_exit"
EVENTS: Final = (
    NEEDED, "kvm/kvm_page_fault", "kvm/kvm_nested_vmexit", "kvm/kvm_nested_vmexit_inject", "kvm/kvm_emulate_insn",
    "kvmmmu/kvm_mmu_set_spte",
    "kvmmmu/kvm_mmu_spte_requested", "kvmmmu/fast_page_fault", "kvmmmu/kvm_tdp_mmu_spte_changed",
)  # fmt: skip
PARAMETERS: Final = (
    "kvm/nx_huge_pages", "kvm/tdp_mmu", "kvm/enable_pt_guest_exec_control", "kvm_intel/ept", "kvm_intel/eptad",
    "kvm_intel/nested", "kvm_intel/mbec",
)  # fmt: skip
SPARE: Final = 120  # seconds beyond the capture after which the host itself removes the instance
READING: Final = 600.0  # seconds in which a CPU's buffer has to be here
COST: Final = 5.0  # seconds, at most, in which exits are counted without capturing, before and after


# A reader of the buffer is kept waiting for more: it is ended when nothing has come for a second.
_DRAIN: Final = (
    "x=$(mktemp) && trap 'rm -f $x' EXIT && {{ cat {} >$x & }} && p=$! && a=-1; "
    'while b=$(wc -c <$x); [ "$a" != "$b" ]; do a=$b; sleep 1; done; kill $p; gzip -c $x'
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long is captured, in seconds, and how much is kept, in KiB a CPU."""

    seconds: float
    kilobytes: int


@dataclass(slots=True)
class Capture:
    """What was captured, as the host gave it: nothing in it is judged.

    ``facts`` are what the host says of itself and the guest; ``texts`` its format files by event, with the two of the
    ring buffer; ``pages`` the buffer by CPU. ``lost`` counts what the buffer had no room for; ``exits`` are exits a
    second before, while and after it was captured, None where the host does not count them.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    pages: list[tuple[int, bytes]] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)
    exits: dict[str, float | None] = field(default_factory=dict)


def capture(host: Host, pid: int, limits: Limits) -> Capture:
    """What KVM does for the process ``pid`` of the host is captured.

    Raises InputError when that is no virtual machine, HostError when the host cannot be traced.
    """
    found = Capture()
    found.facts = _look(host, pid)
    with _instance(host, pid, limits) as there:
        _read_formats(host, there, found)
        window = min(COST, limits.seconds)
        with PROGRESS.task("counting exits before"):
            found.exits["before"] = _rate(host, pid, window)
        _write(host, [(f"{there}/events/{event}/enable", "1") for event in found.facts["events"]])
        _write(host, [(f"{there}/tracing_on", "1")])
        with PROGRESS.task("capturing"):
            found.exits["while"] = _rate(host, pid, limits.seconds)
        _write(host, [(f"{there}/tracing_on", "0"), (f"{there}/events/enable", "0")])
        with PROGRESS.task("counting exits after"):
            found.exits["after"] = _rate(host, pid, window)
        found.facts["ended"] = host.run(f"[ -d /proc/{pid} ]").status != 0
        with PROGRESS.task("reading the trace"):
            _read_pages(host, there, found)
    return found


def _look(host: Host, pid: int) -> dict[str, Any]:
    """What the host says of itself and of the process."""
    if host.run("id -u", check=True).stdout.strip() != "0":
        raise HostError(f"{host.name}: tracefs is root's: log in as root")
    if host.run(f"[ -d /proc/{pid} ]").status:
        raise InputError(f"--pid {pid}: {host.name} has no such process; 'pidof qemu-system-x86_64' there lists QEMU's")
    held = host.run(f"ls -l /proc/{pid}/fd 2>/dev/null").stdout
    name = host.run(f"cat /proc/{pid}/comm").stdout.strip()
    if "anon_inode:kvm-vm" not in held:
        raise InputError(f"--pid {pid}: {name or 'the process'} holds no virtual machine of KVM; name the QEMU's own")
    if host.run(f"[ -d {TRACING}/instances ] && [ -d {TRACING}/events/{NEEDED} ]").status:
        raise HostError(
            f"{host.name}: {TRACING} has no {NEEDED}: mount -t tracefs tracefs {TRACING} there, on a kernel with "
            "CONFIG_FTRACE and KVM loaded"
        )
    there = host.run(f"cd {TRACING}/events && ls -d {' '.join(EVENTS)} 2>/dev/null").stdout.split()
    told = host.run(
        "for p in " + " ".join(PARAMETERS) + "; do f=/sys/module/${p%/*}/parameters/${p#*/}; "
        '[ -r $f ] && echo "$p $(cat $f)"; done; true'
    ).stdout
    cpu = re.search(r"model name\s*:\s*(.*)", host.run("cat /proc/cpuinfo").stdout)
    return {
        "pid": pid,
        "process": name,
        "release": host.run("uname -r", check=True).stdout.strip(),
        "cpu": cpu[1].strip() if cpu else "",
        "events": [event for event in EVENTS if event in there],
        "missing": [event for event in EVENTS if event not in there],
        "parameters": dict(line.split(" ", 1) for line in told.splitlines() if " " in line),
    }


@contextmanager
def _instance(host: Host, pid: int, limits: Limits) -> Iterator[str]:
    """A trace instance that sees the process's threads alone, switched off; removed behind the block."""
    there = f"{TRACING}/instances/kvmirror-{os.getpid()}-{time.time_ns() & 0xFFFFFF:x}"
    remove = f"echo 0 >{there}/tracing_on; echo 0 >{there}/events/enable; rmdir {there}"
    late = int(2 * COST + limits.seconds + SPARE)
    watch = host.run(
        f"(trap '' HUP; trap 'kill $s; exit' TERM; sleep {late} & s=$!; wait $s; {remove}) "
        ">/dev/null 2>&1 </dev/null & echo $!",
        check=True,
    ).stdout.strip()
    try:
        script = [
            f"mkdir {there}",
            f"echo 0 >{there}/tracing_on",
            f"echo {limits.kilobytes} >{there}/buffer_size_kb",
            f"(echo mono >{there}/trace_clock) 2>/dev/null || true",
            f"for t in /proc/{pid}/task/*; do echo ${{t##*/}}; done >{there}/set_event_pid",
            f"(echo 1 >{there}/options/event-fork) 2>/dev/null || true",
        ]
        host.run(" && ".join(script), check=True)
        yield there
    finally:
        host.run(f"kill {watch} 2>/dev/null; [ ! -d {there} ] || {{ {remove}; }}", timeout=30)
        left = host.run(f"[ ! -d {there} ] || {{ sleep 1; rmdir {there}; }}").status
        if left:
            PROGRESS.say(f"{host.name}: {there} could not be removed: rmdir it there")


def _write(host: Host, values: list[tuple[str, str]]) -> None:
    host.run(" && ".join(f"echo {value} >{shlex.quote(path)}" for path, value in values), check=True)


def _rate(host: Host, pid: int, seconds: float) -> float | None:
    """Exits a second over ``seconds``, as KVM itself counts them; None where the host does not show the count."""
    first = _exits(host, pid)
    time.sleep(seconds)
    last = _exits(host, pid)
    if first is None or last is None or last[0] <= first[0]:
        return None
    return (last[1] - first[1]) / (last[0] - first[0])


def _exits(host: Host, pid: int) -> tuple[float, int] | None:
    """The host's clock in seconds, and the exits of the process's virtual machines so far."""
    told = host.run(f"cut -d' ' -f1 /proc/uptime; cat /sys/kernel/debug/kvm/{pid}-*/exits 2>/dev/null").stdout.split()
    return (float(told[0]), sum(map(int, told[1:]))) if len(told) > 1 else None


def _read_formats(host: Host, there: str, found: Capture) -> None:
    """The host's own words on what its events look like."""
    for event in found.facts["events"]:
        found.texts[event] = host.run(f"cat {there}/events/{event}/format", check=True).stdout
    for name in ("header_page", "header_event"):
        found.texts[name] = host.run(f"cat {there}/events/{name}", check=True).stdout
    formats.page(found.texts["header_page"])
    check_head(found.texts["header_event"])


def _read_pages(host: Host, there: str, found: Capture) -> None:
    """The buffer of every CPU, and what it lost."""
    size = formats.page(found.texts["header_page"]).size
    for name in host.run(f"ls {there}/per_cpu", check=True).stdout.split():
        cpu = int(name.removeprefix("cpu"))
        stats = dict(re.findall(r"^(.+): (\d+)", host.run(f"cat {there}/per_cpu/{name}/stats").stdout, re.MULTILINE))
        for word in ("overrun", "commit overrun", "dropped events"):
            found.lost[word] = found.lost.get(word, 0) + int(stats.get(word, 0))
        if entries := int(stats.get("entries", 0)):
            found.facts["entries"] = found.facts.get("entries", 0) + entries
            data = gzip.decompress(
                host.run(_DRAIN.format(f"{there}/per_cpu/{name}/trace_pipe_raw"), timeout=READING).data
            )
            found.pages += [(cpu, data[at : at + size]) for at in range(0, len(data) // size * size, size)]
