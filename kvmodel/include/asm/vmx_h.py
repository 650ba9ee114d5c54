"""arch/x86/include/asm/vmx.h: controls, EPT entry bits, EPT violation qualification bits, error numbers.

What no patch touches is a module constant. What a patch adds, widens or removes is an attribute of ``VmxH``,
one object per set of applied patches (``vmx_h(level)``).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from kvmodel.bits import BIT, u32, u64

if TYPE_CHECKING:
    from kvmodel.series import Level

# asm/vmx.h: secondary processor-based controls, 32 bits (VMCS_CONTROL_BIT of asm/vmxfeatures.h, word 2).
SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES: Final = BIT(0)
SECONDARY_EXEC_ENABLE_EPT: Final = BIT(1)
SECONDARY_EXEC_DESC: Final = BIT(2)
SECONDARY_EXEC_ENABLE_RDTSCP: Final = BIT(3)
SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE: Final = BIT(4)
SECONDARY_EXEC_ENABLE_VPID: Final = BIT(5)
SECONDARY_EXEC_WBINVD_EXITING: Final = BIT(6)
SECONDARY_EXEC_UNRESTRICTED_GUEST: Final = BIT(7)
SECONDARY_EXEC_APIC_REGISTER_VIRT: Final = BIT(8)
SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY: Final = BIT(9)
SECONDARY_EXEC_PAUSE_LOOP_EXITING: Final = BIT(10)
SECONDARY_EXEC_RDRAND_EXITING: Final = BIT(11)
SECONDARY_EXEC_ENABLE_INVPCID: Final = BIT(12)
SECONDARY_EXEC_ENABLE_VMFUNC: Final = BIT(13)
SECONDARY_EXEC_SHADOW_VMCS: Final = BIT(14)
SECONDARY_EXEC_ENCLS_EXITING: Final = BIT(15)
SECONDARY_EXEC_RDSEED_EXITING: Final = BIT(16)
SECONDARY_EXEC_ENABLE_PML: Final = BIT(17)
SECONDARY_EXEC_EPT_VIOLATION_VE: Final = BIT(18)
SECONDARY_EXEC_PT_CONCEAL_VMX: Final = BIT(19)
SECONDARY_EXEC_ENABLE_XSAVES: Final = BIT(20)
SECONDARY_EXEC_MODE_BASED_EPT_EXEC: Final = BIT(22)
SECONDARY_EXEC_PT_USE_GPA: Final = BIT(24)
SECONDARY_EXEC_TSC_SCALING: Final = BIT(25)
SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE: Final = BIT(26)
SECONDARY_EXEC_BUS_LOCK_DETECTION: Final = BIT(30)
SECONDARY_EXEC_NOTIFY_VM_EXITING: Final = BIT(31)

# asm/vmx.h: primary processor-based, pin-based, exit and entry controls, 32 bits each.
CPU_BASED_INTR_WINDOW_EXITING: Final = BIT(2)
CPU_BASED_USE_TSC_OFFSETTING: Final = BIT(3)
CPU_BASED_HLT_EXITING: Final = BIT(7)
CPU_BASED_INVLPG_EXITING: Final = BIT(9)
CPU_BASED_MWAIT_EXITING: Final = BIT(10)
CPU_BASED_RDPMC_EXITING: Final = BIT(11)
CPU_BASED_RDTSC_EXITING: Final = BIT(12)
CPU_BASED_CR3_LOAD_EXITING: Final = BIT(15)
CPU_BASED_CR3_STORE_EXITING: Final = BIT(16)
CPU_BASED_CR8_LOAD_EXITING: Final = BIT(19)
CPU_BASED_CR8_STORE_EXITING: Final = BIT(20)
CPU_BASED_TPR_SHADOW: Final = BIT(21)
CPU_BASED_NMI_WINDOW_EXITING: Final = BIT(22)
CPU_BASED_MOV_DR_EXITING: Final = BIT(23)
CPU_BASED_UNCOND_IO_EXITING: Final = BIT(24)
CPU_BASED_USE_IO_BITMAPS: Final = BIT(25)
CPU_BASED_MONITOR_TRAP_FLAG: Final = BIT(27)
CPU_BASED_USE_MSR_BITMAPS: Final = BIT(28)
CPU_BASED_MONITOR_EXITING: Final = BIT(29)
CPU_BASED_PAUSE_EXITING: Final = BIT(30)
CPU_BASED_ACTIVATE_SECONDARY_CONTROLS: Final = BIT(31)
CPU_BASED_ALWAYSON_WITHOUT_TRUE_MSR: Final = 0x0401E172
PIN_BASED_EXT_INTR_MASK: Final = BIT(0)
PIN_BASED_NMI_EXITING: Final = BIT(3)
PIN_BASED_VIRTUAL_NMIS: Final = BIT(5)
PIN_BASED_VMX_PREEMPTION_TIMER: Final = BIT(6)
PIN_BASED_POSTED_INTR: Final = BIT(7)
PIN_BASED_ALWAYSON_WITHOUT_TRUE_MSR: Final = 0x00000016
VM_EXIT_SAVE_DEBUG_CONTROLS: Final = BIT(2)
VM_EXIT_HOST_ADDR_SPACE_SIZE: Final = BIT(9)
VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL: Final = BIT(12)
VM_EXIT_ACK_INTR_ON_EXIT: Final = BIT(15)
VM_EXIT_SAVE_IA32_PAT: Final = BIT(18)
VM_EXIT_LOAD_IA32_PAT: Final = BIT(19)
VM_EXIT_SAVE_IA32_EFER: Final = BIT(20)
VM_EXIT_LOAD_IA32_EFER: Final = BIT(21)
VM_EXIT_SAVE_VMX_PREEMPTION_TIMER: Final = BIT(22)
VM_EXIT_CLEAR_BNDCFGS: Final = BIT(23)
VM_EXIT_PT_CONCEAL_PIP: Final = BIT(24)
VM_EXIT_CLEAR_IA32_RTIT_CTL: Final = BIT(25)
VM_EXIT_ALWAYSON_WITHOUT_TRUE_MSR: Final = 0x00036DFF
VM_ENTRY_LOAD_DEBUG_CONTROLS: Final = BIT(2)
VM_ENTRY_IA32E_MODE: Final = BIT(9)
VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL: Final = BIT(13)
VM_ENTRY_LOAD_IA32_PAT: Final = BIT(14)
VM_ENTRY_LOAD_IA32_EFER: Final = BIT(15)
VM_ENTRY_LOAD_BNDCFGS: Final = BIT(16)
VM_ENTRY_PT_CONCEAL_PIP: Final = BIT(17)
VM_ENTRY_LOAD_IA32_RTIT_CTL: Final = BIT(18)
VM_ENTRY_ALWAYSON_WITHOUT_TRUE_MSR: Final = 0x000011FF
GUEST_INTR_STATE_NMI: Final = BIT(3)

# asm/vmx.h: MSR IA32_VMX_EPT_VPID_CAP, low half (EPT) and high half (VPID), 32 bits each.
VMX_EPT_EXTENT_SHIFT: Final = 24
VMX_EPT_EXTENT_CONTEXT: Final = 1
VMX_EPT_EXTENT_GLOBAL: Final = 2
VMX_EPT_EXECUTE_ONLY_BIT: Final = BIT(0)
VMX_EPT_PAGE_WALK_4_BIT: Final = BIT(6)
VMX_EPT_PAGE_WALK_5_BIT: Final = BIT(7)
VMX_EPTP_UC_BIT: Final = BIT(8)
VMX_EPTP_WB_BIT: Final = BIT(14)
VMX_EPT_2MB_PAGE_BIT: Final = BIT(16)
VMX_EPT_1GB_PAGE_BIT: Final = BIT(17)
VMX_EPT_INVEPT_BIT: Final = BIT(20)
VMX_EPT_AD_BIT: Final = BIT(21)
VMX_EPT_EXTENT_CONTEXT_BIT: Final = BIT(25)
VMX_EPT_EXTENT_GLOBAL_BIT: Final = BIT(26)
VMX_VPID_INVVPID_BIT: Final = BIT(0)
VMX_VPID_EXTENT_INDIVIDUAL_ADDR_BIT: Final = BIT(8)
VMX_VPID_EXTENT_SINGLE_CONTEXT_BIT: Final = BIT(9)
VMX_VPID_EXTENT_GLOBAL_CONTEXT_BIT: Final = BIT(10)
VMX_VPID_EXTENT_SINGLE_NON_GLOBAL_BIT: Final = BIT(11)
VMX_VPID_EXTENT_SUPPORTED_MASK: Final = (
    VMX_VPID_EXTENT_INDIVIDUAL_ADDR_BIT
    | VMX_VPID_EXTENT_SINGLE_CONTEXT_BIT
    | VMX_VPID_EXTENT_GLOBAL_CONTEXT_BIT
    | VMX_VPID_EXTENT_SINGLE_NON_GLOBAL_BIT
)

# asm/vmx.h: EPT pointer and entries, 64 bits.
VMX_EPT_MT_EPTE_SHIFT: Final = 3
VMX_EPTP_PWL_MASK: Final = 0x38
VMX_EPTP_PWL_4: Final = 0x18
VMX_EPTP_PWL_5: Final = 0x20
VMX_EPTP_AD_ENABLE_BIT: Final = BIT(6)
VMX_EPTP_MT_MASK: Final = 0x7
VMX_EPTP_MT_WB: Final = 6
VMX_EPTP_MT_UC: Final = 0
VMX_EPT_READABLE_MASK: Final = 0x1
VMX_EPT_WRITABLE_MASK: Final = 0x2
VMX_EPT_EXECUTABLE_MASK: Final = 0x4
VMX_EPT_IPAT_BIT: Final = BIT(6)
VMX_EPT_ACCESS_BIT: Final = BIT(8)
VMX_EPT_DIRTY_BIT: Final = BIT(9)
VMX_EPT_SUPPRESS_VE_BIT: Final = BIT(63)
VMX_EPT_MT_MASK: Final = 7 << VMX_EPT_MT_EPTE_SHIFT

# asm/vmx.h: exit qualification of an EPT violation, 64 bits; the names every level has.
EPT_VIOLATION_ACC_READ: Final = BIT(0)
EPT_VIOLATION_ACC_WRITE: Final = BIT(1)
EPT_VIOLATION_ACC_INSTR: Final = BIT(2)
EPT_VIOLATION_GVA_IS_VALID: Final = BIT(7)
EPT_VIOLATION_GVA_TRANSLATED: Final = BIT(8)
INTR_INFO_UNBLOCK_NMI: Final = 0x1000

# uapi/asm/vmx.h: basic exit reasons.
EXIT_REASON_EXCEPTION_NMI: Final = 0
EXIT_REASON_EXTERNAL_INTERRUPT: Final = 1
EXIT_REASON_TRIPLE_FAULT: Final = 2
EXIT_REASON_CPUID: Final = 10
EXIT_REASON_VMCALL: Final = 18
EXIT_REASON_INVALID_STATE: Final = 33
EXIT_REASON_MCE_DURING_VMENTRY: Final = 41
EXIT_REASON_EPT_VIOLATION: Final = 48
EXIT_REASON_EPT_MISCONFIG: Final = 49
EXIT_REASON_INVEPT: Final = 50
EXIT_REASON_PREEMPTION_TIMER: Final = 52
EXIT_REASON_VMFUNC: Final = 59
EXIT_REASON_PML_FULL: Final = 62
EXIT_REASON_BUS_LOCK: Final = 74
EXIT_REASON_NOTIFY: Final = 75

# asm/vmx.h: enum vm_instruction_error_number.
VMXERR_ENTRY_INVALID_CONTROL_FIELD: Final = 7
VMXERR_ENTRY_INVALID_HOST_STATE_FIELD: Final = 8
VMXERR_INVALID_OPERAND_TO_INVEPT_INVVPID: Final = 28

# asm/msr-index.h.
MSR_IA32_VMX_BASIC: Final = 0x480
MSR_IA32_VMX_PINBASED_CTLS: Final = 0x481
MSR_IA32_VMX_PROCBASED_CTLS: Final = 0x482
MSR_IA32_VMX_EXIT_CTLS: Final = 0x483
MSR_IA32_VMX_ENTRY_CTLS: Final = 0x484
MSR_IA32_VMX_PROCBASED_CTLS2: Final = 0x48B
MSR_IA32_VMX_EPT_VPID_CAP: Final = 0x48C
MSR_IA32_VMX_TRUE_PINBASED_CTLS: Final = 0x48D
MSR_IA32_VMX_TRUE_PROCBASED_CTLS: Final = 0x48E
MSR_IA32_VMX_TRUE_EXIT_CTLS: Final = 0x48F
MSR_IA32_VMX_TRUE_ENTRY_CTLS: Final = 0x490
MSR_IA32_VMX_VMFUNC: Final = 0x491


class VmxH:
    """The names of asm/vmx.h that depend on the patches applied; all 64-bit masks.

    A name that the header of that level lacks is None or absent, so that using it is an error as in C.
    """

    __slots__ = (
        "EPT_VIOLATION_PROT_EXEC",
        "EPT_VIOLATION_PROT_MASK",
        "EPT_VIOLATION_PROT_READ",
        "EPT_VIOLATION_PROT_USER_EXEC",
        "EPT_VIOLATION_PROT_WRITE",
        "EPT_VIOLATION_RWX_MASK",
        "EPT_VIOLATION_RWX_SHIFT",
        "VMX_EPT_MISCONFIG_WX_VALUE",
        "VMX_EPT_RWX_MASK",
        "VMX_EPT_USER_EXECUTABLE_MASK",
        "level",
    )

    def __init__(self, level: Level) -> None:
        self.level = level
        self.VMX_EPT_RWX_MASK = VMX_EPT_READABLE_MASK | VMX_EPT_WRITABLE_MASK | VMX_EPT_EXECUTABLE_MASK
        self.VMX_EPT_MISCONFIG_WX_VALUE = VMX_EPT_WRITABLE_MASK | VMX_EPT_EXECUTABLE_MASK
        # The series without patch 7 alone does not compile: the nearest that does has the name where it is used.
        if any(map(level.has, (7, 11, 12, 13, 14))):
            self.VMX_EPT_USER_EXECUTABLE_MASK = BIT(10)
        if level.has(13):
            self.VMX_EPT_RWX_MASK |= self.VMX_EPT_USER_EXECUTABLE_MASK
            self.VMX_EPT_MISCONFIG_WX_VALUE |= self.VMX_EPT_USER_EXECUTABLE_MASK
        self.EPT_VIOLATION_RWX_SHIFT = 3
        if level.has(2):
            self.EPT_VIOLATION_PROT_READ = BIT(3)
            self.EPT_VIOLATION_PROT_WRITE = BIT(4)
            self.EPT_VIOLATION_PROT_EXEC = BIT(5)
            self.EPT_VIOLATION_PROT_MASK = (
                self.EPT_VIOLATION_PROT_READ | self.EPT_VIOLATION_PROT_WRITE | self.EPT_VIOLATION_PROT_EXEC
            )
        else:
            self.EPT_VIOLATION_RWX_MASK = self.VMX_EPT_RWX_MASK << self.EPT_VIOLATION_RWX_SHIFT
        if level.has(11):
            self.EPT_VIOLATION_PROT_USER_EXEC = BIT(6)

    def EPT_VIOLATION_RWX_TO_PROT(self, epte: int) -> int:
        """Qualification bits 5:3 from an EPT entry's bits 2:0 (asm/vmx.h; patches 2 to 10). 64 bits."""
        return u64((epte & self.VMX_EPT_RWX_MASK) << self.EPT_VIOLATION_RWX_SHIFT)

    def EPT_VIOLATION_READ_TO_PROT(self, epte: int) -> int:
        """Qualification bit 3 from an EPT entry's bit 0 (asm/vmx.h; patch 10)."""
        return (epte & VMX_EPT_READABLE_MASK) << 3

    def EPT_VIOLATION_WRITE_TO_PROT(self, epte: int) -> int:
        """Qualification bit 4 from an EPT entry's bit 1 (asm/vmx.h; patch 10)."""
        return (epte & VMX_EPT_WRITABLE_MASK) << 3

    def EPT_VIOLATION_EXEC_TO_PROT(self, epte: int) -> int:
        """Qualification bit 5 from an EPT entry's bit 2 (asm/vmx.h; patch 10)."""
        return (epte & VMX_EPT_EXECUTABLE_MASK) << 3

    def EPT_VIOLATION_USER_EXEC_TO_PROT(self, epte: int) -> int:
        """Qualification bit 6 from an EPT entry's bit 10 (asm/vmx.h; patch 11)."""
        return (epte & self.VMX_EPT_USER_EXECUTABLE_MASK) >> 4


def vmx_eptp_page_walk_level(eptp: int) -> int:
    """Page-walk length, 4 or 5, of a 64-bit EPT pointer that was checked before (asm/vmx.h)."""
    return 5 if eptp & VMX_EPTP_PWL_MASK == VMX_EPTP_PWL_5 else 4


def fixed_bits_valid(val: int, fixed0: int, fixed1: int) -> bool:
    """kvm/vmx/nested.h fixed_bits_valid: every bit of ``fixed0`` set, none outside ``fixed1``."""
    return (val & fixed1) | fixed0 == val


def vmx_control_msr(low: int, high: int) -> int:
    """kvm/vmx/nested.c vmx_control_msr: the 64-bit MSR of two 32-bit halves."""
    return u32(low) | u32(high) << 32


@cache
def vmx_h(level: Level) -> VmxH:
    """The header at ``level``."""
    return VmxH(level)
