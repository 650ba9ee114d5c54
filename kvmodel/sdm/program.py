"""A program on a CPU: after each step every answer that the manual allows, with what the CPU may have cached.

An access goes by the tables as they are, or from any cached part of a walk on (``kvmodel.sdm.program_tables``); what
was seen of it takes away what the CPU must have forgotten by then. So a program has one state at each step, however
many rows of answers it allows.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Final

from kvmodel.cpu import Cpu
from kvmodel.question.outcome import THEN, Allowed, Kind, NotApplicable, Outcome, Place, of_turns
from kvmodel.question.program import (
    Control,
    Flush,
    HostStep,
    Invept,
    Invvpid,
    L2Run,
    Look,
    ProgramVector,
    SetEntry,
    SetGuest,
    SetGuestUpper,
    Toggle,
    Touch,
    Vmx,
)
from kvmodel.question.vector import Access
from kvmodel.sdm import controls, ept, guest_paging, invalidation
from kvmodel.sdm.access import Linear, Use
from kvmodel.sdm.program_flags import EntryFlags
from kvmodel.sdm.program_tables import Mapping, ProgramTables, offset_of, page_number, reached
from kvmodel.sdm.rules import RULES
from kvmodel.sdm.vmx_instructions import VmcsState

INVALID_OPERAND: Final = 28  # VM-instruction error: invalid operand to INVEPT/INVVPID (SDM 31.4)

USES: Final = {
    Access.READ: Use.READ,
    Access.WRITE: Use.WRITE,
    Access.RMW: Use.RMW,
    Access.FETCH: Use.FETCH,
}


def _allowed(outcome: Outcome, rule: str) -> Allowed:
    return Allowed(outcome, rule, RULES[rule].section)


UNREACHED: Final = _allowed(Outcome(Kind.UNREACHED), "program-unreached")
DONE: Final = _allowed(Outcome(Kind.DONE, defined=0), "invalidation-done")
UNDEFINED: Final = _allowed(Outcome(Kind.EXCEPTION, number=invalidation.INVALID_OPCODE), "invalidation-undefined")


def _reached(name: str, rule: str) -> Allowed:
    return _allowed(reached(page_number(name)), rule)


def _translated(m: ProgramTables, touch: Touch, gla: Place, mapping: Mapping, linear: Linear) -> Iterator[Allowed]:
    """What EPT makes of an access that the guest's own tables let through."""
    window, number = mapping.leads[0], int(mapping.leads[1])
    gpa = Place(mapping.leads, gla.offset)
    for entries, leads, mbec, stale in m.walks(window, number):
        walked = ept.walk(m.cpu, entries, USES[touch.access], mbec=mbec, ad=bool(m.controls["ad"]), linear=linear)
        match walked:
            case ept.Translated():
                found = _reached(leads, walked.rule)
            case ept.Violation():
                outcome = Outcome(Kind.VIOLATION, walked.qualification, defined=walked.defined, gpa=gpa, gla=gla)
                found = _allowed(outcome, walked.rule)
            case _:
                found = _allowed(Outcome(Kind.MISCONFIG, defined=0, gpa=gpa), walked.rule)
        yield _allowed(found.outcome, "cached-translation") if stale else found


def _met(m: ProgramTables, touch: Touch, gla: Place, mode: guest_paging.Mode, mapping: Mapping) -> list[Allowed]:
    """What an access comes to by one state of the guest's tables and mode, and every walk of EPT behind it."""
    entries, use = (mapping.upper, mapping.perm), USES[touch.access]
    fault = guest_paging.fault_of(mode, entries, use, present=mapping.present)
    if fault is not None:
        outcome = Outcome(Kind.EXCEPTION, fault.error, number=guest_paging.PAGE_FAULT, gla=gla)
        return [_allowed(outcome, fault.rule)]
    if not m.with_ept:
        return [_reached(mapping.leads, "guest-permitted")]
    return list(_translated(m, touch, gla, mapping, guest_paging.linear(mode, entries)))


def _answers(m: ProgramTables, touch: Touch, place: int) -> list[Allowed]:
    """Every answer to an access of L2, that of a CPU which caches nothing first."""
    found: dict[Outcome, Allowed] = {}
    gla = Place(touch.page, offset_of(touch.access, place))
    for number, (mode, mapping) in enumerate(product(m.modes(), m.mappings(touch.page))):
        for answer in _met(m, touch, gla, mode, mapping):
            rule = "cached-translation" if number else answer.rule
            found.setdefault(answer.outcome, _allowed(answer.outcome, rule))
    return list(found.values())


def _saw(m: ProgramTables, touch: Touch, outcome: Outcome) -> None:
    """Takes away what the CPU cannot hold any more after ``outcome``."""
    if outcome.kind is Kind.VIOLATION and outcome.gpa is not None:
        m.forget(m.root, outcome.gpa.base)
    if outcome.kind in (Kind.VIOLATION, Kind.EXCEPTION):
        m.tlb().pages.pop(touch.page, None)
        m.tlb().uppers.clear()


def _run(m: ProgramTables, flags: EntryFlags, run: L2Run) -> Iterator[tuple[Touch | None, list[Allowed]]]:
    """The accesses of a run with what each may answer; who iterates says what was seen by ``_saw`` in between."""
    wanted = {name: bool(m.controls[name]) for name in ("ad", "vpid")}
    refused = controls.entry_failure(m.cpu, ept=m.with_ept, mbec=m.mbec, **wanted)
    if refused:
        yield None, [_allowed(controls.failed(), refused)]
        return
    m.enter()
    for place, op in enumerate(run.ops):
        if m.with_ept:
            m.remember_walks()
        m.remember_linear()
        flags.foresee(run)
        match op:
            case Touch():
                yield op, _answers(m, op, place)
            case Toggle():
                m.controls[op.name] = op.value
            case Flush():
                m.flush(op.page)
            case SetGuest():
                m.set_guest(op)
                flags.wrote(f"g.{op.page}")


def _invept(m: ProgramTables, made: Invept) -> Allowed:
    """INVEPT (SDM, volume 3, chapter 31): an unknown type or an EPT pointer that a VM entry refuses is VMfail."""
    kind = made.type
    if not invalidation.is_there(m.cpu, vpid=False):
        return UNDEFINED
    refused = made.bad or controls.eptp_refused(m.cpu, ad=bool(m.controls["ad"]))
    if kind not in invalidation.types(m.cpu, vpid=False) or (kind == 1 and refused):
        return _allowed(Outcome(Kind.VMFAIL, INVALID_OPERAND), "invept-operand")
    for root in ("r0", "r1") if kind == 2 else (made.root,):
        m.forget(root)
    return DONE


def invvpid(m: ProgramTables, made: Invvpid) -> Allowed:
    """INVVPID: the types, a VPID of 0 but for all contexts, the descriptor's reserved bits, a canonical address."""
    kind = made.type
    if not invalidation.is_there(m.cpu, vpid=True):
        return UNDEFINED
    bad = kind not in invalidation.types(m.cpu, vpid=True) or made.bad == "reserved" or (kind != 2 and made.vpid == 0)
    if bad or (kind == 0 and made.bad == "noncanonical"):
        return _allowed(Outcome(Kind.VMFAIL, INVALID_OPERAND), "invvpid-operand")
    for key, held in list(m.linear.items()):
        if kind == 2 or key[0] == made.vpid:
            held.uppers.clear()
            if kind == 0:
                held.pages.pop(made.page, None)
                held.doubted.discard(f"g.{made.page}")
            else:
                held.pages.clear()
                held.nxe.clear()
                held.doubted.clear()
    return DONE


class _Row:
    """The answers as far as the program came, each the one allowed answer that was seen or, unseen, the plainest."""

    def __init__(self, seen: Outcome | None) -> None:
        self._seen = seen
        self.taken: list[Allowed] = []

    def take(self, answers: list[Allowed]) -> Outcome | None:
        """The next answer out of ``answers``; None where what was seen is none of them."""
        found: Allowed | None = answers[0]
        if self._seen is not None:
            seen = self._seen.turn(len(self.taken)) if self._seen.turns else None
            found = next((a for a in answers if seen is not None and a.outcome.matches(seen)), None)
        if found is None:
            return None
        self.taken.append(found)
        return found.outcome

    def rows(self, last: list[Allowed]) -> tuple[Allowed, ...]:
        """The rows that end in one of ``last``."""
        return tuple(_row([*self.taken, each]) for each in last)


def _row(each: list[Allowed]) -> Allowed:
    return Allowed(
        of_turns(a.outcome for a in each), THEN.join(a.rule for a in each), THEN.join(a.section for a in each)
    )


def aside(cpu: Cpu, vector: ProgramVector) -> NotApplicable | None:
    """Why the contract does not decide the program on this virtual CPU; None where it does."""
    rule = ""
    if not cpu.vmx:
        rule = "na-no-vmx"
    elif vector.ept and not cpu.ept:
        rule = "na-no-ept"
    elif not (cpu.msrs or vector.machine.env.common):
        rule = "na-msrs-not-read"
    return NotApplicable(rule, RULES[rule].text) if rule else None


def answers(cpu: Cpu, vector: ProgramVector, seen: Outcome | None = None) -> tuple[Allowed, ...] | NotApplicable:
    """What the manual allows of a program, beside what was ``seen``.

    Where all that was seen is allowed this is that one row. Where it is not, these are the rows as far as the first
    answer that is not allowed, each with one of the answers that are. Without ``seen`` it is the row of a CPU that
    caches nothing.
    """
    if (why := aside(cpu, vector)) is not None:
        return why
    m, row, vmcs = ProgramTables(cpu, vector), _Row(seen), VmcsState(cpu)
    flags = EntryFlags(m)
    for made in vector.steps:
        if not isinstance(made, Control | Vmx | HostStep):  # the probe makes its own current again
            vmcs.current = "ab"[m.controls["vmcs"]]
        match made:
            case Control():
                m.controls[made.name] = made.value
            case SetEntry():
                m.set_entry(made)
                flags.wrote(made.entry)
            case SetGuest():
                m.set_guest(made)
                flags.wrote(f"g.{made.page}")
            case SetGuestUpper():
                m.set_guest_upper(made)
                flags.wrote(f"gu.{made.window}")
            case Look():
                answer = [_allowed(flags.look(made), "guest-flags" if made.is_guest else "ept-flags")]
                if row.take(answer) is None:
                    return row.rows(answer)
            case Vmx():
                answer = [_allowed(outcome, rule) for outcome, rule in vmcs.answers(made)]
                if row.take(answer) is None:
                    return row.rows(answer)
            case Invept() | Invvpid():
                answer = [_invept(m, made) if isinstance(made, Invept) else invvpid(m, made)]
                if row.take(answer) is None:
                    return row.rows(answer)
            case L2Run():
                missed = _whole_run(m, flags, made, row, vmcs)
                if missed is not None:
                    return row.rows(missed)
    return (_row(row.taken),)


def _whole_run(m: ProgramTables, flags: EntryFlags, run: L2Run, row: _Row, vmcs: VmcsState) -> list[Allowed] | None:
    """Takes the answers of a run into ``row``; those allowed where what was seen is none of them, else None."""
    left = len(run.touches)
    for touch, allowed in _run(m, flags, run):
        outcome = row.take(allowed)
        if outcome is None:
            return allowed
        left -= 1
        if touch is not None:
            vmcs.run("ab"[m.controls["vmcs"]])
            flags.saw(touch, outcome)
            _saw(m, touch, outcome)
        if outcome.kind is not Kind.DONE:
            break
    m.controls |= {op.name: op.value for op in run.ops if isinstance(op, Toggle)}
    for _ in range(left):
        if row.take([UNREACHED]) is None:
            return [UNREACHED]
    return None
