"""Accessed and dirty flags of a program's entries: what a CPU must have set in memory by now, and what it may have.

A CPU that uses an entry sets its accessed flag, and one that writes sets the dirty flag of the entry that maps the
page: of the guest's tables always (SDM 4.8), of EPT12 with EPTP bit 6 (29.3.5). It may do so for accesses that it only
foresees. What it holds of an entry from before the entry was written, or from a run without EPTP bit 6, it may use
without setting a flag in memory; such an entry is ``doubted``.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from typing import Final

from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.program import L2Run, Look, Over, Touch
from kvmodel.question.program_layout import PTE_A, PTE_D
from kvmodel.question.vector import Access
from kvmodel.sdm import ept
from kvmodel.sdm.program_tables import ProgramTables

_ALL: Final = (1 << 64) - 1
_WRITES: Final = (Access.WRITE, Access.RMW)


def told(entry: int, *, guest: bool, defined: int = _ALL) -> Outcome:
    """The outcome of a look that finds the 64-bit ``entry``, of which the bits ``defined`` are vouched for.

    Addresses of L1's tables are counted from the first one, since programs take their areas in turn.
    """
    flags = {"accessed": PTE_A, "dirty": PTE_D} if guest else {"accessed": ept.ACCESSED, "dirty": ept.DIRTY}
    note = ", ".join(name for name, bit in flags.items() if entry & bit) or "neither accessed nor dirty"
    return Outcome(Kind.VALUE, entry, defined=defined, note=note)


class EntryFlags:
    """The flags of a program's entries, EPT12's and the guest's: what is set for sure by now, and what may be."""

    def __init__(self, tables: ProgramTables) -> None:
        self._tables = tables
        self._sure: dict[str, int] = {}
        self._may: dict[str, int] = {}

    def wrote(self, entry: str) -> None:
        """L1 or L2 wrote an entry, named as a look names it; whatever the CPU holds of it is from before."""
        self._sure.pop(entry, None)
        self._may.pop(entry, None)
        if entry[0] == "g":
            for held in self._tables.linear.values():
                held.doubted.add(entry)
        else:
            for root, known in self._tables.cached.items():
                self._tables.doubted[root] |= {entry} if known else set()

    def foresee(self, run: L2Run) -> None:
        """L2 runs, with its tables as they are now: what the CPU may set for any access, and for the writes to come."""
        m = self._tables
        written = [op.page for op in run.ops if isinstance(op, Touch) and op.access in _WRITES]
        written += [page for op in run.ops if isinstance(op, Over) and op.writes for page in op.pages]
        present = [page for page, (_, _, there) in m.guest.items() if there]
        self._set(self._may, (*(f"g.{page}" for page in present), *(f"gu.{w}" for w in m.guest_upper)), PTE_A)
        self._set(self._may, (f"g.{table}{page[1]}" for page in written for table in m.tables_of(page[0])), PTE_D)
        if not m.with_ept:
            return
        if not m.controls["ad"]:
            m.doubted[m.root] |= m.entries.keys()
            return
        self._set(self._may, m.usable(), ept.ACCESSED)
        leads = {mapping.leads for page in written for mapping in m.mappings(page)}
        self._set(self._may, (name for page in leads for name in m.last_entries(page)), ept.DIRTY)

    def saw(self, touch: Touch, outcome: Outcome) -> None:
        """An access of L2 ended: what the CPU has set for it if it completed."""
        m = self._tables
        if outcome.kind is not Kind.DONE:
            return
        doubted, write = m.tlb().doubted, touch.access in _WRITES
        upper, leaf = m.guest_path(touch.page)
        if m.tables_of(touch.page[0]) <= {leaf[2:3]}:
            self._set(self._sure, {upper} - doubted, PTE_A)
            self._set(self._sure, {leaf} - doubted, PTE_A | (PTE_D if write else 0))
        mappings = m.mappings(touch.page)
        if not m.with_ept or not m.controls["ad"] or len(mappings) > 1:
            return
        path = m.path(mappings[0].leads)
        used = list(takewhile(lambda name: name not in m.doubted[m.root], path))
        self._set(self._sure, used, ept.ACCESSED)
        if write and len(used) == len(path):
            self._set(self._sure, path[-1:], ept.DIRTY)

    def look(self, made: Look) -> Outcome:
        """What L1 finds in an entry."""
        if made.is_pdpte or made.is_cr3:
            return self._tables.roots.look(made.entry, self._tables.controls["vmcs"])
        sure = self._tables.written[made.entry] | self._sure.get(made.entry, 0)
        return told(sure, guest=made.is_guest, defined=_ALL & ~(self._may.get(made.entry, 0) & ~sure))

    @staticmethod
    def _set(where: dict[str, int], names: Iterable[str], bits: int) -> None:
        for name in names:
            where[name] = where.get(name, 0) | bits
