"""Which functions of the mirror a check reaches, and why the others are not reached here.

The mirror's docstrings begin with the C file and function; that is the list of what is mirrored.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import kvmodel
from harness.oracle.spec import Spec

_ORIGIN: Final = re.compile(r"((?:include/|kvm/|virt/|asm/|vmx/|mmu/)?[\w/.-]+\.[chS]) ([A-Za-z_]\w*)")

WALKS: Final = (
    "works on shadow pages, guest memory and the MMU lock: compared on the running kernel, by its tracepoints"
)
LOADS: Final = (
    "runs once when the module is loaded or a vCPU is made: compared on the running kernel, by its MSRs and files"
)
TEXTS: Final = "makes a tracepoint's text: compared with the running kernel's trace"
FLOWS: Final = "is a step of a nested VM entry or exit: compared on the running kernel, by what L1 sees"
INLINE: Final = "has no code of its own: its callers are checked"

ENCRYPTION: Final = "serves memory encryption and reserved RAM pages, which no host of ours has: not compared"

# Why a function of a C file has no entry of its own; the first row that fits.
REASONS: Final = (
    (re.compile(r"mmutrace\.h"), TEXTS),
    (re.compile(r"vmx/vmx\.c vmx_vcpu_create|x86\.c module_param"), LOADS),
    (re.compile(r"kvm_mmu_set_me_spte_mask|kvm_is_mmio_pfn"), ENCRYPTION),
    (re.compile(r"mmu/paging_tmpl\.h|kvm_mmu_do_page_fault|spte_to_child_sp|kvm_mmu_max_gfn|sp_ad_disabled"), WALKS),
    (re.compile(r"\.h "), INLINE),
    (re.compile(r"vmx/|x86\.c"), FLOWS),
    (re.compile(r"mmu/|page_track|kvm_main"), WALKS),
)


def mirrored(package: Path | None = None) -> dict[str, str]:
    """Every mirrored C function (``mmu/spte.c make_spte``) with the Python function that mirrors it."""
    folder = package or Path(next(iter(kvmodel.__path__)))
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and (match := _ORIGIN.match(ast.get_docstring(node) or "")):
                file = match[1].removeprefix("kvm/")
                name = f"{'mmu/mmu.c' if file == 'mmu.c' else file} {match[2]}"
                found.setdefault(name, f"{path.stem}.{node.name}")
    return found


def reached(specs: Iterable[Spec]) -> set[str]:
    """The C functions that some check reaches."""
    return {name for spec in specs for name in spec.functions}


def unreached(specs: Iterable[Spec]) -> dict[str, str]:
    """The mirrored functions no check reaches, each with the reason."""
    known = reached(specs)
    return {name: _reason(name) for name in sorted(mirrored()) if name not in known}


def _reason(name: str) -> str:
    for pattern, reason in REASONS:
        if pattern.search(name):
            return reason
    return "no reason is known: give it a check"
