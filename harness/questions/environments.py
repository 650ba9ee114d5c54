"""Other environments of the same questions: parameters of kvm_intel, and capabilities taken from L1, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Final, TypeVar

from harness.questions.client import PAGING
from harness.questions.control_bits import ENTRY, EXIT, PIN, PROC, PROC2, alone
from harness.questions.programs import PROGRAMS
from harness.questions.vm_entries import entry_checks
from kvmodel.question.program import program
from kvmodel.question.relations import EXISTENCE, OF_KVM, RELATIONS
from kvmodel.question.taken import EPT_VPID, TAKEN, Taken
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
from kvmodel.question.vm_entry import VmEntryVector, changes
from kvmodel.question.vmcs import SCRATCH

CONTROL_MSRS: Final = (0x481, 0x482, 0x483, 0x484, 0x48B, 0x48C, 0x48D, 0x48E, 0x48F, 0x490, 0x491)
SWITCH: Final = (Mbec.ON, Mbec.OFF)
LOOKS: Final = (Access.READ, Access.WRITE, Access.FETCH)
SWX: Final = GuestPerm(False, True, True)
STEPS: Final = ("read+write+fetch", "fetch+age+write", "read+log+write+fetch", "write+log+write+sync+write+unlog+read")
NO_GUEST: Final = "removed"  # its guest cannot be entered, which KVM without unrestricted guest does not even try

Asked = TypeVar("Asked", bound=Vector)


def spread(found: list[Asked], count: int) -> list[Asked]:
    """The function gives at most ``count`` of ``found``, evenly."""
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
    """The part has parameters of kvm_intel, one by one, as hosts set them, for some of all questions.

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


# --- capabilities taken from L1 ---

_DEFAULT_1: Final = {  # controls that are 1 where there are no TRUE forms (SDM A.2)
    PIN: (1, 2, 4),
    PROC: (1, 4, 5, 6, 8, 13, 14, 15, 16, 26),
    EXIT: (*range(9), 10, 11, 13, 14, 16, 17),
    ENTRY: (*range(9), 12),
}
_OF_MSR: Final = {0x481: PIN, 0x482: PROC, 0x483: EXIT, 0x484: ENTRY, 0x48B: PROC2}
NOT_OF_KVM: Final = "ve_information_address"  # a field that KVM gives no L1
READ_ONLY: Final = (0x4400, 0x4402, 0x440E, 0x6400, 0x640A, 0x2400)  # VM-exit information
_PAGING: Final = ("vmx-ept", "vmx-unrestricted-guest", "vmx-page-walk-4", "vmx-ept-2mb", "vmx-ept-1gb", "vmx-eptad")
_SOFTWARE_INTERRUPT: Final = "vm_entry_intr_info_field=80000480+vm_entry_instruction_len"
# What else rests on a capability: VM entries.
_RESTING: Final[dict[str, tuple[str, ...]]] = {
    "vmx-true-ctls": tuple(f"{field}:c{bit}" for field, bits in _DEFAULT_1.items() for bit in bits),
    "vmx-any-errcode": ("vm_entry_intr_info_field=80000b06", "vm_entry_intr_info_field=8000030d"),
    "vmx-zero-len-inject": (f"{_SOFTWARE_INTERRUPT}=0", f"{_SOFTWARE_INTERRUPT}=1"),
    "vmx-activity-hlt": ("guest_activity_state=1",),
    "vmx-ept": (f"{PROC2}:c1+{PROC2}:c7",),
    "vmx-vmfunc": (f"{PROC2}:s13+vm_function_control=1+eptp_list_address={SCRATCH:x}",),
    "vmx-eptad": ("ept_pointer:s6",),
    "vmx-page-walk-4": ("ept_pointer:s5",),
    "vmx-vnmi": (f"{PIN}:s3+{PIN}:s5+{PROC}:s22",),
    "vmx-preemption-timer": (f"{PIN}:s6+{EXIT}:s22",),
    "vmx-flexpriority": tuple(alone(PROC2, bit) for bit in (4, 8, 9)),
}


def _entries_without(taken: Taken, some: list[VmEntryVector]) -> Iterator[Vector]:
    texts = list(_RESTING.get(taken.name, ()))
    if taken.msr in _OF_MSR:
        texts += [alone(_OF_MSR[taken.msr], taken.bit), f"{_OF_MSR[taken.msr]}:c{taken.bit}"]
    for text in dict.fromkeys(texts):
        yield VmEntryVector(Mbec.OFF, env=taken.env, changes=changes(text))
    if taken.name == "vmx-unrestricted-guest":
        yield VmEntryVector(Mbec.OFF, env=taken.env, paging=Paging.OFF)
    for one in some:
        yield replace(one, env=taken.env)


def _accesses_without(taken: Taken) -> Iterator[Vector]:
    looks = (Access.READ, Access.WRITE, Access.FETCH)
    for level, leaf, access in product((1, 2, 3), map(Perm.parse, ("rwxu", "r-x-", "--xu", "r---", "----")), looks):
        yield AccessVector(Mbec.OFF, env=taken.env, leaf_level=level, leaf=leaf, upper_level=level + 1, access=access)
        if level == 1:
            yield AccessVector(Mbec.OFF, env=taken.env, leaf=leaf, access=access, ad=True)
    yield AccessVector(Mbec.OFF, env=taken.env, paging=Paging.OFF)


def without_capability() -> Iterator[Vector]:
    """The part has VMX capabilities, each taken from L1 by a property of QEMU's CPU: MSRs, and what rests on it."""
    some = spread([v for v in entry_checks() if NOT_OF_KVM not in v.id], 12)
    yield from some
    for taken in TAKEN:
        yield MsrVector(Mbec.OFF, env=taken.env, msr=taken.msr if taken.msr in CONTROL_MSRS else 0x48B)
        for relation in sorted(OF_KVM):
            if taken.msr in RELATIONS[relation] or relation in EXISTENCE:
                yield CapsVector(Mbec.OFF, env=taken.env, relation=relation)
        yield VmEntryVector(Mbec.OFF, env=taken.env)
        yield from _entries_without(taken, some)
        if taken.name in _PAGING or taken.name == "vmx-ept-advanced-exitinfo":
            yield from _accesses_without(taken)
        if taken.msr == EPT_VPID or taken.name == "vmx-vpid":
            for name in ("program_invalidations", "program_vpids"):
                yield from (replace(p, env=taken.env) for p in spread(list(PROGRAMS[name]()), 24) if p.env == "std")
        if taken.name == "vmx-vmwrite-vmexit-fields":
            for env, field in product(("std", taken.env), READ_ONLY):
                steps = f"vmclear.c+vmptrld.c+vmwrite.{field:x}=1+vmread.{field:x}"
                yield replace(program(f"prog+{steps}"), env=env)


ENVIRONMENT_PARTS: Final[dict[str, Callable[[], Iterator[Vector]]]] = {
    part.__name__: part for part in (module_parameters, without_capability)
}
