"""arch/x86/kvm/trace.h: the text of the events that say what an L2 exit was, as TP_printk makes it.

Without what no model knows: the vCPU's number, RIP, the interruption fields.
"""

from __future__ import annotations

from typing import Final

from kvmodel.include.asm.vmx_h import EXIT_REASON_EPT_MISCONFIG, EXIT_REASON_EPT_VIOLATION

# uapi/asm/vmx.h VMX_EXIT_REASONS
_EXIT_REASONS: Final = {EXIT_REASON_EPT_VIOLATION: "EPT_VIOLATION", EXIT_REASON_EPT_MISCONFIG: "EPT_MISCONFIG"}


def kvm_page_fault(fault_address: int, error_code: int) -> str:
    """trace.h kvm_page_fault; vmx.c gives it the qualification as ``error_code``."""
    return f"address {fault_address:#018x} error_code {error_code:#x}"


def kvm_nested_vmexit(exit_reason: int, info1: int) -> str:
    """trace.h TRACE_EVENT_KVM_EXIT: ``info1`` is the exit qualification."""
    return f"reason {_EXIT_REASONS.get(exit_reason, f'{exit_reason:#x}')} info1 {info1:#018x}"


def kvm_nested_vmexit_inject(exit_code: int, exit_info1: int) -> str:
    """trace.h kvm_nested_vmexit_inject."""
    return f"reason: {_EXIT_REASONS.get(exit_code, f'{exit_code:#x}')} ext_inf1: {exit_info1:#018x}"


def text(event: str, args: tuple[int, ...]) -> str:
    """The text of one row of ``vcpu.trace``; KeyError for an event that is not mirrored."""
    return {
        "kvm_page_fault": kvm_page_fault,
        "kvm_nested_vmexit": kvm_nested_vmexit,
        "kvm_nested_vmexit_inject": kvm_nested_vmexit_inject,
    }[event](*args)
