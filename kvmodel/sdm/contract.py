"""The contract: for a vector and the virtual CPU as L1 reads it, every answer the manual allows."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from kvmodel.bits import GENMASK
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import THEN, Allowed, Kind, NotApplicable, Outcome, Place, of_turns
from kvmodel.question.program import ProgramVector
from kvmodel.question.relations import OF_KVM
from kvmodel.question.sequence import SequenceVector, Turn
from kvmodel.question.vector import (
    Access,
    AccessVector,
    CapsVector,
    ClientSequence,
    ClientVector,
    EntryVector,
    HostVector,
    LogVector,
    Mbec,
    MmioVector,
    MsrVector,
    NxVector,
    Paging,
    UserCapsVector,
    UserMsrVector,
    Vector,
)
from kvmodel.question.vm_entry import VmEntryVector
from kvmodel.question.vm_exit import VmExitVector
from kvmodel.sdm import client, controls, ept, errata, guest_paging, msrs, vm_entry, vm_exit
from kvmodel.sdm import program as programs
from kvmodel.sdm import sequence as sequences
from kvmodel.sdm.access import Linear, Use
from kvmodel.sdm.rules import RULES
from kvmodel.sdm.vm_entry_state import vmcs_of

TARGET = Place("target")
GUEST_TABLE = Place("gpt")
PERMISSIVE = 7 | ept.USER_EXECUTE | ept.ACCESSED | ept.DIRTY  # an entry of the probe's that is not under test
WRITE_BACK = 6 << 3
ERROR_CODE = GENMASK(31, 0)

FINAL_USE = {  # what is made of the page or the guest entry itself
    Access.READ: Use.READ,
    Access.WRITE: Use.WRITE,
    Access.RMW: Use.RMW,
    Access.FETCH: Use.FETCH,
    Access.WALK: Use.READ,
    Access.WALKA: Use.READ,
    Access.WALKD: Use.WRITE,
    Access.EMUREAD: Use.READ,
    Access.EMUWRITE: Use.WRITE,
    Access.EMUFETCH: Use.FETCH,
}


def _allowed(outcome: Outcome, rule: str) -> Allowed:
    return Allowed(outcome, rule, RULES[rule].section)


def _aside(rule: str) -> NotApplicable:
    return NotApplicable(rule, RULES[rule].text)


def entries(vector: AccessVector) -> tuple[tuple[int, int], ...]:
    """(level, 64-bit entry) from level 4 down to the leaf, as the probe makes them; addresses are left 0."""
    found = []
    for level in range(4, vector.leaf_level - 1, -1):
        if level == vector.leaf_level:
            entry = vector.leaf.bits | vector.memtype << 3 | vector.leaf_bits
            entry |= ept.PAGE_SIZE if level > 1 else 0
        elif level == vector.upper_level:
            entry = vector.upper.bits | vector.upper_bits
        else:
            entry = PERMISSIVE
        found.append((level, entry))
    return tuple(found)


def linear(vector: AccessVector) -> Linear:
    """What the guest's paging makes of the address accessed."""
    return guest_paging.linear(guest_paging.mode_of(vector), (vector.gu, vector.gp))


def _walk(cpu: Cpu, vector: AccessVector, use: Use) -> Allowed | None:
    """What the entries under test make of ``use``: an answer, None where it is permitted."""
    walked = ept.walk(cpu, entries(vector), use, mbec=vector.mbec is Mbec.ON, ad=vector.ad, linear=linear(vector))
    gpa = GUEST_TABLE if use.is_structure else TARGET
    match walked:
        case ept.Violation(qualification=code, defined=defined):
            told = Outcome(Kind.VIOLATION, code=code & defined, defined=defined, gpa=gpa, gla=TARGET)
            return _allowed(told, walked.rule)
        case ept.Misconfig():
            return _allowed(Outcome(Kind.MISCONFIG, gpa=gpa), walked.rule)
        case _:
            return None


DONE = Outcome(Kind.DONE, defined=0)


def _access(cpu: Cpu, vector: AccessVector) -> tuple[Allowed, ...] | NotApplicable:
    if not cpu.vmx:
        return _aside("na-no-vmx")
    if vector.paging is Paging.OFF:
        if vector.access.is_walk:
            return _aside("na-walk-without-paging")
        if not cpu.unrestricted:
            return _aside("na-needs-unrestricted-guest")
    refused = controls.entry_failure(cpu, ept=True, mbec=vector.mbec is Mbec.ON, ad=vector.ad)
    if refused:
        return (_allowed(controls.failed(), refused),)
    final = FINAL_USE[vector.access]
    fault = guest_paging.fault(guest_paging.mode_of(vector), (vector.gu, vector.gp), final)
    page_fault = None
    if fault is not None:
        taken = Outcome(
            Kind.EXCEPTION, code=fault.error, number=guest_paging.PAGE_FAULT, gla=TARGET, defined=ERROR_CODE
        )
        page_fault = _allowed(taken, fault.rule)
    if not vector.access.is_walk:
        return (page_fault or _walk(cpu, vector, final) or _allowed(DONE, "ept-permitted"),)
    # a reserved bit above the table under test ends the walk before it gets there
    reached = not guest_paging.is_reserved(guest_paging.mode_of(vector), vector.gu)
    if reached and (seen := _walk(cpu, vector, Use.WALK)):
        return (seen,)
    update = None if vector.access is Access.WALK else _walk(cpu, vector, Use.UPDATE)
    if page_fault is None:
        return (update or _allowed(DONE, "ept-permitted"),)
    if update is not None and vector.access is Access.WALKA and page_fault.rule == "guest-protection":
        return (page_fault, _allowed(update.outcome, "guest-accessed-before-fault"))
    return (page_fault,)


def _cacheable(cpu: Cpu, vector: AccessVector) -> bool:
    """Whether the entries under test are present and not misconfigured: only such are cached (SDM 29.4.2)."""
    mbec = vector.mbec is Mbec.ON
    return all(
        ept.is_present(entry, mbec=mbec) and ept.misconfiguration(cpu, entry, level, mbec=mbec) is None
        for level, entry in entries(vector)
    )


def _entry(cpu: Cpu, vector: EntryVector) -> tuple[Allowed, ...] | NotApplicable:
    if not cpu.vmx:
        return _aside("na-no-vmx")
    refused = controls.entry_failure(cpu, ept=vector.ept, mbec=vector.mbec is Mbec.ON, ad=False)
    if refused:
        return (_allowed(controls.failed(), refused),)
    return (_allowed(DONE, "entry-succeeds"),)


def _vm_entry(cpu: Cpu, vector: VmEntryVector) -> tuple[Allowed, ...] | NotApplicable:
    if not cpu.vmx:
        return _aside("na-no-vmx")
    if not cpu.msrs:
        return _aside("na-msrs-not-read")
    found = vm_entry.outcomes(vmcs_of(cpu, vector))
    return tuple(_allowed(outcome, rule) for outcome, rule in found) or _aside("na-vmcs-undecided")


def _told(row: vm_exit.Row) -> Allowed:
    each = [_allowed(*one) for one in row]
    names, sections = (THEN.join(words) for words in zip(*((a.rule, a.section) for a in each), strict=True))
    return Allowed(of_turns(a.outcome for a in each), names, sections)


def _vm_exit(cpu: Cpu, vector: VmExitVector) -> tuple[Allowed, ...] | NotApplicable:
    """A row of what the exit tells, or the failure of the VM entry before it."""
    if not cpu.vmx:
        return _aside("na-no-vmx")
    if not cpu.msrs:
        return _aside("na-msrs-not-read")
    vmcs = vmcs_of(cpu, vector)
    found: list[Allowed] = []
    for outcome, rule in vm_entry.outcomes(vmcs):
        if outcome != vm_entry.ENTERED:
            found.append(_allowed(outcome, rule))
        elif rows := vm_exit.told(vmcs, vector):
            found += [_told(row) for row in rows]
        else:
            return _aside("na-exit-undecided")
    return tuple(found) or _aside("na-vmcs-undecided")


def _nx(cpu: Cpu, vector: NxVector) -> tuple[Allowed, ...] | NotApplicable:
    """The one rule that is the host's own: it holds whatever becomes of an access that L2 gets to make."""
    found = _access(cpu, vector.asked)
    if isinstance(found, NotApplicable) or found[0].outcome.kind is Kind.ENTRY_FAIL:
        return found
    return (_allowed(DONE, "host-nx-spte"),)


def _readings(found: tuple[tuple[Outcome, str], ...]) -> tuple[Allowed, ...] | NotApplicable:
    return tuple(_allowed(outcome, rule) for outcome, rule in found) or _aside("na-other-msr")


_HOST_MSRS = {"m48b": msrs.PROCBASED_CTLS2, "m48c": msrs.EPT_VPID_CAP}


def answers(cpu: Cpu, vector: Vector) -> tuple[Allowed, ...] | NotApplicable:
    """What ``cpu`` may answer, its errata included: ``allowed`` for a sound CPU."""
    if vector.machine.env.taken is not None and not cpu.msrs:
        return _aside("na-msrs-not-read")
    match vector:
        case AccessVector():
            return _access(cpu, vector)
        case ProgramVector():
            return programs.answers(cpu, vector)
        case SequenceVector():
            return sequences.answers(cpu, vector, _access, _cacheable)
        case NxVector():
            return _nx(cpu, vector)
        case EntryVector():
            return _entry(cpu, vector)
        case VmEntryVector():
            return _vm_entry(cpu, vector)
        case VmExitVector():
            return _vm_exit(cpu, vector)
        case MsrVector():
            return _readings(msrs.readings(cpu, vector.msr))
        case CapsVector() | UserCapsVector():
            if vector.machine.env.taken is not None and vector.relation not in OF_KVM:
                return _aside("na-capability-taken")
            together = _allowed(Outcome(Kind.VALUE), f"caps-{vector.relation}")
            return (together,) if cpu.vmx else _aside("na-no-vmx")
        case MmioVector() | ClientVector():
            return (_allowed(DONE, "own-access"),)
        case ClientSequence():
            return (_allowed(*client.promised(vector)),)
        case UserMsrVector():
            return tuple(_allowed(*client.taken(vector, *reading)) for reading in msrs.values(vector.msr))
        case HostVector(what="removed"):
            return (_allowed(DONE, "host-removed-entry"),)
        case HostVector(what="reload"):
            return (_allowed(DONE, "host-parameter-kept"),)
        case HostVector(what="log") | LogVector():
            return (_allowed(DONE, "host-log"),)
        case HostVector() if vector.what in _HOST_MSRS:
            return _readings(msrs.values(_HOST_MSRS[vector.what]))
        case _:
            return _aside("na-not-architectural")


def allowed(cpu: Cpu, vector: Vector) -> tuple[Allowed, ...] | NotApplicable:
    """Every answer the manual allows to ``vector`` on the virtual CPU ``cpu``, as L1 reads it, or why none is said.

    A VIOLATION's ``defined`` leaves out the bits that are undefined or the implementation's choice; addresses are
    exact. MSR values are judged for consistency only. Errata of ``cpu`` are no excuse: they are not looked at.
    """
    return answers(replace(cpu, errata=frozenset()) if cpu.errata else cpu, vector)


def allowed_beside(cpu: Cpu, vector: Vector, seen: Outcome) -> tuple[Allowed, ...] | NotApplicable:
    """``allowed`` as far as it bears on what was ``seen``: of a program only the rows that begin as that does."""
    if isinstance(vector, ProgramVector):
        return programs.answers(replace(cpu, errata=frozenset()) if cpu.errata else cpu, vector, seen)
    return allowed(cpu, vector)


def stale(cpu: Cpu, turns: tuple[Turn, ...], seen: Outcome) -> bool:
    """Whether ``seen``, the outcome of the last of ``turns``, goes by what the entries or controls were before."""
    return len(turns) > 1 and sequences.stale(cpu, turns, seen, _access)


def explaining(cpu: Cpu, vector: Vector, seen: Outcome) -> frozenset[str] | None:
    """The fewest known errata by which ``seen`` is what ``cpu`` would answer; empty for a legal answer.

    None where no combination explains it (an erratum not known yet), or where the contract does not decide.
    """
    for count in range(len(errata.ERRATA) + 1):
        for names in combinations(sorted(errata.ERRATA), count):
            known = replace(cpu, errata=frozenset(names))
            found = (
                programs.answers(known, vector, seen) if isinstance(vector, ProgramVector) else answers(known, vector)
            )
            if isinstance(found, tuple) and any(a.outcome.matches(seen) for a in found):
                return frozenset(names)
    return None
