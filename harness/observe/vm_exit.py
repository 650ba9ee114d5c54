"""What an exit tells in full: L2's code as records, and the row of an observation (kvmodel.question.vm_exit)."""

from __future__ import annotations

import struct
from typing import Final

from harness import protocol
from harness.observe.program import StepRecord
from kvmodel.question.outcome import Kind, Outcome, Place, of_turns
from kvmodel.question.vm_exit import TOLD, VmExitVector

_C: Final = protocol.CONSTANTS
_CODE_BYTES: Final = 32  # of a record
_LOW: Final = 0xFFFF_FFFF
_EPT_VIOLATION, _EPT_MISCONFIG = 48, 49  # exit reasons, SDM appendix C


def code_records(v: VmExitVector) -> list[dict[str, int | tuple[int, ...]]]:
    """The function gives the records that put L2's code where it is entered."""
    data = v.code
    records: list[dict[str, int | tuple[int, ...]]] = []
    for at in range(0, len(data), _CODE_BYTES):
        words = struct.unpack("<4Q", data[at : at + _CODE_BYTES].ljust(_CODE_BYTES, b"\x90"))
        fields = dict(zip(("leaf", "upper", "gp", "gu"), words, strict=True))
        records.append({"kind": _C["KIND_STEP"], "access": _C["OP_CODE"], "msr": at, **fields})
    return records


def row(o: StepRecord) -> Outcome:
    """The function gives the row of what the exit told, as ``TOLD`` names its turns."""
    reason = o.reason & 0xFFFF
    walked = reason in (_EPT_VIOLATION, _EPT_MISCONFIG)
    gpa = Place("l2", o.gpa) if walked else None
    gla = Place("linear", o.gla) if walked else None
    values = (
        o.target_gpa,
        o.target_gla,
        o.rip,
        o.leaf_address & _LOW,
        o.leaf_address >> 32,
        o.value,
        o.leaf_after,
        o.gpte_after,
        o.upper_after,
        o.gpt_gpa,
        0 if walked else o.gla,
        o.error,
    )
    told = (Outcome(Kind.VALUE, value, note=name) for name, value in zip(TOLD[1:], values, strict=True))
    return of_turns([Outcome(Kind.EXIT, o.qualification, reason, gpa, gla), *told])
