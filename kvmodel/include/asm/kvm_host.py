"""arch/x86/include/asm/kvm_host.h and what mmu.h, mmu_internal.h beside it define: roles, MMUs, shadow pages, faults.

The state that is global in C (module parameters, shadow_*_mask, vmcs_config) is one ``Kvm`` per module load; what
belongs to one virtual CPU is a ``Vcpu``. Roles are in ``kvm_role``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from kvmodel.bits import BIT, GENMASK, u64
from kvmodel.include.asm.kvm_role import RoleLayout, role_layout
from kvmodel.include.asm.kvm_role import kvm_cpu_role as kvm_cpu_role
from kvmodel.include.asm.kvm_role import kvm_mmu_extended_role as kvm_mmu_extended_role
from kvmodel.include.asm.vmx_h import VmxH
from kvmodel.question.outcome import Step

if TYPE_CHECKING:
    from kvmodel.mmu.spte_h import SpteH
    from kvmodel.series import Level

PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 1 << PAGE_SHIFT
PG_LEVEL_4K: Final = 1
PG_LEVEL_2M: Final = 2
PG_LEVEL_1G: Final = 3
KVM_MAX_HUGEPAGE_LEVEL: Final = PG_LEVEL_1G
PT64_ROOT_4LEVEL: Final = 4
PT64_ROOT_5LEVEL: Final = 5
PT64_ROOT_MAX_LEVEL: Final = 5
PTE_PREFETCH_NUM: Final = 8

# asm/kvm_host.h: page fault error codes, 64 bits.
PFERR_PRESENT_MASK: Final = BIT(0)
PFERR_WRITE_MASK: Final = BIT(1)
PFERR_USER_MASK: Final = BIT(2)
PFERR_RSVD_MASK: Final = BIT(3)
PFERR_FETCH_MASK: Final = BIT(4)
PFERR_PK_MASK: Final = BIT(5)
PFERR_GUEST_FINAL_MASK: Final = BIT(32)
PFERR_GUEST_PAGE_MASK: Final = BIT(33)
PFERR_IMPLICIT_ACCESS: Final = BIT(48)
PFERR_PRIVATE_ACCESS: Final = BIT(49)

# mmu.h: page table entry bits.
PT_PRESENT_MASK: Final = BIT(0)
PT_WRITABLE_MASK: Final = BIT(1)
PT_USER_MASK: Final = BIT(2)
PT_ACCESSED_MASK: Final = BIT(5)
PT_DIRTY_MASK: Final = BIT(6)
PT_PAGE_SIZE_MASK: Final = BIT(7)
PT64_NX_MASK: Final = BIT(63)

# mmu_internal.h: enum of the page fault handlers' answers.
RET_PF_CONTINUE: Final = 0
RET_PF_RETRY: Final = 1
RET_PF_EMULATE: Final = 2
RET_PF_WRITE_PROTECTED: Final = 3
RET_PF_INVALID: Final = 4
RET_PF_FIXED: Final = 5
RET_PF_SPURIOUS: Final = 6
RET_PF_NAMES: Final = ("CONTINUE", "RETRY", "EMULATE", "WRITE_PROTECTED", "INVALID", "FIXED", "SPURIOUS")

EIO: Final = 5
EINVAL: Final = 22

KVM_MEMSLOT_GEN_UPDATE_IN_PROGRESS: Final = BIT(63)
X86_EFLAGS_AC: Final = BIT(18)

KVM_PFN_NOSLOT: Final = BIT(63)  # include/linux/kvm_host.h: the pfn of a gfn without a memslot


def KVM_PAGES_PER_HPAGE(level: int) -> int:
    """4 KiB pages in a page of ``level`` 1 to 5 (asm/kvm_host.h)."""
    return 1 << (level - 1) * 9


def gfn_round_for_level(gfn: int, level: int) -> int:
    """``gfn`` rounded down to a page of ``level`` (mmu_internal.h)."""
    return gfn & -KVM_PAGES_PER_HPAGE(level)


def rsvd_bits(s: int, e: int) -> int:
    """Bits ``e`` down to ``s`` of 64, 0 where ``e`` is below ``s``; ``e`` is taken modulo 64 (mmu.h rsvd_bits)."""
    e &= 63
    if e < s:
        return 0
    return u64(((2 << (e - s)) - 1) << s)


class rsvd_bits_validate:
    """asm/kvm_host.h struct rsvd_bits_validate: two rows of five 64-bit masks, and 64 bits of bad low patterns."""

    __slots__ = ("bad_mt_xwr", "rsvd_bits_mask")

    def __init__(self) -> None:
        self.rsvd_bits_mask: list[list[int]] = [[0] * PT64_ROOT_MAX_LEVEL, [0] * PT64_ROOT_MAX_LEVEL]
        self.bad_mt_xwr = 0


class kvm_mmu:
    """asm/kvm_host.h struct kvm_mmu: what decides. Fields of cpu_role that are read often are decoded beside it."""

    __slots__ = (
        "ad_disabled",
        "cpu_role",
        "cr0_wp",
        "cr4_smap",
        "cr4_smep",
        "efer_nx",
        "guest_level",
        "guest_rsvd_check",
        "inject_page_fault",
        "page_fault",
        "permissions",
        "pgd",
        "pkru_mask",
        "prev_roots",
        "root",
        "root_direct",
        "root_pgd",
        "root_role",
        "shadow_zero_check",
        "sync_spte",
    )

    def __init__(self) -> None:
        self.page_fault: Callable[[Vcpu, kvm_page_fault], int] | None = None
        self.sync_spte: Callable[[Vcpu, kvm_mmu_page, int], int] | None = None
        self.inject_page_fault: Callable[[Vcpu, x86_exception], None] | None = None
        self.cpu_role = kvm_cpu_role()
        self.root_role = 0
        self.root_direct = False
        self.guest_level = 0  # cpu_role.base.level, decoded
        self.ad_disabled = False  # cpu_role.base.ad_disabled, decoded
        self.cr0_wp = False
        self.efer_nx = False
        self.cr4_smep = False
        self.cr4_smap = False
        self.pgd = 0  # what get_guest_pgd() gives
        self.permissions: list[int] = [0] * 16
        self.pkru_mask = 0
        self.guest_rsvd_check = rsvd_bits_validate()
        self.shadow_zero_check = rsvd_bits_validate()
        self.root: kvm_mmu_page | None = None
        self.root_pgd = 0  # root.pgd: the pointer that ``root`` was made for
        self.prev_roots: list[tuple[int, kvm_mmu_page] | None] = [None, None, None]  # (pgd, page), newest first


class kvm_mmu_page:
    """mmu_internal.h struct kvm_mmu_page: a page of SPTEs.

    ``spt`` holds the SPTEs that were ever set, by index; the others are SHADOW_NONPRESENT_VALUE. ``pa`` is the
    page's host-physical address. The fields of ``role`` that are read often are decoded beside it.
    """

    __slots__ = (
        "access",
        "ad_disabled",
        "direct",
        "gfn",
        "guest_mode",
        "level",
        "nx_huge_page_disallowed",
        "pa",
        "parent_ptes",
        "possible_nx_huge_page",
        "role",
        "shadowed_translation",
        "spt",
        "unsync",
        "unsync_child_bitmap",
        "write_flooding_count",
    )

    def __init__(self, pa: int, gfn: int, role: int, layout: RoleLayout) -> None:
        self.pa = pa
        self.gfn = gfn
        self.role = role
        self.level, self.direct, self.access, self.ad_disabled, self.guest_mode = layout.decoded(role)
        self.spt: dict[int, int] = {}
        # mmu.c kvm_mmu_alloc_shadow_page: index -> (gfn << PAGE_SHIFT) | access
        self.shadowed_translation: dict[int, int] | None = (
            {} if not self.direct and self.level <= KVM_MAX_HUGEPAGE_LEVEL else None
        )
        self.nx_huge_page_disallowed = False
        self.possible_nx_huge_page = False  # on kvm->arch.possible_nx_huge_pages
        self.unsync = False
        self.unsync_child_bitmap: set[int] = set()  # its size is unsync_children
        self.parent_ptes: list[tuple[kvm_mmu_page, int]] = []
        self.write_flooding_count = 0


class kvm_memory_slot:
    """What the MMU reads of struct kvm_memory_slot: host mapping level (1, 2, 3), dirty tracking, its gfns."""

    __slots__ = ("base_gfn", "dirty_bitmap", "dirty_track", "host_level", "npages", "readonly")

    def __init__(self, host_level: int = PG_LEVEL_4K, dirty_track: bool = False, readonly: bool = False) -> None:
        self.host_level = host_level
        self.dirty_track = dirty_track
        self.readonly = readonly
        self.base_gfn = 0
        self.npages = 0  # 0: nobody asks
        self.dirty_bitmap: set[int] = set()  # gfns


class kvm_page_fault:
    """mmu_internal.h struct kvm_page_fault."""

    __slots__ = (
        "addr",
        "error_code",
        "exec",
        "gfn",
        "goal_level",
        "huge_page_disallowed",
        "is_tdp",
        "map_writable",
        "max_level",
        "nx_huge_page_workaround_enabled",
        "pfn",
        "prefetch",
        "present",
        "req_level",
        "rsvd",
        "slot",
        "user",
        "write",
    )

    def __init__(self, addr: int, error_code: int, prefetch: bool, is_tdp: bool, nx_workaround: bool) -> None:
        self.addr = addr
        self.error_code = error_code
        self.prefetch = prefetch
        self.exec = bool(error_code & PFERR_FETCH_MASK)
        self.write = bool(error_code & PFERR_WRITE_MASK)
        self.present = bool(error_code & PFERR_PRESENT_MASK)
        self.rsvd = bool(error_code & PFERR_RSVD_MASK)
        self.user = bool(error_code & PFERR_USER_MASK)
        self.is_tdp = is_tdp
        self.nx_huge_page_workaround_enabled = nx_workaround
        self.max_level = KVM_MAX_HUGEPAGE_LEVEL
        self.req_level = PG_LEVEL_4K
        self.goal_level = PG_LEVEL_4K
        self.huge_page_disallowed = False
        self.gfn = 0
        self.slot: kvm_memory_slot | None = None
        self.pfn = 0
        self.map_writable = False


@dataclass(slots=True)
class x86_exception:
    """kvm_emulate.h struct x86_exception: what a failed guest walk hands to the injection."""

    error_code: int = 0
    exit_qualification: int = 0
    address: int = 0
    nested_page_fault: bool = False


@dataclass(slots=True)
class nested_vmx_msrs:
    """vmx/capabilities.h struct nested_vmx_msrs: the fields the series and its surroundings read, 32 bits each."""

    secondary_ctls_low: int = 0
    secondary_ctls_high: int = 0
    ept_caps: int = 0
    vpid_caps: int = 0
    vmfunc_controls: int = 0
    pinbased_ctls_low: int = 0
    pinbased_ctls_high: int = 0
    procbased_ctls_low: int = 0
    procbased_ctls_high: int = 0
    exit_ctls_low: int = 0
    exit_ctls_high: int = 0
    entry_ctls_low: int = 0
    entry_ctls_high: int = 0


@dataclass(slots=True)
class vmcs_config:
    """vmx/capabilities.h struct vmcs_config: secondary controls and the nested MSRs."""

    cpu_based_2nd_exec_ctrl: int = 0
    nested: nested_vmx_msrs = field(default_factory=nested_vmx_msrs)


@dataclass(slots=True)
class vmx_capability:
    """vmx/capabilities.h struct vmx_capability: the two halves of MSR 0x48C, 32 bits each."""

    ept: int = 0
    vpid: int = 0


@dataclass(slots=True)
class vmcs12:
    """vmx/vmcs12.h struct vmcs12: the controls that the entry checks and the merge read."""

    secondary_vm_exec_control: int = 0
    ept_pointer: int = 0
    cpu_based_vm_exec_control: int = BIT(31)  # CPU_BASED_ACTIVATE_SECONDARY_CONTROLS
    pin_based_vm_exec_control: int = 0
    vm_exit_controls: int = 0
    vm_entry_controls: int = 0
    vm_function_control: int = 0
    virtual_processor_id: int = 0
    guest_pml_index: int = 0


@dataclass(slots=True)
class hv_enlightened_vmcs:
    """asm/hyperv-tlfs.h struct hv_enlightened_vmcs: the controls, and which groups L1 calls unchanged."""

    revision_id: int = 1
    secondary_vm_exec_control: int = 0
    ept_pointer: int = 0
    cpu_based_vm_exec_control: int = BIT(31)  # CPU_BASED_ACTIVATE_SECONDARY_CONTROLS
    pin_based_vm_exec_control: int = 0
    vm_exit_controls: int = 0
    vm_entry_controls: int = 0
    virtual_processor_id: int = 0
    hv_clean_fields: int = 0


@dataclass(slots=True)
class hv_vp_assist_page:
    """asm/hyperv-tlfs.h struct hv_vp_assist_page: whether VM entries go by an enlightened VMCS, and where it lies."""

    enlighten_vmentry: bool = False
    current_nested_vmcs: int = 0


@dataclass(slots=True)
class VcpuHv:
    """What Hyper-V's enlightenments add to a vCPU (struct kvm_vcpu_hv, nested.hv_evmcs) and to L1's memory.

    ``vp_assist_page`` is None until L1 enables it; ``pages`` has L1's enlightened VMCSs by guest-physical address.
    """

    vp_assist_page: hv_vp_assist_page | None = None
    pages: dict[int, hv_enlightened_vmcs] = field(default_factory=dict)
    hv_evmcs: hv_enlightened_vmcs | None = None
    hv_evmcs_vmptr: int = -1  # EVMPTR_INVALID


class Kvm:
    """What kvm.ko and kvm-intel.ko hold once loaded (module globals) and what their one VM adds (struct kvm).

    Made by ``vmx.load``; names are those of the C globals. ``warns`` lists WARNs hit, by C function.
    """

    __slots__ = (
        "allow_mmio_caching",
        "boot_cpu_has_bug_l1tf",
        "boot_cpu_has_gbpages",
        "cpu_dirty_log_size",
        "disable_nx_huge_pages",
        "enable_apicv",
        "enable_ept",
        "enable_ept_ad_bits",
        "enable_mmio_caching",
        "enable_pml",
        "enable_pt_guest_exec_control",
        "enable_sgx",
        "enable_unrestricted_guest",
        "enable_vnmi",
        "enable_vpid",
        "flexpriority_enabled",
        "generation",
        "h",
        "has",
        "host_maxphyaddr",
        "level",
        "max_huge_page_level",
        "max_tdp_level",
        "nested",
        "noncoherent_dma",
        "nx_huge_pages",
        "roles",
        "s",
        "shadow_acc_track_mask",
        "shadow_accessed_mask",
        "shadow_dirty_mask",
        "shadow_host_writable_mask",
        "shadow_me_mask",
        "shadow_me_value",
        "shadow_memtype_mask",
        "shadow_mmio_access_mask",
        "shadow_mmio_mask",
        "shadow_mmio_value",
        "shadow_mmu_writable_mask",
        "shadow_nonpresent_or_rsvd_lower_gfn_mask",
        "shadow_nonpresent_or_rsvd_mask",
        "shadow_nx_mask",
        "shadow_present_mask",
        "shadow_user_mask",
        "shadow_ux_mask",
        "shadow_x_mask",
        "tdp_enabled",
        "tdp_mmu_enabled",
        "tdp_root_level",
        "vmcs_config",
        "vmx_capability",
        "warns",
        "x86_cache_bits",
        "x86_phys_bits",
    )

    def __init__(self, level: Level, h: VmxH, s: SpteH) -> None:
        self.level = level
        self.has: Callable[[int], bool] = level.has
        self.h = h
        self.s = s
        self.roles = role_layout(level)
        self.warns: list[str] = []
        self.enable_pt_guest_exec_control = False  # x86.c; absent below patch 3 (then never read)
        self.enable_ept = True
        self.enable_ept_ad_bits = True
        self.enable_unrestricted_guest = True
        self.enable_vpid = True
        self.enable_vnmi = True
        self.enable_pml = True
        self.enable_apicv = False
        self.enable_sgx = False
        self.flexpriority_enabled = True
        self.enable_mmio_caching = True
        self.allow_mmio_caching = True
        self.nested = True
        self.nx_huge_pages = False
        self.tdp_enabled = False
        self.tdp_mmu_enabled = False
        self.max_huge_page_level = PG_LEVEL_4K
        self.max_tdp_level = PT64_ROOT_4LEVEL
        self.cpu_dirty_log_size = 512
        self.host_maxphyaddr = 52
        self.x86_phys_bits = 0  # boot_cpu_data; 0: as host_maxphyaddr
        self.x86_cache_bits = 0
        self.boot_cpu_has_bug_l1tf = False
        self.boot_cpu_has_gbpages = True
        self.disable_nx_huge_pages = False  # kvm->arch.disable_nx_huge_pages
        self.tdp_root_level = 0
        self.noncoherent_dma = False
        self.generation = 0  # kvm_memslots(kvm)->generation
        self.vmcs_config = vmcs_config()
        self.vmx_capability = vmx_capability()
        self.shadow_host_writable_mask = 0
        self.shadow_mmu_writable_mask = 0
        self.shadow_nx_mask = 0
        self.shadow_x_mask = 0
        self.shadow_ux_mask = 0
        self.shadow_user_mask = 0
        self.shadow_accessed_mask = 0
        self.shadow_dirty_mask = 0
        self.shadow_mmio_value = 0
        self.shadow_mmio_mask = 0
        self.shadow_mmio_access_mask = 0
        self.shadow_present_mask = 0
        self.shadow_memtype_mask = 0
        self.shadow_me_value = 0
        self.shadow_me_mask = 0
        self.shadow_acc_track_mask = 0
        self.shadow_nonpresent_or_rsvd_mask = 0
        self.shadow_nonpresent_or_rsvd_lower_gfn_mask = 0

    def is_nx_huge_page_enabled(self) -> bool:
        """mmu_internal.h is_nx_huge_page_enabled."""
        return self.nx_huge_pages and not self.disable_nx_huge_pages


class Vcpu:
    """One virtual CPU (struct kvm_vcpu, vcpu_vmx) and the memory its guest has.

    ``memory`` maps a guest-physical address to the 64-bit entry there, for guest paging structures KVM reads.
    ``slot`` is L1's RAM, gfns 0 to ``ram_gfns``; a gfn outside it and ``further_slots`` has no memslot.
    pfn = gfn + ``pfn_base``.
    ``steps`` is None when nobody asked. ``trace`` likewise collects tracepoint tuples.
    """

    __slots__ = (
        "exit_qualification",
        "failed",
        "flags_ac",
        "further_slots",
        "guest_cpuid_has_evmcs",
        "guest_mmu",
        "guest_mode",
        "hash",
        "hv",
        "idt_vectoring_valid",
        "indirect",
        "injected",
        "interruptibility",
        "invisible",
        "kvm",
        "maxphyaddr",
        "memory",
        "mmio_pfns",
        "mmu",
        "nested_msrs",
        "next_pa",
        "pages",
        "pfn_base",
        "pml_full",
        "pt_guest_exec_control",
        "ram_gfns",
        "reserved_gpa_bits",
        "root_mmu",
        "slot",
        "stat",
        "steps",
        "trace",
        "unwritable",
        "version",
        "vmcs01_secondary",
        "vmcs02_secondary",
        "vmcs12",
        "vpid",
        "warns",
        "write_log_dirty",
    )

    def __init__(self, kvm: Kvm) -> None:
        self.kvm = kvm
        self.pt_guest_exec_control = False
        self.vmcs01_secondary = 0
        self.vmcs02_secondary = 0
        self.vmcs12 = vmcs12()
        self.nested_msrs = nested_vmx_msrs()
        self.guest_cpuid_has_evmcs = False
        self.hv = VcpuHv()
        self.maxphyaddr = kvm.host_maxphyaddr
        self.reserved_gpa_bits = rsvd_bits(kvm.host_maxphyaddr, 63)
        self.guest_mode = False
        self.vpid = 1 if kvm.enable_vpid else 0
        self.pml_full = False
        self.write_log_dirty: Callable[[Vcpu, int], int] | None = None  # nested_ops->write_log_dirty
        self.idt_vectoring_valid = False
        self.interruptibility = 0  # GUEST_INTERRUPTIBILITY_INFO
        self.invisible: frozenset[int] = frozenset()  # gfns of guest tables without a memslot
        self.unwritable: frozenset[int] = frozenset()  # gfns of guest tables in read-only memory
        self.mmio_pfns: frozenset[int] = frozenset()  # pfns that are no RAM of the host
        self.flags_ac = False
        self.exit_qualification = 0
        self.root_mmu = kvm_mmu()
        self.guest_mmu = kvm_mmu()
        self.mmu = self.root_mmu
        self.memory: dict[int, int] = {}
        self.slot = kvm_memory_slot()
        self.further_slots: tuple[kvm_memory_slot, ...] = ()  # beyond ram_gfns
        self.ram_gfns = 1 << 18
        self.pfn_base = 1 << 18
        self.pages: dict[int, kvm_mmu_page] = {}
        self.hash: dict[tuple[int, int], kvm_mmu_page] = {}
        self.indirect: dict[int, list[kvm_mmu_page]] = {}  # shadow pages with gptes, by gfn
        self.next_pa = 1 << 36
        self.version = 0  # counts changes of SPTEs and of L1's EPT entries
        self.injected: tuple[int, int, int] | None = None  # exit reason, qualification, guest-physical address
        self.failed = 0  # what KVM_RUN returns, negative, where it fails
        self.stat: dict[str, int] = {}
        self.warns: list[str] = []
        self.steps: list[Step] | None = None
        self.trace: list[tuple[str, tuple[int, ...]]] | None = None

    def step(self, where: str, what: str, patch: int = 0) -> None:
        """Tell one rule used: its C file and function, what it did, and the patch that put it there (0: base)."""
        if self.steps is not None:
            self.steps.append(Step(where, what, patch))

    def count(self, name: str, by: int = 1) -> None:
        """struct kvm_vcpu_stat and kvm_vm_stat: ``by`` more of ``name``."""
        self.stat[name] = self.stat.get(name, 0) + by


def reserved_hpa_bits(kvm: Kvm) -> int:
    """mmu.c reserved_hpa_bits: physical-address bits the host CPU lacks, up to 63."""
    return rsvd_bits(kvm.host_maxphyaddr, 63)


ADDRESS_MASK: Final = GENMASK(51, 12)
