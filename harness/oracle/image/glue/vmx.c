// SPDX-License-Identifier: GPL-2.0-only
/* Entries for vmx/vmx.c and vmx/capabilities.h. */
#include "vmcs_table.h"
#include "oracle.h"
#include "vmx/hyperv.h"
#include "lapic.h"

#include <asm/desc.h>
#include "msrs.h"

#define store_idt(dt) ((dt)->address = 0)

/* It reads control registers, which a process may not; what it stores is the host's own state. */
#pragma weak vmx_set_constant_host_state
#include "vmx/vmx.c"

static struct kvm_vmx oracle_kvm_vmx;
static struct kvm_lapic oracle_apic;	/* in the kernel, without APICv */
static struct vcpu_vmx oracle_vmx = {
	.vcpu = {
		.kvm = &oracle_kvm_vmx.kvm,
		.arch.mmu = &oracle_vmx.vcpu.arch.root_mmu,
		.arch.walk_mmu = &oracle_vmx.vcpu.arch.root_mmu,
		.arch.apic = &oracle_apic,
	},
	.loaded_vmcs = &oracle_vmx.vmcs01,
};

struct kvm_vcpu *const oracle_vcpu = &oracle_vmx.vcpu;
struct kvm *const oracle_kvm = &oracle_kvm_vmx.kvm;

u8 __SCT__kvm_x86_get_mt_mask(struct kvm_vcpu *vcpu, gfn_t gfn, bool is_mmio);
u8 __SCT__kvm_x86_get_mt_mask(struct kvm_vcpu *vcpu, gfn_t gfn, bool is_mmio)
{
	return vmx_get_mt_mask(vcpu, gfn, is_mmio);
}

/* in: gfn is MMIO, non-coherent DMA */
ENTRY(vmx_get_mt_mask, 2, 1)
{
	oracle_world.noncoherent_dma = in[1];
	out[0] = vmx_get_mt_mask(oracle_vcpu, 0, in[0]);
}

static void exit_state(u64 qualification, u64 gpa, bool guest_mode)
{
	oracle_vcpu->arch.regs_avail = 0;
	oracle_vmcs[EXIT_QUALIFICATION] = qualification;
	oracle_vmcs[GUEST_PHYSICAL_ADDRESS] = gpa;
	oracle_vcpu->arch.hflags = guest_mode ? HF_GUEST_MASK : 0;
	oracle_world.fault_calls = 0;
	oracle_world.fault_gpa = 0;
	oracle_world.fault_error = 0;
	oracle_world.skipped = 0;
}

/*
 * in: exit qualification, guest-physical address, flag, IDT vectoring information is valid, virtual NMIs
 * out: calls of kvm_mmu_page_fault(), its address, its error code, guest interruptibility, the exit qualification that
 *      is found later
 */
ENTRY(handle_ept_violation, 5, 5)
{
	exit_state(in[0], in[1], false);
	oracle_set_flag(oracle_vcpu, in[2]);
	oracle_vmx.idt_vectoring_info = in[3] ? VECTORING_INFO_VALID_MASK : 0;
	enable_vnmi = in[4];
	oracle_vmcs[GUEST_INTERRUPTIBILITY_INFO] = 0;
	handle_ept_violation(oracle_vcpu);
	out[0] = oracle_world.fault_calls;
	out[1] = oracle_world.fault_gpa;
	out[2] = oracle_world.fault_error;
	out[3] = oracle_vmcs[GUEST_INTERRUPTIBILITY_INFO];
	out[4] = vmx_get_exit_qual(oracle_vcpu);
}

/*
 * in: guest-physical address, guest mode, an eventfd sits there
 * out: calls of kvm_mmu_page_fault(), its address, its error code, instructions skipped, the exit qualification that is
 *      found later
 */
ENTRY(handle_ept_misconfig, 3, 5)
{
	exit_state(0, in[0], in[1]);
	oracle_world.fast_mmio = in[2];
	handle_ept_misconfig(oracle_vcpu);
	out[0] = oracle_world.fault_calls;
	out[1] = oracle_world.fault_gpa;
	out[2] = oracle_world.fault_error;
	out[3] = oracle_world.skipped;
	out[4] = vmx_get_exit_qual(oracle_vcpu);
	oracle_vcpu->arch.hflags = 0;
}

static struct vmcs12 oracle_vmcs12;

static void allow_xsaves(bool on)
{
	__assign_bit(KVM_GOVERNED_X86_FEATURE_XSAVES, oracle_vcpu->arch.governed_features.enabled, on);
}

/* in: root address, root level, enable_ept_ad_bits, guest mode, vmcs12's EPT pointer */
ENTRY(construct_eptp, 5, 1)
{
	enable_ept_ad_bits = in[2];
	oracle_vcpu->arch.hflags = in[3] ? HF_GUEST_MASK : 0;
	oracle_vmcs12.ept_pointer = in[4];
	oracle_vmx.nested.cached_vmcs12 = &oracle_vmcs12;
	out[0] = construct_eptp(oracle_vcpu, in[0], in[1]);
	oracle_vcpu->arch.hflags = 0;
}

/*
 * in: MSR 0x482, MSR 0x48B, MSR 0x48C, error_on_inconsistent_vmcs_config, SGX
 * out: returned value, secondary controls, EPT capabilities, VPID capabilities
 */
ENTRY(setup_vmcs_config, 5, 4)
{
	static struct vmcs_config config;
	static struct vmx_capability capability;

	oracle_world.msr_procbased = in[0];
	oracle_world.msr_procbased2 = in[1];
	oracle_world.msr_ept_vpid = in[2];
	error_on_inconsistent_vmcs_config = in[3];
	oracle_world.sgx = in[4];
	memset(&config, 0, sizeof(config));
	memset(&capability, 0, sizeof(capability));
	out[0] = setup_vmcs_config(&config, &capability);
	out[1] = config.cpu_based_2nd_exec_ctrl;
	out[2] = capability.ept;
	out[3] = capability.vpid;
}

/*
 * in: vmcs_config's secondary controls, enable_ept, enable_unrestricted_guest, VPID of the vCPU, enable_pml
 *     with dirty logging, param, every bit of the guest's CPUID, nested, secondary controls any L1 may set,
 *     flexpriority_enabled, the guest may use XSAVES, secondary controls this L1 may set
 * out: secondary controls, enable_unrestricted_guest, secondary controls L1 may set
 */
ENTRY(vmx_secondary_exec_control, 12, 3)
{
	allow_xsaves(in[10]);
	vmcs_config.cpu_based_2nd_exec_ctrl = in[0];
	enable_ept = in[1];
	enable_unrestricted_guest = in[2];
	oracle_vmx.vpid = in[3];
	enable_pml = in[4];
	atomic_set(&oracle_kvm->nr_memslots_dirty_logging, in[4]);
#ifdef ORACLE_HAS_PARAM
	enable_pt_guest_exec_control = in[5];
#endif
	oracle_world.cpuid = in[6] ? ~0u : 0;
	nested = in[7];
	vmcs_config.nested.secondary_ctls_high = in[8];
	oracle_vmx.nested.msrs.secondary_ctls_high = in[11];
	flexpriority_enabled = in[9];
	out[0] = vmx_secondary_exec_control(&oracle_vmx);
	out[1] = enable_unrestricted_guest;
	out[2] = oracle_vmx.nested.msrs.secondary_ctls_high;
}

/* in: vmcs_config's secondary controls, current secondary controls; out: cpu_has_vmx_mbec, vmx_has_mbec */
ENTRY(has_mbec, 2, 2)
{
	out[0] = out[1] = 0;
#ifdef ORACLE_HAS_CPU_HAS_MBEC
	vmcs_config.cpu_based_2nd_exec_ctrl = in[0];
	out[0] = cpu_has_vmx_mbec();
#endif
#ifdef ORACLE_HAS_VMX_HAS_MBEC
	oracle_vmx.vmcs01.controls_shadow.secondary_exec = in[1];
	out[1] = vmx_has_mbec(&oracle_vmx);
#endif
}

/*
 * in: vmcs_config's secondary controls, EPT capabilities, VPID capabilities
 * out: ept, vpid, unrestricted_guest, vmfunc, pml, ept_execute_only, ept_4levels, ept_5levels, ept_mt_wb,
 *      ept_ad_bits, invept_global, ept_caps_to_lpage_level
 */
ENTRY(capabilities, 3, 12)
{
	vmcs_config.cpu_based_2nd_exec_ctrl = in[0];
	vmx_capability.ept = in[1];
	vmx_capability.vpid = in[2];
	out[0] = cpu_has_vmx_ept();
	out[1] = cpu_has_vmx_vpid();
	out[2] = cpu_has_vmx_unrestricted_guest();
	out[3] = cpu_has_vmx_vmfunc();
	out[4] = cpu_has_vmx_pml();
	out[5] = cpu_has_vmx_ept_execute_only();
	out[6] = cpu_has_vmx_ept_4levels();
	out[7] = cpu_has_vmx_ept_5levels();
	out[8] = cpu_has_vmx_ept_mt_wb();
	out[9] = cpu_has_vmx_ept_ad_bits();
	out[10] = cpu_has_vmx_invept_global();
	out[11] = ept_caps_to_lpage_level(in[1]);
}

/*
 * in: MSR, secondary_ctls_high of the vCPU, host_initiated, eVMCS offered, flag, CPUID's PERF_GLOBAL_CTRL bit
 * out: returned value, MSR value
 */
ENTRY(vmx_get_msr, 6, 2)
{
	static struct kvm_vcpu_hv hv;
	struct msr_data msr = { .index = in[0], .host_initiated = in[2] };

	__set_bit(KVM_GOVERNED_X86_FEATURE_VMX, oracle_vcpu->arch.governed_features.enabled);
	memset(&oracle_vmx.nested.msrs, 0, sizeof(oracle_vmx.nested.msrs));
	oracle_vmx.nested.msrs.secondary_ctls_high = in[1];
	oracle_vcpu->arch.hyperv = &hv;
	oracle_vcpu->arch.hyperv_enabled = in[3];
	hv.cpuid_cache.nested_eax = in[3] ? ~0u : 0;
	hv.cpuid_cache.nested_ebx = in[5] ? HV_X64_NESTED_EVMCS1_PERF_GLOBAL_CTRL : 0;
	oracle_vmx.nested.enlightened_vmcs_enabled = in[3];
	oracle_set_flag(oracle_vcpu, in[4]);
	out[0] = vmx_get_msr(oracle_vcpu, &msr);
	out[1] = msr.data;
}

/*
 * Loading kvm-intel.ko. It ends where memory for the host's VMCSs would be allocated (what it decided stands
 * by then), or before, because it refuses the CPU.
 * in: MSR 0x48B, MSR 0x48C, module parameters ept and eptad, param, nested, the host has 1 GiB pages
 * out: refused; enable_ept, enable_ept_ad_bits, enable_unrestricted_guest, enable_vpid, enable_pml,
 *      param, flexpriority_enabled, cpu_dirty_log_size; vmcs_config's secondary controls; nested
 *      secondary_ctls_high, ept_caps, vpid_caps, vmfunc_controls; shadow_x_mask, shadow_ux_mask,
 *      shadow_present_mask, shadow_accessed_mask, shadow_acc_track_mask, shadow_mmio_value; tdp_mmu_enabled,
 *      max_tdp_level, max_huge_page_level (0 where it refused)
 */
ENTRY(vmx_hardware_setup, 7, 23)
{
	extern void kvm_mmu_reset_all_pte_masks(void);
	extern u64 shadow_x_mask, shadow_present_mask, shadow_accessed_mask, shadow_acc_track_mask, shadow_mmio_value;

	oracle_world.msr_procbased = 0xffffffffull << 32;
	oracle_world.msr_procbased2 = in[0];
	oracle_world.msr_ept_vpid = in[1];
	oracle_world.sgx = 0;
	error_on_inconsistent_vmcs_config = true;
	enable_ept = in[2];
	enable_ept_ad_bits = in[3];
	nested = in[5];
	enable_unrestricted_guest = enable_vpid = enable_pml = flexpriority_enabled = true;
	enable_vnmi = true;
	enable_apicv = false;
	pt_mode = PT_MODE_SYSTEM;
	vt_x86_ops.cpu_dirty_log_size = PML_ENTITY_NUM;
	__set_bit(X86_FEATURE_NX, (unsigned long *)boot_cpu_data.x86_capability);
	__assign_bit(X86_FEATURE_GBPAGES, (unsigned long *)boot_cpu_data.x86_capability, in[6]);
#ifdef ORACLE_HAS_PARAM
	enable_pt_guest_exec_control = in[4];
#endif
	memset(&vmcs_config, 0, sizeof(vmcs_config));
	memset(&vmx_capability, 0, sizeof(vmx_capability));
	kvm_mmu_reset_all_pte_masks();
	out[0] = vmx_hardware_setup() != -ENOMEM;
	out[1] = enable_ept;
	out[2] = enable_ept_ad_bits;
	out[3] = enable_unrestricted_guest;
	out[4] = enable_vpid;
	out[5] = enable_pml;
#ifdef ORACLE_HAS_PARAM
	out[6] = enable_pt_guest_exec_control;
#else
	out[6] = 0;
#endif
	out[7] = flexpriority_enabled;
	out[8] = vt_x86_ops.cpu_dirty_log_size;
	out[9] = vmcs_config.cpu_based_2nd_exec_ctrl;
	out[10] = vmcs_config.nested.secondary_ctls_high;
	out[11] = vmcs_config.nested.ept_caps;
	out[12] = vmcs_config.nested.vpid_caps;
	out[13] = vmcs_config.nested.vmfunc_controls;
	out[14] = shadow_x_mask;
#ifdef ORACLE_HAS_UX_MASK
	{
		extern u64 shadow_ux_mask;

		out[15] = shadow_ux_mask;
	}
#else
	out[15] = 0;
#endif
	out[16] = shadow_present_mask;
	out[17] = shadow_accessed_mask;
	out[18] = shadow_acc_track_mask;
	out[19] = shadow_mmio_value;
	if (out[0])
		memset(out + 20, 0, 3 * sizeof(u64));
	else
		oracle_configured(out + 20);
}

/*
 * in: vmcs_config's secondary controls, enable_ept, enable_unrestricted_guest, VPID, param
 * out: vmcs01's secondary controls, the vCPU's flag
 */
ENTRY(init_vmcs, 5, 2)
{
	memset(&vmcs_config, 0, sizeof(vmcs_config));
	memset(&oracle_vmx.vmcs01, 0, sizeof(oracle_vmx.vmcs01));
	oracle_vmx.loaded_vmcs = &oracle_vmx.vmcs01;
	vmcs_config.cpu_based_exec_ctrl = CPU_BASED_ACTIVATE_SECONDARY_CONTROLS;
	vmcs_config.cpu_based_2nd_exec_ctrl = in[0];
	enable_ept = in[1];
	enable_unrestricted_guest = in[2];
	oracle_vmx.vpid = in[3];
	enable_pml = false;
	enable_apicv = false;
	nested = false;
	flexpriority_enabled = true;
	oracle_world.cpuid = ~0u;
	allow_xsaves(true);
#ifdef ORACLE_HAS_PARAM
	enable_pt_guest_exec_control = in[4];
#endif
	oracle_set_flag(oracle_vcpu, false);
	init_vmcs(&oracle_vmx);
	out[0] = oracle_vmx.vmcs01.controls_shadow.secondary_exec;
	out[1] = oracle_get_flag(oracle_vcpu);
}
