"""The kernel's constants, asked of the compiler: a generated C table of every macro whose name fits.

Names are found in the level's headers, values come from the compiler, so nothing is retyped.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

NAMES: Final = (
    r"VMX_EPT_\w+|EPT_VIOLATION_\w+|PFERR_\w+|ACC_\w+|\w*SPTE_\w+|SHADOW_\w+|SECONDARY_EXEC_\w+|EVMCS1_\w+"
    r"|CPU_BASED_\w+|KVM_(?:REQUIRED|OPTIONAL)_VMX_\w+|PT_\w+_MASK|PT64_\w+|RET_PF_\w+|PG_LEVEL_\w+"
    r"|EXIT_REASON_\w+|X86_CR[04]_\w+|VMXERR_\w+|VMX_(?:EPTP|BASIC|FEATURE|VPID)_\w+|EPT_MISCONFIG\w*"
    r"|MSR_IA32_VMX_\w+|PIN_BASED_\w+|VM_(?:EXIT|ENTRY)_\w+|GUEST_INTR_STATE_\w+|INTR_INFO_\w+|EFER_\w+"
    r"|KVM_MAX_NR_ADDRESS_SPACES|KVM_MAX_HUGEPAGE_LEVEL|KVM_MMU_NUM_PREV_ROOTS|X86_EFLAGS_\w+|FROZEN_SPTE"
    r"|KVM_PFN_NOSLOT|KVM_EVMCS_VERSION|EVMPTR_\w+|HV_VMX_ENLIGHTENED_\w+|VMCS12_REVISION"
)

# Where they are looked for. The first group is included by the generated file, in this order.
HEADERS: Final = (
    "arch/x86/include/asm/vmx.h",
    "arch/x86/include/uapi/asm/vmx.h",
    "arch/x86/include/asm/kvm_host.h",
    "include/linux/kvm_host.h",
    "arch/x86/include/asm/msr-index.h",
    "arch/x86/kvm/mmu.h",
    "arch/x86/kvm/mmu/mmu_internal.h",
    "arch/x86/kvm/mmu/spte.h",
    "arch/x86/kvm/vmx/vmx.h",
    "arch/x86/kvm/vmx/hyperv_evmcs.h",
    "arch/x86/kvm/vmx/hyperv.h",
    "arch/x86/kvm/vmx/vmcs12.h",
    "arch/x86/include/asm/hyperv-tlfs.h",
    "arch/x86/include/uapi/asm/processor-flags.h",
)

_DEFINE: Final = re.compile(rf"^[ \t]*#[ \t]*define[ \t]+({NAMES})(?!\()[ \t]+\S", re.M)
_ENUMERATOR: Final = re.compile(r"^\s+((?:RET_PF|PG_LEVEL|VMXERR)_\w+)\s*(?:=[^,\n]*)?,?[ \t]*(?:/\*.*)?$", re.M)

_HEAD: Final = """\
/* SPDX-License-Identifier: GPL-2.0-only */
/* Generated: the constants of one level. */
#include <linux/kvm_host.h>
#include <asm/vmx.h>
#include "mmu.h"
#include "mmu/mmu_internal.h"
#include "mmu/spte.h"
#include "vmcs_table.h"
#include "vmx/vmx.h"
#include "vmx/hyperv_evmcs.h"
#include "vmx/hyperv.h"
#include "vmx/vmcs12.h"
#include "oracle.h"

"""


def names(file: Callable[[str], Path]) -> tuple[list[str], list[str]]:
    """The names of a level's macros and enumerators that fit, sorted; ``file`` finds a header of the level."""
    text = "\n".join(path.read_text() for path in map(file, HEADERS) if path.exists())
    return sorted(set(_DEFINE.findall(text))), sorted(set(_ENUMERATOR.findall(text)))


def source(file: Callable[[str], Path]) -> str:
    """The function gives the C source of the table: a row for each name that is an integer constant for the
    compiler.
    """
    macros, enumerators = names(file)
    rows = [f"#ifdef {name}\n{_row(name)}#endif\n\tindex += 2;\n" for name in macros]
    rows += [f"{_row(name)}\tindex += 2;\n" for name in enumerators]
    count = len(rows)
    listing = "".join(f'\t"{name}",\n' for name in (*macros, *enumerators))
    return (
        f"{_HEAD}extern const char *const oracle_constant_names[{count}];\n"
        f"const char *const oracle_constant_names[{count}] = {{\n{listing}}};\n\n"
        f"ENTRY(constants, 1, {2 * count})\n{{\n\tint index = 0;\n\n{''.join(rows)}}}\n"
    )


def _row(name: str) -> str:
    return f"\tif (__builtin_constant_p({name}))\n\t\tout[index] = 1, out[index + 1] = (u64)({name});\n"
