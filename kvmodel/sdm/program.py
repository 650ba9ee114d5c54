"""A program on a CPU: after each step every answer that the manual allows, with what the CPU may have cached.

What may be cached is kept as one growing set, of which any part may be there (SDM 29.4.2: a CPU may cache what it
uses, and what speculation uses). An access goes by the tables as they are, or from any cached part of a walk on; what
was seen of it takes away what the CPU must have forgotten by then. So a program has one state at each step, however
many rows of answers it allows.

A cached part of a walk belongs to an EPT table (bits 51:12 of the EPT pointer) and to a guest-physical address; it is
made while L2 runs on that table. INVEPT takes it away, and an EPT violation of its address does. What the guest's own
tables gave is cached for a VPID; without one each VM entry takes it away (SDM 29.4.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Final

from kvmodel.cpu import Cpu
from kvmodel.question.outcome import THEN, Allowed, Kind, NotApplicable, Outcome, Place, of_turns
from kvmodel.question.program import (
    CONTROLS,
    FIRST,
    PAGES,
    START,
    WINDOWS,
    Control,
    Flush,
    Invept,
    Invvpid,
    ProgramVector,
    Run,
    SetEntry,
    SetGuest,
    SetGuestUpper,
    Toggle,
    Touch,
)
from kvmodel.question.vector import RWXU, UWX, Access, GuestPerm, Paging
from kvmodel.sdm import controls, ept, guest_paging
from kvmodel.sdm.access import Linear, Use
from kvmodel.sdm.rules import RULES

INVALID_OPERAND: Final = 28  # VM-instruction error: invalid operand to INVEPT/INVVPID (SDM 31.4)
WRITTEN_AT: Final = 64  # bytes into a page: where the first part of a run writes, the next 8 bytes on

_USES: Final = {
    Access.READ: Use.READ,
    Access.WRITE: Use.WRITE,
    Access.RMW: Use.RMW,
    Access.FETCH: Use.FETCH,
}
_NONLEAF: Final = RWXU.bits | ept.ACCESSED
_LEAF: Final = ept.ACCESSED | ept.DIRTY


def page_number(name: str) -> int:
    """The number by which a page of L1's knows itself: ``p0`` to ``p7`` are 0 to 7, ``q0`` to ``q7`` 8 to 15."""
    return int(name[1]) + (PAGES if name[0] == "q" else 0)


def reached(number: int) -> Outcome:
    """The outcome of an access that came to the page of that number."""
    return Outcome(Kind.DONE, number, note=f"{'pq'[number // PAGES]}{number % PAGES}")


def offset_of(access: Access, place: int) -> int:
    """The offset in its page that an access uses, in bytes; ``place`` is its place among the parts of its run."""
    return WRITTEN_AT + 8 * place if access in (Access.WRITE, Access.RMW) else 0


def entry_bits(made: SetEntry) -> int:
    """The 64-bit entry that L1 writes, without its address."""
    if made.target == "none":
        return made.bits
    if not made.is_leaf:
        return made.perm.bits | ept.ACCESSED | made.bits
    return made.perm.bits | made.memtype << 3 | _LEAF | made.bits | (ept.PAGE_SIZE if made.target[0] == "g" else 0)


@dataclass(frozen=True, slots=True)
class _Part:
    """A walk as far as it came: (level, 64-bit entry) of each entry used, and where the last one leads."""

    window: str
    page: int | None  # within the window; None above level 1, where all pages share the entries
    entries: tuple[tuple[int, int], ...]
    leads: str
    mbec: bool  # the control that the entries were read with

    @property
    def complete(self) -> bool:
        return self.leads[0] in "pqg"


def _entry_name(table: str, window: str, page: int) -> str:
    """The entry of ``table`` that a walk for a page of ``window`` uses."""
    match table[0]:
        case "r":
            return f"{table}c" if window == "c" else ""
        case "d":
            if table == "d1":
                return "d1c" if window != "b" else "absent"
            return f"{table}{'b' if window == 'b' else 'a'}"
        case "m":
            return table
        case _:
            return f"{table}{page}"


def _entries_at_start() -> dict[str, tuple[int, str]]:
    found = {name: (_NONLEAF, leads) for name, leads in START.items()}
    for n in range(len(WINDOWS)):
        for page in range(PAGES):
            found[f"t{n}{page}"] = (RWXU.bits | 6 << 3 | _LEAF, f"p{page}")
    found["absent"] = (0, "none")
    return found


@dataclass(frozen=True, slots=True)
class _Mapping:
    """What the guest's tables make of a linear page: the upper entry's permissions, the leaf's, where it leads."""

    upper: GuestPerm
    perm: GuestPerm
    leads: str
    present: bool


@dataclass
class _Linear:
    """What a CPU may have cached of the guest's tables under one VPID and EPT table, and by which EFER.NXE."""

    uppers: dict[str, set[GuestPerm]] = field(default_factory=dict)
    pages: dict[str, set[_Mapping]] = field(default_factory=dict)
    nxe: set[bool] = field(default_factory=set)


class _Machine:
    """L1's tables, the guest's, the controls, and what the CPU may have cached."""

    def __init__(self, cpu: Cpu, vector: ProgramVector) -> None:
        self.cpu = cpu
        self.with_ept = vector.ept
        self.entries = _entries_at_start()
        self.guest = {
            f"{w}{n}": (UWX, f"{w}{n}" if vector.ept else f"p{n}", True) for w in WINDOWS for n in range(PAGES)
        }
        self.guest_upper = dict.fromkeys(WINDOWS, UWX)
        self.controls = {name: start for name, (_, start) in CONTROLS.items()}
        self.cached: dict[str, set[_Part]] = {"r0": set(), "r1": set()}
        self.linear: dict[tuple[int, str], _Linear] = {}

    # --- EPT ---

    @property
    def root(self) -> str:
        return f"r{self.controls['root']}"

    @property
    def mbec(self) -> bool:
        return bool(self.controls["mbec"])

    def _start(self, window: str) -> _Part:
        if window == "c":
            return _Part(window, None, (), self.root, self.mbec)
        return _Part(window, None, ((4, _NONLEAF),), FIRST[self.root], self.mbec)

    def _longer(self, part: _Part, page: int) -> _Part | None:
        """``part`` and the entry behind it as it is now; None where that ends the walk without a translation."""
        level = 5 - len(part.entries) - 1
        bits, leads = self.entries[_entry_name(part.leads, part.window, page)]
        if not ept.is_present(bits, mbec=self.mbec) or ept.misconfiguration(self.cpu, bits, level, mbec=self.mbec):
            return None
        own = page if level == 1 else None
        return _Part(part.window, own, (*part.entries, (level, bits)), leads, self.mbec)

    def remember_walks(self) -> None:
        """Adds whatever a walk on the current EPT table may leave in the CPU now."""
        known = self.cached[self.root]
        todo = [self._start(window) for window in WINDOWS] + [part for part in known if not part.complete]
        while todo:
            part = todo.pop()
            for page in range(PAGES):
                longer = self._longer(part, page)
                if longer is not None and longer not in known:
                    known.add(longer)
                    if not longer.complete:
                        todo.append(longer)

    def walks(self, window: str, page: int) -> Iterator[tuple[tuple[tuple[int, int], ...], str, bool, bool]]:
        """(entries, where they lead, MBEC to judge them by, whether anything of it is cached): as it is now first."""
        yield (*self._to_the_end(self._start(window), page), self.mbec, False)
        for part in sorted(self.cached[self.root], key=repr):
            if part.window == window and part.page in (None, page):
                entries, leads = self._to_the_end(part, page)
                for mbec in {self.mbec, part.mbec}:
                    yield entries, leads, mbec, True

    def _to_the_end(self, part: _Part, page: int) -> tuple[tuple[tuple[int, int], ...], str]:
        entries, leads = part.entries, part.leads
        while leads[0] not in "pqgn":
            bits, leads = self.entries[_entry_name(leads, part.window, page)]
            entries = (*entries, (5 - len(entries) - 1, bits))
        return entries, f"{'pq'[int(leads[1])]}{page}" if leads[0] == "g" else leads

    def forget(self, root: str, page: str = "") -> None:
        """INVEPT of a table, or, with a ``page``, what an EPT violation of its guest-physical address takes away."""
        if not page:
            self.cached[root].clear()
            for key in [key for key in self.linear if key[1] == root]:
                del self.linear[key]
            return
        window, number = page[0], int(page[1])
        self.cached[root] = {p for p in self.cached[root] if p.window != window or p.page not in (None, number)}

    # --- the guest's own tables ---

    def tlb(self) -> _Linear:
        """What the CPU may hold of the guest's tables under the current VPID."""
        return self.linear.setdefault((self.controls["vpid"], self.root if self.with_ept else ""), _Linear())

    def enter(self) -> None:
        """A VM entry: without a VPID nothing of the guest's tables outlives it."""
        if not self.controls["vpid"]:
            self.linear = {key: held for key, held in self.linear.items() if key[0]}

    def mapping(self, page: str) -> _Mapping:
        """What the guest's tables say of the linear ``page`` now."""
        perm, leads, present = self.guest[page]
        return _Mapping(self.guest_upper[page[0]], perm, leads, present)

    def remember_linear(self) -> None:
        """Adds whatever a walk of the guest's tables may leave in the CPU now."""
        held = self.tlb()
        held.nxe.add(bool(self.controls["nxe"]))
        for window, upper in self.guest_upper.items():
            held.uppers.setdefault(window, set()).add(upper)
        for page in self.guest:
            now = self.mapping(page)
            if now.present:
                uppers = held.uppers[page[0]]
                held.pages.setdefault(page, set()).update(
                    _Mapping(upper, now.perm, now.leads, True) for upper in uppers
                )

    def mappings(self, page: str) -> list[_Mapping]:
        """What the guest's tables may make of ``page``: as they are now first, then by what may be cached."""
        now = self.mapping(page)
        held = self.tlb()
        found = dict.fromkeys([now])
        found |= dict.fromkeys(_Mapping(u, now.perm, now.leads, now.present) for u in held.uppers.get(page[0], ()))
        found |= dict.fromkeys(held.pages.get(page, ()))
        return list(found)

    def modes(self) -> list[guest_paging.Mode]:
        """CPL, CR0, CR4 and EFER as they are; of a translation cached before, EFER.NXE may be the earlier one."""
        c = self.controls
        nxe = dict.fromkeys([bool(c["nxe"]), *sorted(self.tlb().nxe)])
        return [
            guest_paging.Mode(Paging.LONG, c["cpl"], bool(c["wp"]), bool(c["smep"]), bool(c["smap"]), each)
            for each in nxe
        ]


def _allowed(outcome: Outcome, rule: str) -> Allowed:
    return Allowed(outcome, rule, RULES[rule].section)


UNREACHED: Final = _allowed(Outcome(Kind.UNREACHED), "program-unreached")
DONE: Final = _allowed(Outcome(Kind.DONE, defined=0), "invalidation-done")


def _reached(name: str, rule: str) -> Allowed:
    return _allowed(reached(page_number(name)), rule)


def _translated(m: _Machine, touch: Touch, gla: Place, mapping: _Mapping, linear: Linear) -> Iterator[Allowed]:
    """What EPT makes of an access that the guest's own tables let through."""
    window, number = mapping.leads[0], int(mapping.leads[1])
    gpa = Place(mapping.leads, gla.offset)
    for entries, leads, mbec, stale in m.walks(window, number):
        walked = ept.walk(m.cpu, entries, _USES[touch.access], mbec=mbec, ad=bool(m.controls["ad"]), linear=linear)
        match walked:
            case ept.Translated():
                found = _reached(leads, walked.rule)
            case ept.Violation():
                outcome = Outcome(Kind.VIOLATION, walked.qualification, defined=walked.defined, gpa=gpa, gla=gla)
                found = _allowed(outcome, walked.rule)
            case _:
                found = _allowed(Outcome(Kind.MISCONFIG, defined=0, gpa=gpa), walked.rule)
        yield _allowed(found.outcome, "cached-translation") if stale else found


def _met(m: _Machine, touch: Touch, gla: Place, mode: guest_paging.Mode, mapping: _Mapping) -> list[Allowed]:
    """What an access comes to by one state of the guest's tables and mode, and every walk of EPT behind it."""
    entries, use = (mapping.upper, mapping.perm), _USES[touch.access]
    if mapping.present:
        fault = guest_paging.fault(mode, entries, use)
    else:
        fault = guest_paging.not_present(mode, mapping.upper, use)
    if fault is not None:
        outcome = Outcome(Kind.EXCEPTION, fault.error, number=guest_paging.PAGE_FAULT, gla=gla)
        return [_allowed(outcome, fault.rule)]
    if not m.with_ept:
        return [_reached(mapping.leads, "guest-permitted")]
    return list(_translated(m, touch, gla, mapping, guest_paging.linear(mode, entries)))


def _answers(m: _Machine, touch: Touch, place: int) -> list[Allowed]:
    """Every answer to an access of L2, that of a CPU which caches nothing first."""
    found: dict[Outcome, Allowed] = {}
    gla = Place(touch.page, offset_of(touch.access, place))
    for number, (mode, mapping) in enumerate(product(m.modes(), m.mappings(touch.page))):
        for answer in _met(m, touch, gla, mode, mapping):
            rule = "cached-translation" if number else answer.rule
            found.setdefault(answer.outcome, _allowed(answer.outcome, rule))
    return list(found.values())


def _saw(m: _Machine, touch: Touch, outcome: Outcome) -> None:
    """Takes away what the CPU cannot hold any more after ``outcome``."""
    if outcome.kind is Kind.VIOLATION and outcome.gpa is not None:
        m.forget(m.root, outcome.gpa.base)
    if outcome.kind in (Kind.VIOLATION, Kind.EXCEPTION):
        m.tlb().pages.pop(touch.page, None)
        m.tlb().uppers.clear()


def _flush(m: _Machine, page: str) -> None:
    """MOV to CR3, or INVLPG of ``page``: SDM 4.10.4.1."""
    held = m.tlb()
    held.uppers.clear()
    if page:
        held.pages.pop(page, None)
    else:
        held.pages.clear()
        held.nxe.clear()


def _set_guest(m: _Machine, made: SetGuest) -> None:
    _, leads, _ = m.guest[made.page]
    m.guest[made.page] = (made.perm, made.target if made.present else leads, made.present)


def _run(m: _Machine, run: Run) -> Iterator[tuple[Touch | None, list[Allowed]]]:
    """The accesses of a run with what each may answer; who iterates says what was seen by ``_saw`` in between."""
    refused = controls.entry_failure(m.cpu, ept=m.with_ept, mbec=m.mbec, ad=bool(m.controls["ad"]))
    if refused:
        yield None, [_allowed(controls.failed(), refused)]
        return
    m.enter()
    for place, op in enumerate(run.ops):
        if m.with_ept:
            m.remember_walks()
        m.remember_linear()
        match op:
            case Touch():
                yield op, _answers(m, op, place)
            case Toggle():
                m.controls[op.name] = op.value
            case Flush():
                _flush(m, op.page)
            case SetGuest():
                _set_guest(m, op)


def _invept(m: _Machine, made: Invept) -> Allowed:
    """INVEPT (SDM, volume 3, chapter 31): an unknown type or an EPT pointer that a VM entry refuses is VMfail."""
    kind = made.type
    refused = made.bad or (m.controls["ad"] and not m.cpu.ept_ad)
    if kind not in (1, 2) or (kind == 1 and refused):
        return _allowed(Outcome(Kind.VMFAIL, INVALID_OPERAND), "invept-operand")
    for root in ("r0", "r1") if kind == 2 else (made.root,):
        m.forget(root)
    return DONE


def _invvpid(m: _Machine, made: Invvpid) -> Allowed:
    """INVVPID: the types, a VPID of 0 but for all contexts, the descriptor's reserved bits, a canonical address."""
    kind = made.type
    bad = kind not in (0, 1, 2, 3) or made.bad == "reserved" or (kind != 2 and made.vpid == 0)
    if bad or (kind == 0 and made.bad == "noncanonical"):
        return _allowed(Outcome(Kind.VMFAIL, INVALID_OPERAND), "invvpid-operand")
    for key, held in list(m.linear.items()):
        if kind == 2 or key[0] == made.vpid:
            held.uppers.clear()
            if kind == 0:
                held.pages.pop(made.page, None)
            else:
                held.pages.clear()
                held.nxe.clear()
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
    return NotApplicable(rule, RULES[rule].text) if rule else None


def answers(cpu: Cpu, vector: ProgramVector, seen: Outcome | None = None) -> tuple[Allowed, ...] | NotApplicable:
    """What the manual allows of a program, beside what was ``seen``.

    Where all that was seen is allowed this is that one row. Where it is not, these are the rows as far as the first
    answer that is not allowed, each with one of the answers that are. Without ``seen`` it is the row of a CPU that
    caches nothing.
    """
    if (why := aside(cpu, vector)) is not None:
        return why
    m, row = _Machine(cpu, vector), _Row(seen)
    for made in vector.steps:
        match made:
            case Control():
                m.controls[made.name] = made.value
            case SetEntry():
                m.entries[made.entry] = (entry_bits(made), made.target)
            case SetGuest():
                _set_guest(m, made)
            case SetGuestUpper():
                m.guest_upper[made.window] = made.perm
            case Invept() | Invvpid():
                answer = [_invept(m, made) if isinstance(made, Invept) else _invvpid(m, made)]
                if row.take(answer) is None:
                    return row.rows(answer)
            case Run():
                missed = _whole_run(m, made, row)
                if missed is not None:
                    return row.rows(missed)
    return (_row(row.taken),)


def _whole_run(m: _Machine, run: Run, row: _Row) -> list[Allowed] | None:
    """Takes the answers of a run into ``row``; those allowed where what was seen is none of them, else None."""
    left = len(run.touches)
    for touch, allowed in _run(m, run):
        outcome = row.take(allowed)
        if outcome is None:
            return allowed
        left -= 1
        if touch is not None:
            _saw(m, touch, outcome)
        if outcome.kind is not Kind.DONE:
            break
    m.controls |= {op.name: op.value for op in run.ops if isinstance(op, Toggle)}
    for _ in range(left):
        if row.take([UNREACHED]) is None:
            return [UNREACHED]
    return None
