"""The question: one thing an L1 or its L2 does, in one fully described state, and the id it is typed by.

No level and no parameter is part of a vector: the same ids are asked at every level. An id is a row of
tokens in a fixed order, lower case, every field printed. ``ids.parse`` is the inverse of ``Vector.id``.

    e4k.l1=rw-u.l2=rwxu.mt6.xb0.ub0.fetch.gpuwx.guuwx.pg64.cpl3.wp1.smep0.smap0.nxe1.ad0.mbec=on.xo1.ev0.env=std
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import Enum, IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Final, TypeAlias

from kvmodel.question.taken import TAKEN, Taken

if TYPE_CHECKING:
    from kvmodel.question.program import ProgramVector
    from kvmodel.question.sequence import SequenceVector
    from kvmodel.question.vm_entry import VmEntryVector
    from kvmodel.question.vm_exit import VmExitVector


class VectorError(ValueError):
    """An id that is not a vector's: names the token, the reason and the mend."""


class Access(Enum):
    """What L2 does (``walk*``: what the page walk does on its behalf to a guest paging-structure entry)."""

    READ = "read"
    WRITE = "write"
    RMW = "rmw"  # locked read-modify-write
    FETCH = "fetch"
    WALK = "walk"  # a data read whose guest PTE has A set: the walk only reads the entry
    WALKA = "walka"  # a data read whose guest PTE has A clear: the walk sets A
    WALKD = "walkd"  # a data write whose guest PTE has A set and D clear: the walk sets D
    EMUREAD = "emuread"  # a MOVS from the page to an address without memory: a hypervisor under L1 emulates it
    EMUWRITE = "emuwrite"  # a MOVS from there into the page
    EMUFETCH = "emufetch"  # a MOVS that lies in the page, between two such addresses

    @property
    def is_walk(self) -> bool:
        """Whether the EPT entries under test map the guest page table, not the page accessed."""
        return self in (Access.WALK, Access.WALKA, Access.WALKD)

    @property
    def is_emulated(self) -> bool:
        """Whether KVM's emulator makes the access (again), because the instruction's other operand is MMIO."""
        return self in (Access.EMUREAD, Access.EMUWRITE, Access.EMUFETCH)


class Mbec(Enum):
    """What L1 does with secondary control bit 22."""

    ON = "on"  # offered by QEMU's vmx-mbec, set in vmcs12
    OFF = "off"  # offered, clear in vmcs12
    NA = "na"  # QEMU's vmx-mbec=off: never advertised


class Evmcs(IntEnum):
    """What L1 has of Hyper-V's enlightened VMCS."""

    ABSENT = 0  # not offered
    OFFERED = 1  # QEMU's hv-evmcs; L2 is entered by a plain vmcs12
    USED = 2  # L2 is entered by an enlightened one


class Paging(Enum):
    """Guest paging of L2 (SDM 4.1.1)."""

    OFF = "off"
    BITS32 = "32"
    PAE = "pae"
    LONG = "64"


@dataclass(frozen=True, slots=True)
class Perm:
    """Permission bits of one EPT12 entry: R bit 0, W bit 1, X (XS with MBEC) bit 2, U (XU) bit 10."""

    r: bool
    w: bool
    x: bool
    u: bool

    @property
    def bits(self) -> int:
        """The four bits where the entry has them."""
        return self.r | self.w << 1 | self.x << 2 | self.u << 10

    def __str__(self) -> str:
        return "".join(c if on else "-" for c, on in zip("rwxu", (self.r, self.w, self.x, self.u), strict=True))

    @classmethod
    def parse(cls, text: str) -> Perm:
        """``rw-u`` and the like; VectorError for anything else."""
        if not re.fullmatch(r"[r-][w-][x-][u-]", text):
            raise VectorError(f"permissions {text!r}: write r, w, x, u in this order, '-' for each that is clear")
        return cls(*(c != "-" for c in text))

    @classmethod
    def all(cls) -> Iterator[Perm]:
        """All 16, ``----`` first."""
        for n in range(16):
            yield cls(bool(n & 1), bool(n & 2), bool(n & 4), bool(n & 8))


RWXU = Perm(True, True, True, True)


@dataclass(frozen=True, slots=True)
class GuestPerm:
    """One guest paging-structure entry's U/S (bit 2), R/W (bit 1) and executability (XD, bit 63, clear)."""

    u: bool
    w: bool
    x: bool

    def __str__(self) -> str:
        return ("u" if self.u else "s") + ("w" if self.w else "r") + ("x" if self.x else "n")

    @classmethod
    def parse(cls, text: str) -> GuestPerm:
        """``uwx`` and the like; VectorError for anything else."""
        if not re.fullmatch(r"[us][wr][xn]", text):
            raise VectorError(f"guest permissions {text!r}: one of u/s, one of w/r, one of x/n")
        return cls(text[0] == "u", text[1] == "w", text[2] == "x")


UWX = GuestPerm(True, True, True)


@dataclass(frozen=True, slots=True)
class Environment:
    """How the host is set up for a vector; what a level's parameter does not decide."""

    name: str
    cpu_mbec: bool = True  # the host CPU has MBEC
    ept: bool = True  # kvm_intel.ept
    eptad: bool = True  # kvm_intel.eptad
    nx_huge_pages: bool = False  # kvm.nx_huge_pages=force
    backing: str = "4k"  # L1's memory on the host: 4k, 2m or 1g pages
    parameters: tuple[tuple[str, str], ...] = ()  # further ones of kvm_intel: name and value
    taken: Taken | None = None  # a capability that L1 is not offered: QEMU's affair, the host is the plain one

    @property
    def host(self) -> Environment:
        """The environment whose load of the modules this one needs."""
        return self if self.taken is None else ENVIRONMENTS["std"]

    @property
    def common(self) -> bool:
        """Whether it is neither a further parameter nor a capability taken."""
        return not self.parameters and self.taken is None


# Parameters of kvm_intel, each of which changes what L1, L2 or user space meets or by which way: an environment each.
PARAMETERS = (
    Environment("ug0", parameters=(("unrestricted_guest", "0"),)),
    Environment("shadow0", parameters=(("enable_shadow_vmcs", "0"),)),
    Environment("flex0", parameters=(("flexpriority", "0"),)),
    Environment("pml0", parameters=(("pml", "0"),)),
    Environment("vpid0", parameters=(("vpid", "0"),)),
    Environment("lax", parameters=(("error_on_inconsistent_vmcs_config", "0"),)),
)
ENVIRONMENTS = {
    env.name: env
    for env in (
        Environment("std"),
        Environment("ept0", ept=False),
        Environment("eptad0", eptad=False),
        Environment("cpu0", cpu_mbec=False),
        Environment("huge", backing="2m"),
        Environment("hugenx", backing="2m", nx_huge_pages=True),
        Environment("eptad0nx", eptad=False, nx_huge_pages=True),
        *PARAMETERS,
        *(Environment(taken.env, taken=taken) for taken in TAKEN),
    )
}


@dataclass(frozen=True, slots=True)
class Machine:
    """The virtual CPU L1 runs on and the host under it: vectors that share one are run in one batch."""

    mbec_offered: bool  # QEMU's vmx-mbec
    execonly_offered: bool  # QEMU's vmx-ept-execonly
    evmcs_offered: bool  # QEMU's hv-evmcs
    env: Environment


@dataclass(frozen=True)
class Common:
    """What every vector of an L1 guest has: its last four tokens."""

    mbec: Mbec = Mbec.ON
    xo: bool = True
    ev: Evmcs = Evmcs.ABSENT
    env: str = "std"

    @property
    def machine(self) -> Machine:
        """The machine this vector needs."""
        return Machine(self.mbec is not Mbec.NA, self.xo, self.ev is not Evmcs.ABSENT, ENVIRONMENTS[self.env])

    def _tail(self) -> list[str]:
        return [f"mbec={self.mbec.value}", f"xo{self.xo:d}", f"ev{self.ev:d}", f"env={self.env}"]


@dataclass(frozen=True)
class AccessVector(Common):
    """One access of an L2 guest.

    ``leaf`` and ``upper`` are the two EPT12 entries under test; every other entry on the way has
    R, W, X and bit 10 set. ``leaf_level`` is 1 (4 KiB), 2 (2 MiB) or 3 (1 GiB), ``upper_level`` is above it.
    """

    leaf_level: int = 1
    leaf: Perm = RWXU
    upper_level: int = 2
    upper: Perm = RWXU
    memtype: int = 6  # leaf bits 5:3
    leaf_bits: int = 0  # further bits set in the leaf: ignored, software or reserved
    upper_bits: int = 0  # the same for the upper entry
    access: Access = Access.READ
    gp: GuestPerm = UWX  # the guest leaf entry of the page accessed
    gu: GuestPerm = UWX  # the guest entry one level above it
    paging: Paging = Paging.LONG
    cpl: int = 0
    wp: bool = True
    smep: bool = False
    smap: bool = False
    nxe: bool = True
    ad: bool = False  # EPTP12 bit 6

    @cached_property
    def id(self) -> str:
        """The name to print and type."""
        return ".".join(
            [
                {1: "e4k", 2: "e2m", 3: "e1g"}[self.leaf_level],
                f"l{self.leaf_level}={self.leaf}",
                f"l{self.upper_level}={self.upper}",
                f"mt{self.memtype}",
                f"xb{self.leaf_bits:x}",
                f"ub{self.upper_bits:x}",
                self.access.value,
                f"gp{self.gp}",
                f"gu{self.gu}",
                f"pg{self.paging.value}",
                f"cpl{self.cpl}",
                f"wp{self.wp:d}",
                f"smep{self.smep:d}",
                f"smap{self.smap:d}",
                f"nxe{self.nxe:d}",
                f"ad{self.ad:d}",
                *self._tail(),
            ]
        )


@dataclass(frozen=True)
class EntryVector(Common):
    """A VM entry with MBEC as ``mbec`` says and the EPT control as ``ept`` says, and a harmless L2."""

    ept: bool = True

    @cached_property
    def id(self) -> str:
        """The name to print and type."""
        return ".".join(["entry", f"ept{self.ept:d}", *self._tail()])


@dataclass(frozen=True)
class MsrVector(Common):
    """RDMSR of ``msr`` by L1."""

    msr: int = 0x48B

    @cached_property
    def id(self) -> str:
        """The name to print and type."""
        return ".".join(["msr", f"m{self.msr:x}", *self._tail()])


@dataclass(frozen=True)
class CapsVector(Common):
    """Several VMX capability MSRs read by L1, and whether they go together: ``relation`` is one of RELATIONS.

    The answer is a bitmap of the bits that break the relation.
    """

    relation: str = "mbec-needs-ept"

    @cached_property
    def id(self) -> str:
        """The name to print and type."""
        return ".".join(["caps", self.relation, *self._tail()])


@dataclass(frozen=True)
class MmioVector(Common):
    """L1's own access to an MMIO address (no L2)."""

    access: Access = Access.READ

    @cached_property
    def id(self) -> str:
        """The name to print and type."""
        return ".".join(["mmio", self.access.value, *self._tail()])


@dataclass(frozen=True)
class ClientVector:
    """One access of an L1 under the small KVM client: no QEMU, no firmware, no nesting.

    ``mode`` is ``real`` (CR0.PE=0), ``prot`` (paging off) or ``long``; ``page`` is the U/S of the page.
    """

    mode: str = "real"
    access: Access = Access.FETCH
    page: str = "u"
    env: str = "std"

    @property
    def machine(self) -> Machine:
        """The client needs no virtual VMX; only the environment counts."""
        return Machine(False, True, False, ENVIRONMENTS[self.env])

    @cached_property
    def id(self) -> str:
        """The name to print and type."""
        return ".".join(["cli", self.mode, self.access.value, f"pg{self.page}", f"env={self.env}"])


CLIENT_STEPS = {
    "read": Access.READ,
    "write": Access.WRITE,
    "rmw": Access.RMW,
    "fetch": Access.FETCH,
    "mread": Access.READ,  # of an address without memory: MMIO
    "mwrite": Access.WRITE,
    "age": None,  # the host ages the page
    "log": None,  # dirty logging is switched on
    "unlog": None,
    "sync": None,  # the dirty log is read, which begins it anew
    "slot": None,  # memory is added elsewhere: the memory slots' generation moves on
    "slots": None,  # 64 times
    "gone": None,  # the slot of the page is deleted
    "moved": None,  # it is moved to another guest address
    "ronly": None,  # it is made anew, to be read only
    "back": None,  # it is as it was
}
"""What a client's sequence is made of: the access it makes, None for an action of the host."""


MOVES: Final = ("gone", "moved", "ronly", "back")
"""What happens to the slot of the page; an access that it does not take is user space's, by KVM_EXIT_MMIO."""


@dataclass(frozen=True)
class ClientSequence:
    """Accesses of an L1 under the small client to one page, and what the host does to it between them.

    ``mode`` and ``page`` as in ``ClientVector``; ``memory``: ``4k`` or ``2m``, how the host maps the page.
    """

    mode: str = "long"
    page: str = "u"
    memory: str = "4k"
    steps: tuple[str, ...] = ("fetch",)
    env: str = "std"

    @property
    def machine(self) -> Machine:
        """The client needs no virtual VMX; only the environment counts."""
        return Machine(False, True, False, ENVIRONMENTS[self.env])

    @cached_property
    def id(self) -> str:
        """The name to print and type."""
        return ".".join(
            ["cli", self.mode, f"pg{self.page}", f"m{self.memory}", "+".join(self.steps), f"env={self.env}"]
        )


@dataclass(frozen=True)
class UserMsrVector:
    """User space writes a vCPU's VMX capability MSR: ``c54`` clears bit 54 of what it reads, ``s54`` sets it,
    ``kvm`` writes what KVM itself offers. The answer: the value in the end, from bit 64 on which writes were refused.
    """

    msr: int = 0x48B
    steps: tuple[str, ...] = ("c54",)
    env: str = "std"

    @property
    def machine(self) -> Machine:
        """Only the environment counts."""
        return Machine(False, True, False, ENVIRONMENTS[self.env])

    @cached_property
    def id(self) -> str:
        """The name to print and type."""
        return ".".join(["umsr", f"m{self.msr:x}", "+".join(self.steps), f"env={self.env}"])


READERS: Final = ("vcpu", "kvm")


@dataclass(frozen=True)
class UserCapsVector:
    """The MSRs of a ``CapsVector`` as user space reads them by KVM_GET_MSRS: ``reader`` is ``vcpu`` (a vCPU of the
    small client's, with all CPUID bits that KVM supports) or ``kvm`` (/dev/kvm's feature MSRs).
    """

    relation: str = "mbec-needs-ept"
    reader: str = "vcpu"
    env: str = "std"

    @property
    def machine(self) -> Machine:
        """Only the environment counts."""
        return Machine(False, True, False, ENVIRONMENTS[self.env])

    @cached_property
    def id(self) -> str:
        """The name to print and type."""
        return ".".join(["ucaps", self.relation, self.reader, f"env={self.env}"])


@dataclass(frozen=True)
class HostVector:
    """Something read on the host itself: ``what`` is ``param`` (enable_pt_guest_exec_control in sysfs,
    absent, Y or N), ``m48b``/``m48c`` (/dev/kvm's feature MSR as KVM_GET_MSRS gives it), a tracepoint's format:
    ``taccess`` (the access strings of kvm_mmu_get_page), ``tspte`` (the text of kvm_mmu_set_spte), ``removed``
    (what KVM leaves in the entries of a page table that it takes down, in the last step of REMOVING), ``reload``
    (whether kvm.ko keeps its parameter while kvm-intel.ko is loaded with ept=0, taken out and loaded again), or ``log``
    (whether the kernel's log has a report that belongs to no other vector)."""

    what: str = "param"
    env: str = "std"

    @property
    def machine(self) -> Machine:
        """No guest at all; only the environment counts."""
        return Machine(False, True, False, ENVIRONMENTS[self.env])

    @cached_property
    def id(self) -> str:
        """The name to print and type."""
        return ".".join(["host", self.what, f"env={self.env}"])


NX_PREFIX: Final = "nxhuge."

# A huge page is split into small ones and comes again, for which the table of the small ones goes.
REMOVING: Final = ClientSequence("long", "s", "2m", ("read", "log", "unlog"))


@dataclass(frozen=True)
class NxVector:
    """Whether the host keeps huge pages non-executable while L2 does ``asked``: seen in what KVM installs."""

    asked: AccessVector = AccessVector(env="hugenx", leaf_level=2, upper_level=3)

    @property
    def machine(self) -> Machine:
        """The machine of the access."""
        return self.asked.machine

    @cached_property
    def id(self) -> str:
        """The name to print and type."""
        return f"{NX_PREFIX}{self.asked.id}"


LOG_PREFIX: Final = "log."


@dataclass(frozen=True)
class LogVector:
    """What the kernel's log of the host has to say while an L1 asks ``asked``: a report of its own, or nothing."""

    asked: Vector

    @property
    def machine(self) -> Machine:
        """The machine of what is asked."""
        return self.asked.machine

    @cached_property
    def id(self) -> str:
        """The name to print and type."""
        return f"{LOG_PREFIX}{self.asked.id}"


OnHost: TypeAlias = (  # asked of the host without QEMU
    HostVector | ClientVector | ClientSequence | UserMsrVector | UserCapsVector
)
# sequences, programs and VM entries are in modules of their own, which this one does not import
Vector: TypeAlias = (
    "AccessVector | EntryVector | MsrVector | CapsVector | MmioVector | OnHost | NxVector | LogVector"
    " | SequenceVector | ProgramVector | VmEntryVector | VmExitVector"
)


def changed_fields(a: AccessVector, b: AccessVector) -> list[str]:
    """The names of the fields in which two access vectors differ, in the id's order."""
    return [f.name for f in fields(AccessVector) if getattr(a, f.name) != getattr(b, f.name)]
