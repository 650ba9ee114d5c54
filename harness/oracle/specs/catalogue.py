"""All checks."""

from __future__ import annotations

from typing import Final

from harness.oracle.specs import mmu, shadow, spte, tdp, trace, vmx
from harness.oracle.specs.spec import Spec

SPECS: Final[tuple[Spec, ...]] = (
    *spte.SPECS,
    *mmu.SPECS,
    *vmx.SPECS,
    *shadow.SPECS,
    *tdp.SPECS,
    *trace.SPECS,
)
