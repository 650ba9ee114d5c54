"""How the mirror tells what it does: steps, for a reader, and the rows of KVM's tracepoints.

A mirrored function says ``narrate(...)`` or ``trace(...)`` in one line, where C would call a tracepoint. Where nobody
listens nothing is formatted. A step's patch is measured, by the gate (``kvm.has(k)``) that was asked last.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kvmodel import mirrors
from kvmodel.question.outcome import Step
from kvmodel.series import PATCHES, Claim

if TYPE_CHECKING:
    from kvmodel.include.asm.kvm_host import Vcpu
    from kvmodel.series import Level

# A patch that claims no functional change decides nothing: its gate is the base's, in other words.
_DECIDING: Final = frozenset(patch.number for patch in PATCHES if patch.claim is Claim.NONE)


class Gates:
    """The patches of a level, and which of them was asked for last."""

    __slots__ = ("_applied", "asked")

    def __init__(self, level: Level) -> None:
        self._applied = level.applied
        self.asked = 0

    def has(self, patch: int) -> bool:
        """Whether patch ``patch`` (1 to 18) is applied; the question is remembered."""
        self.asked = patch
        return patch in self._applied

    @property
    def decided(self) -> int:
        """The patch whose gate was asked last and stood open; 0 where it was shut or changes nothing: the base."""
        return self.asked if self.asked in self._applied and self.asked in _DECIDING else 0


def narrate(
    vcpu: Vcpu, what: str, *args: object, of: Callable[..., object] | None = None, by: object = False, patch: int = 0
) -> None:
    """Tell one rule used: ``what`` with its ``{}`` filled by ``args``.

    The step is the calling function's, or of the mirrored function ``of``. ``by`` says whether a patch made it what
    it is, as bits that it put there or a flag: then the patch is the one whose gate was asked last. ``patch`` names
    a patch that is asked for nowhere here, as it changed a header.
    """
    if vcpu.steps is None:
        return
    if of is None:
        frame = sys._getframe(1)
        mirror = mirrors.of(frame.f_globals["__name__"], frame.f_code.co_qualname)
    else:
        mirror = mirrors.of(of.__module__, of.__qualname__)
    vcpu.steps.append(Step(mirror.c, what.format(*args), vcpu.kvm.gates.decided if by else patch))


def trace(vcpu: Vcpu, event: str, *args: int) -> None:
    """KVM reaches the tracepoint ``event``: its row in ``vcpu.trace`` has what TP_ARGS carry."""
    if vcpu.trace is not None:
        vcpu.trace.append((event, args))
