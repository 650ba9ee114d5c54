"""The tables of a program as a CPU sees them: EPT12, the guest's own, and what the CPU may hold of either.

What may be cached is kept as one growing set, of which any part may be there (SDM 29.4.2: a CPU may cache what it
uses, and what speculation uses). A cached part of a walk belongs to an EPT table (bits 51:12 of the EPT pointer) and to
a guest-physical address; it is made while L2 runs on that table. INVEPT takes it away, and an EPT violation of its
address does. What the guest's own tables gave is cached for a VPID; without one each VM entry takes it away (29.4.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.program import (
    CONTROLS,
    FIRST,
    PAGES,
    START,
    WINDOWS,
    Control,
    L2Run,
    Over,
    ProgramVector,
    SetEntry,
    SetGuest,
    SetGuestUpper,
    Step,
)
from kvmodel.question.program_layout import OVER_AT, WRITTEN_AT, guest_entry, guest_upper_entry, target_address
from kvmodel.question.program_paging import LoadCr3, SetPdpte
from kvmodel.question.vector import RWXU, UWX, Access, GuestPerm, Paging
from kvmodel.sdm import ept, guest_paging
from kvmodel.sdm.program_roots import GuestRoots, rotated

_NONLEAF: Final = RWXU.bits | ept.ACCESSED
_LEAF: Final = ept.ACCESSED | ept.DIRTY


def page_number(name: str) -> int:
    """The number by which a page of L1's knows itself: ``p0`` to ``p7`` are 0 to 7, ``q0`` to ``q7`` 8 to 15."""
    return int(name[1]) + (PAGES if name[0] == "q" else 0)


def reached(number: int) -> Outcome:
    """The outcome of an access that came to the page of that number."""
    return Outcome(Kind.DONE, number, note=f"{'pq'[number // PAGES]}{number % PAGES}")


def offset_of(access: Access, place: int) -> int:
    """The offset in its page that an access uses, in bytes; ``place`` is its place among the parts of its run."""
    return WRITTEN_AT + 8 * place if access in (Access.WRITE, Access.RMW) else 0


def moved(number: int, source: int) -> Outcome:
    """The outcome of a MOVS that came to the page of ``number`` with bytes of the page of ``source``, both numbers."""
    to, read = reached(number), reached(source)
    return Outcome(Kind.DONE, number | source + 1 << 8, note=f"{to.note} from {read.note}")


def over_offset(over: Over) -> int:
    """The offset in its first page at which an access over two pages begins, in bytes."""
    return OVER_AT - (1 if over.what == "fetchx" else 0)


def entry_bits(made: SetEntry) -> int:
    """The 64-bit entry that L1 writes, without its address."""
    if made.target == "none":
        return made.bits
    if not made.is_leaf:
        return made.perm.bits | (0 if made.clean else ept.ACCESSED) | made.bits
    flags = (0 if made.clean else _LEAF) | (ept.PAGE_SIZE if made.target[0] == "g" else 0)
    return made.perm.bits | made.memtype << 3 | flags | made.bits


@dataclass(frozen=True, slots=True)
class CachedWalk:
    """A walk as far as it came: (level, 64-bit entry) of each entry used, and where the last one leads."""

    window: str
    page: int | None  # within the window; None above level 1, where all pages share the entries
    entries: tuple[tuple[int, int], ...]
    leads: str
    mbec: bool  # the control that the entries were read with

    @property
    def complete(self) -> bool:
        return self.leads[0] in "pqg"


def entry_name(table: str, window: str, page: int) -> str:
    """The entry of ``table`` that a walk for a page of ``window`` uses."""
    match table[0]:
        case "r":
            return f"{table}c" if window == "c" else ""
        case "d":
            if table == "d1":
                return "d1c" if window != "b" else "absent"
            return f"{table}{'b' if window == 'b' else 'a'}"
        case "m":
            return table
        case _:
            return f"{table}{page}"


def _entries_at_start() -> dict[str, tuple[int, str]]:
    found = {name: (_NONLEAF, leads) for name, leads in START.items()}
    for n in range(len(WINDOWS)):
        for page in range(PAGES):
            found[f"t{n}{page}"] = (RWXU.bits | 6 << 3 | _LEAF, f"p{page}")
    found["absent"] = (0, "none")
    return found


@dataclass(frozen=True, slots=True)
class Mapping:
    """What the guest's tables make of a linear page: the upper entry's permissions, the leaf's, where it leads."""

    upper: GuestPerm
    perm: GuestPerm
    leads: str
    present: bool


@dataclass(frozen=True, slots=True)
class Upper:
    """A page-directory entry of the guest's: its permissions, and the window whose page table it leads to."""

    perm: GuestPerm
    table: str


_NOWHERE: Final = Mapping(UWX, UWX, "", present=False)  # a PDPTE that is not present


@dataclass
class CachedLinear:
    """What a CPU may have cached of the guest's tables under one VPID and EPT table, and by which EFER.NXE.

    ``doubted``: the entries of which it may hold an earlier version (``kvmodel.sdm.program_flags``).
    """

    uppers: dict[str, set[Upper]] = field(default_factory=dict)
    pages: dict[str, set[Mapping]] = field(default_factory=dict)
    nxe: set[bool] = field(default_factory=set)
    doubted: set[str] = field(default_factory=set)

    def clear(self) -> None:
        """All of it is gone."""
        self.uppers.clear()
        self.pages.clear()
        self.nxe.clear()
        self.doubted.clear()


def _reroutes(made: Step) -> bool:
    """Whether a step lets a window have another one's page table."""
    if isinstance(made, L2Run):
        return any(isinstance(op, SetPdpte | LoadCr3) for op in made.ops)
    return isinstance(made, SetPdpte) or (isinstance(made, Control) and made.name == "cr3")


class ProgramTables:
    """L1's tables, the guest's, the controls, and what the CPU may have cached."""

    def __init__(self, cpu: Cpu, vector: ProgramVector) -> None:
        self.cpu = cpu
        self.with_ept = vector.ept
        self.entries = _entries_at_start()
        self.guest = {
            f"{w}{n}": (UWX, f"{w}{n}" if vector.ept else f"p{n}", True) for w in WINDOWS for n in range(PAGES)
        }
        self.guest_upper = dict.fromkeys(WINDOWS, UWX)
        self.controls = {name: start for name, (_, start) in CONTROLS.items()}
        self.cached: dict[str, set[CachedWalk]] = {"r0": set(), "r1": set()}
        self.doubted: dict[str, set[str]] = {"r0": set(), "r1": set()}  # as CachedLinear has it, of EPT12's entries
        self.written = self._written_at_start()  # 64 bits each, by the name that a look has for the entry
        self.linear: dict[tuple[int, str], CachedLinear] = {}
        self.roots = GuestRoots(cpu)
        self.one_path = not any(_reroutes(made) for made in vector.steps)  # to each of the guest's page tables

    def _written_at_start(self) -> dict[str, int]:
        found = {name: bits | target_address(0, leads) for name, (bits, leads) in self.entries.items()}
        found |= {f"g.{page}": guest_entry(SetGuest(page, leads)) for page, (_, leads, _) in self.guest.items()}
        return found | {f"gu.{window}": guest_upper_entry(SetGuestUpper(window, UWX)) for window in WINDOWS}

    # --- EPT ---

    @property
    def root(self) -> str:
        return f"r{self.controls['root']}"

    @property
    def mbec(self) -> bool:
        return bool(self.controls["mbec"])

    def _start(self, window: str) -> CachedWalk:
        if window == "c":
            return CachedWalk(window, None, (), self.root, self.mbec)
        return CachedWalk(window, None, ((4, _NONLEAF),), FIRST[self.root], self.mbec)

    def _longer(self, part: CachedWalk, page: int) -> CachedWalk | None:
        """``part`` and the entry behind it as it is now; None where that ends the walk without a translation."""
        level = 5 - len(part.entries) - 1
        bits, leads = self.entries[entry_name(part.leads, part.window, page)]
        if not ept.is_present(bits, mbec=self.mbec) or ept.misconfiguration(self.cpu, bits, level, mbec=self.mbec):
            return None
        own = page if level == 1 else None
        return CachedWalk(part.window, own, (*part.entries, (level, bits)), leads, self.mbec)

    def remember_walks(self) -> None:
        """Adds whatever a walk on the current EPT table may leave in the CPU now."""
        known = self.cached[self.root]
        todo = [self._start(window) for window in WINDOWS] + [part for part in known if not part.complete]
        while todo:
            part = todo.pop()
            for page in range(PAGES):
                longer = self._longer(part, page)
                if longer is not None and longer not in known:
                    known.add(longer)
                    if not longer.complete:
                        todo.append(longer)

    def walks(self, window: str, page: int) -> Iterator[tuple[tuple[tuple[int, int], ...], str, bool, bool]]:
        """(entries, where they lead, MBEC to judge them by, whether anything of it is cached): as it is now first."""
        yield (*self._to_the_end(self._start(window), page), self.mbec, False)
        for part in sorted(self.cached[self.root], key=repr):
            if part.window == window and part.page in (None, page):
                entries, leads = self._to_the_end(part, page)
                for mbec in {self.mbec, part.mbec}:
                    yield entries, leads, mbec, True

    def _to_the_end(self, part: CachedWalk, page: int) -> tuple[tuple[tuple[int, int], ...], str]:
        entries, leads = part.entries, part.leads
        while leads[0] not in "pqgn":
            bits, leads = self.entries[entry_name(leads, part.window, page)]
            entries = (*entries, (5 - len(entries) - 1, bits))
        return entries, f"{'pq'[int(leads[1])]}{page}" if leads[0] == "g" else leads

    def _names(self, part: CachedWalk, page: int) -> list[str]:
        """The entries behind ``part`` that a walk for a page would use now, as far as they are there."""
        found, leads, level = [], part.leads, 4 - len(part.entries)
        while leads[0] not in "pqgn":
            name = entry_name(leads, part.window, page)
            bits, leads = self.entries[name]
            if not ept.is_present(bits, mbec=self.mbec) or ept.misconfiguration(self.cpu, bits, level, mbec=self.mbec):
                break
            found.append(name)
            level -= 1
        return found

    def path(self, page: str) -> list[str]:
        """The entries that a walk of nothing cached uses for a guest-physical page; the last maps it."""
        return self._names(self._start(page[0]), int(page[1]))

    def _behind(self) -> Iterator[tuple[CachedWalk, int]]:
        """Every part of a walk that the CPU may hold on the current EPT table, with each page that it may be for."""
        for part in (*map(self._start, WINDOWS), *self.cached[self.root]):
            for page in range(PAGES) if part.page is None else (part.page,):
                yield part, page

    def usable(self) -> set[str]:
        """The entries that any walk on the current EPT table may use."""
        return {name for part, page in self._behind() for name in self._names(part, page)}

    def last_entries(self, page: str) -> set[str]:
        """The entries that may map a guest-physical page on the current EPT table."""
        found = (self._names(part, n) for part, n in self._behind() if part.window == page[0] and n == int(page[1]))
        return {names[-1] for names in found if names and self.entries[names[-1]][1][0] in "pqg"}

    def forget(self, root: str, page: str = "") -> None:
        """INVEPT of a table, or, with a ``page``, what an EPT violation of its guest-physical address takes away."""
        if not page:
            self.cached[root].clear()
            self.doubted[root].clear()
            for key in [key for key in self.linear if key[1] == root]:
                del self.linear[key]
            return
        window, number = page[0], int(page[1])
        self.cached[root] = {p for p in self.cached[root] if p.window != window or p.page not in (None, number)}

    def set_entry(self, made: SetEntry) -> None:
        """L1 writes an EPT12 entry."""
        bits = entry_bits(made)
        self.entries[made.entry] = (bits, made.target)
        self.written[made.entry] = bits | target_address(0, made.target)

    # --- the guest's own tables ---

    def set_guest(self, made: SetGuest) -> None:
        """Somebody writes the guest's entry for a page."""
        _, leads, _ = self.guest[made.page]
        self.guest[made.page] = (made.perm, made.target if made.present else leads, made.present)
        self.written[f"g.{made.page}"] = guest_entry(made)

    def set_guest_upper(self, made: SetGuestUpper) -> None:
        """L1 writes the guest's entry for a window."""
        self.guest_upper[made.window] = made.perm
        self.written[f"gu.{made.window}"] = guest_upper_entry(made)

    def flush(self, page: str = "") -> None:
        """MOV to CR3, or INVLPG of ``page``: SDM 4.10.4.1."""
        held = self.tlb()
        if page:
            self.forget_page(held, page)
        else:
            held.clear()

    def forget_page(self, held: CachedLinear, page: str) -> None:
        """The CPU gives up what it holds of a linear page, and of all upper entries."""
        if self.one_path:  # no other linear page goes by that entry
            held.doubted.discard(f"g.{page}")
        held.uppers.clear()
        held.pages.pop(page, None)

    def tlb(self) -> CachedLinear:
        """What the CPU may hold of the guest's tables under the current VPID."""
        return self.linear.setdefault((self.controls["vpid"], self.root if self.with_ept else ""), CachedLinear())

    def enter(self) -> None:
        """A VM entry: without a VPID nothing of the guest's tables outlives it."""
        if not self.controls["vpid"]:
            self.linear = {key: held for key, held in self.linear.items() if key[0]}

    @property
    def pae(self) -> bool:
        return bool(self.controls["pg"])

    def directory(self, window: str) -> str:
        """The page directory that a walk for a window uses now; empty where a PDPTE is not present."""
        return self.roots.directory(window) if self.pae else f"e{min(self.controls['cr3'], 1)}"

    def upper(self, window: str) -> Upper | None:
        """The page-directory entry that a walk for a window uses now; those of ``e1`` and ``e2`` permit everything."""
        directory = self.directory(window)
        if not directory:
            return None
        return Upper(self.guest_upper[window] if directory == "e0" else UWX, rotated(window, directory))

    def _behind_upper(self, upper: Upper, page: str) -> Mapping:
        perm, leads, present = self.guest[f"{upper.table}{page[1]}"]
        return Mapping(upper.perm, perm, leads, present)

    def mapping(self, page: str) -> Mapping:
        """What the guest's tables say of the linear ``page`` now."""
        upper = self.upper(page[0])
        return _NOWHERE if upper is None else self._behind_upper(upper, page)

    def tables_of(self, window: str) -> set[str]:
        """The windows whose page tables a walk for a window may use, by what is there now and by what is cached."""
        now = self.upper(window)
        return {upper.table for upper in (*self.tlb().uppers.get(window, ()), *([now] if now else ()))}

    def guest_path(self, page: str) -> tuple[str, str]:
        """The guest's entries that a walk for a linear page uses now, by the names that looks have: upper and leaf.

        A page directory that has no look has the name of an entry that none has; so has what is not present.
        """
        window, directory = page[0], self.directory(page[0])
        upper = f"gu.{window}" if directory == "e0" else ""
        return upper, f"g.{rotated(window, directory)}{page[1]}" if directory else ""

    def remember_linear(self) -> None:
        """Adds whatever a walk of the guest's tables may leave in the CPU now.

        An entry that has XD while EFER.NXE is clear ends its walk, so that nothing is left of it.
        """
        held, nxe = self.tlb(), bool(self.controls["nxe"])
        held.nxe.add(nxe)
        for window in WINDOWS:
            upper = self.upper(window)
            if upper is not None and (nxe or upper.perm.x):
                held.uppers.setdefault(window, set()).add(upper)
        for page in self.guest:
            for upper in held.uppers.get(page[0], ()):
                now = self._behind_upper(upper, page)
                if now.present and (nxe or (now.upper.x and now.perm.x)):
                    held.pages.setdefault(page, set()).add(now)

    def mappings(self, page: str) -> list[Mapping]:
        """What the guest's tables may make of ``page``: as they are now first, then by what may be cached."""
        held = self.tlb()
        found = dict.fromkeys([self.mapping(page)])
        found |= dict.fromkeys(self._behind_upper(upper, page) for upper in held.uppers.get(page[0], ()))
        found |= dict.fromkeys(held.pages.get(page, ()))
        return list(found)

    def modes(self) -> list[guest_paging.Mode]:
        """CPL, CR0, CR4 and EFER as they are; of a translation cached before, EFER.NXE may be the earlier one."""
        c, paging = self.controls, Paging.PAE if self.pae else Paging.LONG
        nxe = dict.fromkeys([bool(c["nxe"]), *sorted(self.tlb().nxe)])
        return [
            guest_paging.Mode(paging, c["cpl"], bool(c["wp"]), bool(c["smep"]), bool(c["smap"]), each) for each in nxe
        ]
