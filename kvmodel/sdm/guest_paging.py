"""The guest's own paging: which accesses it lets through, and which linear addresses are user-mode (SDM 4.6-4.7).

Only the two entries under test restrict anything; every other guest entry is present with U/S, R/W and no XD.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvmodel.bits import BIT
from kvmodel.question.vector import AccessVector, GuestPerm, Paging
from kvmodel.sdm.access import PAGING_OFF, Linear, Use

ERROR_PRESENT = BIT(0)  # a protection violation, not a missing entry
ERROR_WRITE = BIT(1)
ERROR_USER = BIT(2)  # a user-mode access: CPL 3
ERROR_RESERVED = BIT(3)
ERROR_FETCH = BIT(4)

PAGE_FAULT = 14


@dataclass(frozen=True, slots=True)
class Mode:
    """The control-register and EFER bits that guest paging looks at, and the access's privilege level."""

    paging: Paging
    cpl: int
    wp: bool
    smep: bool
    smap: bool
    nxe: bool
    ac: bool = False  # EFLAGS.AC

    @property
    def has_xd(self) -> bool:
        """Whether bit 63 of an entry exists at all: 32-bit paging has 4-byte entries."""
        return self.paging in (Paging.PAE, Paging.LONG)


def mode_of(vector: AccessVector) -> Mode:
    """The guest mode of the access (EFLAGS.AC is clear in the probe's L2)."""
    return Mode(vector.paging, vector.cpl, vector.wp, vector.smep, vector.smap, vector.nxe)


@dataclass(frozen=True, slots=True)
class PageFault:
    """#PF: its error code (32 bits) and the rule."""

    error: int
    rule: str


def linear(mode: Mode, entries: Sequence[GuestPerm]) -> Linear:
    """What ``entries`` (all levels that restrict anything) make of the linear address.

    U/S decides whether an address is user-mode, not the privilege level; with paging off it always is.
    """
    if mode.paging is Paging.OFF:
        return PAGING_OFF
    return Linear(
        user=all(e.u for e in entries),
        writable=all(e.w for e in entries),
        execute_disable=mode.has_xd and not all(e.x for e in entries),
    )


def user_mode_linear_address(mode: Mode, entries: Sequence[GuestPerm]) -> bool:
    """Whether the address is a user-mode linear address, as MBEC and qualification bit 9 use it (SDM 29.3.2)."""
    return linear(mode, entries).user


def is_reserved(mode: Mode, entry: GuestPerm) -> bool:
    """Whether ``entry`` has a reserved bit set: XD with EFER.NXE clear. The walk ends there (SDM 4.5.4, 4.7)."""
    return mode.has_xd and not mode.nxe and not entry.x


def fault(mode: Mode, entries: Sequence[GuestPerm], use: Use) -> PageFault | None:
    """The #PF that ``use`` (a final access, not one to a structure) takes, None if it takes none (SDM 4.6, 4.7)."""
    if mode.paging is Paging.OFF:
        return None
    page = linear(mode, entries)
    if any(is_reserved(mode, entry) for entry in entries):
        return PageFault(_error(mode, use) | ERROR_RESERVED, "guest-reserved")
    if _permitted(mode, page, use):
        return None
    return PageFault(_error(mode, use), "guest-protection")


def fault_of(mode: Mode, entries: tuple[GuestPerm, GuestPerm], use: Use, *, present: bool) -> PageFault | None:
    """``fault`` of an upper entry and a leaf that may have P clear: then the upper one alone counts (SDM 4.7)."""
    if present:
        return fault(mode, entries, use)
    if is_reserved(mode, entries[0]):
        return PageFault(_error(mode, use) | ERROR_RESERVED, "guest-reserved")
    return PageFault(_error(mode, use) & ~ERROR_PRESENT, "guest-not-present")


def _permitted(mode: Mode, page: Linear, use: Use) -> bool:
    user_access = mode.cpl == 3
    if user_access and not page.user:
        return False
    supervisor_on_user = not user_access and page.user
    if use is Use.FETCH:
        return not page.execute_disable and not (supervisor_on_user and mode.smep)
    if supervisor_on_user and mode.smap and not mode.ac:
        return False
    if use is Use.READ:
        return True
    return page.writable or (not user_access and not mode.wp)


def _error(mode: Mode, use: Use) -> int:
    """The error code of a fault on present entries; I/D is reported only where fetches can be told apart."""
    error = ERROR_PRESENT
    if use in (Use.WRITE, Use.RMW):
        error |= ERROR_WRITE
    if mode.cpl == 3:
        error |= ERROR_USER
    if use is Use.FETCH and (mode.smep or (mode.has_xd and mode.nxe)):
        error |= ERROR_FETCH
    return error
