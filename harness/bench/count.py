"""VM exits counted on the host, by reason, guest and who deals with them, while L1 is between two gates.

Three tracepoints say it: ``kvm_exit`` for every exit, ``kvm_nested_vmexit`` for those of L2 among them, and
``kvm_nested_vmexit_inject`` for those that KVM hands on to L1. Each is counted by the kernel itself, by a filter a
reason; nothing is written down but the counts. Beside them stand KVM's own counters of the virtual machine.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from harness.bench import batch
from harness.bench.batch import Window
from harness.bench.images import COUNTER
from harness.errors import GuestError, HostError
from harness.hosts import Host, Remote
from harness.observe import Observation, livelock, qemu
from kvmodel.machine.exits import REASONS, Exit

PATIENCE: Final = 60.0  # seconds of wall time in which L1 has to come one window further
OVERDUE: Final = 3  # the counter's exit status where L1 did not come
DEADLINE: Final = 240.0  # seconds of wall time for a batch
READY: Final = 30.0  # seconds until the counter counts
OTHER: Final = "other"
HOSTS_OWN: Final = "EXTERNAL_INTERRUPT"  # the host's timer and network card end a guest's turn: not L1's doing

_FIELD: Final = {"kvm_exit": "exit_reason", "kvm_nested_vmexit": "exit_reason", "kvm_nested_vmexit_inject": "exit_code"}


def specs() -> list[str]:
    """The counter is asked for these: each of the three events in all, then by reason."""
    found = []
    for event, name in _FIELD.items():
        found.append(f"kvm:{event}")
        found += [f"kvm:{event}:{name}=={reason}" for reason in REASONS]
    return found


def _by_reason(counts: Sequence[int]) -> dict[str, dict[str, int]]:
    """The counter's row of numbers by event and reason; what no filter named is ``other``."""
    size = 1 + len(REASONS)
    if len(counts) != size * len(_FIELD):
        raise GuestError(f"the counter gave {len(counts)} counts, {size * len(_FIELD)} were asked for")
    found = {}
    for place, event in enumerate(_FIELD):
        total, *each = counts[place * size : (place + 1) * size]
        found[event] = dict(zip(REASONS.values(), each, strict=True)) | {OTHER: total - sum(each)}
    return found


def exits_of(counts: Sequence[int]) -> Counter[Exit]:
    """The function gives the exits of a window by guest, reason and who dealt with them; none that did not
    occur.

    Raises GuestError for a count that no exit can have.

    Raises GuestError when KVM's tracepoints contradict each other.
    """
    by = _by_reason(counts)
    found: Counter[Exit] = Counter()
    for reason, total in by["kvm_exit"].items():
        nested, told = by["kvm_nested_vmexit"][reason], by["kvm_nested_vmexit_inject"][reason]
        found[Exit("L1", reason)] = total - nested
        found[Exit("L2", reason)] = nested - told
        found[Exit("L2", reason, "L1")] = told
    if any(n < 0 for n in found.values()):
        raise GuestError(f"KVM's tracepoints contradict each other: {by}")
    return Counter({exit: n for exit, n in found.items() if n})


@dataclass(slots=True)
class CountedExits:
    """This is one window as it was counted. Not ``through``: L1 did not come to its end, and the counts are of the
    wait.
    """

    window: Window
    through: bool = False
    exits: Counter[Exit] = field(default_factory=Counter)
    statistics: dict[str, int] = field(default_factory=dict)  # KVM's own, of the virtual machine
    observation: Observation | None = None

    @property
    def total(self) -> int:
        """The count has all exits, those for the host's own interrupts among them."""
        return sum(self.exits.values())


def rows(text: str) -> Iterator[dict[str, Any]]:
    """The function reads the counter's lines.

    Raises GuestError for one that is none of its own.
    """
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except ValueError as error:
            raise GuestError(f"the counter wrote {line[:80]!r}: {error}") from error


def _start(host: Host, program: str, windows: int, traced: int) -> tuple[Remote, int]:
    """The counter, which counts, and its process id on the host."""
    words = [program, qemu.SHM, str(windows), str(traced), *specs()]
    remote = host.spawn(shlex.join(words))
    deadline = time.monotonic() + READY
    while True:
        for row in rows(remote.output()):
            if "ready" in row:
                return remote, row["pid"]
        host.check()
        if remote.status is not None or time.monotonic() > deadline:
            raise GuestError(f"the exits cannot be counted: {remote.errors().strip() or f'{COUNTER} says nothing'}")
        time.sleep(0.05)


@contextlib.contextmanager
def _watched(guest: qemu.Qemu, counter: Remote, pid: int, patience: float) -> Iterator[None]:
    """An L1 that is overdue is ended: its L2 may never give it the CPU back."""
    done = threading.Event()

    def watch() -> None:
        told, moved = "", time.monotonic()
        while not done.wait(0.1):
            if (now := counter.output()) != told:
                told, moved = now, time.monotonic()
            if counter.status == 0:
                return
            if counter.status is None and time.monotonic() - moved > patience:
                guest.host.run(f"kill -USR1 {pid}")
                moved = float("inf")
            elif counter.status == OVERDUE:
                guest.command("system_reset")
                return

    def quietly() -> None:
        with contextlib.suppress(GuestError, HostError):  # whoever runs L1 is told as well
            watch()

    thread = threading.Thread(target=quietly, name="overdue", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def count(
    guest: qemu.Qemu, program: str, asked: Sequence[Window], *, traced: int = -1, patience: float = PATIENCE
) -> list[CountedExits]:
    """L1 runs once through the windows ``asked``; ``traced`` is the one during which tracing is on, -1 for
    none.

    ``program`` is the counter's path on the host, ``patience`` what L1 has for a window in seconds of wall time. A
    window that L1 did not come to the end of is the last; those behind it are not there.

    Raises GuestError when L1 did not come as far as its first window.
    """
    remote, pid = _start(guest.host, program, len(asked), traced)
    try:
        with _watched(guest, remote, pid, patience):
            run = guest.run(batch.pack(asked), deadline=DEADLINE, stall=DEADLINE)
        deadline = time.monotonic() + READY
        while remote.status is None and time.monotonic() < deadline:
            time.sleep(0.05)
        told = [row for row in rows(remote.output()) if "window" in row]
    finally:
        remote.stop()
    seen = batch.unpack(run.memory) if run.memory else ()
    found: list[CountedExits] = []
    for i, window in enumerate(asked):
        observation = seen[i] if i < len(seen) and seen[i].verdict else None
        row = next((r for r in told if r["window"] == i), None)
        if row is None and observation is None:
            if not found:
                raise GuestError(f"L1 did not come to its first window: {run.end.value} {run.detail}")
            break
        if row is None or row.get("absent"):
            found.append(CountedExits(window, observation=observation))
            break
        found.append(CountedExits(window, row["through"], exits_of(row["counts"]), row["statistics"], observation))
        if not row["through"]:
            break
    return found


def sequence(events: Iterable[livelock.TraceEvent]) -> list[Exit]:
    """The function gives the exits in a trace, in order, without those that are the host's own."""
    found: list[Exit] = []
    for event in events:
        match event.name:
            case "kvm_exit":
                found.append(Exit("L1", event.text.partition("reason ")[2].split(" ")[0]))
            case "kvm_nested_vmexit" if found:
                found[-1] = found[-1]._replace(guest="L2")
            case "kvm_nested_vmexit_inject" if found:
                found[-1] = found[-1]._replace(to="L1")
            case _:
                pass
    return [exit for exit in found if exit.reason != HOSTS_OWN]
