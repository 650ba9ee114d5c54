"""KVM's tracepoints of a vector, event by event, beside what the mirror says they are.

L1 marks where a vector begins (CPUID of protocol MARK_LEAF, which the host traces); what KVM did for L2's exits at
the address under test is cut out of the host's trace and compared in order. What is set aside, and what two texts
may differ in, is said by a rule (``RULES``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Final

from harness import protocol
from harness.hosts import WARNING, Host
from harness.observe.batch import PAGE, Observation
from harness.observe.livelock import EPT_MISCONFIG, EPT_VIOLATION, TRACING, TraceEvent
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vector import AccessVector

RULES: Final = {
    "addresses": "tables, pages and frames lie elsewhere in the model: an address of one stands for the same address "
    "of the other, from its first event on and both ways; an index in a table is not compared",
    "l1": "events between L2's exits are KVM's work for L1 and its own guest",
    "scaffold": "exits at L2's code and paging structures are the probe's frame",
    "l1-ept": "KVM's own EPT of L1 is write-protected where a table of EPT12 becomes a shadow page",
    "repeated": "an exit that shows the very events of the one before it counts once",
    "reused": "a direct shadow page that an earlier vector made is there already, and so may its entries and tables be",
    "warns": "WARNs are compared by their C file, and by their number where the kernel's log names none",
    "undefined": "the qualification of a misconfiguration, the generation of the MMU and of an MMIO entry",
}

MARK_PORT: Final = protocol.CONSTANTS["MARK_PORT"]
MARK: Final = protocol.CONSTANTS["MARK_LEAF"]
FLAG_MARK: Final = protocol.CONSTANTS["FLAG_MARK"]
BUFFER: Final = 16384  # KiB of trace buffer
L1_CODE: Final = 0x400000  # bytes: the probe's own code lies below, L2's above
MARKING: Final = "kvm/kvm_cpuid"  # the event of which the probe's marks are
TRACED: Final = (MARKING, "kvm/kvm_exit", "kvm/kvm_nested_vmenter", "kvm/kvm_nested_vmexit",
                 "kvm/kvm_nested_vmexit_inject", "kvm/kvm_page_fault", "kvmmmu")  # fmt: skip
_ASIDE: Final = ("kvm_tdp_mmu_spte_changed",)  # rule l1-ept
_EPT_EXITS: Final = f"exit_reason=={EPT_VIOLATION}||exit_reason=={EPT_MISCONFIG}"
_FILTERS: Final = {
    MARKING: f"function=={MARK:#x}",
    "kvm/kvm_exit": f"guest_rip<{L1_CODE:#x}&&({_EPT_EXITS})",
    "kvm/kvm_nested_vmexit": _EPT_EXITS,
}
_TRIGGERS: Final = {
    MARKING: f"traceon if function=={MARK:#x}",
    "kvm/kvm_pio": f"traceoff if port=={MARK_PORT:#x}",
}

Text = tuple[str, str]  # an event's name and text
Exit = tuple[Text, ...]  # what KVM did for one exit of L2, or (the first) for the entry

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
_FRAME: Final = (1 << 52) - PAGE


# ---- WARNs ----------------------------------------------------------------------------------------------------

_WARN: Final = re.compile(rf"^\[\s*(?P<time>\d+\.\d+)\] {WARNING}", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Warned:
    """A WARN of the host's kernel: seconds of its clock, the file from arch/x86/kvm on, the function it was in.

    A kernel without CONFIG_DEBUG_BUGVERBOSE names no file (it is empty then), and the function is the one that the
    WARN's own was inlined into.
    """

    time: float
    file: str
    function: str

    def __str__(self) -> str:
        return f"{self.file} {self.function}".lstrip()


def warned(dmesg: str) -> list[Warned]:
    """The WARNs in the kernel's log."""
    return [
        Warned(float(m["time"]), (m["file"] or "").removeprefix("arch/x86/kvm/"), m["function"])
        for m in _WARN.finditer(dmesg)
    ]


def of_vector(found: Iterable[Warned], begin: float, end: float) -> tuple[str, ...]:
    """Those from ``begin`` (a vector's mark) to ``end`` (the next one's), both on the clock of trace and log."""
    return tuple(str(one) for one in found if begin <= one.time < end)


def same_warns(due: Collection[str], possible: Collection[str], seen: Collection[str]) -> bool:
    """Whether KVM warned of all that is ``due`` and of nothing but what is ``possible``, by the mirror (rule warns)."""
    if any(" " not in one for one in seen):
        return len(due) <= len(seen) <= len(possible)
    files = [{one.split()[0] for one in warns} for warns in (due, seen, possible)]
    return files[0] <= files[1] <= files[2]


# ---- the host -----------------------------------------------------------------------------------------------


def arm(host: Host) -> None:
    """Trace what TRACED names, from the first mark to the vector that bears none."""
    script = [
        f"echo 0 >{TRACING}/tracing_on",
        f"echo 0 >{TRACING}/events/enable",
        f"echo {BUFFER} >{TRACING}/buffer_size_kb",
    ]
    script += [f"echo >{TRACING}/trace", "echo 1 >/sys/kernel/debug/clear_warn_once 2>/dev/null"]
    script += [f"echo '{text}' >{TRACING}/events/{event}/filter" for event, text in _FILTERS.items()]
    script += [f"echo 1 >{TRACING}/events/{event}/enable" for event in TRACED]
    script += [f"echo '{text}' >{TRACING}/events/{event}/trigger" for event, text in _TRIGGERS.items()]
    host.run("; ".join(script), check=True)


def disarm(host: Host) -> str:
    """Switch tracing off; the buffer's text."""
    script = [f"echo 0 >{TRACING}/tracing_on", f"echo 0 >{TRACING}/events/enable"]
    script += [f"echo '!{text}' >{TRACING}/events/{event}/trigger" for event, text in _TRIGGERS.items()]
    script += [f"echo 0 >{TRACING}/events/{event}/filter" for event in _FILTERS]
    host.run("; ".join(script))
    return host.get(f"{TRACING}/trace").decode("utf-8", "replace")


_ACCESS_STR: Final = re.compile(r"access_str\[\] = \{([^}]*)\}")
FORMATS: Final = {"taccess": "kvm_mmu_get_page", "tspte": "kvm_mmu_set_spte"}


def format_texts(host: Host, what: str) -> list[str]:
    """What a HostVector of the formats asks for, from the loaded modules' own description of the event."""
    text = host.run(f"cat {TRACING}/events/kvmmmu/{FORMATS[what]}/format", check=True).stdout
    printed = text.partition("print fmt: ")[2]
    if what == "tspte":
        return re.findall(r'"([^"]*)"', printed)[:1]
    table = _ACCESS_STR.search(printed)
    return re.findall(r'"([^"]*)"', table[1]) if table else []


# ---- what was observed --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Traced:
    """One vector as KVM's own tracepoints and the kernel's log tell it."""

    vector: AccessVector
    exits: tuple[Exit, ...]  # the entry, then L2's exits at the address under test
    warns: tuple[str, ...] = ()

    @property
    def events(self) -> int:
        """How many events."""
        return sum(map(len, self.exits))


@dataclass(slots=True)
class Marked:
    """The events from one vector's mark to the next."""

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
    """What KVM did at the VM entry, then for each exit of L2 at the address under test.

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
    """The mirror's events in the same form."""
    found: list[list[Text]] = [[]]
    for name, text in events:
        if name == "kvm_nested_vmexit":
            found.append([])
        if name not in _ASIDE:
            found[-1].append((name, text.strip()))
    return [tuple(found[0]), *_once(tuple(e) for e in found[1:])]


def executable_huge(found: Iterable[Exit], mbec: bool) -> Outcome:
    """The host's rule on huge pages: BYPASS with the first SPTE above level 1 that lets the guest execute, or DONE.

    ``mbec``: the CPU runs L2 with mode-based execute control, so that bit 10 permits fetches too.
    """
    execute = EXECUTE | (USER_EXECUTE if mbec else 0)
    for name, text in (event for one in found for event in one):
        if name == "kvm_mmu_set_spte" and (match := _SPTE.search(text)):
            spte, level = int(match[1], 16), int(match[2])
            if level > 1 and spte & execute:
                return Outcome(Kind.BYPASS, spte & PERMISSIONS, number=level, note=text)
    return Outcome(Kind.DONE)


# ---- comparison ---------------------------------------------------------------------------------------------

# By event: the fields that hold addresses, and what kind of address each is.
_FIELDS: Final = {
    "kvm_page_fault": {"address": "l2"},
    "kvm_mmu_pagetable_walk": {"addr": "l2"},
    "kvm_mmu_paging_element": {"pte": "gfn"},
    "kvm_mmu_set_accessed_bit": {"gpa": "table"},
    "kvm_mmu_set_dirty_bit": {"gpa": "table"},
    "kvm_mmu_get_page": {"gen": "hidden", "gfn": "frame"},
    "kvm_mmu_sync_page": {"gen": "hidden", "gfn": "frame"},
    "kvm_mmu_unsync_page": {"gen": "hidden", "gfn": "frame"},
    "kvm_mmu_prepare_zap_page": {"gen": "hidden", "gfn": "frame"},
    "kvm_mmu_spte_requested": {"gfn": "frame", "pfn": "hframe"},
    "kvm_mmu_set_spte": {"gfn": "frame", "spte": "pfn", "at": "shadow"},
    "mark_mmio_spte": {"gfn": "frame", "sptep:": "hidden", "gen": "hidden"},
}
_PATTERNS: Final = {
    name: re.compile("|".join(rf"\b(?P<f{i}>{word}) ?(?:0x)?(?P<v{i}>[0-9a-f]+)\b" for i, word in enumerate(fields)))
    for name, fields in _FIELDS.items()
}
Address = tuple[str, int]  # which space, which frame


def shape(event: Text) -> tuple[str, tuple[Address, ...]]:
    """An event's text without addresses, and the addresses (rules addresses, undefined)."""
    name, text = event
    if name == "kvm_nested_vmexit" and "EPT_MISCONFIG" in text:
        text = text.partition(" info1")[0]
    fields = _FIELDS.get(name)
    if fields is None:
        return f"{name}: {text}", ()
    words = list(fields.items())
    found: list[Address] = []

    def replace(match: re.Match[str]) -> str:
        i = next(n for n in range(len(words)) if match[f"f{n}"] is not None)
        word, kind = words[i]
        value = int(match[f"v{i}"], 16)
        match kind:
            case "l2":
                found.append(("l2", value // PAGE))
                return f"{word} @"
            case "gfn" | "pfn":
                frame = (value & _FRAME) // PAGE
                if frame:
                    found.append((kind, frame))
                return f"{word} {'@|' if frame else ''}{value & ~_FRAME:x}"
            case "table":
                found.append(("gfn", value // PAGE))
            case "frame" | "hframe":
                found.append(("gfn" if kind == "frame" else "pfn", value))
            case "shadow":
                found.append(("shadow", value // PAGE))
            case _:
                return word
        return f"{word} @"

    return f"{name}: {_PATTERNS[name].sub(replace, text)}", tuple(found)


def named(found: Sequence[Exit]) -> tuple[tuple[str, ...], ...]:
    """Exits with every address named in the order of first appearance: what two vectors of one kind share."""
    names: dict[Address, str] = {}
    out = []
    for one in found:
        texts = []
        for event in one:
            text, addresses = shape(event)
            for address in addresses:
                text = text.replace("@", names.setdefault(address, f"{address[0]}{len(names)}"), 1)
            texts.append(text)
        out.append(tuple(texts))
    return tuple(out)


@dataclass(frozen=True, slots=True)
class EventDifference:
    """The first event in which mirror and kernel differ; an empty text is an event that the other has not."""

    exit: int  # 0 the entry, then L2's exits at the address under test
    event: int  # place in that exit
    predicted: str
    observed: str

    def __str__(self) -> str:
        where = f"exit {self.exit}" if self.exit else "the entry"
        return f"{where}, event {self.event + 1}: mirror {self.predicted or 'none'!r}, KVM {self.observed or 'none'!r}"


class _Pairs:
    """Which address of the host each address of the model stands for."""

    def __init__(self) -> None:
        self._there: dict[Address, Address] = {}
        self._back: dict[Address, Address] = {}

    def take(self, ours: tuple[Address, ...], theirs: tuple[Address, ...]) -> bool:
        """Whether the two rows fit what is known; they are known from then on."""
        if [k for k, _ in ours] != [k for k, _ in theirs]:
            return False
        if any(self._there.get(a, b) != b or self._back.get(b, a) != a for a, b in zip(ours, theirs, strict=True)):
            return False
        self._there.update(zip(ours, theirs, strict=True))
        self._back.update(zip(theirs, ours, strict=True))
        return True


def compare(ours: Sequence[Exit], theirs: Sequence[Exit]) -> EventDifference | None:
    """The first difference between the mirror's exits and KVM's, None where there is none."""
    pairs = _Pairs()
    for number in range(max(len(ours), len(theirs))):
        mine = ours[number] if number < len(ours) else ()
        real = theirs[number] if number < len(theirs) else ()
        if (difference := _compare(number, mine, real, pairs)) is not None:
            return difference
    return None


def _compare(number: int, mine: Exit, real: Exit, pairs: _Pairs) -> EventDifference | None:
    i = j = 0
    reused = False
    while i < len(mine) or j < len(real):
        ours = mine[i] if i < len(mine) else None
        theirs = real[j] if j < len(real) else None
        if ours is not None and theirs is not None:
            a, b = shape(ours), shape(theirs)
            again = " direct " in a[0] and a[0].removesuffix(" new") + " existing" == b[0]
            if (a[0] == b[0] or again) and pairs.take(a[1], b[1]):
                reused |= again
                i, j = i + 1, j + 1
                continue
        if reused and ours is not None and (ours[0] == "kvm_mmu_set_spte" or " direct " in ours[1]):
            i += 1
            continue
        return EventDifference(number, j, _show(ours), _show(theirs))
    return None


def beside(ours: Sequence[Exit], theirs: Sequence[Exit]) -> Iterator[tuple[str, str]]:
    """Both in one list, addresses named: (sign, text), ``=`` of both, ``-`` the mirror's alone, ``+`` KVM's alone."""
    mine, real = named(ours), named(theirs)
    for number in range(max(len(mine), len(real))):
        yield "@", f"exit {number}" if number else "the entry"
        a = mine[number] if number < len(mine) else ()
        b = real[number] if number < len(real) else ()
        for tag, i, j, k, m in SequenceMatcher(a=a, b=b, autojunk=False).get_opcodes():
            if tag == "equal":
                yield from (("=", text) for text in a[i:j])
            else:
                yield from (("-", text) for text in a[i:j])
                yield from (("+", text) for text in b[k:m])


def _show(event: Text | None) -> str:
    return f"{event[0]}: {event[1]}" if event is not None else ""
