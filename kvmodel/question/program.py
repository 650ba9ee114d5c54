"""A program: a short list of steps of L1, of its L2 and of the host, on one described machine.

L1 has eleven EPT12 tables: roots ``r0`` and ``r1`` (PML4), ``d0`` to ``d2`` (page-directory-pointer tables), ``m0``
to ``m2`` (page directories), ``t0`` to ``t2`` (page tables); pages ``p0`` to ``p7`` and ``q0`` to ``q7``, and two areas
of 2 MiB, ``g0`` around the first eight and ``g1`` around the others. L2 sees three windows of eight pages, ``a``, ``b``
and ``c``: ``a3`` is its linear address and, as the guest's tables are at the start, its guest-physical one. At the
start each window has tables of its own (``d0a`` leads to ``m0``, ``m0`` to ``t0``, ``t03`` maps ``p3``), and every
entry permits everything.

A step is a word without ``+``; what L2 does without an exit in between is one step, its parts joined by commas:

    prog+mbec=on+read.a3+m1=t0.r-x-+invept1.r0+cpl=3+wp0,write.b3,fetch.a3

The id is the head and the steps joined by ``+``; a file has a step a line, and comments behind ``#``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

from kvmodel.question.program_paging import CR3S, LOAD_CR3, LOOKED_AT, SET_PDPTE, LoadCr3, SetPdpte, set_pdpte
from kvmodel.question.vector import (
    ENVIRONMENTS,
    RWXU,
    UWX,
    Access,
    GuestPerm,
    Machine,
    Perm,
    VectorError,
)

PREFIX: Final = "prog"
SEPARATOR: Final = "+"
WINDOWS: Final = "abc"
PAGES: Final = 8  # of a window
MAX_STEPS: Final = 64
MAX_OPS: Final = 8  # of L2 between an entry and the exit
WRITE_BACK: Final = 6
CLEAN: Final = ".clean"  # of an entry: its flags are clear

TABLES: Final = ("r0", "r1", "d0", "d1", "d2", "m0", "m1", "m2", "t0", "t1", "t2")
LEVELS: Final = {"r": 4, "d": 3, "m": 2, "t": 1}
# The entries that a program may write: the table that each lies in, and the window that it leads to, "" where that
# depends on who leads to the table.
UPPER_ENTRIES: Final = {
    "r0c": ("r0", "c"),
    "r1c": ("r1", "c"),
    "d0a": ("d0", "a"),
    "d0b": ("d0", "b"),
    "d1c": ("d1", "c"),
    "d2a": ("d2", "a"),
    "d2b": ("d2", "b"),
    "m0": ("m0", ""),
    "m1": ("m1", ""),
    "m2": ("m2", ""),
}
START: Final = {  # where the upper entries lead at the start; the first entry of each root's tables is the probe's own
    "r0c": "d1",
    "r1c": "d1",
    "d0a": "m0",
    "d0b": "m1",
    "d1c": "m2",
    "d2a": "m0",
    "d2b": "m1",
    "m0": "t0",
    "m1": "t1",
    "m2": "t2",
}
FIRST: Final = {"r0": "d0", "r1": "d2"}  # the table that windows a and b are reached by


def level_of(entry: str) -> int:
    """The level, 4 to 1, of the table that ``entry`` lies in."""
    return LEVELS[entry[0]]


@dataclass(frozen=True, slots=True)
class SetEntry:
    """L1 writes an EPT12 entry: ``target`` is a table, a page, an area of 2 MiB, or ``none``, which is an entry of 0.

    ``bits`` are further bits of the 64-bit entry; ``memtype`` bits 5:3 of a leaf. The flags of accesses and writes (A,
    bit 8, and of a leaf D, bit 9) are given as set, ``clean``: as clear.
    """

    entry: str
    target: str
    perm: Perm = RWXU
    memtype: int = WRITE_BACK
    bits: int = 0
    clean: bool = False

    @property
    def is_leaf(self) -> bool:
        """Whether the entry maps a page."""
        return self.target[0] in "pqg"

    def __str__(self) -> str:
        if self.target == "none":
            return f"{self.entry}=none"
        text = f"{self.entry}={self.target}"
        if self.perm != RWXU:
            text += f".{self.perm}"
        if self.memtype != WRITE_BACK:
            text += f".mt{self.memtype}"
        text += CLEAN if self.clean else ""
        return f"{text}.x{self.bits:x}" if self.bits else text


@dataclass(frozen=True, slots=True)
class SetGuest:
    """Somebody writes the guest's page-table entry for the linear ``page``: where it leads, and what it permits.

    ``present`` is bit 0. ``by_l2``: L2 writes it itself, in the middle of a run. A (bit 5) and D (bit 6) are given as
    set, ``clean``: as clear.
    """

    page: str
    target: str
    perm: GuestPerm = UWX
    present: bool = True
    by_l2: bool = False
    clean: bool = False

    def __str__(self) -> str:
        head = f"{'pte' if self.by_l2 else 'g'}.{self.page}="
        if not self.present:
            return f"{head}none"
        perm = f".{self.perm}" if self.perm != UWX else ""
        return f"{head}{self.target}{perm}" + (CLEAN if self.clean else "")


@dataclass(frozen=True, slots=True)
class SetGuestUpper:
    """L1 writes the guest's page-directory entry of a window: what it permits; ``clean``: with A clear."""

    window: str
    perm: GuestPerm
    clean: bool = False

    def __str__(self) -> str:
        return f"gu.{self.window}={self.perm}" + (CLEAN if self.clean else "")


@dataclass(frozen=True, slots=True)
class Look:
    """L1 reads an entry back: of EPT12 by name, of the guest by ``g.`` and a page or ``gu.`` and a window.

    ``g.k01`` is a page-directory-pointer-table entry of the guest's, ``pdptr1`` the VMCS field of one, ``cr3``
    that of CR3.
    """

    entry: str

    @property
    def is_guest(self) -> bool:
        """Whether it is an entry of the guest's own tables."""
        return self.entry[0] == "g"

    @property
    def is_field(self) -> bool:
        """Whether it is a field of the VMCS."""
        return self.is_pdpte_field or self.is_cr3

    @property
    def is_cr3(self) -> bool:
        """Whether it is the VMCS field of CR3."""
        return self.entry == "cr3"

    @property
    def is_pdpte_field(self) -> bool:
        """Whether it is the VMCS field of a page-directory-pointer-table entry."""
        return self.entry.startswith("pdptr")

    @property
    def is_pdpte(self) -> bool:
        """Whether it is a page-directory-pointer-table entry, in memory or in the VMCS."""
        return self.is_pdpte_field or self.entry.startswith("g.k")

    def __str__(self) -> str:
        return f"look.{self.entry}"


@dataclass(frozen=True, slots=True)
class Control:
    """What the VM entries from here on have: a control of the vmcs12 or a bit of L2's state."""

    name: str
    value: int

    def __str__(self) -> str:
        return f"{self.name}={words_of(self.name)[CONTROLS[self.name][0].index(self.value)]}"


@dataclass(frozen=True, slots=True)
class Invept:
    """INVEPT of ``type`` (64 bits in a register) with the EPT pointer of a root, or with one that is ``bad``."""

    type: int
    root: str = "r0"
    bad: str = ""

    def __str__(self) -> str:
        return f"invept{self.type}.{self.root}" + (f".{self.bad}" if self.bad else "")


@dataclass(frozen=True, slots=True)
class Invvpid:
    """INVVPID of ``type`` with a VPID and the linear address of a page; ``bad`` names what its descriptor has wrong."""

    type: int
    vpid: int = 1
    page: str = "a0"
    bad: str = ""

    def __str__(self) -> str:
        return f"invvpid{self.type}.{self.vpid}.{self.page}" + (f".{self.bad}" if self.bad else "")


@dataclass(frozen=True, slots=True)
class HostStep:
    """The host does something behind KVM's back, of which L1 and L2 must notice nothing.

    ``nx-off`` and ``nx-force`` set kvm.nx_huge_pages; ``age`` marks every page idle; ``log`` and ``unlog`` begin and
    end dirty logging under QEMU; ``remap`` gives L1's ``page`` another page of the host's with the same bytes;
    ``save`` saves the virtual CPU's state, L1's between two VM entries, and restores it.
    """

    what: str
    page: str = ""

    def __str__(self) -> str:
        return f"host.{self.what}" + (f".{self.page}" if self.page else "")


@dataclass(frozen=True, slots=True)
class Vmx:
    """Another instruction of L1's for virtual machines.

    VMCLEAR and VMPTRLD have a ``region``: the two that VM entries use (``a``, ``b``), two that nothing else uses
    (``c``, ``d``), one of another revision (``rev``), the VMXON region (``on``), an address that is not a page's
    (``odd``), one beyond MAXPHYADDR (``far``). VMREAD and VMWRITE have a ``field``, its encoding (64 bits), and VMWRITE
    a ``value``.
    """

    what: str
    region: str = ""
    field: int = 0
    value: int = 0

    def __str__(self) -> str:
        if self.what == "vmwrite":
            return f"vmwrite.{self.field:x}={self.value:x}"
        if self.what == "vmread":
            return f"vmread.{self.field:x}"
        return f"{self.what}.{self.region}" if self.region else self.what


@dataclass(frozen=True, slots=True)
class Touch:
    """L2 accesses a page: reads 4 bytes, writes them, adds to them under LOCK, or jumps to it."""

    access: Access
    page: str

    def __str__(self) -> str:
        return f"{self.access.value}.{self.page}"


@dataclass(frozen=True, slots=True)
class Over:
    """L2 accesses 8 bytes that lie in a page and the one behind it: an answer for each of the two.

    ``readx``, ``writex`` and ``rmwx`` (under LOCK) do it at once, ``fetchx`` runs an instruction that begins in the
    first page and ends in the other; ``stos`` is REP STOSB, ``movs`` REP MOVSB from the page ``source`` and its next.
    """

    what: str
    page: str
    source: str = ""

    @property
    def pages(self) -> tuple[str, str]:
        """The two pages that are accessed, of MOVS those that are written."""
        return self.page, _next(self.page)

    @property
    def sources(self) -> tuple[str, str] | None:
        """The two pages that MOVS reads."""
        return (self.source, _next(self.source)) if self.source else None

    @property
    def writes(self) -> bool:
        """Whether it writes ``pages``."""
        return self.what in ("writex", "rmwx", "stos", "movs")

    def __str__(self) -> str:
        return f"{self.what}.{self.source}.{self.page}" if self.source else f"{self.what}.{self.page}"


def _next(page: str) -> str:
    return f"{page[0]}{int(page[1]) + 1}"


@dataclass(frozen=True, slots=True)
class Toggle:
    """L2 sets a bit of its own state by MOV to CR0 or CR4, NXE by WRMSR to EFER, at CPL 0."""

    name: str
    value: int

    def __str__(self) -> str:
        return f"{self.name}{self.value}"


@dataclass(frozen=True, slots=True)
class Flush:
    """L2 loads CR3 anew (``page`` empty) or executes INVLPG of a page, at CPL 0."""

    page: str = ""

    def __str__(self) -> str:
        return f"invlpg.{self.page}" if self.page else "cr3"


@dataclass(frozen=True, slots=True)
class Saved:
    """L2 calls the host, which saves the virtual CPU's state in the middle of L2 and restores it."""

    def __str__(self) -> str:
        return SAVE


Op: TypeAlias = Touch | Over | Toggle | Flush | LoadCr3 | SetGuest | SetPdpte | Saved


@dataclass(frozen=True, slots=True)
class L2Run:
    """A VM entry and what L2 does until it exits, at the latest by the VMCALL behind its last part."""

    ops: tuple[Op, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.ops))

    @property
    def answers(self) -> int:
        """How many answers it has: one an access of a page, two an access over two."""
        return sum(2 if isinstance(op, Over) else isinstance(op, Touch) for op in self.ops)

    @property
    def leaves(self) -> dict[str, int]:
        """The controls that the VM entries behind it have, by name: what L2 makes of its own state, come what may."""
        toggled = {op.name: op.value for op in self.ops if isinstance(op, Toggle)}
        loaded = [op.number for op in self.ops if isinstance(op, LoadCr3)]
        return toggled | ({"cr3": loaded[-1]} if loaded else {})


Step: TypeAlias = (
    SetEntry | SetGuest | SetGuestUpper | SetPdpte | Look | Control | Invept | Invvpid | Vmx | HostStep | L2Run
)

REGIONS: Final = ("a", "b", "c", "d", "rev", "on", "odd", "far")
SAVE: Final = "save"
HOST_STEPS: Final = ("nx-off", "nx-force", "age", "log", "unlog", SAVE)

NO_TARGET: Final = 3  # a CR3-target value that no CR3 of L2's has
CONTROLS: Final[dict[str, tuple[tuple[int, ...], int]]] = {  # name: the values that it may have, the one at the start
    "mbec": ((0, 1), 0),
    "ad": ((0, 1), 0),  # EPTP bit 6
    "root": ((0, 1), 0),
    "vpid": ((0, 1, 2), 0),  # 0: the control is clear
    "vmcs": ((0, 1), 0),
    "cpl": ((0, 3), 0),
    "wp": ((0, 1), 1),
    "smep": ((0, 1), 0),
    "smap": ((0, 1), 0),
    "nxe": ((0, 1), 1),
    "pge": ((0, 1), 0),
    "pse": ((0, 1), 0),
    "pg": ((0, 1), 0),  # 1: PAE paging, in 32-bit protected mode
    "cr3": (CR3S, 0),
    "efer": ((0, 1), 1),  # whether the VM entry loads EFER; it does not: NXE is L1's own, which is 0
    "msrs": ((0, 1, 2, 3), 0),  # the MSR bitmap: none, one that has nothing exit, writes of EFER, reads of it
    "cr3exit": ((0, 1), 0),  # CR3-load exiting
    "targets": ((0, 1, 2, 3, 4, 5), 0),  # the CR3-target count
    **{f"target{n}": ((*CR3S, NO_TARGET), NO_TARGET) for n in range(4)},  # the CR3-target values
}
_WORDS: Final = {  # how the values of a control are written where they are no numbers
    "mbec": ("off", "on"),
    "pg": ("64", "pae"),
    "msrs": ("none", "pass", "write", "read"),
    **{f"target{n}": (*map(str, CR3S), "none") for n in range(4)},
}
TOGGLES: Final = ("wp", "smep", "smap", "pge", "pse", "nxe")


def words_of(name: str) -> tuple[str, ...]:
    """How the values of a control are written, in their order."""
    return _WORDS.get(name) or tuple(map(str, CONTROLS[name][0]))


BAD_EPTP: Final = ("reserved", "memtype", "walk")  # bits 11:7, bits 2:0, bits 5:3
BAD_VPID: Final = ("reserved", "noncanonical")

_PAGE = r"[abc][0-7]"
_ENTRY = "|".join([*UPPER_ENTRIES, "t[012][0-7]"])
_TARGET = r"none|d[12]|m[012]|t[012]|[pq][0-7]|g[01]"
_SET_ENTRY = re.compile(
    rf"(?P<entry>{_ENTRY})=(?P<target>{_TARGET})(?:\.(?P<perm>[rwxu-]{{4}}))?(?:\.mt(?P<mt>[0-7]))?(?P<clean>\.clean)?"
    r"(?:\.x(?P<bits>[0-9a-f]+))?"
)
_SET_GUEST = re.compile(
    rf"(?P<by>g|pte)\.(?P<page>{_PAGE})=(?P<target>none|{_PAGE}|[pq][0-7])(?:\.(?P<perm>[us][wr][xn]))?"
    r"(?P<clean>\.clean)?"
)
_SET_UPPER = re.compile(r"gu\.(?P<window>[abc])=(?P<perm>[us][wr][xn])(?P<clean>\.clean)?")
_LOOK = re.compile(rf"look\.(?P<entry>{_ENTRY}|g\.{_PAGE}|gu\.[abc]|{LOOKED_AT})")
_CONTROL = re.compile(rf"(?P<name>{'|'.join(CONTROLS)})=(?P<value>\w+)")
_INVEPT = re.compile(rf"invept(?P<type>\d+)\.(?P<root>r[01])(?:\.(?P<bad>{'|'.join(BAD_EPTP)}))?")
_INVVPID = re.compile(rf"invvpid(?P<type>\d+)\.(?P<vpid>[0-2])\.(?P<page>{_PAGE})(?:\.(?P<bad>{'|'.join(BAD_VPID)}))?")
_VMCS = re.compile(rf"(?P<what>vmclear|vmptrld)\.(?P<region>{'|'.join(REGIONS)})")
_ENTRY_BY = re.compile(r"vmlaunch|vmresume")
_FIELD = re.compile(r"(?P<what>vmread|vmwrite)\.(?P<field>[0-9a-f]{1,16})(?:=(?P<value>[0-9a-f]{1,16}))?")
_HOST = re.compile(rf"host\.(?:(?P<what>{'|'.join(HOST_STEPS)})|remap\.(?P<page>[pq][0-7]))")
_TOUCH = re.compile(rf"(?P<access>read|write|rmw|fetch)\.(?P<page>{_PAGE})")
_OVER = re.compile(r"(?:(?P<what>readx|writex|rmwx|fetchx|stos)|movs\.(?P<source>[abc][0-6]))\.(?P<page>[abc][0-6])")
_TOGGLE = re.compile(rf"(?P<name>{'|'.join(TOGGLES)})(?P<value>[01])")
_FLUSH = re.compile(rf"cr3|invlpg\.(?P<page>{_PAGE})")


def _set_entry(m: re.Match[str]) -> SetEntry:
    entry, target = m["entry"], m["target"]
    perm = Perm.parse(m["perm"]) if m["perm"] else RWXU
    memtype, bits = int(m["mt"] or WRITE_BACK), int(m["bits"] or "0", 16)
    made = SetEntry(entry, target, perm, memtype, bits, bool(m["clean"]))
    level = level_of(entry)
    fits = {4: "d", 3: "m", 2: "tg", 1: "pq"}[level]
    if target != "none" and target[0] not in fits:
        raise VectorError(f"{m.string!r}: an entry at level {level} leads to one of {', '.join(fits)}, or to none")
    if not made.is_leaf and m["mt"]:
        raise VectorError(f"{m.string!r}: only an entry that maps a page has a memory type")
    return made


def _set_guest(m: re.Match[str]) -> SetGuest:
    perm = GuestPerm.parse(m["perm"]) if m["perm"] else UWX
    present = m["target"] != "none"
    return SetGuest(m["page"], m["target"] if present else "", perm, present, m["by"] == "pte", bool(m["clean"]))


def _control(m: re.Match[str]) -> Control:
    name, text = m["name"], m["value"]
    words = words_of(name)
    if text not in words:
        raise VectorError(f"{m.string!r}: {name} is one of {', '.join(words)}")
    return Control(name, CONTROLS[name][0][words.index(text)])


def _field(m: re.Match[str]) -> Vmx:
    if (m["what"] == "vmwrite") is not (m["value"] is not None):
        raise VectorError(f"{m.string!r}: write vmread.681e and vmwrite.681e=10, hexadecimal")
    return Vmx(m["what"], field=int(m["field"], 16), value=int(m["value"] or "0", 16))


def _number(m: re.Match[str]) -> int:
    if len(m["type"]) > 19:
        raise VectorError(f"{m.string!r}: the type is a register's, 64 bits")
    return int(m["type"])


_L1: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Step]], ...]] = (
    (_SET_ENTRY, _set_entry),
    (_SET_UPPER, lambda m: SetGuestUpper(m["window"], GuestPerm.parse(m["perm"]), bool(m["clean"]))),
    (_LOOK, lambda m: Look(m["entry"])),
    (_CONTROL, _control),
    (_INVEPT, lambda m: Invept(_number(m), m["root"], m["bad"] or "")),
    (_VMCS, lambda m: Vmx(m["what"], m["region"])),
    (_ENTRY_BY, lambda m: Vmx(m[0])),
    (_FIELD, _field),
    (_HOST, lambda m: HostStep(m["what"] or "remap", m["page"] or "")),
    (_INVVPID, lambda m: Invvpid(_number(m), int(m["vpid"]), m["page"], m["bad"] or "")),
)
_L2: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Op]], ...]] = (
    (_TOUCH, lambda m: Touch(Access(m["access"]), m["page"])),
    (_OVER, lambda m: Over(m["what"] or "movs", m["page"], m["source"] or "")),
    (_TOGGLE, lambda m: Toggle(m["name"], int(m["value"]))),
    (_FLUSH, lambda m: Flush(m["page"] or "")),
    (LOAD_CR3, lambda m: LoadCr3(int(m["number"]))),
    (SET_PDPTE, set_pdpte),
    (_SET_GUEST, _set_guest),
    (re.compile(SAVE), lambda _: Saved()),
)

HELP: Final = (
    "an EPT12 entry (m0=t1.r-x-, t03=p3.clean), a guest entry (g.a3=b5.urx, gu.a=srx), a look at one (look.t03, "
    "look.g.a3, look.gu.a), a control (mbec=on, ad=1, root=1, vpid=1, "
    "cpl=3, wp=0, smep=1, smap=1, nxe=0, vmcs=1, pg=pae, cr3=1, msrs=pass, cr3exit=1), a PDPTE (g.k01=e1, pdptr1=e2, "
    "look.g.k01, look.pdptr1, look.cr3), an invalidation (invept1.r0, invvpid1.1.a0), another instruction of "
    "L1's (vmclear.a, vmptrld.c, vmlaunch, vmresume, vmread.681e, vmwrite.681e=10), the host (host.log), "
    "or what L2 does, joined by commas (read.a3, write.b0, rmw.c7, fetch.a0, wp0, smep1, smap0, pge1, nxe0, "
    "cr3, cr3.1, invlpg.a3, pte.a3=b5, pte.k01=e1, save), over two pages too "
    "(readx.a3, writex.a3, rmwx.a3, fetchx.a3, stos.a3, movs.a3.b3)"
)


def answers_of(made: Step) -> int:
    """How many answers a step has: one an access of L2, one of an instruction of L1's, one of a look."""
    return made.answers if isinstance(made, L2Run) else int(isinstance(made, Invept | Invvpid | Vmx | Look))


def _op(text: str) -> Op:
    for pattern, make in _L2:
        if m := pattern.fullmatch(text):
            return make(m)
    raise VectorError(f"{text!r} is nothing that a program does: write {HELP}")


def step(text: str) -> Step:
    """The step that ``text`` says. Raises VectorError where it says none."""
    for pattern, make in _L1:
        if m := pattern.fullmatch(text):
            return make(m)
    ops = tuple(_op(part) for part in text.split(","))
    if len(ops) == 1 and isinstance(ops[0], SetGuest | SetPdpte) and not ops[0].by_l2:
        return ops[0]
    for op in ops:
        if isinstance(op, SetGuest | SetPdpte) and not op.by_l2:
            entry = op.page if isinstance(op, SetGuest) else f"k0{op.number}"
            raise VectorError(f"{text!r}: L1's write {op} is a step of its own; L2's own write is pte.{entry}=...")
    made = L2Run(ops)
    if not made.answers:
        raise VectorError(f"{text!r}: L2 accesses nothing; add read, write, rmw or fetch of a page")
    if len(ops) > MAX_OPS:
        raise VectorError(f"{text!r}: L2 does {MAX_OPS} things in a row at most; split the step")
    if any(isinstance(op, Touch) and op.access is Access.FETCH for op in ops[:-1]):
        raise VectorError(f"{text!r}: the code in a page ends with VMCALL, so a fetch is L2's last part")
    if any(isinstance(op, Over) for op in ops[:-1]):
        raise VectorError(f"{text!r}: what is written over two pages is looked for once, so it is L2's last part")
    return made


@dataclass(frozen=True)
class ProgramVector:
    """A program. Raises VectorError where its steps do not go together."""

    steps: tuple[Step, ...]
    env: str = "std"
    ept: bool = True  # L1 runs L2 with EPT; without it the guest's tables lead to L1's own pages

    def __post_init__(self) -> None:
        if not 1 <= len(self.steps) <= MAX_STEPS:
            raise VectorError(f"a program has 1 to {MAX_STEPS} steps, not {len(self.steps)}")
        if not self.outcomes:
            raise VectorError(
                f"{self.id!r} shows nothing: add an access of L2, or an instruction of L1's that may fail"
            )
        now = {name: start for name, (_, start) in CONTROLS.items()}
        for made in self.steps:
            if isinstance(made, Control):
                now[made.name] = made.value
            if isinstance(made, L2Run):
                _run_fits(made, cpl=now["cpl"], pae=bool(now["pg"]))
            self._fits(made)
            if _is_field(made) and not (self.ept and now["pg"]):
                raise VectorError(f"{str(made)!r}: the VMCS has PDPTEs for an L2 with EPT in PAE paging; write pg=pae")

    def _fits(self, made: Step) -> None:
        if not self.ept and (
            isinstance(made, SetEntry | Invept) or (isinstance(made, Look) and not (made.is_guest or made.is_cr3))
        ):
            raise VectorError(f"{str(made)!r}: in a program with noept there is no EPT12")
        if not self.ept and isinstance(made, Control) and made.name in ("mbec", "ad", "root"):
            raise VectorError(f"{str(made)!r}: in a program with noept there is no EPT pointer, nor its controls")
        for op in made.ops if isinstance(made, L2Run) else (made,):
            if isinstance(op, SetGuest) and op.present and (op.target[0] in "pq") is self.ept:
                where = "L2's pages, as in g.a3=b5" if self.ept else "L1's pages, as in g.a3=p5"
                raise VectorError(f"{str(op)!r}: the guest's entries lead to {where}")

    @property
    def outcomes(self) -> int:
        """How many answers the program has: see ``answers_of``."""
        return sum(map(answers_of, self.steps))

    @property
    def wants_mbec(self) -> bool:
        """Whether L1 ever sets mode-based execute control."""
        return any(isinstance(s, Control) and s.name == "mbec" and s.value for s in self.steps)

    @property
    def calls_host(self) -> bool:
        """Whether the host does something in the middle."""
        return any(isinstance(s, HostStep) or (isinstance(s, L2Run) and Saved() in s.ops) for s in self.steps)

    @property
    def machine(self) -> Machine:
        """The machine that the program needs."""
        return Machine(True, True, False, ENVIRONMENTS[self.env])

    def shorter(self) -> Iterator[ProgramVector]:
        """The programs that are this one without a step, or without a part of what L2 does: the last ones first."""
        for at in reversed(range(len(self.steps))):
            before, made, behind = self.steps[:at], self.steps[at], self.steps[at + 1 :]
            yield from _sound((*before, *behind), self)
            if isinstance(made, L2Run):
                for part in reversed(range(len(made.ops))):
                    ops = made.ops[:part] + made.ops[part + 1 :]
                    if L2Run(ops).answers:
                        yield from _sound((*before, L2Run(ops), *behind), self)

    @cached_property
    def id(self) -> str:
        """The name to print and type."""
        head = PREFIX + ("" if self.ept else ".noept") + (f".env={self.env}" if self.env != "std" else "")
        return SEPARATOR.join([head, *map(str, self.steps)])


def _is_field(made: Step) -> bool:
    return (isinstance(made, SetPdpte) and made.in_field) or (isinstance(made, Look) and made.is_pdpte_field)


def _run_fits(run: L2Run, *, cpl: int, pae: bool) -> None:
    """Raises VectorError where L2 cannot do this at that privilege level and in that paging."""
    if cpl == 3 and any(not isinstance(op, Touch | Over) for op in run.ops):
        raise VectorError(f"{str(run)!r}: at CPL 3 L2 can only access pages; write cpl=0 before it")
    if pae and any(isinstance(op, Over) for op in run.ops):
        raise VectorError(f"{str(run)!r}: accesses over two pages are made in long mode; write pg=64 before it")
    if isinstance(run.ops[-1], Toggle | Flush | LoadCr3):
        raise VectorError(
            f"{str(run)!r}: what a MOV to a control register or WRMSR ends in is told at the access behind it; add one"
        )


def _sound(steps: tuple[Step, ...], like: ProgramVector) -> Iterator[ProgramVector]:
    """The program of ``steps``; nothing where they do not go together."""
    try:
        yield ProgramVector(steps, like.env, like.ept)
    except VectorError:
        return


_HEAD = re.compile(rf"{PREFIX}(?P<noept>\.noept)?(?:\.env=(?P<env>\w+))?")


def is_program(text: str) -> bool:
    """Whether ``text`` begins as a program's id does."""
    return _HEAD.fullmatch(text.partition(SEPARATOR)[0]) is not None


def program(text: str) -> ProgramVector:
    """The program that an id names. Raises VectorError with reason and mend where it names none."""
    head, *steps = text.split(SEPARATOR)
    m = _HEAD.fullmatch(head)
    if m is None:
        raise VectorError(
            f"{head!r} is no head of a program: write {PREFIX}, then .noept and .env=... where they are meant"
        )
    env = m["env"] or "std"
    if env not in ENVIRONMENTS:
        raise VectorError(f"environment {env!r} is not known: use one of {', '.join(ENVIRONMENTS)}")
    made = ProgramVector(tuple(step(s) for s in steps), env, m["noept"] is None)
    if made.id != text:
        raise VectorError(f"{text!r}: write {made.id!r}: what is plain is left out, and the rest stands in this order")
    return made


def program_of_file(text: str) -> ProgramVector:
    """The program in a file: a head on the first line, or none where it is plain, then a step a line.

    Raises VectorError with the line's number where a line is no step.
    """
    lines = [(n, line.partition("#")[0].strip()) for n, line in enumerate(text.splitlines(), 1)]
    lines = [(n, line) for n, line in lines if line]
    head = PREFIX
    if lines and is_program(lines[0][1]):
        head = lines.pop(0)[1]
    steps = []
    for n, line in lines:
        try:
            steps.append(str(step(line)))
        except VectorError as error:
            raise VectorError(f"line {n}: {error}") from None
    return program(SEPARATOR.join([head, *steps]))
