"""Where a program's things lie: the one layout of EPT12's tables and of the pages, for the probe and for the mirror.

Addresses are L1-physical unless said, in bytes; the tables' own place is given, since programs take theirs in turn.
"""

from __future__ import annotations

from typing import Final

from kvmodel.question.program import TABLES, WINDOWS, SetGuest, SetGuestUpper
from kvmodel.question.program_paging import DIRECTORIES, PDPTES, SetPdpte
from kvmodel.question.vector import GuestPerm

PAGE: Final = 4096  # bytes
SLOT: Final = 16  # the entry of a page table that maps a window's first page
PDE: Final = 8  # the entry of a page directory that leads to a window's page table, EPT12's and (window a) the guest's
AREAS: Final = {"p": 0x0120_0000, "q": 0x0140_0000}  # 2 MiB each, with the eight pages at SLOT and behind
OVER_AT: Final = 0xFFA  # bytes into a page: where an access of 8 bytes over two pages begins
OVER: Final = 8  # bytes of it, 6 in the first page
WRITTEN_AT: Final = 64  # bytes into a page: where the first part of a run writes, the next 8 bytes on

_GIGABYTE: Final = {"a": 1 << 30, "b": 2 << 30, "c": 513 << 30}  # guest-physical, of a window
_INDEX: Final = {"a": 1, "b": 2, "c": 1}  # the entry of a page-directory-pointer table that leads to a window

PTE_P, PTE_W, PTE_U, PTE_A, PTE_D, PTE_XD = 1 << 0, 1 << 1, 1 << 2, 1 << 5, 1 << 6, 1 << 63
_GUEST_TABLES: Final = 0x100_B000  # images/probe/probe.h: the guest's page tables of the windows, a page each
_GUEST_DIRECTORY: Final = 0x100_4000  # images/probe/probe.h: the guest's page directory

DIRECTORY_ADDRESSES: Final = {"e0": _GUEST_DIRECTORY, "e1": 0x102_0000, "e2": 0x102_1000}  # as the guest's tables
LONG_ROOTS: Final = (0x100_1000, 0x102_2000)  # PML4 tables: the probe's own; the second one's PDPT lies behind it
PDPTS: Final = 0x102_4000  # the tables k0 and k1, 32 bytes each
MSR_BITMAP: Final = 0x102_5000  # a page of L1's
READ_EFER, WRITE_EFER = MSR_BITMAP + 1024 + 16, MSR_BITMAP + 3072 + 16  # 64-bit words that have EFER's bit as bit 0
CR3_PWT: Final = 1 << 3
NO_CR3: Final = 0xFFFF_F000  # of L2's; a CR3-target value

# What an INVEPT's EPT pointer has wrong: the bits that are other than in a good one.
EPTP_WRONG: Final = {"": 0, "reserved": 1 << 8, "memtype": 2, "walk": 1 << 3}


def page_address(name: str) -> int:
    """The address of a page, ``p0`` to ``q7``."""
    return AREAS[name[0]] + (SLOT + int(name[1])) * PAGE


def guest_physical(page: str) -> int:
    """The L2-physical address of a window's page."""
    return _GIGABYTE[page[0]] + (PDE << 21) + (SLOT + int(page[1])) * PAGE


def guest_linear(page: str, *, pae: bool = False) -> int:
    """The L2-linear address of a window's page: in PAE paging each window has a PDPTE of its own."""
    window = WINDOWS.index(page[0])
    return (window << 30 if pae else 0) + (PDE + window << 21) + (SLOT + int(page[1])) * PAGE


def table_address(tables: int, name: str) -> int:
    """The address of a table by name; ``tables`` is where the first of them lies, a page each."""
    return tables + TABLES.index(name) * PAGE


def entry_address(tables: int, name: str) -> int:
    """The address of an EPT12 entry by name: ``r0c``, ``d1c``, ``m2``, ``t03``."""
    match name[0]:
        case "t":
            index = SLOT + int(name[2])
        case "m":
            index = PDE
        case "r":
            index = 1
        case _:
            index = _INDEX[name[2]]
    return table_address(tables, name[:2]) + 8 * index


def target_address(tables: int, name: str) -> int:
    """Where an entry leads that has the target ``name``; 0 for none."""
    match name[0]:
        case "n":
            return 0
        case "p" | "q":
            return page_address(name)
        case "g":
            return AREAS["pq"[int(name[1])]]
        case _:
            return table_address(tables, name)


# --- the guest's own tables ---


def _guest_perm(perm: GuestPerm) -> int:
    return (PTE_U if perm.u else 0) | (PTE_W if perm.w else 0) | (0 if perm.x else PTE_XD)


def guest_entry(made: SetGuest) -> int:
    """The guest's page-table entry that a step writes, 64 bits."""
    if not made.present:
        return 0
    at = page_address(made.target) if made.target[0] in "pq" else guest_physical(made.target)
    return at | PTE_P | (0 if made.clean else PTE_A | PTE_D) | _guest_perm(made.perm)


def guest_upper_entry(made: SetGuestUpper) -> int:
    """The guest's page-directory entry that a step writes, 64 bits."""
    return guest_table(made.window) | PTE_P | (0 if made.clean else PTE_A) | _guest_perm(made.perm)


def guest_table(window: str) -> int:
    """The address of the guest's page table for a window; L2-physical as L1-physical."""
    return _GUEST_TABLES + WINDOWS.index(window) * PAGE


def guest_entry_address(name: str) -> int:
    """The address of a guest's entry as a look names it: ``g.a3`` in a page table, ``gu.a`` in the page directory.

    ``g.k01`` is one of PAE paging's page-directory-pointer tables.
    """
    kind, _, where = name.partition(".")
    if kind == "gu":
        return _GUEST_DIRECTORY + (PDE + WINDOWS.index(where)) * 8
    if where[0] == "k":
        return pdpte_address(where[:2], int(where[2]))
    return guest_table(where[0]) + (SLOT + int(where[1])) * 8


# --- where CR3 leads ---


def pdpte_address(table: str, number: int) -> int:
    """The address of a page-directory-pointer-table entry: the ``number``-th, 0 to 3, of ``k0`` or ``k1``."""
    return PDPTS + 8 * (PDPTES * int(table[1]) + number)


def pdpte(directory: str, bits: int = 0) -> int:
    """A page-directory-pointer-table entry, 64 bits: it leads to ``directory``; without one it is ``bits`` alone."""
    return (DIRECTORY_ADDRESSES[directory] | PTE_P if directory else 0) | bits


def pdpte_of(made: SetPdpte) -> int:
    """The page-directory-pointer-table entry that a step writes, 64 bits."""
    return pdpte(made.directory, made.bits)


def directory_of(entry: int) -> str:
    """The page directory that a page-directory-pointer-table entry leads to; empty where P is clear."""
    if not entry & PTE_P:
        return ""
    return next(name for name in DIRECTORIES if DIRECTORY_ADDRESSES[name] == entry & 0xFFFF_F000)


def cr3_value(number: int, *, pae: bool) -> int:
    """A value of L2's CR3, 64 bits: 0 is the first table, 1 the second, 2 the second with PWT."""
    table = min(number, 1)
    base = PDPTS + 8 * PDPTES * table if pae else LONG_ROOTS[table]
    return base | (CR3_PWT if number == 2 else 0)


def cr3_register(number: int | None, *, pae: bool) -> int:
    """The number of the register that L2 moves to CR3: RDX what was there (``number`` None), ESI or R9 a value."""
    return 2 if number is None else 6 if pae else 9
