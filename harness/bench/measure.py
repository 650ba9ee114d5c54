"""The variants run and counted on emulated hosts, kernel by kernel.

What needs the same modules and the same virtual CPU shares a QEMU: each run starts L1 anew in it. First every variant
makes a few system calls with KVM's trace on, which shows whether its L2 gets on at all, and each exit in its order.
"""

from __future__ import annotations

import queue
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from harness.bench import count
from harness.bench.batch import Window
from harness.bench.count import CountedExits
from harness.bench.result import Measured, Point, Result, caused, difference
from harness.bench.variants import ExitVariant, Kernel
from harness.errors import GuestError
from harness.findings import Departure, causes, group
from harness.hosts import Host, ModuleFiles, Parameters
from harness.observe import FIRST_FETCH, Observation, Session, livelock, qemu, qemu_facts
from harness.process import PROGRESS, parallel
from harness.questions import Setting
from harness.results import KVM_HOST, cpus
from kvmodel import machine, sdm
from kvmodel.cpu import Cpu
from kvmodel.machine import exits as exits_model
from kvmodel.machine.exits import Exit, Hypervisor, Mix, StuckError, Vmcs
from kvmodel.question.outcome import Kind, NotApplicable, Outcome
from kvmodel.question.vector import ENVIRONMENTS, Access, AccessVector, Machine, Mbec, Perm, Vector

SHADOW_FILE: Final = "/sys/module/kvm_intel/parameters/enable_shadow_vmcs"
SHORT: Final = Mix(calls=3, fresh_every=2, load_every=3, hypercall_every=2)  # one of each, for the trace
SHORT_PATIENCE: Final = 12.0  # seconds of wall time; with L1's start it takes two
TRACE_KILOBYTES: Final = 2048
EVENTS: Final = (
    "kvm/kvm_nested_vmexit",
    "kvm/kvm_nested_vmexit_inject",
    *livelock.EVENTS,
)
FRAME_CALLS: Final = 1
AXES: Final = {
    "hypercalls": (0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4),
    "code loads": (1 / 64, 1 / 16, 1 / 4, 1),
    "fresh pages": (1 / 16, 1 / 4, 1),
}
CURVE_CALLS: Final = 64

USER_FETCH: Final = AccessVector(mbec=Mbec.OFF, leaf=Perm.parse("rwx-"), access=Access.FETCH, cpl=3)
"""L2's user code on a view that lets it be executed, of an L1 that leaves MBEC off and bit 10 clear."""

VERDICT_DONE, VERDICT_ENTRY_FAIL, VERDICT_SCAFFOLD = 1, 4, 8
REFUSED_EVMCS: Final = 0x1003
USUAL: Final = cpus.emulated()  # the CPU under KVM where no other is named


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan says what is asked of each kernel."""

    variants: Sequence[ExitVariant]
    mix: Mix
    runs: int
    curve: bool
    cpu: Cpu = USUAL  # under KVM


@dataclass(frozen=True, slots=True)
class Programs:
    """A host has these programs to run: the workload, and the counter."""

    workload: Path
    counter: Path


def on_axis(axis: str, value: float, calls: int = CURVE_CALLS) -> Mix:
    """The function gives the plain mix with ``value`` of one thing a system call.

    Raises ValueError for what is no axis, or no whole share.
    """
    every = round(1 / value) if 0 < value < 1 else 1 if value else 0
    match axis:
        case "hypercalls":
            return Mix(calls, hypercall_every=every, hypercalls=max(1, int(value)))
        case "code loads":
            return Mix(calls, load_every=every)
        case "fresh pages":
            return Mix(calls, fresh_every=every)
        case _:
            raise ValueError(f"{axis} is no axis: {', '.join(AXES)}")


def _frame(mix: Mix) -> Mix:
    """The window around the counted system calls, of which everything else is to be taken off."""
    return Mix(FRAME_CALLS, looks=mix.looks, warm=mix.warm)


def whole(mix: Mix) -> Mix:
    """The function gives ``mix`` with room for the frame's own system call."""
    return replace(mix, calls=mix.calls + FRAME_CALLS)


def _window(variant: ExitVariant, mix: Mix) -> Window:
    l1 = variant.l1
    return Window(mix, mbec=l1.mbec, evmcs=l1.vmcs is Vmcs.EVMCS, bit10=l1.bit10)


def predicted(kernel: Kernel, l1: Hypervisor, mix: Mix, cpu: Cpu = USUAL) -> Counter[Exit] | None:
    """The mirror's exits for ``mix``, the frame taken off; None where it has not this kernel, or L2 does not get on."""
    if kernel.foreign:
        return None
    try:
        both, frame = (
            exits_model.counted(exits_model.window(kernel.level, kernel.param, cpu, l1, one))
            for one in (whole(mix), _frame(mix))
        )
    except StuckError:
        return None
    return difference(both, frame)


def _foreseen(kernel: Kernel, variant: ExitVariant, cpu: Cpu) -> list[Exit] | None:
    if kernel.foreign:
        return None
    try:
        return exits_model.window(kernel.level, kernel.param, cpu, variant.l1, SHORT)
    except StuckError:
        return None


def finding(kernel: Kernel, vector: Vector, cpu: Cpu = USUAL) -> str:
    """The function gives the finding behind a guest that goes round and round where ``vector`` does, by its symptom and
    its cause.

    Empty for a kernel that no mirror is of, and where the mirror has no such finding.
    """
    if kernel.foreign:
        return ""
    level, param = kernel.level, kernel.param
    answers = sdm.allowed(machine.virtual_cpu(level, param, cpu, vector.machine), vector)
    if isinstance(answers, NotApplicable):
        return ""
    told = machine.predict(level, param, cpu, vector).outcome
    seen = Outcome(Kind.LIVELOCK)
    if not told.matches(seen):
        return ""
    legal = tuple(a.outcome for a in answers)
    cell = (level, str(Setting.own_value(param)))
    departure = Departure(vector, cell, KVM_HOST, seen, legal, answers[0].rule, answers[0].section, told)
    (found,) = group.group([departure], causes.find_cause)
    return f"{found.title}; {found.origin} [{found.cause}]"


class Measure:
    """This is one kernel on one started host."""

    def __init__(
        self, session: Session, host: Host, modules: ModuleFiles, programs: Programs, kernel: Kernel, plan: Plan
    ) -> None:
        self._session, self._host, self._modules = session, host, modules
        self._kernel, self._plan = kernel, plan
        self._workload = programs.workload
        self._counter = host.deliver(programs.counter, mode=0o755)
        self._rows = {v.name: Measured(v, plan.mix.calls) for v in plan.variants}
        self._points: dict[tuple[str, float], tuple[dict[str, float], dict[str, float]]] = {}
        self._facts: dict[str, Any] = {}

    def run(self, advance: Callable[[], None]) -> Result:
        """All variants of the plan; ``advance`` is called behind each group."""
        for vmcs in Vmcs:
            variants = [v for v in self._plan.variants if v.l1.vmcs is vmcs]
            if variants:
                self._group(vmcs, variants)
            advance()
        curve = [Point(axis, value, *found) for (axis, value), found in sorted(self._points.items(), key=_axis_order)]
        return Result(self._kernel, list(self._rows.values()), curve, self._facts)

    def _group(self, vmcs: Vmcs, variants: list[ExitVariant]) -> None:
        shadow = vmcs is not Vmcs.PLAIN
        self._host.load(self._modules, Parameters(Setting.own_value(self._kernel.param).words, shadow_vmcs=shadow))
        has = self._host.run(f"cat {SHADOW_FILE}", check=True).stdout.strip() == "Y"
        if vmcs is Vmcs.SHADOW and not has:
            self._miss(
                variants, "KVM does not use VMCS shadowing on this CPU: enable_shadow_vmcs was asked for and is N"
            )
            return
        if (blocked := self._session.l1_can_run()) is not None:
            self._miss(variants, blocked.note, finding(self._kernel, FIRST_FETCH, self._plan.cpu))
            return
        virtual = Machine(True, True, vmcs is Vmcs.EVMCS, ENVIRONMENTS["std"])
        with qemu.Qemu(self._host, virtual, self._workload) as guest:
            self._facts |= qemu_facts(guest)
            if vmcs is Vmcs.EVMCS and not guest.provenance.properties.get("hv-evmcs"):
                self._miss(variants, "this KVM does not offer L1 an enlightened VMCS")
                return
            offered = guest.mbec
            self._miss([v for v in variants if v.l1.mbec and not offered],
                       "this kernel does not offer L1 MBEC: bit 22 of MSR 0x48B's allowed-1 half is clear")  # fmt: skip
            going = [ready for v in variants if not self._rows[v.name].missing if (ready := self._try(guest, v))]
            for _ in range(self._plan.runs):
                self._count(guest, going)
            if self._plan.curve and offered:
                self._curve(guest, going)

    def _miss(self, variants: Iterable[ExitVariant], why: str, because: str = "") -> None:
        for variant in variants:
            self._rows[variant.name].missing = why
            self._rows[variant.name].finding = because

    def _try(self, guest: qemu.Qemu, variant: ExitVariant) -> ExitVariant | None:
        """The variant as it can be counted, None where it cannot: a few system calls with the trace on."""
        row = self._rows[variant.name]
        for one in (variant, variant.avoiding()) if not variant.l1.mbec else (variant,):
            seen, events = self._short(guest, one)
            if seen.through and seen.observation is not None and seen.observation.verdict == VERDICT_DONE:
                row.traced = count.sequence(events)
                row.foreseen = _foreseen(self._kernel, one, self._plan.cpu)
                row.avoided = one.l1.bit10
                if not self._kernel.foreign:
                    row.call = exits_model.system_call(
                        self._kernel.level, self._kernel.param, self._plan.cpu, one.l1, self._plan.mix.looks
                    )
                return one
            row.missing = _why(seen, events)
            if not livelock.livelock(events).confirmed:
                return None
            row.finding = finding(self._kernel, USER_FETCH, self._plan.cpu)
        return None

    def _short(self, guest: qemu.Qemu, variant: ExitVariant) -> tuple[CountedExits, list[livelock.TraceEvent]]:
        livelock.arm(self._host, EVENTS, TRACE_KILOBYTES, exits="0", on=False)
        try:
            (seen,) = count.count(guest, self._counter, [_window(variant, SHORT)], traced=0, patience=SHORT_PATIENCE)
        finally:
            text = livelock.disarm(self._host)
        return seen, list(livelock.parse(text))

    def _counted(self, guest: qemu.Qemu, windows: Sequence[Window]) -> list[CountedExits]:
        found = count.count(guest, self._counter, windows)
        last = found[-1]
        if len(found) < len(windows) or not last.through:
            raise GuestError(f"L1 stood still in window {len(found)} of {len(windows)}, which began well before")
        for one in found:
            if one.observation is None or one.observation.verdict != VERDICT_DONE:
                raise GuestError(f"a window that began well did not end so: {one.observation}")
        return found

    def _count(self, guest: qemu.Qemu, variants: list[ExitVariant]) -> None:
        """One run of each: its frame, then the mix."""
        if not variants:
            return
        mixes = (_frame(self._plan.mix), whole(self._plan.mix))
        found = self._counted(guest, [_window(v, mix) for v in variants for mix in mixes])
        for i, variant in enumerate(variants):
            frame, all_of_it = found[2 * i], found[2 * i + 1]
            row = self._rows[variant.name]
            row.missing = ""
            row.runs.append(difference(all_of_it.exits, frame.exits))
            row.totals.append((all_of_it.total, all_of_it.statistics.get("exits")))
            row.predicted = predicted(self._kernel, variant.l1, self._plan.mix, self._plan.cpu)

    def _curve(self, guest: qemu.Qemu, variants: list[ExitVariant]) -> None:
        looks = self._plan.mix.looks
        asked = [(axis, value) for axis, values in AXES.items() for value in values]
        for variant in variants:
            mixes = [replace(on_axis(axis, value), looks=looks) for axis, value in asked]
            windows = [_window(variant, mix) for mix in (_frame(Mix(looks=looks)), *map(whole, mixes))]
            frame, *found = self._counted(guest, windows)
            for (axis, value), mix, one in zip(asked, mixes, found, strict=True):
                rates, told = self._points.setdefault((axis, value), ({}, {}))
                exits = caused(difference(one.exits, frame.exits))
                rates[variant.name] = sum(exits.values()) * 1000 / mix.calls
                if (ours := predicted(self._kernel, variant.l1, mix, self._plan.cpu)) is not None:
                    told[variant.name] = sum(ours.values()) * 1000 / mix.calls


def _axis_order(item: tuple[tuple[str, float], object]) -> tuple[int, float]:
    (axis, value), _ = item
    return list(AXES).index(axis), value


def _why(seen: CountedExits, events: list[livelock.TraceEvent]) -> str:
    """Why a short window did not end well."""
    row = livelock.livelock(events)
    if row.confirmed:
        return f"L2 does not get on: {row}"
    o = seen.observation
    if o is not None and o.verdict == VERDICT_SCAFFOLD and o.error == REFUSED_EVMCS:
        return "L1 does not find an enlightened VMCS of version 1"
    if o is not None and o.verdict == VERDICT_ENTRY_FAIL:
        return f"the VM entry of L2 fails with VM-instruction error {o.error}"
    if not seen.through:
        return "L1 did not come back from L2, and KVM's trace shows no livelock"
    return f"L1 was given an exit that its L2 has no part in: {_exit(o)}"


def _exit(o: Observation | None) -> str:
    if o is None:
        return "no observation"
    return f"reason {o.reason:#x}, qualification {o.qualification:#x}, L2-physical {o.gpa:#x}, RIP {o.rip:#x}"


def measure(
    kernels: Sequence[Kernel],
    plan: Plan,
    programs: Programs,
    *,
    open_host: Callable[[str], Host],
    open_session: Callable[[Host], Session],
    modules: Callable[[int], ModuleFiles],
    jobs: int,
) -> list[Result]:
    """The function measures each kernel's variants, on ``jobs`` hosts side by side; the results are in the order of
    ``kernels``.
    """
    todo: queue.SimpleQueue[Kernel] = queue.SimpleQueue()
    for kernel in sorted(kernels, key=lambda k: (k.foreign, k.level, bool(k.param)), reverse=True):
        todo.put(kernel)
    done: dict[Kernel, Result] = {}
    with PROGRESS.task("exits counted", total=len(kernels) * len(Vmcs)) as task:

        def work(name: str) -> None:
            with open_host(name) as host:
                session = open_session(host)
                while True:
                    try:
                        kernel = todo.get_nowait()
                    except queue.Empty:
                        return
                    one = Measure(session, host, modules(kernel.level), programs, kernel, plan)
                    done[kernel] = one.run(task.advance)

        names = [f"host {n + 1}" for n in range(min(jobs, len(kernels)))]
        parallel.side_by_side({name: partial(work, name) for name in names})
    return [done[kernel] for kernel in kernels]
