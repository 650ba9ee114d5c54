"""The probe's side of the fence: vectors to a batch, a batch's observations to outcomes.

A batch is the header, one vector record and room for one observation record a vector, as ``harness.protocol``
defines them; the same bytes on KVM and on the bare machine.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from harness import protocol
from harness.errors import GuestError, InputError
from harness.observe import astray, program, vm_exit
from kvmodel.question.outcome import Kind, Outcome, Place, of_turns
from kvmodel.question.program import ProgramVector
from kvmodel.question.relations import RELATIONS
from kvmodel.question.sequence import SequenceVector
from kvmodel.question.vector import (
    Access,
    AccessVector,
    CapsVector,
    Common,
    EntryVector,
    Evmcs,
    GuestPerm,
    LogVector,
    Mbec,
    MmioVector,
    MsrVector,
    NxVector,
    Paging,
    Vector,
)
from kvmodel.question.vm_entry import VmEntryVector
from kvmodel.question.vm_exit import VmExitVector
from kvmodel.sdm.relations import judged

PAGE: Final = 4096  # bytes
ARENA_SIZE: Final = 256 << 20  # bytes of L1 memory for the tables of the vectors; used up, it is used again
ARENA_ALIGN: Final = 2 << 20

_C = protocol.CONSTANTS
_ACCESS: Final = {
    Access.READ: _C["ACCESS_READ"],
    Access.WRITE: _C["ACCESS_WRITE"],
    Access.RMW: _C["ACCESS_RMW"],
    Access.FETCH: _C["ACCESS_FETCH"],
    Access.WALK: _C["ACCESS_WALK"],
    Access.WALKA: _C["ACCESS_WALKA"],
    Access.WALKD: _C["ACCESS_WALKD"],
    Access.EMUREAD: _C["ACCESS_EMUREAD"],
    Access.EMUWRITE: _C["ACCESS_EMUWRITE"],
    Access.EMUFETCH: _C["ACCESS_EMUFETCH"],
}
_PAGING: Final = {
    Paging.OFF: _C["PAGING_OFF"],
    Paging.BITS32: _C["PAGING_32"],
    Paging.PAE: _C["PAGING_PAE"],
    Paging.LONG: _C["PAGING_64"],
}

PTE_P, PTE_W, PTE_U, PTE_A, PTE_D, PTE_XD = 1 << 0, 1 << 1, 1 << 2, 1 << 5, 1 << 6, 1 << 63
QUALIFICATION_GLA_VALID = 1 << 7
VECTOR_PF = 14

_REFUSED: Final = {  # images/probe/probe.h
    0x1000: "no L2-physical address fits the paging mode, the levels and MAXPHYADDR",
    0x1001: "a sequence step without a fitting step before it",
    0x1002: "unknown kind, access or paging",
    0x1003: "this L1 is not offered an enlightened VMCS",
    0x1006: "more changes than the protocol allows, or none of a VM entry's",
    0x1007: "this CPU has not all the VMCS fields that are changed",
    0x1011: "the access ended at the wrong RIP",
}

Fields = dict[str, int | tuple[int, ...]]


@dataclass(frozen=True)
class Observation:
    """The record is of one observation, field by field as ``protocol.OBSERVATION`` has it."""

    index: int
    verdict: int
    vector: int
    exits: int
    reason: int
    error: int
    qualification: int
    gpa: int
    gla: int
    rip: int
    value: int
    leaf_after: int
    upper_after: int
    gpte_after: int
    target_gpa: int
    target_gla: int
    gpt_gpa: int
    tsc: int
    leaf_address: int
    astray: int


@dataclass(frozen=True)
class Header:
    """What the header says after a run: scalars by name, and the MSRs L1 read."""

    count: int
    start: int
    current: int  # index of the record being run
    state: int  # STATE_*
    msrs: tuple[int, ...]  # MSR 0x480 + i, 0 where the read faulted
    msr_faults: int  # bit i set where it faulted
    maxphyaddr: int
    cpuid1_eax: int
    cpuid1_ecx: int
    cpuid7_ebx: int
    bare: bool
    tsc_ticks: int  # from the first vector to the end of the last

    @property
    def done(self) -> bool:
        """The probe ran to the end of the batch: True."""
        return self.state == _C["STATE_DONE"]

    @property
    def running(self) -> bool:
        """The probe came as far as its first vector, and not to the end: True."""
        return self.state == _C["STATE_RUNNING"]

    @property
    def refused(self) -> bool:
        """The probe found no VMX, or no batch of its version; it then has refused: True."""
        return self.state == _C["STATE_REFUSED"]

    @property
    def readable(self) -> dict[int, int]:
        """The VMX capability MSRs by number, those that could be read."""
        there = (i for i in range(len(self.msrs)) if not self.msr_faults >> i & 1)
        return {protocol.MSR_FIRST + i: self.msrs[i] for i in there}

    @property
    def smep(self) -> bool:
        """The CPU has supervisor-mode execution prevention (CPUID 7.0 EBX bit 7)."""
        return bool(self.cpuid7_ebx >> 7 & 1)

    @property
    def smap(self) -> bool:
        """The CPU has supervisor-mode access prevention (CPUID 7.0 EBX bit 20)."""
        return bool(self.cpuid7_ebx >> 20 & 1)

    def msr(self, number: int) -> int | None:
        """The value is MSR ``number`` (0x480 to 0x491) as L1 read it, 64 bits; None where the read faulted."""
        i = number - protocol.MSR_FIRST
        return None if self.msr_faults >> i & 1 else self.msrs[i]


@dataclass(frozen=True)
class Batch:
    """A batch read back."""

    header: Header
    observations: tuple[Observation, ...]


def _guest_entry(perm: GuestPerm, extra: int) -> int:
    return PTE_P | extra | (PTE_U if perm.u else 0) | (PTE_W if perm.w else 0) | (0 if perm.x else PTE_XD)


def _leaf_extra(access: Access) -> int:
    """A and D of the guest leaf entry, so that the walk does what the access names and nothing else."""
    match access:
        case Access.WALKA:
            return 0
        case Access.WALKD:
            return PTE_A
        case _:
            return PTE_A | PTE_D


def _evmcs(v: Common) -> int:
    return _C["EPT_EVMCS"] if v.ev is Evmcs.USED else 0


def _access_record(v: AccessVector) -> Fields:
    if v.paging is Paging.BITS32 and not (v.gp.x and v.gu.x):
        raise InputError(f"{v.id}: 32-bit paging has no execute-disable bit; use pgpae or pg64, or 'x' in gp and gu")
    if v.access.is_walk and v.paging is Paging.OFF:
        raise InputError(f"{v.id}: with paging off there is no page walk; use pg32, pgpae or pg64")
    if v.access.is_emulated and (v.paging is not Paging.LONG or v.smap or v.upper_level == 4):
        raise InputError(f"{v.id}: a MOVS needs pg64 and smap0, the second entry at level 2 or 3; ask it so")
    return {
        "kind": _C["KIND_ACCESS"],
        "access": _ACCESS[v.access],
        "leaf_level": v.leaf_level,
        "upper_level": v.upper_level,
        "leaf": v.leaf.bits | v.memtype << 3 | v.leaf_bits,
        "upper": v.upper.bits | v.upper_bits,
        "gp": _guest_entry(v.gp, _leaf_extra(v.access)),
        "gu": _guest_entry(v.gu, PTE_A),
        "paging": _PAGING[v.paging],
        "cpl": v.cpl,
        "cr": v.wp * _C["CR_WP"] | v.smep * _C["CR_SMEP"] | v.smap * _C["CR_SMAP"] | v.nxe * _C["CR_NXE"],
        "ept": _C["EPT_ENABLE"] | v.ad * _C["EPT_AD"] | (v.mbec is Mbec.ON) * _C["EPT_MBEC"] | _evmcs(v),
    }


def _turn_records(v: SequenceVector) -> list[Fields]:
    """A record a turn, with its FLAG_*."""
    records = []
    for i, turn in enumerate(v.turns):
        flags = _C["FLAG_CONTINUE"] * (i > 0) | _C["FLAG_NO_INVEPT"] * (not turn.invept)
        records.append({**_access_record(turn.access), "flags": flags | _C["FLAG_VMCS_B"] * turn.second})
    return records


def _vm_entry_records(v: VmEntryVector | VmExitVector) -> list[Fields]:
    """A record a change, then the VM entry; before them those of L2's code, where it has some of its own."""
    kind = _C["KIND_CHANGE"]
    masks = [(change.encoding, *change.masks) for change in v.changes]
    changes: list[Fields] = [{"kind": kind, "msr": field, "leaf": kept, "upper": put} for field, kept, put in masks]
    entry = AccessVector(v.mbec, ev=v.ev, paging=v.paging)
    if isinstance(v, VmExitVector):
        return [*vm_exit.code_records(v), *changes, {**_access_record(entry), "kind": _C["KIND_VM_EXIT"]}]
    return [*changes, {**_access_record(entry), "kind": _C["KIND_VM_ENTRY"]}]


def _msr_records(v: CapsVector) -> list[Fields]:
    """A record an MSR that the relation is about."""
    return [{"kind": _C["KIND_MSR"], "msr": msr, "ept": _evmcs(v)} for msr in RELATIONS[v.relation]]


def _records(v: Vector, place: int) -> list[Fields]:
    """The records that ask ``v``, the vector at ``place`` of its batch: several for a sequence, a program, MSRs."""
    match v:
        case LogVector():
            return _records(v.asked, place)
        case ProgramVector():
            return program.records(v, place)
        case SequenceVector():
            return _turn_records(v)
        case CapsVector():
            return _msr_records(v)
        case VmEntryVector() | VmExitVector():
            return _vm_entry_records(v)
        case _:
            return [_record(v)]


def count_records(v: Vector) -> int:
    """The function says how many records ask ``v``."""
    match v:
        case LogVector():
            return count_records(v.asked)
        case ProgramVector():
            return len(program.records(v, 0))
        case SequenceVector():
            return len(v.turns)
        case CapsVector():
            return len(RELATIONS[v.relation])
        case VmEntryVector():
            return len(v.changes) + 1
        case VmExitVector():
            return len(_vm_entry_records(v))
        case _:
            return 1


def deciding_record(v: Vector, turn: int) -> int:
    """The function says which record of ``v`` answers ``turn``, both from 0: a VM entry's is the last."""
    asked = v.asked if isinstance(v, LogVector) else v
    return count_records(v) - 1 if isinstance(asked, VmEntryVector | VmExitVector) else turn


def spans(vectors: Sequence[Vector]) -> list[slice]:
    """The function says where each vector's records are in the batch of ``vectors``."""
    found, at = [], 0
    for v in vectors:
        found.append(slice(at, at + count_records(v)))
        at = found[-1].stop
    return found


def _record(v: Vector) -> Fields:
    match v:
        case AccessVector():
            return _access_record(v)
        case EntryVector():
            fields = _access_record(AccessVector(v.mbec))
            ept = v.ept * _C["EPT_ENABLE"] | (v.mbec is Mbec.ON) * _C["EPT_MBEC"] | _evmcs(v)
            return {**fields, "kind": _C["KIND_ENTRY"], "ept": ept}
        case NxVector():
            return _access_record(v.asked)
        case MsrVector():
            return {"kind": _C["KIND_MSR"], "msr": v.msr, "ept": _evmcs(v)}
        case MmioVector():
            if v.access not in (Access.READ, Access.WRITE, Access.RMW):
                raise InputError(f"{v.id}: L1's MMIO access is read, write or rmw; ask one of these")
            return {"kind": _C["KIND_MMIO"], "access": _ACCESS[v.access], "ept": _evmcs(v)}
        case _:
            raise InputError(f"{v.id}: not a question for the probe; ask the client or the host")


def pack(
    vectors: Sequence[Vector],
    *,
    flags: Sequence[int] | None = None,
    marks: Collection[int] = (),
    start: int = 0,
    deadline: int = 0,
    arena_size: int = ARENA_SIZE,
) -> bytes:
    """The function gives the batch that asks ``vectors`` in this order.

    ``flags``: FLAG_* of each record, instead of the vectors' own; ``marks``: places of the vectors whose first
    record the probe is to mark in the host's trace; ``start``: index of the first record to run; ``deadline``:
    microseconds of guest time for one vector, 0 for the probe's default; ``arena_size``: bytes of L1 memory for tables.

    Raises InputError for a vector that is not the probe's or cannot be built.
    """
    rows = [
        {**row, "flags": _int(row, "flags") | _C["FLAG_MARK"]} if i in marks and not n else row
        for i, v in enumerate(vectors)
        for n, row in enumerate(_records(v, i))
    ]
    if flags is not None:
        if len(flags) != len(rows):
            raise InputError(f"{len(flags)} flags for {len(rows)} records: give one a record")
        rows = [{**row, "flags": flag} for row, flag in zip(rows, flags, strict=True)]
    at_vectors = protocol.HEADER.size
    at_observations = at_vectors + len(rows) * protocol.VECTOR.size
    size = at_observations + len(rows) * protocol.OBSERVATION.size
    arena = -(-(protocol.BATCH_BASE + size) // ARENA_ALIGN) * ARENA_ALIGN
    if arena + arena_size > protocol.L1_MEMORY:
        raise InputError(
            f"{len(rows)} records and an arena of {arena_size} bytes do not fit L1's {protocol.L1_MEMORY} bytes: "
            "split the batch"
        )
    header = protocol.HEADER.pack(
        magic=protocol.MAGIC,
        version=protocol.VERSION,
        count=len(rows),
        start=start,
        deadline=deadline,
        vectors=at_vectors,
        observations=at_observations,
        arena=arena,
        arena_size=arena_size,
    )
    records = b"".join(protocol.VECTOR.pack(**{**row, "index": i}) for i, row in enumerate(rows))
    return header + records + bytes(len(rows) * protocol.OBSERVATION.size)


def batch_size(count: int) -> int:
    """A batch of ``count`` vectors has this many bytes."""
    return protocol.HEADER.size + count * (protocol.VECTOR.size + protocol.OBSERVATION.size)


def restart(data: bytes, start: int) -> bytes:
    """The batch ``data``, observations kept, set to go on at record ``start`` (after L1 died at the one before)."""
    fields = protocol.HEADER.unpack(data)
    fields.update(start=start, current=start, state=_C["STATE_LOADED"])
    return protocol.HEADER.pack(**fields) + data[protocol.HEADER.size :]


def _int(fields: Fields, name: str) -> int:
    value = fields.get(name, 0)
    assert isinstance(value, int)
    return value


def unpack_header(data: bytes | memoryview) -> Header:
    """The function gives the header of a batch.

    Raises GuestError when the bytes are not one.
    """
    if len(data) < protocol.HEADER.size:
        raise GuestError(f"a batch header has {protocol.HEADER.size} bytes, only {len(data)} were read back")
    fields = protocol.HEADER.unpack(data)
    if fields["magic"] != protocol.MAGIC or fields["version"] != protocol.VERSION:
        raise GuestError(
            f"not a batch: magic {_int(fields, 'magic'):#x}, version {_int(fields, 'version')} "
            f"(expected {protocol.MAGIC:#x}, {protocol.VERSION}); probe and harness are of different builds"
        )
    msrs = fields["msrs"]
    assert isinstance(msrs, tuple)
    return Header(
        count=_int(fields, "count"),
        start=_int(fields, "start"),
        current=_int(fields, "current"),
        state=_int(fields, "state"),
        msrs=msrs,
        msr_faults=_int(fields, "msr_faults"),
        maxphyaddr=_int(fields, "maxphyaddr"),
        cpuid1_eax=_int(fields, "cpuid1_eax"),
        cpuid1_ecx=_int(fields, "cpuid1_ecx"),
        cpuid7_ebx=_int(fields, "cpuid7_ebx"),
        bare=bool(fields["bare"]),
        tsc_ticks=max(0, _int(fields, "tsc_end") - _int(fields, "tsc_begin")),
    )


def unpack(data: bytes | memoryview) -> Batch:
    """Header and observations of a batch read back from L1's memory; GuestError where the bytes are not one."""
    header = unpack_header(data)
    at = _int(protocol.HEADER.unpack(data), "observations")
    return Batch(header, _observations(data, at, header.count))


def unpack_emitted(data: bytes | memoryview) -> Batch:
    """The function reads the same from a bare machine's stream: the header, then the observations without the vectors
    between.
    """
    header = unpack_header(data)
    return Batch(header, _observations(data, protocol.HEADER.size, header.count))


def _observations(data: bytes | memoryview, at: int, count: int) -> tuple[Observation, ...]:
    size = protocol.OBSERVATION.size
    if at + count * size > len(data):
        raise GuestError(f"{count} observations of {size} bytes at {at} do not fit the {len(data)} bytes read back")
    return tuple(Observation(*protocol.OBSERVATION.packer.unpack_from(data, at + i * size)) for i in range(count))


def _place(address: int, o: Observation) -> Place:
    """A guest-physical address as a place: the guest entry under test is named by itself, not by its page."""
    if o.gpt_gpa and address // PAGE == o.gpt_gpa // PAGE:
        return Place("gpt", address - o.gpt_gpa)
    if address // PAGE == o.target_gpa // PAGE:
        return Place("target", address % PAGE)
    return Place("l2", address)


def _linear(address: int, o: Observation) -> Place:
    if address // PAGE == o.target_gla // PAGE:
        return Place("target", address % PAGE)
    if address == _C["GLA_MMIO"]:
        return Place("mmio")
    return Place("linear", address)


def outcomes(vectors: Sequence[Vector], observations: Sequence[Observation]) -> list[Outcome]:
    """The function gives what a whole batch observed, an outcome a vector."""
    return [outcome_of(v, observations[span]) for v, span in zip(vectors, spans(vectors), strict=True)]


def outcome_of(vector: Vector, observations: Sequence[Observation]) -> Outcome:
    """The function gives what all records of ``vector`` observed.

    A sequence of which one turn's frame broke, or never ran, said nothing as a whole. A VM entry's changes say
    nothing of their own.
    """
    if isinstance(vector, LogVector):
        seen = outcome_of(vector.asked, observations)
        return seen if seen.kind in (Kind.BLOCKED, Kind.SCAFFOLD) else Outcome(Kind.DONE)
    if isinstance(vector, ProgramVector):
        return program.outcome_of(vector, observations)
    if isinstance(vector, CapsVector):
        return _together(vector, observations)
    if isinstance(vector, VmEntryVector):
        return outcome(vector, observations[-1])
    if isinstance(vector, VmExitVector):
        seen = outcome(vector, observations[-1])
        ended = seen.kind in (Kind.EXIT, Kind.VIOLATION, Kind.MISCONFIG)
        return vm_exit.row(observations[-1]) if ended else seen
    if not isinstance(vector, SequenceVector):
        return outcome(vector, observations[0])
    turns = [outcome(vector, o) for o in observations]
    for number, turn in enumerate(turns, 1):
        if turn.kind in (Kind.BLOCKED, Kind.SCAFFOLD):
            return Outcome(turn.kind, note=f"turn {number}: {turn.note}")
    return of_turns(turns)


def _together(vector: CapsVector, observations: Sequence[Observation]) -> Outcome:
    """What the MSRs that L1 read make of their relation; an MSR of which the read faulted is not there."""
    values: dict[int, int | None] = {}
    for msr, o in zip(RELATIONS[vector.relation], observations, strict=True):
        seen = outcome(vector, o)
        if seen.kind not in (Kind.VALUE, Kind.EXCEPTION):
            return seen
        values[msr] = seen.code if seen.kind is Kind.VALUE else None
    return judged(vector.relation, values)


def outcome(vector: Vector, o: Observation) -> Outcome:
    """The function gives what one record observed, in the form of all three voices.

    Raises GuestError for a verdict that is no one's.
    """
    if o.astray and o.verdict in astray.ENDED:
        return astray.of_fields(o) if isinstance(vector, VmEntryVector) else astray.outcome(o.astray, o.reason)
    match o.verdict:
        case 0:
            return Outcome(Kind.BLOCKED, note="not run")
        case 1:
            return Outcome(Kind.DONE)
        case 2:
            return _exit(o)
        case 3:
            of_l2 = not isinstance(vector, MsrVector | CapsVector)
            gla = _linear(o.qualification, o) if o.vector == VECTOR_PF and of_l2 else None
            return Outcome(Kind.EXCEPTION, code=o.error, number=o.vector, gla=gla)
        case 4:
            return Outcome(Kind.ENTRY_FAIL, code=o.error)
        case 5:
            return Outcome(Kind.ENTRY_EXIT, code=o.qualification, number=o.reason & 0xFFFF)
        case 6:
            return Outcome(Kind.LIVELOCK)
        case 7:
            return Outcome(Kind.VALUE, code=o.value)
        case 8:
            why = _REFUSED.get(o.error, f"exit reason {o.reason:#x} at RIP {o.rip:#x}, L2-physical {o.gpa:#x}")
            return Outcome(Kind.SCAFFOLD, note=why)
        case other:
            raise GuestError(f"{vector.id}: verdict {other} is not one of the protocol's: was the batch overwritten?")


def _exit(o: Observation) -> Outcome:
    match o.reason & 0xFFFF:
        case 48:  # EPT violation, SDM appendix C
            gla = _linear(o.gla, o) if o.qualification & QUALIFICATION_GLA_VALID else None
            return Outcome(Kind.VIOLATION, code=o.qualification, gpa=_place(o.gpa, o), gla=gla)
        case 49:  # EPT misconfiguration
            return Outcome(Kind.MISCONFIG, code=o.qualification, gpa=_place(o.gpa, o))
        case reason:
            return Outcome(Kind.EXIT, code=o.qualification, number=reason)
