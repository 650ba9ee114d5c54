"""What was captured, held against the manual and against itself: each event that anything can be said of.

An exit's qualification is held against itself (``kvmodel.sdm.coherence``): the CPU's own, and the one that KVM gives to
an L1. A shadow entry is held against the access for which KVM installed it, and against the host's rule on huge pages.
A write that gets an entry without write permission is no fault alone (KVM emulates writes to tables that it shadows, or
takes the shadow away and lets the guest try again): it is told where the same access comes back and back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from harness.jsonable import Json
from harness.observe import LIVELOCK_EXITS
from harness.passive import formats
from harness.passive.capture import Capture
from harness.passive.ring import RawEvent, Ring
from kvmodel.include.asm.vmx import (
    EXIT_REASON_EPT_VIOLATION,
    VMX_EPT_EXECUTABLE_MASK,
    VMX_EPT_READABLE_MASK,
    VMX_EPT_WRITABLE_MASK,
)
from kvmodel.sdm import coherence
from kvmodel.sdm.qualification import FETCH, READ, WRITE

USER_EXECUTE: Final = 1 << 10
PRESENT: Final = VMX_EPT_READABLE_MASK | VMX_EPT_WRITABLE_MASK | VMX_EPT_EXECUTABLE_MASK
BASIC: Final = 0xFFFF  # of an exit reason
ENTRIES: Final = 9  # address bits that a level of the tables decides
RULES: Final = {
    **{f"cpu-{name}": f"the CPU's qualification: {text}" for name, text in coherence.RULES.items()},
    **{f"l1-{name}": f"the qualification that KVM gives L1: {text}" for name, text in coherence.RULES.items()},
    "unusable": "the entry that KVM installed for an access does not permit it",
    "no-progress": f"{LIVELOCK_EXITS} times in a row the entry that KVM installed for a write does not permit it",
    "huge-executable": "an entry above level 1 permits execution, though kvm.nx_huge_pages is on",
    "livelock": f"the same EPT violation {LIVELOCK_EXITS} times and more, no shadow entry changed in between",
}  # fmt: skip


@dataclass(slots=True)
class Problem:
    """A problem is one rule that events broke: how often, and the first event that did."""

    rule: str
    count: int
    time: int
    first: str


@dataclass(slots=True)
class TraceVerdict:
    """The verdict says what is known of a capture; ``judged`` counts the events that a rule was held against."""

    seconds: float = 0.0
    events: int = 0
    unread: int = 0
    gaps: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    judged: Counter[str] = field(default_factory=Counter)
    problems: dict[str, Problem] = field(default_factory=dict)
    asides: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Case:
    """A case is one exit of a vCPU by an EPT violation, and what KVM did of it."""

    qualification: int
    rip: int
    address: int | None = None
    requested: tuple[int, int] | None = None  # gfn and level of the entry that was asked for
    changed: bool = False  # a shadow entry changed
    short: str = ""  # the entry that a write got and cannot use, nothing having been emulated since

    def again(self, other: Case) -> bool:
        """The value says whether ``other`` is the same access once more."""
        return (self.qualification, self.rip, self.address) == (other.qualification, other.rip, other.address)


class TraceJudge:
    """The judge sees one capture's events, vCPU by vCPU."""

    def __init__(self, capture: Capture) -> None:
        self._parameters: dict[str, str] = capture.facts["parameters"]
        events = [formats.parsed(capture.texts[event], event) for event in capture.facts["events"]]
        self._symbols = next((formats.symbols(e) for e in events if e.name == "kvm_exit"), {})
        self._ring = Ring(formats.page(capture.texts["header_page"]), events)
        self._told = self._ring.events(capture.pages)
        self._cases: dict[int, Case] = {}
        self._rows: dict[int, int] = {}  # exits of a vCPU in a row that are the same access, without a change
        self._shorts: dict[int, int] = {}  # ... each with an entry that the write cannot use
        self._mbec = any(self._on(name) for name in ("kvm/enable_pt_guest_exec_control", "kvm_intel/mbec"))
        self._ept = self._on("kvm_intel/ept")
        self._huge = self._parameters.get("kvm/nx_huge_pages", "N") not in ("N", "0", "off", "never")
        self.verdict = TraceVerdict()
        self._entries = int(capture.facts.get("entries", 0))

    def _on(self, name: str) -> bool:
        return self._parameters.get(name, "N") in ("Y", "1")

    def judge(self) -> TraceVerdict:
        """Every event is looked at once, in the order of time."""
        verdict = self.verdict
        verdict.events, verdict.gaps = len(self._told), self._ring.gaps
        verdict.unread = max(0, self._entries - len(self._told) - self._ring.unknown)
        if self._told:
            verdict.seconds = (self._told[-1].time - self._told[0].time) / 1e9
        if not self._ept:
            verdict.asides.append("kvm_intel.ept is not known to be on: shadow entries are not judged")
        if not self._huge:
            verdict.asides.append("kvm.nx_huge_pages is off, or not known: the rule on huge pages is not held")
        takers = {
            "kvm_exit": self._exit,
            "kvm_page_fault": self._fault,
            "kvm_nested_vmexit_inject": self._inject,
            "kvm_mmu_spte_requested": self._requested,
            "kvm_mmu_set_spte": self._set,
            "kvm_tdp_mmu_spte_changed": self._changed,
            "fast_page_fault": self._fast,
            "kvm_emulate_insn": self._emulated,
        }
        for event in self._told:
            verdict.counts[event.name] += 1
            if (take := takers.get(event.name)) is not None:
                take(event)
        return verdict

    # one event

    def _exit(self, event: RawEvent) -> None:
        fields = event.fields
        if not {"exit_reason", "info1", "guest_rip"} <= fields.keys():
            return
        reason = fields["exit_reason"] & BASIC
        self.verdict.reasons[self._symbols.get(reason, f"reason {reason}")] += 1
        before = self._cases.pop(event.pid, None)
        if reason != EXIT_REASON_EPT_VIOLATION:
            self._forget(event.pid)
            return
        self._qualification(event, "cpu", fields["info1"])
        case = self._cases[event.pid] = Case(fields["info1"], fields["guest_rip"])
        self._compare(event, before, case)

    def _compare(self, event: RawEvent, before: Case | None, case: Case) -> None:
        """Whether an exit is the one before once more; its address is not known yet, and taken for the same."""
        case.address = before.address if before is not None else None
        if before is None or not case.again(before):
            self._forget(event.pid)
            return
        short = self._shorts[event.pid] = self._shorts.get(event.pid, 1) + 1 if before.short else 0
        if short == LIVELOCK_EXITS:
            self._problem(event, "no-progress", before.short)
        row = 0 if before.changed else self._rows.get(event.pid, 1) + 1
        self._rows[event.pid] = row
        if row == LIVELOCK_EXITS:
            self._problem(event, "livelock", f"qualification {case.qualification:#x} rip {case.rip:#x}")

    def _forget(self, pid: int) -> None:
        self._rows.pop(pid, None)
        self._shorts.pop(pid, None)

    def _qualification(self, event: RawEvent, whose: str, value: int) -> None:
        self.verdict.judged[event.name] += 1
        for rule in coherence.contradictions(value, mbec=self._mbec):
            self._problem(event, f"{whose}-{rule}", f"qualification {value:#x}")

    def _fault(self, event: RawEvent) -> None:
        case = self._cases.get(event.pid)
        if case is not None and "fault_address" in event.fields:
            address = event.fields["fault_address"]
            if case.address not in (None, address):
                self._forget(event.pid)
            case.address = address

    def _inject(self, event: RawEvent) -> None:
        fields = event.fields
        if {"exit_code", "exit_info1"} <= fields.keys() and fields["exit_code"] & BASIC == EXIT_REASON_EPT_VIOLATION:
            self._qualification(event, "l1", fields["exit_info1"])
        self._cases.pop(event.pid, None)
        self._forget(event.pid)

    def _requested(self, event: RawEvent) -> None:
        case = self._cases.get(event.pid)
        if case is not None and {"gfn", "level"} <= event.fields.keys():
            case.requested = event.fields["gfn"], event.fields["level"]

    def _changed(self, event: RawEvent) -> None:
        if (case := self._cases.get(event.pid)) is not None:
            case.changed = True

    def _set(self, event: RawEvent) -> None:
        fields = event.fields
        if not self._ept or not {"gfn", "spte", "level"} <= fields.keys():
            return
        gfn, spte, level = fields["gfn"], fields["spte"], fields["level"]
        text = f"gfn {gfn:x} spte {spte:x} level {level}"
        execute = VMX_EPT_EXECUTABLE_MASK | (USER_EXECUTE if self._mbec else 0)
        if self._huge:
            self.verdict.judged[event.name] += 1
            if level > 1 and spte & execute:
                self._problem(event, "huge-executable", text)
        case = self._cases.get(event.pid)
        if case is None:
            return
        case.changed = True
        if case.requested is None or gfn != case.requested[0] >> ENTRIES * (level - 1) << ENTRIES * (level - 1):
            return  # one of its neighbours, fetched beforehand
        if not spte & (PRESENT | USER_EXECUTE):
            return  # taken away by another CPU before the kernel looked at it again
        if not self._huge:
            self.verdict.judged[event.name] += 1
        case.short = ""
        text += f" for qualification {case.qualification:#x}"
        if case.qualification & FETCH:
            if not spte & execute:
                self._problem(event, "unusable", text)
        elif case.qualification & WRITE:
            case.short = "" if spte & VMX_EPT_WRITABLE_MASK else text
        elif case.qualification & READ and not spte & VMX_EPT_READABLE_MASK:
            self._problem(event, "unusable", text)

    def _fast(self, event: RawEvent) -> None:
        """What is there after a fault without a lock may be another CPU's work: it is a change, and no more."""
        if event.fields.get("old_spte") != event.fields.get("new_spte"):
            self._changed(event)

    def _emulated(self, event: RawEvent) -> None:
        if (case := self._cases.get(event.pid)) is not None:
            case.short = ""

    def _problem(self, event: RawEvent, rule: str, text: str) -> None:
        known = self.verdict.problems.get(rule)
        if known is None:
            self.verdict.problems[rule] = Problem(rule, 1, event.time, f"{event.name} on CPU {event.cpu}: {text}")
        else:
            known.count += 1


def judged(capture: Capture) -> TraceVerdict:
    """Every event of a capture is judged as far as a rule reads.

    Raises InputError when its formats or pages are none.
    """
    return TraceJudge(capture).judge()


def lines(capture: Capture, verdict: TraceVerdict) -> Iterable[str]:
    """The lines are what is printed of a capture."""
    facts = capture.facts
    told = " ".join(f"{name.replace('/', '.')}={value}" for name, value in facts["parameters"].items())
    yield f"{facts['process']} (pid {facts['pid']}) on Linux {facts['release']}, {facts['cpu']}; {told}"
    if facts["missing"]:
        yield f"this kernel has no {', '.join(facts['missing'])}: what they would say is not judged"
    if facts.get("ended"):
        yield "the guest ENDED while it was watched"
    lost = sum(capture.lost.values())
    yield f"{verdict.events:,} events in {verdict.seconds:.3f} s; " + (
        f"{lost:,} LOST ({', '.join(f'{name} {n:,}' for name, n in capture.lost.items() if n)}): a larger --size keeps "
        "more, or --for less time" if lost else "none lost"
    )  # fmt: skip
    if verdict.unread:
        yield f"{verdict.unread:,} events of the buffer were NOT READ: the connection was too slow or broke"
    yield from _cost(capture)
    total = sum(verdict.reasons.values())
    for name, count in verdict.reasons.most_common():
        rate = f"{count / verdict.seconds:,.0f} a second" if verdict.seconds else ""
        yield f"  {name:24} {count:9,}  {100 * count / total:5.1f} %  {rate}"
    held = ", ".join(f"{count:,} {name}" for name, count in verdict.judged.items()) or "none"
    yield f"judged: {held}" + ("; no rule is broken" if verdict.judged and not verdict.problems else "")
    yield from verdict.asides
    for problem in verdict.problems.values():
        yield f"{problem.rule}: {RULES[problem.rule]}"
        yield f"     {problem.count:,} times; first {problem.first}"


def _cost(capture: Capture) -> Iterable[str]:
    told = {name: rate for name, rate in capture.exits.items() if rate is not None}
    if len(told) < 3:
        why = "the guest ended" if capture.facts.get("ended") else "the host has no debugfs at /sys/kernel/debug"
        yield f"exits a second without capturing: not known ({why})"
        return
    still = (told["before"] + told["after"]) / 2
    change = f"{100 * (told['while'] / still - 1):+.1f} %" if still else "no exits without it"
    yield (
        f"exits a second: {told['before']:,.0f} before, {told['while']:,.0f} while capturing, "
        f"{told['after']:,.0f} after ({change} against the mean without)"
    )


def as_json(capture: Capture, verdict: TraceVerdict) -> dict[str, Json]:
    """The value has the same as data."""
    return {
        "schema": "kvmirror-trace-1",
        "facts": capture.facts,
        "lost": capture.lost,
        "exits_a_second": capture.exits,
        "seconds": verdict.seconds,
        "events": dict(verdict.counts),
        "unread": verdict.unread,
        "gaps": verdict.gaps,
        "reasons": dict(verdict.reasons.most_common()),
        "judged": dict(verdict.judged),
        "asides": verdict.asides,
        "problems": [
            {"rule": p.rule, "text": RULES[p.rule], "count": p.count, "time_ns": p.time, "first": p.first}
            for p in verdict.problems.values()
        ],
    }
