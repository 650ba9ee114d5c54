"""KVM's events of a vector beside the mirror's, in order.

What is set aside, and what two texts may differ in, is said by a rule (``RULES``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import partial
from typing import Final

from harness.observe.batch import PAGE
from harness.observe.cut import Exit, Text

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


_FRAME: Final = (1 << 52) - PAGE

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
    """The function gives an event's text without addresses, and the addresses (rules addresses, undefined)."""
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


# The kinds of addresses that are the host's own: frames, in a field of their own or in an SPTE, and shadow pages.
_HOSTS: Final = {"hframe": "frame", "pfn": "frame", "shadow": "shadow"}


def without_places(found: Sequence[Exit]) -> tuple[Exit, ...]:
    """The exits have the host's frames and shadow pages numbered from 1 on, in the order of their appearance.

    The mirror knows none of them (rule addresses), and where the host's memory was free is nobody's business.
    """
    numbers: dict[Address, int] = {}

    def number(space: str, frame: int) -> int:
        return numbers.setdefault((space, frame), len(numbers) + 1)

    def replaced(name: str, match: re.Match[str]) -> str:
        i, (_, kind) = next((i, field) for i, field in enumerate(_FIELDS[name].items()) if match[f"f{i}"] is not None)
        if (space := _HOSTS.get(kind)) is None:
            return match[0]
        value = int(match[f"v{i}"], 16)
        if kind == "hframe":
            value = number(space, value)
        elif value & _FRAME:
            value = value & ~_FRAME | number(space, (value & _FRAME) // PAGE) * PAGE
        return f"{match[0][: match.start(f'v{i}') - match.start()]}{value:x}"

    def text_of(name: str, text: str) -> str:
        return _PATTERNS[name].sub(partial(replaced, name), text) if name in _FIELDS else text

    return tuple(tuple((name, text_of(name, text)) for name, text in one) for one in found)


def named(found: Sequence[Exit]) -> tuple[tuple[str, ...], ...]:
    """The function gives exits with every address named in the order of first appearance: what two vectors of one kind
    share.
    """
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
    """The function gives the first difference between the mirror's exits and KVM's, None where there is none."""
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
    """The function gives both in one list, addresses named: (sign, text), ``=`` of both, ``-`` the mirror's alone,
    ``+`` KVM's alone.
    """
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
