"""All checks."""

from __future__ import annotations

from typing import Final

from harness.oracle import specs_mmu, specs_shadow, specs_spte, specs_tdp, specs_trace, specs_vmx
from harness.oracle.spec import Spec

SPECS: Final[tuple[Spec, ...]] = (
    *specs_spte.SPECS,
    *specs_mmu.SPECS,
    *specs_vmx.SPECS,
    *specs_shadow.SPECS,
    *specs_tdp.SPECS,
    *specs_trace.SPECS,
)
