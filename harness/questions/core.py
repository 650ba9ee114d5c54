"""The space: which vectors are asked. Exhaustive cores and parts beyond, each under a name; ids are stable.

A part is a named, deterministic generator. ``core()`` is what ``kvmirror validate`` asks at every level, ``full()``
the whole space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Final

from harness.questions.client import CLIENT
from harness.questions.control_bits import CONTROL_BITS
from harness.questions.environments import CONTROL_MSRS, ENVIRONMENT_PARTS, spread
from harness.questions.programs import PROGRAMS
from harness.questions.sequences import SEQUENCES
from harness.questions.vm_entries import entry_checks
from harness.questions.vm_exits import VM_EXITS
from kvmodel.question.program import ProgramVector
from kvmodel.question.relations import EXISTENCE, RELATIONS
from kvmodel.question.vector import (
    READERS,
    RWXU,
    UWX,
    Access,
    AccessVector,
    CapsVector,
    ClientVector,
    EntryVector,
    Evmcs,
    GuestPerm,
    HostVector,
    Mbec,
    MmioVector,
    MsrVector,
    NxVector,
    Paging,
    Perm,
    UserCapsVector,
    Vector,
)

DATA = (Access.READ, Access.WRITE, Access.RMW)
ACCESSES = (*DATA, Access.FETCH)
WALKS = (Access.WALK, Access.WALKA, Access.WALKD)
EMULATED = (Access.EMUREAD, Access.EMUWRITE, Access.EMUFETCH)
SWX = GuestPerm(False, True, True)


def permissions_4k() -> Iterator[Vector]:
    """Every leaf is met with every upper entry, each access, user and supervisor page, both privilege levels."""
    for mbec, leaf, upper, access, gp, cpl in product(Mbec, Perm.all(), Perm.all(), ACCESSES, (UWX, SWX), (0, 3)):
        yield AccessVector(mbec, leaf=leaf, upper=upper, access=access, gp=gp, cpl=cpl)


def permissions_large() -> Iterator[Vector]:
    """2 MiB and 1 GiB leaves under permissive upper entries."""
    for mbec, level, leaf, access, gp, cpl in product(Mbec, (2, 3), Perm.all(), ACCESSES, (UWX, SWX), (0, 3)):
        yield AccessVector(mbec, leaf_level=level, leaf=leaf, upper_level=level + 1, access=access, gp=gp, cpl=cpl)


def page_walk() -> Iterator[Vector]:
    """The walk's own read and its accessed and dirty updates, EPT A/D off and on."""
    for mbec, leaf, access, ad in product(Mbec, Perm.all(), WALKS, (False, True)):
        yield AccessVector(mbec, leaf=leaf, access=access, ad=ad, cpl=3)


def accessed_dirty() -> Iterator[Vector]:
    """Plain accesses are made with EPT A/D on."""
    for mbec, leaf, access in product(Mbec, Perm.all(), ACCESSES):
        yield AccessVector(mbec, leaf=leaf, access=access, ad=True, cpl=3)


def supervisor_protections() -> Iterator[Vector]:
    """SMEP against fetches from user pages, SMAP against data in them, at CPL 0; WP against read-only pages."""
    for mbec, leaf in product(Mbec, Perm.all()):
        yield AccessVector(mbec, leaf=leaf, access=Access.FETCH, smep=True)
        yield AccessVector(mbec, leaf=leaf, access=Access.FETCH, gp=SWX, smep=True)
        yield AccessVector(mbec, leaf=leaf, access=Access.READ, smap=True)
        for wp in (False, True):
            yield AccessVector(mbec, leaf=leaf, access=Access.WRITE, gp=GuestPerm(True, False, True), wp=wp)


def guest_structures() -> Iterator[Vector]:
    """U/S and XD are set differently per guest level: which page is a user page, and #PF against EPT violation."""
    guests = [GuestPerm.parse(text) for text in ("uwx", "swx", "uwn", "urx")]
    for mbec, leaf, gp, gu, cpl in product(Mbec, Perm.all(), guests, guests, (0, 3)):
        if (gp, gu) not in ((UWX, UWX), (SWX, UWX)):
            yield AccessVector(mbec, leaf=leaf, access=Access.FETCH, gp=gp, gu=gu, cpl=cpl)


def paging_modes() -> Iterator[Vector]:
    """L2 has paging off (every linear address is user-mode), 32-bit or PAE paging."""
    for mbec, leaf, access in product(Mbec, Perm.all(), ACCESSES):
        yield AccessVector(mbec, leaf=leaf, access=access, paging=Paging.OFF)
    for mbec, leaf, paging, gp in product(Mbec, Perm.all(), (Paging.BITS32, Paging.PAE), (UWX, SWX)):
        yield AccessVector(mbec, leaf=leaf, access=Access.FETCH, paging=paging, gp=gp)


def entry_bits() -> Iterator[Vector]:
    """The two entries have memory types, ignored, software and reserved bits."""
    base = AccessVector(access=Access.READ)
    for mbec in Mbec:
        for memtype in range(8):
            yield replace(base, mbec=mbec, memtype=memtype)
        for bit in (6, 11, 51, 52, 57, 58, 60, 61, 62, 63):
            yield replace(base, mbec=mbec, leaf_bits=1 << bit)
        for bit in (3, 4, 5, 6, 11, 51, 52, 62, 63):
            yield replace(base, mbec=mbec, upper_bits=1 << bit)
        yield replace(base, mbec=mbec, upper_level=4, upper_bits=1 << 7)
        for level, bit in ((2, 12), (2, 20), (3, 12), (3, 29)):
            yield replace(base, mbec=mbec, leaf_level=level, upper_level=level + 1, leaf_bits=1 << bit)


def upper_levels() -> Iterator[Vector]:
    """The restricted entry is one and two levels further up."""
    for mbec, level, upper, access in product(Mbec, (3, 4), Perm.all(), (Access.READ, Access.FETCH)):
        yield AccessVector(mbec, upper_level=level, upper=upper, access=access, cpl=3)


def without_execute_only() -> Iterator[Vector]:
    """The permissions are asked again where L1 is not offered execute-only translations."""
    for mbec, leaf, access, gp in product((Mbec.ON, Mbec.OFF), Perm.all(), (Access.READ, Access.FETCH), (UWX, SWX)):
        yield AccessVector(mbec, xo=False, leaf=leaf, access=access, gp=gp)


def host_settings() -> Iterator[Vector]:
    """The host has kvm_intel without EPT A/D, and L1 on huge pages with the NX-huge-page mitigation off and forced."""
    for mbec, leaf, access, gp in product((Mbec.ON, Mbec.OFF), Perm.all(), ACCESSES, (UWX, SWX)):
        yield AccessVector(mbec, env="eptad0", leaf=leaf, access=access, gp=gp)
        for env in ("huge", "hugenx"):
            yield AccessVector(mbec, env=env, leaf_level=2, leaf=leaf, upper_level=3, access=access, gp=gp)
    for mbec, leaf, access in product((Mbec.ON, Mbec.OFF), Perm.all(), WALKS):
        yield AccessVector(mbec, env="eptad0", leaf=leaf, access=access, cpl=3)


def trace_formats() -> Iterator[Vector]:
    """The print formats of the tracepoints that the series changes are read."""
    for what in ("taccess", "tspte"):
        yield HostVector(what)


def removed_tables() -> Iterator[Vector]:
    """KVM takes down a table of its own while other CPUs may still walk it: what it leaves there is read."""
    for env in ("std", "eptad0", "cpu0"):
        yield HostVector("removed", env)


def reloaded_modules() -> Iterator[Vector]:
    """The module kvm.ko keeps something of a kvm-intel.ko that was loaded before with other parameters."""
    yield HostVector("reload")


def nx_huge_pages() -> Iterator[Vector]:
    """KVM is told to keep huge pages non-executable, and looks at the access when it maps one: what it
    installs.

    A fetch makes it map a small page; a huge one that a read brings in must not let a later fetch through.
    """
    for mbec, leaf, access in product((Mbec.ON, Mbec.OFF), Perm.all(), (Access.READ, Access.FETCH)):
        yield NxVector(AccessVector(mbec, env="hugenx", leaf_level=2, leaf=leaf, upper_level=3, access=access))


def cpu_without_mbec() -> Iterator[Vector]:
    """The host CPU lacks the control altogether."""
    for leaf, access, gp in product(Perm.all(), (Access.READ, Access.FETCH), (UWX, SWX)):
        yield AccessVector(Mbec.OFF, env="cpu0", leaf=leaf, access=access, gp=gp)


def controls() -> Iterator[Vector]:
    """VM entries and capability MSRs are asked as L1 meets them, with L1's own MMIO."""
    for env in ("std", "ept0", "eptad0", "cpu0"):
        for mbec in Mbec:
            for msr in (0x48B, 0x48C):
                yield MsrVector(mbec, env=env, msr=msr)
        for mbec, ept in product((Mbec.ON, Mbec.OFF), (True, False)):
            yield EntryVector(mbec, env=env, ept=ept)
    for mbec in (Mbec.ON, Mbec.OFF):
        for msr in (0x48B, 0x48C):
            yield MsrVector(mbec, ev=Evmcs.OFFERED, msr=msr)
            yield MsrVector(mbec, xo=False, msr=msr)
    for access in (Access.READ, Access.WRITE):
        yield MmioVector(Mbec.OFF, access=access)


def host_itself() -> Iterator[Vector]:
    """There is no L1 hypervisor: the parameter, KVM's own MSRs, and a vCPU under the small client are asked."""
    for env in ("std", "ept0", "eptad0", "cpu0"):
        for what in ("param", "m48b", "m48c"):
            yield HostVector(what, env)
        for mode, access in product(("real", "prot"), (Access.READ, Access.WRITE, Access.FETCH)):
            yield ClientVector(mode, access, "u", env)
        for access, page in product((Access.READ, Access.WRITE, Access.FETCH), "us"):
            yield ClientVector("long", access, page, env)


def evmcs() -> Iterator[Vector]:
    """Hyper-V's enlightened VMCS is offered and in use: the MSRs it filters, VM entries, and the permissions again."""
    offered = (Evmcs.OFFERED, Evmcs.USED)
    for msr, ev in product(CONTROL_MSRS, Evmcs):
        yield MsrVector(Mbec.ON, ev=ev, msr=msr)
    for ev in offered:
        yield MsrVector(Mbec.NA, ev=ev, msr=0x48B)
    for mbec, ept, ev in product(Mbec, (True, False), offered):
        yield EntryVector(mbec, ev=ev, ept=ept)
    for mbec, leaf, access, gp in product((Mbec.ON, Mbec.OFF), Perm.all(), ACCESSES, (UWX, SWX)):
        yield AccessVector(mbec, ev=Evmcs.USED, leaf=leaf, access=access, gp=gp)
    for leaf, access, ad in product(Perm.all(), WALKS, (False, True)):
        yield AccessVector(Mbec.ON, ev=Evmcs.USED, leaf=leaf, access=access, ad=ad, cpl=3)


def capabilities() -> Iterator[Vector]:
    """The VMX capability MSRs are held against each other, as L1 and user space read them: what one needs of another.

    L1 with and without MBEC, execute-only translations and the enlightened VMCS; a vCPU's, and /dev/kvm's own.
    """
    envs = ("std", "ept0", "eptad0", "cpu0")
    for relation in RELATIONS:
        for env in envs:
            yield CapsVector(Mbec.ON, env=env, relation=relation)
        yield CapsVector(Mbec.NA, relation=relation)
        yield CapsVector(Mbec.ON, xo=False, relation=relation)
        yield CapsVector(Mbec.ON, ev=Evmcs.OFFERED, relation=relation)
        if relation not in EXISTENCE:
            for reader, env in product(READERS, envs):
                yield UserCapsVector(relation, reader, env)


def emulated() -> Iterator[Vector]:
    """A MOVS between the page and an address without memory: KVM emulates it and reaches the page by L1's entries."""
    for access, mbec, leaf, gp in product(EMULATED, (Mbec.ON, Mbec.OFF), Perm.all(), (UWX, SWX)):
        for cpl in (0, 3) if gp.u else (0,):
            yield AccessVector(mbec, leaf=leaf, access=access, gp=gp, cpl=cpl)
    for access, mbec, upper in product(EMULATED, (Mbec.ON, Mbec.OFF), Perm.all()):
        yield AccessVector(mbec, upper=upper, access=access, ad=True)


CORE: dict[str, Callable[[], Iterator[Vector]]] = {
    part.__name__: part
    for part in (
        host_itself,
        controls,
        permissions_4k,
        permissions_large,
        page_walk,
        accessed_dirty,
        supervisor_protections,
        guest_structures,
        paging_modes,
        entry_bits,
        upper_levels,
        without_execute_only,
        host_settings,
        cpu_without_mbec,
    )
}


# What is asked beyond the core, part by part.
BEYOND: dict[str, Callable[[], Iterator[Vector]]] = {
    evmcs.__name__: evmcs,
    emulated.__name__: emulated,
    capabilities.__name__: capabilities,
    reloaded_modules.__name__: reloaded_modules,
    **SEQUENCES,
    **PROGRAMS,
    **CLIENT,
    **ENVIRONMENT_PARTS,
    **CONTROL_BITS,
    **VM_EXITS,
}

IN_REGRESS: Final = 160  # of a part on the plain machine, an eighth of that on other machines
WHOLE_IN_REGRESS: Final = (
    "entry_checks",
    "program_saved",
    "exit_owned_bits",
    "exit_bitmaps",
)  # each vector is another clause or state
FEWER_IN_REGRESS: Final = dict.fromkeys(VM_EXITS, 100)  # of parts that ask much like WHOLE_IN_REGRESS
# Of the environments that are a parameter or a capability taken: each is a load of the modules or a start of QEMU.
IN_REGRESS_TOO: Final = ("ug0", "vpid0", "no_ept_1gb", "no_invept_all_context")
PLAIN_MACHINE: Final = AccessVector().machine

# What KVM's tracepoints answer.
TRACED: dict[str, Callable[[], Iterator[Vector]]] = {
    part.__name__: part for part in (nx_huge_pages, removed_tables, trace_formats)
}


# What the manual checks at VM entry.
ENTRIES: dict[str, Callable[[], Iterator[Vector]]] = {entry_checks.__name__: entry_checks}


def _all(parts: Mapping[str, Callable[[], Iterator[Vector]]]) -> list[Vector]:
    seen: dict[str, Vector] = {}
    for part in parts.values():
        for vector in part():
            seen.setdefault(vector.id, vector)
    return list(seen.values())


def core() -> list[Vector]:
    """These are the core vectors, each once, in a fixed order."""
    return _all(CORE)


def full() -> list[Vector]:
    """This is the core and what is beyond it."""
    return _all(PARTS)


def thin() -> list[Vector]:
    """This is a handful that touches every real part: what the tests and a first look run."""
    return [
        HostVector("param"),
        ClientVector("real", Access.FETCH, "u"),
        ClientVector("long", Access.FETCH, "s"),
        MsrVector(Mbec.OFF, msr=0x48B),
        EntryVector(Mbec.OFF, ept=True),
        *(
            AccessVector(Mbec.OFF, leaf=leaf, access=access, gp=gp)
            for leaf in (
                RWXU,
                Perm(True, False, False, False),
                Perm(True, True, True, False),
                Perm(False, True, False, False),
            )
            for access in ACCESSES
            for gp in (UWX, SWX)
        ),
    ]


def sequences() -> list[Vector]:
    """This is every sequence of accesses of one L2."""
    return _all(SEQUENCES)


def programs() -> list[Vector]:
    """This is every program: steps of L1 and L2 on tables that are shared, swapped, invalidated."""
    return _all(PROGRAMS)


def client() -> list[Vector]:
    """This is everything that the small KVM client is asked in several steps."""
    return _all(CLIENT)


def regress() -> list[Vector]:
    """The space has some of every part, for a look at each build."""
    most = {n: FEWER_IN_REGRESS.get(n, IN_REGRESS) for n in PARTS}
    return _all({n: part if n in WHOLE_IN_REGRESS else partial(_regress, part, most[n]) for n, part in PARTS.items()})


def _regress(part: Callable[[], Iterator[Vector]], most: int) -> Iterator[Vector]:
    found = [v for v in part() if v.machine.env.common or v.machine.env.name in IN_REGRESS_TOO]
    plain = [v for v in found if _is_cheap(v)]
    yield from spread(plain, most)
    yield from spread([v for v in found if not _is_cheap(v)], IN_REGRESS // 8)


def _is_cheap(vector: Vector) -> bool:
    """What is asked in one batch of the plain machine costs next to nothing; another machine does, and a call to the
    host in the middle, which may wait for it for a second."""
    waits = isinstance(vector, ProgramVector) and vector.calls_host
    return vector.machine == PLAIN_MACHINE and not waits


_SPACES = (core, full, regress, sequences, programs, client, thin)
SPACES: dict[str, Callable[[], list[Vector]]] = {space.__name__: space for space in _SPACES}
PARTS: dict[str, Callable[[], Iterator[Vector]]] = CORE | BEYOND | TRACED | ENTRIES

# What a user may name: whole spaces, and every part of them.
NAMES: tuple[str, ...] = (*SPACES, *PARTS)


def named(name: str) -> list[Vector] | None:
    """The function gives the vectors of a space or a part; None where nothing has that name."""
    found = SPACES.get(name) or PARTS.get(name)
    return None if found is None else list(found())


# What a space is made of; the thin one is no sum of parts.
_MADE_OF: dict[str, Mapping[str, Callable[[], Iterator[Vector]]]] = {
    core.__name__: CORE,
    full.__name__: PARTS,
    programs.__name__: PROGRAMS,
    sequences.__name__: SEQUENCES,
    client.__name__: CLIENT,
}


def parts_of(names: Iterable[str]) -> dict[str, list[Vector]]:
    """The parts behind what a user named, each with its vectors; ids and files of ids are none."""
    chosen = [part for name in names for part in _MADE_OF.get(name, (name,))]
    return {name: found for name in dict.fromkeys(chosen) if (found := named(name)) is not None}


def about(name: str) -> str:
    """The function says what a space or a part is for, in one sentence or two."""
    return " ".join(((SPACES.get(name) or PARTS[name]).__doc__ or "").split())
