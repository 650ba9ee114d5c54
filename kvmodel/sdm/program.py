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
    Over,
    ProgramVector,
    Saved,
    SetEntry,
    SetGuest,
    SetGuestUpper,
    Toggle,
    Touch,
    Vmx,
)
from kvmodel.question.program_layout import cr3_value
from kvmodel.question.program_paging import LoadCr3, SetPdpte
from kvmodel.question.vector import Access
from kvmodel.sdm import controls, ept, guest_paging, invalidation, program_registers
from kvmodel.sdm.access import Linear, Use
from kvmodel.sdm.program_flags import EntryFlags
from kvmodel.sdm.program_tables import Mapping, ProgramTables, moved, offset_of, over_offset, page_number, reached
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


def _rule_of(made: Look) -> str:
    """The rule by which L1 finds what it reads back."""
    if made.is_field:
        return "exit-saves-cr3" if made.is_cr3 else "exit-saves-pdptes"
    return "guest-flags" if made.is_guest else "ept-flags"


UNREACHED: Final = _allowed(Outcome(Kind.UNREACHED), "program-unreached")
DONE: Final = _allowed(Outcome(Kind.DONE, defined=0), "invalidation-done")
UNDEFINED: Final = _allowed(Outcome(Kind.EXCEPTION, number=invalidation.INVALID_OPCODE), "invalidation-undefined")


def _reached(name: str, rule: str) -> Allowed:
    return _allowed(reached(page_number(name)), rule)


def _translated(m: ProgramTables, use: Use, gla: Place, mapping: Mapping, linear: Linear) -> Iterator[Allowed]:
    """What EPT makes of an access that the guest's own tables let through."""
    window, number = mapping.leads[0], int(mapping.leads[1])
    gpa = Place(mapping.leads, gla.offset)
    for entries, leads, mbec, stale in m.walks(window, number):
        walked = ept.walk(m.cpu, entries, use, mbec=mbec, ad=bool(m.controls["ad"]), linear=linear)
        match walked:
            case ept.Translated():
                found = _reached(leads, walked.rule)
            case ept.Violation():
                outcome = Outcome(Kind.VIOLATION, walked.qualification, defined=walked.defined, gpa=gpa, gla=gla)
                found = _allowed(outcome, walked.rule)
            case _:
                found = _allowed(Outcome(Kind.MISCONFIG, gpa=gpa), walked.rule)
        yield _allowed(found.outcome, "cached-translation") if stale else found


def _met(m: ProgramTables, use: Use, gla: Place, mode: guest_paging.Mode, mapping: Mapping) -> list[Allowed]:
    """What an access comes to by one state of the guest's tables and mode, and every walk of EPT behind it."""
    entries = (mapping.upper, mapping.perm)
    fault = guest_paging.fault_of(mode, entries, use, present=mapping.present)
    if fault is not None:
        outcome = Outcome(Kind.EXCEPTION, fault.error, number=guest_paging.PAGE_FAULT, gla=gla)
        return [_allowed(outcome, fault.rule)]
    if not m.with_ept:
        return [_reached(mapping.leads, "guest-permitted")]
    return list(_translated(m, use, gla, mapping, guest_paging.linear(mode, entries)))


def _answers(m: ProgramTables, use: Use, gla: Place) -> list[Allowed]:
    """Every answer to an access of L2 at a linear place, that of a CPU which caches nothing first."""
    found: dict[Outcome, Allowed] = {}
    for number, (mode, mapping) in enumerate(product(m.modes(), m.mappings(gla.base))):
        if mode.nxe is not bool(m.controls["nxe"]) and (not mode.nxe or (mapping.upper.x and mapping.perm.x)):
            continue  # what was cached by another EFER.NXE is other only where there is an XD
        for answer in _met(m, use, gla, mode, mapping):
            rule = "cached-translation" if number else answer.rule
            found.setdefault(answer.outcome, _allowed(answer.outcome, rule))
    return list(found.values())


def _touched(m: ProgramTables, touch: Touch, place: int) -> list[Allowed]:
    return _answers(m, USES[touch.access], Place(touch.page, offset_of(touch.access, place)))


_OVER_USES: Final = {
    "readx": Use.READ,
    "writex": Use.WRITE,
    "rmwx": Use.RMW,
    "fetchx": Use.FETCH,
    "stos": Use.WRITE,
    "movs": Use.WRITE,
}
_IN_STEPS: Final = ("fetchx", "stos", "movs")  # what it does in the first page stays, whatever the second one brings


def _halves(m: ProgramTables, over: Over) -> list[tuple[Allowed, Allowed]]:
    """Every pair of answers to an access over two pages: a fault in one of them undoes it, but for what goes in steps.

    Which of two faults comes first is the CPU's choice where it accesses both pages at once.
    """
    first, second = (_half(m, over, n) for n in (0, 1))
    pairs = []
    for one, other in product(first, second):
        if one.outcome.kind is not Kind.DONE:
            pairs.append((one, UNREACHED))
        if other.outcome.kind is Kind.DONE:
            pairs += [(one, other)] if one.outcome.kind is Kind.DONE else []
        elif over.what not in _IN_STEPS:
            pairs.append((UNREACHED, other))
        elif one.outcome.kind is Kind.DONE:
            pairs.append((one, other))
    return list(dict.fromkeys(pairs))


def _half(m: ProgramTables, over: Over, n: int) -> list[Allowed]:
    """Every answer to what an access over two pages does in the first (``n`` 0) or the second of them."""
    offset = over_offset(over) if n == 0 else 0
    found = _answers(m, _OVER_USES[over.what], Place(over.pages[n], offset))
    if over.sources is None:
        return found
    read = _answers(m, Use.READ, Place(over.sources[n], offset))
    pairs = [
        _allowed(moved(one.outcome.code, other.outcome.code), one.rule)
        for one, other in product(found, read)
        if one.outcome.kind is other.outcome.kind is Kind.DONE
    ]
    return pairs + [each for each in (*read, *found) if each.outcome.kind is not Kind.DONE]


def _saw(m: ProgramTables, page: str, outcome: Outcome) -> None:
    """Takes away what the CPU cannot hold any more after ``outcome``."""
    if outcome.kind is Kind.VIOLATION and outcome.gpa is not None:
        m.forget(m.root, outcome.gpa.base)
    if outcome.kind in (Kind.VIOLATION, Kind.EXCEPTION):
        m.tlb().pages.pop(page, None)
        m.tlb().uppers.clear()


_Rows = list[tuple[Allowed, ...]]


def _run(m: ProgramTables, flags: EntryFlags, run: L2Run) -> Iterator[tuple[Touch | Over | None, _Rows]]:
    """The accesses of a run with what each may answer; who iterates says what was seen by ``_saw`` in between."""
    failed = program_registers.entered(m)
    if failed is not None:
        yield None, [(_allowed(*failed),)]
        return
    for place, op in enumerate(run.ops):
        if m.with_ept:
            m.remember_walks()
        m.remember_linear()
        flags.foresee(run)
        ended = None
        match op:
            case Touch():
                yield op, [(each,) for each in _touched(m, op, place)]
            case Over():
                yield op, [*_halves(m, op)]
            case Toggle():
                ended = program_registers.toggle(m, op)
            case LoadCr3() | Flush(page=""):
                ended = program_registers.load_cr3(m, op)
            case Flush():
                m.flush(op.page)
            case SetGuest():
                m.set_guest(op)
                flags.wrote(f"g.{op.page}")
            case SetPdpte():
                m.roots.write(op, m.controls["vmcs"])
            case Saved() if not m.with_ept:
                program_registers.may_load(m)
        if ended is not None:
            yield None, [(_allowed(*ended),)]
            return


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
            if kind == 0:
                m.forget_page(held, made.page)
            else:
                held.clear()
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
    elif not (cpu.msrs or (vector.machine.env.common and not program_registers.needs_msrs(vector))):
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
    try:
        return _answers_of_steps(cpu, vector, seen)
    except program_registers.PdptesUndecidedError:
        return NotApplicable("na-pdptes-undecided", RULES["na-pdptes-undecided"].text)


def _answers_of_steps(cpu: Cpu, vector: ProgramVector, seen: Outcome | None) -> tuple[Allowed, ...]:
    m, row, vmcs = ProgramTables(cpu, vector), _Row(seen), VmcsState(cpu)
    flags = EntryFlags(m)
    for made in vector.steps:
        if not isinstance(made, Control | Vmx | HostStep):  # the probe makes its own current again
            vmcs.current = "ab"[m.controls["vmcs"]]
        match made:
            case Control():
                m.controls[made.name] = made.value
                if made.name == "pg" and made.value:
                    m.roots.begin(m.controls["cr3"])
            case SetEntry():
                m.set_entry(made)
                flags.wrote(made.entry)
            case SetGuest():
                m.set_guest(made)
                flags.wrote(f"g.{made.page}")
            case SetPdpte():
                m.roots.write(made, m.controls["vmcs"])
            case SetGuestUpper():
                m.set_guest_upper(made)
                flags.wrote(f"gu.{made.window}")
            case Look():
                answer = [_allowed(flags.look(made), _rule_of(made))]
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


def _ended(m: ProgramTables, flags: EntryFlags, access: Touch | Over, found: list[Outcome]) -> None:
    """What an access that ended so leaves in the tables and in the CPU."""
    if isinstance(access, Touch):
        flags.saw(access, found[0])
        _saw(m, access.page, found[0])
        return
    for outcome in found:
        if outcome.gla is not None:
            _saw(m, outcome.gla.base, outcome)


def _whole_run(m: ProgramTables, flags: EntryFlags, run: L2Run, row: _Row, vmcs: VmcsState) -> list[Allowed] | None:
    """Takes the answers of a run into ``row``; those allowed where what was seen is none of them, else None."""
    left, before = run.answers, dict(m.controls)
    entered = True
    for access, rows in _run(m, flags, run):
        found: list[Outcome] = []
        while len(found) < len(rows[0]):
            allowed = list(dict.fromkeys(each[len(found)] for each in rows))
            outcome = row.take(allowed)
            if outcome is None:
                return allowed
            rows = [each for each in rows if each[len(found)].outcome == outcome]
            found.append(outcome)
        left -= len(found)
        if access is not None:
            vmcs.run("ab"[m.controls["vmcs"]])
            _ended(m, flags, access, found)
        entered = not any(outcome.kind in (Kind.ENTRY_FAIL, Kind.ENTRY_EXIT) for outcome in found)
        if any(outcome.kind is not Kind.DONE for outcome in found):
            break
    if entered:
        m.roots.exited(m.controls["vmcs"], saved=m.pae and m.with_ept)
    m.roots.cr3s[m.controls["vmcs"]] = cr3_value(m.controls["cr3"], pae=m.pae)
    m.controls = before | run.leaves
    for _ in range(left):
        if row.take([UNREACHED]) is None:
            return [UNREACHED]
    return None
