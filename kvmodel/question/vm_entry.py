"""A VM entry with VMCS fields changed: what L1 wrote for a harmless L2, and then a few fields otherwise.

    vmentry.guest_rflags:c1.mbec=off
    vmentry.vm_entry_intr_info_field=80000302+guest_interruptibility_info=2.mbec=off

The answer is coarse: the entry fails (VMfail with its error number, or an exit with bit 31 of the reason, its basic
reason and qualification), or L2 is entered, whatever exit follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from kvmodel.question.vector import Common, Evmcs, Paging, VectorError
from kvmodel.question.vmcs import PLAIN_ONLY, FieldChange

MOST: Final = 8  # changes of one entry
UNCHANGED: Final = "asis"
NEVER_BACK: Final = (2, 3)  # activity states in which nothing of the probe's ends L2: shutdown and wait-for-SIPI


def changes(text: str) -> tuple[FieldChange, ...]:
    """The changes that a word of an id says. VectorError where one is none, or they are too many."""
    if text == UNCHANGED:
        return ()
    found = tuple(FieldChange.parse(one) for one in text.split("+"))
    if len(found) > MOST:
        raise VectorError(f"{text!r}: {len(found)} changes; at most {MOST} go with one VM entry")
    state = 0
    for one in found:
        state = one.of(state) if one.field == "guest_activity_state" else state
    if state in NEVER_BACK:
        raise VectorError(f"{text!r}: nothing ends an L2 in shutdown or wait-for-SIPI; ask another activity state")
    return found


@dataclass(frozen=True)
class VmEntryVector(Common):
    """A VM entry of a harmless L2 with ``changes`` made, one after the other, to the fields that the probe wrote.

    L2 has EPT, the ``paging`` named, CPL 0; unrestricted guest is set where L1 is offered it.
    """

    changes: tuple[FieldChange, ...] = ()
    paging: Paging = Paging.LONG

    def __post_init__(self) -> None:
        if self.ev is Evmcs.USED and (lacking := [one.field for one in self.changes if one.field in PLAIN_ONLY]):
            raise VectorError(f"{lacking[0]} is not to be had of an enlightened VMCS: ask it with ev0 or ev1")

    @cached_property
    def id(self) -> str:
        """The name to print and type."""
        said = "+".join(map(str, self.changes)) or UNCHANGED
        return ".".join(["vmentry", said, f"pg{self.paging.value}", *self._tail()])
