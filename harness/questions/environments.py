"""Other environments of the same questions: parameters of kvm_intel, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Final, TypeVar

from harness.questions.client import PAGING
from harness.questions.programs import PROGRAMS
from harness.questions.vm_entries import entry_checks
from kvmodel.question.relations import EXISTENCE, RELATIONS
from kvmodel.question.vector import (
    PARAMETERS,
    UWX,
    Access,
    AccessVector,
    CapsVector,
    ClientSequence,
    ClientVector,
    EntryVector,
    GuestPerm,
    HostVector,
    Mbec,
    MmioVector,
    MsrVector,
    Paging,
    Perm,
    UserCapsVector,
    Vector,
)

CONTROL_MSRS: Final = (0x481, 0x482, 0x483, 0x484, 0x48B, 0x48C, 0x48D, 0x48E, 0x48F, 0x490, 0x491)
SWITCH: Final = (Mbec.ON, Mbec.OFF)
LOOKS: Final = (Access.READ, Access.WRITE, Access.FETCH)
SWX: Final = GuestPerm(False, True, True)
STEPS: Final = ("read+write+fetch", "fetch+age+write", "read+log+write+fetch", "write+log+write+sync+write+unlog+read")
NO_GUEST: Final = "removed"  # its guest cannot be entered, which KVM without unrestricted guest does not even try

Asked = TypeVar("Asked", bound=Vector)


def spread(found: list[Asked], count: int) -> list[Asked]:
    """At most ``count`` of ``found``, evenly."""
    return found[:: -(-len(found) // count)] if found and count else []


def _of_host(env: str) -> Iterator[Vector]:
    for what in ("param", "m48b", "m48c", *((NO_GUEST,) if env != "ug0" else ())):
        yield HostVector(what, env)
    for mode, access in product(("real", "prot"), LOOKS):
        yield ClientVector(mode, access, "u", env)
    for access, page in product(LOOKS, "us"):
        yield ClientVector("long", access, page, env)
    for (mode, page), size, text in product(PAGING, ("4k", "2m"), STEPS):
        yield ClientSequence(mode, page, size, tuple(text.split("+")), env)


def _capabilities(env: str) -> Iterator[Vector]:
    for msr in CONTROL_MSRS:
        yield MsrVector(Mbec.ON, env=env, msr=msr)
    for relation in RELATIONS:
        yield CapsVector(Mbec.ON, env=env, relation=relation)
        if relation not in EXISTENCE:
            yield UserCapsVector(relation, "kvm", env)


def _accesses(env: str) -> Iterator[Vector]:
    for mbec, leaf, access in product(SWITCH, Perm.all(), LOOKS):
        yield AccessVector(mbec, env=env, leaf=leaf, access=access, gp=SWX if access is Access.FETCH else UWX)
    for leaf, access in product(Perm.all(), (Access.WALK, Access.WALKD)):
        yield AccessVector(Mbec.OFF, env=env, leaf=leaf, access=access, cpl=3, ad=access is Access.WALKD)
    for leaf, paging in product(Perm.all(), (Paging.OFF, Paging.BITS32, Paging.PAE)):
        yield AccessVector(Mbec.OFF, env=env, leaf=leaf, access=Access.FETCH, paging=paging)


def _programs(env: str) -> Iterator[Vector]:
    for name, part in PROGRAMS.items():
        plain = [p for p in part() if p.env == "std"]
        silent, calling = ([p for p in plain if p.calls_host is calls] for calls in (False, True))
        yield from (replace(p, env=env) for p in spread(silent, 24 if name == "program_vmcs" else 6))
        if env == "pml0":  # the host's dirty logging takes another way
            yield from (replace(p, env=env) for p in spread(calling, 8))


def module_parameters() -> Iterator[Vector]:
    """Parameters of kvm_intel, one by one, as hosts set them: some of the questions to the host, L1 and L2.

    VM entries are asked of the plain host as well, so that what it shows already is told once.
    """
    entries = spread(list(entry_checks()), 60)
    yield from entries
    for name in (env.name for env in PARAMETERS):
        yield from _of_host(name)
        yield from _capabilities(name)
        for mbec, ept in product(SWITCH, (True, False)):
            yield EntryVector(mbec, env=name, ept=ept)
        yield MmioVector(Mbec.OFF, env=name)
        yield from _accesses(name)
        yield from _programs(name)
        yield from (replace(v, env=name) for v in entries)


ENVIRONMENT_PARTS: Final[dict[str, Callable[[], Iterator[Vector]]]] = {
    part.__name__: part for part in (module_parameters,)
}
