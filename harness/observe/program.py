"""A program for the probe: its steps as records, L2's code as bytes, and back from the observations to outcomes.

The probe only carries out (images/probe/program.c); where everything lies is known here, by ``harness.protocol``.
Programs take their tables from PROGRAM_AREAS areas in turn, so that none finds another's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from harness import protocol
from harness.observe import astray, program_over, program_state
from harness.observe.program_state import CodeFrame, Fields
from kvmodel.question.outcome import Kind, Outcome, Place, of_turns, vmfail
from kvmodel.question.program import (
    CONTROLS,
    WINDOWS,
    Control,
    Flush,
    HostStep,
    Invept,
    Invvpid,
    L2Run,
    Look,
    Op,
    Over,
    ProgramVector,
    Saved,
    SetEntry,
    SetGuest,
    SetGuestUpper,
    Step,
    Toggle,
    Touch,
    Vmx,
    answers_of,
)
from kvmodel.question.program_layout import (
    EPTP_WRONG,
    PAGE,
    SLOT,
    entry_address,
    guest_entry,
    guest_entry_address,
    guest_linear,
    guest_physical,
    guest_upper_entry,
    page_address,
    pdpte_address,
    pdpte_of,
    table_address,
    target_address,
)
from kvmodel.question.program_paging import LoadCr3, SetPdpte
from kvmodel.question.vector import Access
from kvmodel.sdm.invalidation import INVALID_OPCODE
from kvmodel.sdm.program_flags import told
from kvmodel.sdm.program_roots import told_pdpte
from kvmodel.sdm.program_tables import entry_bits, offset_of, reached

_C: Final = protocol.CONSTANTS
_GLA_TABLES: Final = _C["GLA_PROGRAM"] + 2 * PAGE  # L2-linear, supervisor's: the guest's page tables of the windows
_CODE_BYTES: Final = 32  # of a record
_NOWHERE: Final = 0xFF
_ADDRESS: Final = (1 << 52) - PAGE  # of an entry
LONG: Final = CodeFrame()
_UNDEFINED: Final = 0xFFFF_FFFE  # images/probe/instruction.c: where there is no such instruction


class StepRecord(program_over.OverRecord, Protocol):
    """This is what of an observation record a program's outcome is made of, an access over two pages among it."""

    @property
    def verdict(self) -> int: ...
    @property
    def vector(self) -> int: ...
    @property
    def reason(self) -> int: ...
    @property
    def error(self) -> int: ...
    @property
    def qualification(self) -> int: ...
    @property
    def gpa(self) -> int: ...
    @property
    def gla(self) -> int: ...
    @property
    def rip(self) -> int: ...
    @property
    def value(self) -> int: ...
    @property
    def leaf_after(self) -> int: ...
    @property
    def astray(self) -> int: ...


# --- L2's code ---


@dataclass(frozen=True, slots=True)
class Code:
    """This is L2's code of a run: its bytes, and where each part ends in them."""

    data: bytes
    ends: tuple[int, ...]

    def part_at(self, rip: int) -> int | None:
        """The function gives the part that the instruction at the L2-linear ``rip`` belongs to; None where it is none
        of the code's.
        """
        at = (rip - _C["GLA_PROGRAM"]) % PAGE
        if not 0 <= rip - _C["GLA_PROGRAM"] < 2 * PAGE:
            return None
        return next((n for n, end in enumerate(self.ends) if at < end), None)


def _touch(touch: Touch, place: int, at: int, frame: CodeFrame) -> bytes:
    where = guest_linear(touch.page, pae=frame.pae) + offset_of(touch.access, place)
    head = program_state.address(where, frame)
    mark = b"\xb8" + struct.pack("<I", _C["PROGRAM_MARK"] | place)  # mov $mark, %eax
    match touch.access:
        case Access.WRITE:
            return head + mark + b"\x89\x07"  # mov %eax, (%rdi)
        case Access.RMW:
            return head + mark + b"\xf0\x01\x07"  # lock add %eax, (%rdi)
        case Access.FETCH:
            return head + b"\xff\xe7"  # jmp *%rdi
        case _:
            body = head + b"\x8b\x07\xc1\xe8\x08"  # mov (%rdi), %eax; shr $8, %eax
            return body + program_state.result(place, at + len(body), frame)


def _op(op: Op, place: int, at: int, frame: CodeFrame) -> bytes:
    match op:
        case Touch():
            return _touch(op, place, at, frame)
        case Over():
            return program_over.code(op, at)
        case Toggle():
            return program_state.bit(op.name, op.value, frame)
        case Flush(page=""):
            return program_state.load_cr3(None, frame)
        case LoadCr3():
            return program_state.load_cr3(op.number, frame)
        case Flush():
            linear = guest_linear(op.page, pae=frame.pae)
            return program_state.address(linear, frame) + b"\x0f\x01\x3f"  # invlpg (%rdi)
        case SetGuest():
            where = _GLA_TABLES + WINDOWS.index(op.page[0]) * PAGE + (SLOT + int(op.page[1])) * 8
            return program_state.store(where, guest_entry(op), frame)
        case SetPdpte():
            return program_state.store(program_state.pdpte_linear(op), pdpte_of(op), frame)
        case Saved():
            port = b"\xba" + struct.pack("<I", _C["CALL_PORT"])  # mov $port, %edx
            return port + bytes((0xB0, _C["CALL_OF_L2"], 0xEE))  # mov $call, %al; out %al, (%dx)


def assemble(run: L2Run, frame: CodeFrame = LONG) -> Code:
    """The function gives L2's code for a run: part by part, then VMCALL."""
    data, ends = b"", []
    for place, op in enumerate(run.ops):
        data += _op(op, place, len(data), frame)
        ends.append(len(data))
    return Code(data + b"\x0f\x01\xc1", tuple(ends))


# --- records ---


@dataclass
class _Controls:
    """The controls as they stand, and the area of the program's tables."""

    vector: ProgramVector
    area: int
    now: dict[str, int]

    def eptp(self, root: str, bad: str = "") -> int:
        value = table_address(self.area, root) | 6 | 3 << 3 | self.now["ad"] << 6
        return value ^ EPTP_WRONG[bad]

    @property
    def frame(self) -> CodeFrame:
        return CodeFrame(bool(self.now["pg"]), self.now["cpl"])

    def common(self) -> Fields:
        flags = _C["FLAG_VMCS_B"] * self.now["vmcs"]
        return {"kind": _C["KIND_STEP"], "paging": _C["PAGING_64"], "flags": flags}


def _write(c: _Controls, address: int, value: int) -> Fields:
    return {**c.common(), "access": _C["OP_WRITE"], "leaf": address, "upper": value}


def _run(c: _Controls, run: L2Run) -> Iterator[Fields]:
    data = assemble(run, c.frame).data
    for at in range(0, len(data), _CODE_BYTES):
        words = struct.unpack("<4Q", data[at : at + _CODE_BYTES].ljust(_CODE_BYTES, b"\x90"))
        fields = dict(zip(("leaf", "upper", "gp", "gu"), words, strict=True))
        yield {**c.common(), **fields, "access": _C["OP_CODE"], "msr": at}
    now = c.now
    yield from program_state.before_entry(c.vector, c.common(), now)
    ept = c.vector.ept * (_C["EPT_ENABLE"] | now["ad"] * _C["EPT_AD"] | now["mbec"] * _C["EPT_MBEC"])
    flags = _C["FLAG_VMCS_B"] * now["vmcs"] | (0 if now["efer"] else _C["FLAG_KEEP_EFER"])
    yield {
        **c.common(),
        **program_state.of_entry(now),
        "access": _C["OP_RUN"],
        "leaf": table_address(c.area, f"r{now['root']}"),
        "cpl": now["cpl"],
        "ept": ept | (_C["EPT_VPID"] if now["vpid"] else 0),
        "msr": now["vpid"],
        "flags": flags,
    }
    now |= run.leaves


def _invvpid(c: _Controls, made: Invvpid) -> Fields:
    address = 1 << 63 if made.bad == "noncanonical" else guest_linear(made.page, pae=c.frame.pae)
    low = made.vpid | (1 << 16 if made.bad == "reserved" else 0)
    return {**c.common(), "access": _C["OP_INVVPID"], "leaf": made.type, "upper": low, "gp": address}


_HOST_CALLS: Final = {
    "nx-off": _C["HOST_NX_OFF"],
    "nx-force": _C["HOST_NX_FORCE"],
    "age": _C["HOST_AGE"],
    "log": _C["HOST_LOG"],
    "unlog": _C["HOST_UNLOG"],
    "remap": _C["HOST_REMAP"],
    "save": _C["HOST_SAVE"],
}


def _host(c: _Controls, call: int, operand: int = 0) -> Fields:
    return {**c.common(), "access": _C["OP_HOST"], "leaf": call, "upper": operand}


_REGIONS: Final = {
    "a": _C["PROBE_VMCS"],
    "b": _C["PROBE_VMCS"] + PAGE,
    "c": _C["PROGRAM_VMCS"],
    "d": _C["PROGRAM_VMCS"] + PAGE,
    "rev": _C["PROGRAM_VMCS"] + 2 * PAGE,
    "on": _C["PROBE_VMXON"],
    "odd": _C["PROGRAM_VMCS"] + 8,
    "far": 1 << 52,  # beyond any MAXPHYADDR
}


def _vmx(c: _Controls, made: Vmx) -> Fields:
    operand = _REGIONS[made.region] if made.region else made.field
    which = _C[f"VMX_{made.what.upper()}"]
    return {**c.common(), "access": _C["OP_VMX"], "leaf": which, "upper": operand, "gp": made.value}


def _step(c: _Controls, made: Step) -> Iterator[Fields]:
    match made:
        case Control():
            c.now[made.name] = made.value
            yield from program_state.of_control(c.vector, made, c.common(), c.now)
        case SetEntry():
            yield _write(c, entry_address(c.area, made.entry), entry_bits(made) | target_address(c.area, made.target))
        case SetGuest():
            yield _write(c, guest_entry_address(f"g.{made.page}"), guest_entry(made))
        case SetGuestUpper():
            yield _write(c, guest_entry_address(f"gu.{made.window}"), guest_upper_entry(made))
        case SetPdpte(in_field=True):
            field = program_state.field_of(made.place)
            yield {**c.common(), "access": _C["OP_FIELD"], "leaf": field, "upper": pdpte_of(made)}
        case SetPdpte():
            yield _write(c, pdpte_address(made.table, made.number), pdpte_of(made))
        case Look(is_field=True):
            yield {**c.common(), "access": _C["OP_LOOK_FIELD"], "leaf": program_state.field_of(made.entry)}
        case Look():
            at = guest_entry_address(made.entry) if made.is_guest else entry_address(c.area, made.entry)
            yield {**c.common(), "access": _C["OP_LOOK"], "leaf": at}
        case Invept():
            yield {
                **c.common(),
                "access": _C["OP_INVEPT"],
                "leaf": made.type,
                "upper": c.eptp(made.root, made.bad),
            }
        case Invvpid():
            yield _invvpid(c, made)
        case Vmx():
            yield _vmx(c, made)
        case HostStep():
            yield _host(c, _HOST_CALLS[made.what], page_address(made.page) if made.page else 0)
        case L2Run():
            yield from _run(c, made)


def records(vector: ProgramVector, ordinal: int) -> list[Fields]:
    """The function gives the records of a program that is the ``ordinal``-th of its batch."""
    area = _C["PROGRAM_TABLES"] + ordinal % _C["PROGRAM_AREAS"] * _C["PROGRAM_AREA"]
    c = _Controls(vector, area, {name: start for name, (_, start) in CONTROLS.items()})
    found = [{**c.common(), "access": _C["OP_BUILD"], "leaf": area, "upper": int(not vector.ept)}]
    if vector.ept:  # what an earlier program left in the CPU of these tables
        found.append(next(_step(c, Invept(2))))
    for made in vector.steps:
        found += _step(c, made)
    if any(isinstance(made, HostStep) and made.what.startswith("nx") for made in vector.steps):
        found.append(_host(c, _C["HOST_NX_RESTORE"]))
    return [*found, *program_state.at_the_end(vector, c.common())]


# --- outcomes ---


def _byte(packed: int, place: int) -> Outcome:
    """An access that completed, by the byte that tells which page it came to."""
    known = packed >> 8 * place & 0xFF
    number = known & ~_C["PROGRAM_KNOWN"]
    if not known & _C["PROGRAM_KNOWN"] or number >= _C["PROGRAM_PAGES"]:
        return Outcome(Kind.DONE, _NOWHERE, note="no page of the program")
    return reached(number)


def _completed(run: L2Run, o: StepRecord, parts: int) -> Iterator[Outcome]:
    """The accesses among the first ``parts`` parts of a run, all of which completed."""
    for place, op in enumerate(run.ops[:parts]):
        if isinstance(op, Over):
            yield from program_over.answers(op, o, None)
        if isinstance(op, Touch):
            match op.access:
                case Access.READ:
                    yield _byte(o.value, place)
                case Access.FETCH:
                    yield _byte(o.upper_after, 0)
                case _:
                    yield _byte(o.leaf_after, place)


def _linear(address: int, frame: CodeFrame) -> Place:
    for window in WINDOWS:
        for n in range(8):
            if 0 <= address - guest_linear(f"{window}{n}", pae=frame.pae) < PAGE:
                return Place(f"{window}{n}", address % PAGE)
    return Place("linear", address)


def _physical(address: int) -> Place:
    for window in WINDOWS:
        for n in range(8):
            if 0 <= address - guest_physical(f"{window}{n}") < PAGE:
                return Place(f"{window}{n}", address % PAGE)
    return Place("l2", address)


def _ended(o: StepRecord, frame: CodeFrame) -> Outcome:
    """What ended a run before its VMCALL."""
    match o.verdict:
        case 3:
            gla = _linear(o.qualification, frame) if o.vector == 14 else None
            return Outcome(Kind.EXCEPTION, o.error, number=o.vector, gla=gla)
        case 4:
            return Outcome(Kind.ENTRY_FAIL, o.error)
        case 5:
            return Outcome(Kind.ENTRY_EXIT, o.qualification, number=o.reason & 0xFFFF)
        case 6:
            return Outcome(Kind.LIVELOCK)
        case 8:
            return Outcome(Kind.SCAFFOLD, note=f"error {o.error:#x}")
    match o.reason & 0xFFFF:
        case 48:
            gla = _linear(o.gla, frame) if o.qualification & 1 << 7 else None
            return Outcome(Kind.VIOLATION, o.qualification, gpa=_physical(o.gpa), gla=gla)
        case 49:
            return Outcome(Kind.MISCONFIG, o.qualification, gpa=_physical(o.gpa))
        case reason:
            return Outcome(Kind.EXIT, o.qualification, number=reason)


def _part(run: L2Run, o: StepRecord, frame: CodeFrame) -> int | None:
    """The part of a run in which it ended; None where L2 was nowhere in it."""
    if o.verdict in (4, 5):
        return 0
    if (part := assemble(run, frame).part_at(o.rip)) is not None:
        return part
    last = run.ops[-1]
    if isinstance(last, Touch) and last.access is Access.FETCH and o.rip == guest_linear(last.page, pae=frame.pae):
        return len(run.ops) - 1
    if isinstance(last, Over) and program_over.is_at(last, o.rip):
        return len(run.ops) - 1
    return None


_REFUSED: Final = {  # images/probe/probe.h
    0x1004: "nobody hears L1 call its host; QEMU's pvpanic device is needed",
    0x1005: "the host could not do it, or not in time; its kernel or QEMU may lack what that takes",
}


def _of_run(run: L2Run, o: StepRecord, frame: CodeFrame) -> list[Outcome]:
    """An outcome an access."""
    if o.astray and o.verdict in astray.ENDED:
        return [astray.outcome(o.astray, o.reason)] + [Outcome(Kind.UNREACHED)] * (run.answers - 1)
    if o.verdict == 1:
        return list(_completed(run, o, len(run.ops)))
    if o.verdict == 8 and o.error in _REFUSED:
        return [Outcome(Kind.SCAFFOLD, note=_REFUSED[o.error])]
    part = _part(run, o, frame)
    if part is None:
        return [Outcome(Kind.SCAFFOLD, note=f"L2 ended at RIP {o.rip:#x}, reason {o.reason:#x}")]
    found, op = list(_completed(run, o, part)), run.ops[part]
    found += program_over.answers(op, o, _ended(o, frame)) if isinstance(op, Over) else [_ended(o, frame)]
    return found + [Outcome(Kind.UNREACHED)] * (run.answers - len(found))


def _of_look(made: Look, o: StepRecord) -> Outcome:
    """What L1 read; an address in a program's area of tables counts from the area's start."""
    if made.is_cr3:
        return Outcome(Kind.VALUE, o.value)
    if made.is_pdpte:
        return told_pdpte(o.value)
    address = o.value & _ADDRESS
    if _C["PROGRAM_TABLES"] <= address < _C["PROGRAM_TABLES"] + _C["PROGRAM_AREAS"] * _C["PROGRAM_AREA"]:
        address %= _C["PROGRAM_AREA"]
    return told(o.value & ~_ADDRESS | address, guest=made.is_guest)


def _of_instruction(o: StepRecord) -> Outcome:
    if o.astray and o.verdict in astray.ENDED:
        return astray.of_fields(o)
    match o.verdict:
        case 4 if o.error == _UNDEFINED:
            return Outcome(Kind.EXCEPTION, number=INVALID_OPCODE)
        case 4:
            return vmfail(o.error if o.error != 0xFFFF_FFFF else 0)
        case 7:
            return Outcome(Kind.VALUE, o.value)
        case _:
            return Outcome(Kind.DONE)


def outcome_of(vector: ProgramVector, observations: Sequence[StepRecord], death: Outcome | None = None) -> Outcome:
    """The function gives what the program's records observed; with ``death`` those before the one at which L1 died of
    it.
    """
    heard: list[tuple[Step, StepRecord, CodeFrame]] = []
    rows = list(observations)
    at = 1 + vector.ept
    c = _plain(vector)
    for made in vector.steps:
        frame = c.frame
        wanted = len(list(_step(c, made)))
        if at + wanted > len(rows):
            break
        if isinstance(made, HostStep) and rows[at].verdict == 8:
            return Outcome(Kind.SCAFFOLD, note=f"{made}: {_REFUSED.get(rows[at].error, 'it was not carried out')}")
        if answers_of(made):
            heard.append((made, rows[at + wanted - 1], frame))
        at += wanted
    found: list[Outcome] = []
    for made, o, frame in heard:
        match made:
            case L2Run():
                found += _of_run(made, o, frame)
            case Look():
                found.append(_of_look(made, o))
            case _:
                found.append(_of_instruction(o))
    broken = next((turn for turn in found if turn.kind in (Kind.SCAFFOLD, Kind.BLOCKED)), None)
    if broken is not None:
        return broken
    return of_turns([*found, *([death] if death else [])])


def _plain(vector: ProgramVector) -> _Controls:
    return _Controls(vector, 0, {name: start for name, (_, start) in CONTROLS.items()})
