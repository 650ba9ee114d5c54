"""What KVM did for one vector, cut out of the host's trace: the entry, then each exit of L2 at the address under test.

``matching.RULES`` says by which rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from harness.jsonable import Json
from harness.observe.batch import PAGE, Observation
from harness.observe.livelock import TraceEvent
from harness.observe.tracepoints import MARK
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.reading import parse_access
from kvmodel.question.vector import AccessVector, NxVector, Vector

Text = tuple[str, str]  # an event's name and text
Exit = tuple[Text, ...]  # what KVM did for one exit of L2, or (the first) for the entry

_ASIDE: Final = ("kvm_tdp_mmu_spte_changed",)  # rule l1-ept
_MARKED = re.compile(r"func ([0-9a-f]+) idx ([0-9a-f]+) ")
_ADDRESS = re.compile(r"address (0x[0-9a-f]+)")
_INJECTED = re.compile(r"reason: (\w+)")
# What the kernel prints and no model knows.
_UNKNOWN = re.compile(
    r"vcpu \d+ |rip 0x[0-9a-f]+ | info2 0x[0-9a-f]+ intr_info 0x[0-9a-f]+ error_code 0x[0-9a-f]+$"
    r"| ext_inf2: 0x[0-9a-f]+ ext_int: 0x[0-9a-f]+ ext_int_err: 0x[0-9a-f]+$|\x00"
)
_SPTE = re.compile(r"spte ([0-9a-f]+) .* level (\d)")
EXECUTE: Final = 1 << 2  # EPT entry bits, SDM 29.3.2
USER_EXECUTE: Final = 1 << 10
PERMISSIONS: Final = 7 | USER_EXECUTE


@dataclass(frozen=True, slots=True)
class Traced:
    """The record is of one vector as KVM's own tracepoints and the kernel's log tell it."""

    vector: AccessVector
    exits: tuple[Exit, ...]  # the entry, then L2's exits at the address under test
    warns: tuple[str, ...] = ()

    @property
    def events(self) -> int:
        """The vector has this many events."""
        return sum(map(len, self.exits))


def access_of(vector: Vector) -> AccessVector | None:
    """The function gives the access whose trace tells of ``vector``; None where no trace of it is kept."""
    asked = vector.asked if isinstance(vector, NxVector) else vector
    return asked if isinstance(asked, AccessVector) else None


@dataclass(slots=True)
class Marked:
    """These are the events from one vector's mark to the next."""

    index: int
    begin: float  # seconds of the host's clock
    events: list[TraceEvent] = field(default_factory=list)


def marked(events: Iterable[TraceEvent]) -> list[Marked]:
    """The trace by vector; what comes before the first mark is left out."""
    found: list[Marked] = []
    for event in events:
        if event.name == "kvm_cpuid" and (match := _MARKED.match(event.text)) and int(match[1], 16) == MARK:
            found.append(Marked(int(match[2], 16), event.time))
        elif found:
            found[-1].events.append(event)
    return found


def _plain(event: TraceEvent) -> Text:
    return event.name, _UNKNOWN.sub("", event.text).strip()


def exits(vector: AccessVector, seen: Observation, events: Iterable[TraceEvent]) -> list[Exit]:
    """The function gives what KVM did at the VM entry, then for each exit of L2 at the address under test.

    By the rules l1, scaffold and repeated.
    """
    page = (seen.gpt_gpa if vector.access.is_walk else seen.target_gpa) // PAGE
    entry: list[Text] = []
    found: list[list[Text]] = []
    current: list[Text] | None = None
    for event in events:
        match event.name:
            case "kvm_nested_vmenter":
                current = [] if entry else entry
            case "kvm_exit":
                current = None
            case "kvm_nested_vmexit":
                current = [_plain(event)]
                found.append(current)
            case "kvm_nested_vmexit_inject":
                match = _INJECTED.match(event.text)
                if current is not None and match and match[1] in ("EPT_VIOLATION", "EPT_MISCONFIG"):
                    current.append(_plain(event))
                current = None
            case "kvm_page_fault" if current is not None and not _at(event, page):
                if found and current is found[-1]:
                    found.pop()
                current = None
            case name if current is not None and name not in _ASIDE:
                current.append(_plain(event))
            case _:
                pass
    return [tuple(entry), *_once(tuple(e) for e in found)]


def _at(event: TraceEvent, page: int) -> bool:
    match = _ADDRESS.search(event.text)
    return match is not None and int(match[1], 16) // PAGE == page


def _once(found: Iterable[Exit]) -> Iterator[Exit]:
    last: Exit | None = None
    for one in found:
        if one != last:
            yield one
        last = one


def predicted(events: Sequence[Text]) -> list[Exit]:
    """The function gives the mirror's events in the same form."""
    found: list[list[Text]] = [[]]
    for name, text in events:
        if name == "kvm_nested_vmexit":
            found.append([])
        if name not in _ASIDE:
            found[-1].append((name, text.strip()))
    return [tuple(found[0]), *_once(tuple(e) for e in found[1:])]


def executable_huge(found: Iterable[Exit], mbec: bool) -> Outcome:
    """The function gives the host's rule on huge pages: BYPASS with the first SPTE above level 1 that lets the guest
    execute, or DONE.

    ``mbec``: the CPU runs L2 with mode-based execute control, so that bit 10 permits fetches too.
    """
    execute = EXECUTE | (USER_EXECUTE if mbec else 0)
    for name, text in (event for one in found for event in one):
        if name == "kvm_mmu_set_spte" and (match := _SPTE.search(text)):
            spte, level = int(match[1], 16), int(match[2])
            if level > 1 and spte & execute:
                return Outcome(Kind.BYPASS, spte & PERMISSIONS, number=level, note=text)
    return Outcome(Kind.DONE)


def as_json(traced: Traced) -> dict[str, Json]:
    """The trace becomes JSON for a journal or a recording."""
    return {
        "vector": traced.vector.id,
        "exits": [list(map(list, one)) for one in traced.exits],
        "warns": list(traced.warns),
    }


def from_json(body: Mapping[str, Any]) -> Traced:
    """The trace is read from what ``as_json`` made.

    Raises VectorError, KeyError, TypeError or ValueError when it is none.
    """
    exits = tuple(tuple((name, text) for name, text in one) for one in body["exits"])
    warns = tuple(body["warns"])
    texts = [*warns, *(text for one in exits for event in one for text in event)]
    if not exits or not all(isinstance(text, str) for text in texts):
        raise ValueError("its events are no texts, or there is not even the entry")
    return Traced(parse_access(body["vector"]), exits, warns)
