"""EPT: entries and the walk over them, as a CPU does it (SDM 29.3).

``walk`` takes raw 64-bit entries, so that the same rules judge L1's entries (the contract) and serve as the CPU
that walks KVM's own entries (``kvmodel.machine``). It knows nothing of who made them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvmodel.bits import BIT, GENMASK
from kvmodel.cpu import Cpu
from kvmodel.sdm import errata, qualification
from kvmodel.sdm.access import PAGING_OFF, Linear, Use

READ = BIT(0)  # bit 0: reads
WRITE = BIT(1)  # bit 1: writes
EXECUTE = BIT(2)  # bit 2: fetches; with MBEC those from supervisor-mode linear addresses (XS)
MEMORY_TYPE = GENMASK(5, 3)  # leaf entries
PAGE_SIZE = BIT(7)
ACCESSED = BIT(8)
DIRTY = BIT(9)
USER_EXECUTE = BIT(10)  # with MBEC: fetches from user-mode linear addresses (XU); else ignored

RESERVED_MEMORY_TYPES = frozenset({2, 3, 7})


@dataclass(frozen=True, slots=True)
class Translated:
    """The translation exists and permits the use. ``after``: the entries as the CPU leaves them (A, D)."""

    level: int
    leaf: int
    after: tuple[tuple[int, int], ...]
    rule: str = "ept-permitted"


@dataclass(frozen=True, slots=True)
class Violation:
    """EPT violation at ``level``: 64-bit exit qualification, and which of its bits the manual defines.

    Bits that are not defined are 0 in ``qualification``. ``rules`` names why, the cause first.
    """

    qualification: int
    defined: int
    level: int
    rules: tuple[str, ...]

    @property
    def rule(self) -> str:
        """The cause."""
        return self.rules[0]


@dataclass(frozen=True, slots=True)
class Misconfig:
    """EPT misconfiguration at ``level``."""

    level: int
    rule: str


Walked = Translated | Violation | Misconfig


def permission_bits(mbec: bool) -> int:
    """The bits of an entry that grant something (SDM 29.3.2): 2:0, with MBEC 10 as well."""
    return READ | WRITE | EXECUTE | (USER_EXECUTE if mbec else 0)


def is_present(entry: int, *, mbec: bool) -> bool:
    """Whether the 64-bit ``entry`` is present (SDM 29.3.2)."""
    return entry & permission_bits(mbec) != 0


def is_leaf(entry: int, level: int) -> bool:
    """Whether the ``entry`` at ``level`` (1-4) maps a page: always at 1, by bit 7 at 2 and 3, never at 4."""
    return level == 1 or (level in (2, 3) and entry & PAGE_SIZE != 0)


def reserved_bits(cpu: Cpu, level: int, *, leaf: bool) -> int:
    """The reserved bits of an entry at ``level`` (1-4) on ``cpu`` (SDM 29.3.2, tables of entry formats)."""
    reserved = GENMASK(51, cpu.maxphyaddr) if cpu.maxphyaddr < 52 else 0
    if level == 4:
        return reserved | GENMASK(7, 3)
    if not leaf:
        return reserved | GENMASK(6, 3)
    if level == 1:
        return reserved
    reserved |= GENMASK(9 * level + 2, 12)  # 20:12 at level 2, 29:12 at level 3
    if not (cpu.ept_2m if level == 2 else cpu.ept_1g):
        reserved |= PAGE_SIZE
    if errata.LARGE_BIT12 in cpu.errata:
        reserved &= ~BIT(12)
    return reserved


def misconfiguration(cpu: Cpu, entry: int, level: int, *, mbec: bool) -> str | None:
    """The rule by which a present ``entry`` is misconfigured (SDM 29.3.3.1), None if it is not."""
    if not entry & READ:
        if entry & WRITE:
            return "ept-write-without-read"
        if not cpu.execonly:
            return "ept-execute-without-read"
    leaf = is_leaf(entry, level)
    if entry & reserved_bits(cpu, level, leaf=leaf):
        return "ept-reserved"
    if leaf and (entry & MEMORY_TYPE) >> 3 in RESERVED_MEMORY_TYPES:
        return "ept-memory-type"
    return None


def needed(use: Use, *, mbec: bool, user: bool, ad: bool) -> int:
    """The permission bits the AND of the entries must have for ``use`` (SDM 29.3.3.2).

    A read-modify-write needs both. With EPT accessed and dirty flags every access to a guest paging-structure
    entry counts as a write.
    """
    match use:
        case Use.READ:
            return READ
        case Use.WRITE:
            return WRITE
        case Use.RMW | Use.UPDATE:
            return READ | WRITE
        case Use.FETCH:
            return USER_EXECUTE if mbec and user else EXECUTE
        case _:
            return READ | WRITE if ad else READ


def walk(
    cpu: Cpu,
    entries: Sequence[tuple[int, int]],
    use: Use,
    *,
    mbec: bool,
    ad: bool,
    linear: Linear = PAGING_OFF,
) -> Walked:
    """Walk ``entries``, (level, 64-bit entry) from level 4 down, as ``cpu`` does with its errata (SDM 29.3.2-29.3.3).

    ``mbec``: secondary control bit 22; ``ad``: EPTP bit 6; ``linear``: what guest paging made of the linear
    address. Entry by entry on the way: not present, then misconfigured; permissions after the whole walk. The
    walk ends at a leaf; entries after it are not looked at. ValueError if it runs out of entries before one.
    """
    granted = permission_bits(mbec)
    for i, (level, entry) in enumerate(entries):
        granted &= entry
        if not is_present(entry, mbec=mbec):
            return _violation(cpu, use, 0, level, "ept-not-present", mbec=mbec, ad=ad, linear=linear)
        if rule := misconfiguration(cpu, entry, level, mbec=mbec):
            return Misconfig(level, rule)
        if not is_leaf(entry, level):
            continue
        want = needed(use, mbec=mbec, user=linear.user, ad=ad)
        if errata.UPDATE_UNCHECKED in cpu.errata and use is Use.UPDATE and not ad:
            want = 0
        if want & ~granted:
            return _violation(cpu, use, granted, level, "ept-permission", mbec=mbec, ad=ad, linear=linear)
        return Translated(level, entry, _after(entries[: i + 1], use, ad=ad))
    raise ValueError(f"the walk of {[(lvl, hex(e)) for lvl, e in entries]} ends without a leaf: give its lower entries")


def _after(entries: Sequence[tuple[int, int]], use: Use, *, ad: bool) -> tuple[tuple[int, int], ...]:
    """The entries with the accessed flags, and on the leaf the dirty flag, that the CPU sets (SDM 29.3.5)."""
    if not ad:
        return tuple(entries)
    after = [(level, entry | ACCESSED) for level, entry in entries]
    if use not in (Use.READ, Use.FETCH):
        level, entry = after[-1]
        after[-1] = (level, entry | DIRTY)
    return tuple(after)


def _violation(
    cpu: Cpu, use: Use, granted: int, level: int, rule: str, *, mbec: bool, ad: bool, linear: Linear
) -> Violation:
    value, defined, masked = qualification.violation(cpu, use, granted, linear, mbec=mbec, ad=ad)
    return Violation(value, defined, level, (rule, *masked))
