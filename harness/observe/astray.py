"""What an exit or a failed VM entry left otherwise than the manual has it, whatever else the question was.

The probe looks after every VM entry (images/probe/vmx.c, vmx_astray and vmx_saved_astray): L1's registers are as the
host state of its VMCS has them (SDM 28.5), the fields of the exit that its reason does not use say so (28.2), and L2's
state was saved as it was (28.3). After VM entries with changed fields, and a program's own VMLAUNCH and VMRESUME, it
looks at all of L1's state and at every field of the VMCS (leaves.c): a failed entry leaves guest state, controls and
the exit's other fields alone and the VMCS clear (27.8, 31.3), an exit clears the injected event's valid bit. Where one
is not so, that is the answer, since no other says anything then.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

from harness import protocol
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vmcs import FIELDS

_C: Final = protocol.CONSTANTS
ENDED: Final = range(1, 6)  # the verdicts after which the probe has looked: all but L2's livelock and its own failures
WORDS: Final = {
    "ASTRAY_CR0": "CR0 of L1",
    "ASTRAY_CR3": "CR3 of L1",
    "ASTRAY_CR4": "CR4 of L1",
    "ASTRAY_RFLAGS": "RFLAGS of L1",
    "ASTRAY_RSP": "RSP of L1",
    "ASTRAY_SELECTOR": "a selector of L1",
    "ASTRAY_INTERRUPTION": "VM-exit interruption information that is valid",
    "ASTRAY_VECTORING": "IDT-vectoring information that is valid",
    "ASTRAY_LENGTH": "the instruction length of VMCALL",
    "ASTRAY_SAVED": "the saved state of L2",
    "ASTRAY_BASE": "the base of FS or GS of L1",
    "ASTRAY_SYSENTER": "a SYSENTER MSR of L1",
    "ASTRAY_EFER": "EFER of L1",
    "ASTRAY_PAT": "PAT of L1",
    "ASTRAY_DEBUG": "DR7 or DEBUGCTL of L1",
    "ASTRAY_TABLE": "GDTR or IDTR of L1",
    "ASTRAY_CONTROL": "a control that the entry changed",
    "ASTRAY_INJECTION": "VM-entry interruption information",
    "ASTRAY_GUEST": "guest state that a failed entry changed",
    "ASTRAY_INFORMATION": "an exit field that a failed entry wrote",
    "ASTRAY_DATA": "what the access read or wrote: it came to another page",
    "ASTRAY_LAUNCH": "the launch state",
}
INFORMATION: Final = "ASTRAY_INFORMATION"
STATE: Final = ("ASTRAY_CONTROL", "ASTRAY_INJECTION", "ASTRAY_SAVED", "ASTRAY_GUEST")
"""In the order in which the probe looks, so that the field it names is of the first of them."""
_NAMES: Final = {encoding: name for name, encoding in FIELDS.items()} | {
    0x681C: "guest_rsp",
    0x482A: "guest_sysenter_cs",
}


class Looked(Protocol):
    """What an observation has of it: of a field that is astray its encoding, what it must hold and what it holds; then
    the same of exit information.
    """

    @property
    def astray(self) -> int: ...
    @property
    def reason(self) -> int: ...
    @property
    def gpa(self) -> int: ...
    @property
    def gla(self) -> int: ...
    @property
    def value(self) -> int: ...
    @property
    def gpt_gpa(self) -> int: ...
    @property
    def target_gla(self) -> int: ...
    @property
    def target_gpa(self) -> int: ...


def outcome(bits: int, reason: int, fields: Mapping[str, str] = MappingProxyType({})) -> Outcome:
    """The function gives the answer of an exit that left ``bits`` (ASTRAY_*) astray; ``reason`` has 32 bits, as in the
    VMCS. ``fields`` says of a bit which field of the VMCS it is about.
    """
    said = [words + fields.get(name, "") for name, words in WORDS.items() if bits & _C[name]]
    return Outcome(Kind.ASTRAY, code=bits, number=reason & 0xFFFF, note=", ".join(said))


def of_fields(o: Looked) -> Outcome:
    """The function gives the same where the probe looked at all fields: with the first of them that is astray."""
    fields = {INFORMATION: _field(o.gpt_gpa, o.target_gpa, o.target_gla)}
    if of_state := next((name for name in STATE if o.astray & _C[name]), ""):
        fields[of_state] = _field(o.gpa, o.value, o.gla)
    return outcome(o.astray, o.reason, fields)


def _field(encoding: int, now: int, want: int) -> str:
    return f": {_NAMES.get(encoding, hex(encoding))} ({now:#x} for {want:#x})" if encoding else ""
