"""What programs say of L2's CR3, and of the page-directory-pointer-table entries of PAE paging (SDM 4.4.1).

L2 has two tables to point CR3 at. In PAE paging they are ``k0`` and ``k1``, of four entries each: entry 0, 1 and 2 lead
to the windows ``a``, ``b`` and ``c``, 1 GiB of linear addresses apart, and entry 0 to L2's code as well. An entry leads
to a page directory: ``e0`` is the one that ``gu.a`` names, in ``e1`` each window has the next one's page table, in
``e2`` the next but one's. At the start ``k0`` leads to ``e0`` throughout, ``k1`` to ``e1``; so does long mode's CR3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from kvmodel.question.vector import VectorError

DIRECTORIES: Final = ("e0", "e1", "e2")
PDPTES: Final = 4  # of a table
CR3S: Final = (0, 1, 2)  # the values: the first table, the second one, the second one with PWT (bit 3)
_MAY_HAVE: Final = 0xFFF0_0000_0000_0FFE  # bits of an entry beside P and the address: all that no CPU has for one


@dataclass(frozen=True, slots=True)
class SetPdpte:
    """Somebody writes a page-directory-pointer-table entry: ``directory`` is where it leads, empty for an entry of 0.

    ``place`` is ``g.k01`` where L1 writes entry 1 of the table ``k0`` in memory, ``pte.k01`` where L2 itself does, and
    ``pdptr1`` where L1 writes the guest-state field of the VMCS. ``bits`` are further bits of the 64-bit entry.
    """

    place: str
    directory: str
    bits: int = 0

    @property
    def number(self) -> int:
        """The entry's number in its table."""
        return int(self.place[-1])

    @property
    def table(self) -> str:
        """The table in memory; empty of a field."""
        return "" if self.in_field else self.place[-3:-1]

    @property
    def by_l2(self) -> bool:
        """Whether L2 writes it."""
        return self.place.startswith("pte.")

    @property
    def in_field(self) -> bool:
        """Whether it is a field of the VMCS."""
        return self.place.startswith("pdptr")

    def __str__(self) -> str:
        text = f"{self.place}={self.directory or 'none'}"
        return f"{text}.x{self.bits:x}" if self.bits else text


@dataclass(frozen=True, slots=True)
class LoadCr3:
    """L2 loads CR3 with one of its values, at CPL 0."""

    number: int

    def __str__(self) -> str:
        return f"cr3.{self.number}"


LOOKED_AT: Final = r"g\.k[01][0-3]|pdptr[0-3]|cr3"
SET_PDPTE: Final = re.compile(
    r"(?P<place>(?:g|pte)\.k[01][0-3]|pdptr[0-3])=(?P<target>none|e[012])(?:\.x(?P<bits>[0-9a-f]{1,16}))?"
)
LOAD_CR3: Final = re.compile(r"cr3\.(?P<number>[012])")


def set_pdpte(m: re.Match[str]) -> SetPdpte:
    """The write that a step says. Raises VectorError where it is none that a program may have."""
    bits = int(m["bits"] or "0", 16)
    made = SetPdpte(m["place"], m["target"].replace("none", ""), bits)
    if bits & ~_MAY_HAVE:
        raise VectorError(f"{m.string!r}: of bits 11:1 and 63:52 only; the address and P (bit 0) are the target's")
    if made.number == 0 and not made.directory:
        raise VectorError(f"{m.string!r}: entry 0 leads to L2's own code; take another from it")
    return made
