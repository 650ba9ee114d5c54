// SPDX-License-Identifier: GPL-2.0-only
/* Entries for vmx/nested.c. */
#include "vmcs_table.h"
#include "x86.h"
#include "vmx/nested.h"
#include "msrs.h"

/* The exit that is injected into L1 is a result: captured by world.c. */
#pragma weak nested_vmx_vmexit

/* So are the cached roots for which an address is synchronised. */
#define kvm_mmu_invalidate_addr oracle_invalidate_addr
static void oracle_invalidate_addr(struct kvm_vcpu *vcpu, struct kvm_mmu *mmu, u64 addr, unsigned long roots);
#include "vmx/nested.c"
#include "oracle.h"

static struct vmcs12 oracle_l1_vmcs12;
static u64 invalidated_addr, invalidated_roots;

static void oracle_invalidate_addr(struct kvm_vcpu *vcpu, struct kvm_mmu *mmu, u64 addr, unsigned long roots)
{
	invalidated_addr = addr;
	invalidated_roots = roots;
}

static struct vcpu_vmx *vmx_of_case(void)
{
	struct vcpu_vmx *vmx = to_vmx(oracle_vcpu);

	vmx->nested.cached_vmcs12 = &oracle_l1_vmcs12;
	return vmx;
}

/*
 * in: CPU's EPT capabilities, vmcs_config's secondary controls, enable_ept, enable_ept_ad_bits, enable_vpid,
 *     enable_unrestricted_guest, flexpriority_enabled, param
 * out: secondary_ctls_low, secondary_ctls_high, ept_caps, vpid_caps, vmfunc_controls, which had all bits before
 */
ENTRY(nested_vmx_setup_secondary_ctls, 8, 5)
{
	static struct vmcs_config config;
	struct nested_vmx_msrs msrs;

	memset(&msrs, 0xff, sizeof(msrs));
	config.cpu_based_2nd_exec_ctrl = in[1];
	vmcs_config.cpu_based_2nd_exec_ctrl = in[1];
	enable_ept = in[2];
	enable_ept_ad_bits = in[3];
	enable_vpid = in[4];
	enable_unrestricted_guest = in[5];
	flexpriority_enabled = in[6];
#ifdef ORACLE_HAS_PARAM
	enable_pt_guest_exec_control = in[7];
#endif
	nested_vmx_setup_secondary_ctls(in[0], &config, &msrs);
	out[0] = msrs.secondary_ctls_low;
	out[1] = msrs.secondary_ctls_high;
	out[2] = msrs.ept_caps;
	out[3] = msrs.vpid_caps;
	out[4] = msrs.vmfunc_controls;
}

/*
 * in: the host's pin-based, primary, exit and entry controls, enable_apicv
 * out: low and high halves of the pin-based, primary, exit and entry controls' MSRs
 */
ENTRY(nested_vmx_setup_ctls_msrs, 5, 8)
{
	static struct vmcs_config config;
	struct nested_vmx_msrs msrs = { 0 };

	config.pin_based_exec_ctrl = in[0];
	config.cpu_based_exec_ctrl = in[1];
	config.vmexit_ctrl = in[2];
	config.vmentry_ctrl = in[3];
	enable_apicv = in[4];
	nested_vmx_setup_pinbased_ctls(&config, &msrs);
	nested_vmx_setup_cpubased_ctls(&config, &msrs);
	nested_vmx_setup_exit_ctls(&config, &msrs);
	nested_vmx_setup_entry_ctls(&config, &msrs);
	enable_apicv = false;
	out[0] = msrs.pinbased_ctls_low;
	out[1] = msrs.pinbased_ctls_high;
	out[2] = msrs.procbased_ctls_low;
	out[3] = msrs.procbased_ctls_high;
	out[4] = msrs.exit_ctls_low;
	out[5] = msrs.exit_ctls_high;
	out[6] = msrs.entry_ctls_low;
	out[7] = msrs.entry_ctls_high;
}

/* in: control, low half, high half of its MSR */
ENTRY(vmx_control_verify, 3, 1)
{
	out[0] = vmx_control_verify(in[0], in[1], in[2]);
}

/*
 * A vmcs12 that has nothing wrong but what the case puts there.
 * in: secondary controls, EPT pointer, secondary_ctls_high, ept_caps, eVMCS offered, activate secondary
 *     controls, virtual processor id
 * out: mode-based check, execution controls' check, all controls' check (0 or a negative errno)
 */
ENTRY(nested_vmx_check_controls, 7, 3)
{
	struct vcpu_vmx *vmx = vmx_of_case();
	struct vmcs12 *vmcs12 = &oracle_l1_vmcs12;
	struct nested_vmx_msrs *msrs = &vmx->nested.msrs;

	memset(vmcs12, 0, sizeof(*vmcs12));
	memset(msrs, 0, sizeof(*msrs));
	msrs->pinbased_ctls_high = msrs->procbased_ctls_high = ~0u;
	msrs->exit_ctls_high = msrs->entry_ctls_high = ~0u;
	msrs->secondary_ctls_high = in[2];
	msrs->ept_caps = in[3];
	oracle_vcpu->arch.maxphyaddr = 46;
	oracle_vcpu->arch.reserved_gpa_bits = rsvd_bits(46, 63);
	oracle_vcpu->arch.hyperv_enabled = in[4];
	vmx->nested.enlightened_vmcs_enabled = in[4];
	vmcs12->secondary_vm_exec_control = in[0];
	vmcs12->cpu_based_vm_exec_control = in[5] ? CPU_BASED_ACTIVATE_SECONDARY_CONTROLS : 0;
	vmcs12->vm_exit_controls = VM_EXIT_HOST_ADDR_SPACE_SIZE;
	vmcs12->ept_pointer = in[1];
	vmcs12->virtual_processor_id = in[6];
	out[0] = nested_vmx_check_mode_based_ept_exec_controls(oracle_vcpu, vmcs12);
	out[1] = nested_check_vm_execution_controls(oracle_vcpu, vmcs12);
	out[2] = nested_vmx_check_controls(oracle_vcpu, vmcs12);
}

/* in: vmcs12's pin-based, primary and secondary controls; out: 0 or a negative errno */
ENTRY(nested_vmx_check_apicv_controls, 3, 1)
{
	struct vmcs12 *vmcs12 = &oracle_l1_vmcs12;

	vmx_of_case();
	memset(vmcs12, 0, sizeof(*vmcs12));
	vmcs12->pin_based_vm_exec_control = in[0];
	vmcs12->cpu_based_vm_exec_control = in[1];
	vmcs12->secondary_vm_exec_control = in[2];
	out[0] = nested_vmx_check_apicv_controls(oracle_vcpu, vmcs12);
}

/* Two pages in which L1 may have an enlightened VMCS, by their gfn. */
#define EVMCS_GFN 5
static struct hv_enlightened_vmcs oracle_evmcs[2];

int kvm_vcpu_map(struct kvm_vcpu *vcpu, gfn_t gfn, struct kvm_host_map *map)
{
	map->gfn = gfn;
	map->hva = &oracle_evmcs[gfn - EVMCS_GFN];
	return 0;
}

void kvm_vcpu_unmap(struct kvm_vcpu *vcpu, struct kvm_host_map *map, bool dirty)
{
	map->hva = NULL;
}

/*
 * L1 enters its guest by an enlightened VMCS, or does not.
 * in: by VMLAUNCH, eVMCS offered, the VP assist page asks for it, the page it names and the one in use (1 or 2,
 *     0 for none); the named one's revision, clean fields, pin-based, primary, secondary, exit and entry controls,
 *     EPT pointer, VPID; what every control of vmcs12 was before
 * out: status, page in use, clean fields; vmcs12's controls in that order, EPT pointer, VPID, VM-function controls,
 *      PML index
 */
ENTRY(enlightened_vmptrld, 15, 12)
{
	static struct kvm_vcpu_hv hv;
	struct vcpu_vmx *vmx = vmx_of_case();
	struct vmcs12 *vmcs12 = &oracle_l1_vmcs12;
	struct hv_enlightened_vmcs *evmcs;
	const u64 vmptr[3] = { EVMPTR_INVALID, EVMCS_GFN << PAGE_SHIFT, (EVMCS_GFN + 1) << PAGE_SHIFT };

	memset(vmcs12, 0, sizeof(*vmcs12));
	memset(oracle_evmcs, 0, sizeof(oracle_evmcs));
	memset(&hv, 0, sizeof(hv));
	hv.vp_assist_page.enlighten_vmentry = in[2];
	hv.vp_assist_page.current_nested_vmcs = vmptr[in[3]];
	hv.cpuid_cache.nested_eax = ~0u;
	oracle_vcpu->arch.hyperv = &hv;
	oracle_vcpu->arch.hyperv_enabled = in[1];
	vmx->nested.enlightened_vmcs_enabled = in[1];
	vmx->nested.hv_evmcs_vmptr = vmptr[in[4]];
	vmx->nested.hv_evmcs = in[4] ? &oracle_evmcs[in[4] - 1] : NULL;
	evmcs = &oracle_evmcs[in[3] ? in[3] - 1 : 0];
	evmcs->revision_id = in[5];
	evmcs->hv_clean_fields = in[6];
	evmcs->pin_based_vm_exec_control = in[7];
	evmcs->cpu_based_vm_exec_control = in[8];
	evmcs->secondary_vm_exec_control = in[9];
	evmcs->vm_exit_controls = in[10];
	evmcs->vm_entry_controls = in[11];
	evmcs->ept_pointer = in[12];
	evmcs->virtual_processor_id = in[13];
	vmcs12->pin_based_vm_exec_control = vmcs12->cpu_based_vm_exec_control = in[14];
	vmcs12->secondary_vm_exec_control = vmcs12->vm_exit_controls = vmcs12->vm_entry_controls = in[14];
	vmcs12->ept_pointer = vmcs12->vm_function_control = in[14];
	vmcs12->virtual_processor_id = vmcs12->guest_pml_index = in[14];
	out[0] = nested_vmx_handle_enlightened_vmptrld(oracle_vcpu, in[0]);
	if (nested_vmx_is_evmptr12_valid(vmx))
		copy_enlightened_to_vmcs12(vmx, vmx->nested.hv_evmcs->hv_clean_fields);
	out[1] = vmx->nested.hv_evmcs_vmptr;
	out[2] = evmcs->hv_clean_fields;
	out[3] = vmcs12->pin_based_vm_exec_control;
	out[4] = vmcs12->cpu_based_vm_exec_control;
	out[5] = vmcs12->secondary_vm_exec_control;
	out[6] = vmcs12->vm_exit_controls;
	out[7] = vmcs12->vm_entry_controls;
	out[8] = vmcs12->ept_pointer;
	out[9] = vmcs12->virtual_processor_id;
	out[10] = vmcs12->vm_function_control;
	out[11] = vmcs12->guest_pml_index;
	vmx->nested.hv_evmcs_vmptr = EVMPTR_INVALID;
	vmx->nested.hv_evmcs = NULL;
}

/* in: EPT pointers of a cached root and of L1; out: whether the root is one of that pointer's table */
ENTRY(nested_ept_root_matches, 2, 1)
{
	out[0] = nested_ept_root_matches(PAGE_SIZE, in[0], in[1]);
}

/*
 * in: vmcs01's secondary controls, vmcs12's, vmcs12 activates secondary controls, vmcs_config's secondary
 * out: vmcs02's secondary controls
 */
ENTRY(prepare_vmcs02_early, 4, 1)
{
	struct vcpu_vmx *vmx = vmx_of_case();
	static struct loaded_vmcs vmcs01;
	struct loaded_vmcs *before = vmx->loaded_vmcs;

	memset(&oracle_l1_vmcs12, 0, sizeof(oracle_l1_vmcs12));
	memset(&vmcs01, 0, sizeof(vmcs01));
	memset(&vmx->nested.vmcs02, 0, sizeof(vmx->nested.vmcs02));
	vmcs_config.cpu_based_exec_ctrl = CPU_BASED_ACTIVATE_SECONDARY_CONTROLS;
	vmcs_config.cpu_based_2nd_exec_ctrl = in[3];
	vmx->nested.dirty_vmcs12 = false;
	vmx->nested.hv_evmcs_vmptr = EVMPTR_INVALID;
	vmx->loaded_vmcs = &vmx->nested.vmcs02;
	vmcs01.controls_shadow.secondary_exec = in[0];
	oracle_l1_vmcs12.secondary_vm_exec_control = in[1];
	oracle_l1_vmcs12.cpu_based_vm_exec_control = in[2] ? CPU_BASED_ACTIVATE_SECONDARY_CONTROLS : 0;
	prepare_vmcs02_early(vmx, &vmcs01, &oracle_l1_vmcs12);
	out[0] = vmx->nested.vmcs02.controls_shadow.secondary_exec;
	vmx->loaded_vmcs = before;
}

/*
 * in: fault's error code, exit qualification and address; the exit qualification of L2's exit, pml_full,
 *     basic reason of L2's exit; L1's EPT pointer, and those of the three cached roots (0: no root)
 * out: exit reason, exit qualification and guest-physical address that L1 gets; the cached roots that are
 *      synchronised for an address (bit 1 for the first), that address; whether L1's log is full
 */
ENTRY(nested_ept_inject_page_fault, 10, 6)
{
	struct vcpu_vmx *vmx = vmx_of_case();
	struct x86_exception fault = {
		.error_code = in[0],
		.exit_qualification = in[1],
		.address = in[2],
	};

	oracle_vcpu->arch.regs_avail = 0;
	oracle_vmcs[EXIT_QUALIFICATION] = in[3];
	vmx->nested.pml_full = in[4];
	vmx->exit_reason.full = in[5];
	oracle_vcpu->arch.mmu = &oracle_vcpu->arch.guest_mmu;
	oracle_vcpu->arch.walk_mmu = &oracle_vcpu->arch.nested_mmu;
	oracle_l1_vmcs12.guest_physical_address = 0;
	oracle_l1_vmcs12.ept_pointer = in[6];
	for (int n = 0; n < KVM_MMU_NUM_PREV_ROOTS; n++) {
		oracle_vcpu->arch.mmu->prev_roots[n].hpa = in[7 + n] ? PAGE_SIZE : INVALID_PAGE;
		oracle_vcpu->arch.mmu->prev_roots[n].pgd = in[7 + n];
	}
	invalidated_addr = invalidated_roots = 0;
	nested_ept_inject_page_fault(oracle_vcpu, &fault);
	for (int n = 0; n < KVM_MMU_NUM_PREV_ROOTS; n++)
		oracle_vcpu->arch.mmu->prev_roots[n] = KVM_MMU_ROOT_INFO_INVALID;
	out[3] = invalidated_roots;
	out[4] = invalidated_addr;
	out[5] = vmx->nested.pml_full;
	vmx->nested.pml_full = false;
	out[0] = oracle_world.exit_reason;
	out[1] = oracle_world.exit_qualification;
	out[2] = oracle_l1_vmcs12.guest_physical_address;
}

/*
 * in: MSR; low and high halves of the secondary controls, ept_caps, vpid_caps, vmfunc_controls; low and high halves
 *     of the pin-based, primary, exit and entry controls
 * out: returned value, MSR value
 */
ENTRY(vmx_get_vmx_msr, 14, 2)
{
	struct nested_vmx_msrs msrs = {
		.secondary_ctls_low = in[1],
		.secondary_ctls_high = in[2],
		.ept_caps = in[3],
		.vpid_caps = in[4],
		.vmfunc_controls = in[5],
		.pinbased_ctls_low = in[6],
		.pinbased_ctls_high = in[7],
		.procbased_ctls_low = in[8],
		.procbased_ctls_high = in[9],
		.exit_ctls_low = in[10],
		.exit_ctls_high = in[11],
		.entry_ctls_low = in[12],
		.entry_ctls_high = in[13],
	};

	out[0] = vmx_get_vmx_msr(&msrs, in[0], &out[1]);
}

/*
 * User space restricts the vCPU's MSR 0x48B or 0x48C.
 * in: MSR, KVM's own value, the value written
 * out: returned value, secondary_ctls_low, secondary_ctls_high, ept_caps, vpid_caps
 */
ENTRY(vmx_set_vmx_msr, 3, 5)
{
	struct vcpu_vmx *vmx = vmx_of_case();
	struct nested_vmx_msrs *msrs = &vmx->nested.msrs;

	memset(msrs, 0, sizeof(*msrs));
	vmcs_config.nested.secondary_ctls_low = in[1];
	vmcs_config.nested.secondary_ctls_high = in[1] >> 32;
	vmcs_config.nested.ept_caps = in[1];
	vmcs_config.nested.vpid_caps = in[1] >> 32;
	if (in[0] == MSR_IA32_VMX_EPT_VPID_CAP)
		out[0] = vmx_restore_vmx_ept_vpid_cap(vmx, in[2]);
	else
		out[0] = vmx_restore_control_msr(vmx, in[0], in[2]);
	out[1] = msrs->secondary_ctls_low;
	out[2] = msrs->secondary_ctls_high;
	out[3] = msrs->ept_caps;
	out[4] = msrs->vpid_caps;
}

/* in: basic exit reason; out: whether L0 wants the exit */
ENTRY(nested_vmx_l0_wants_exit, 1, 1)
{
	union vmx_exit_reason reason = { .full = in[0] };

	vmx_of_case();
	out[0] = nested_vmx_l0_wants_exit(oracle_vcpu, reason);
}

/* in: basic exit reason, vector of the exception, vmcs12's exception bitmap; out: whether L1 wants the exit */
ENTRY(nested_vmx_l1_wants_exit, 3, 1)
{
	union vmx_exit_reason reason = { .full = in[0] };

	vmx_of_case();
	memset(&oracle_l1_vmcs12, 0, sizeof(oracle_l1_vmcs12));
	oracle_vcpu->arch.regs_avail = 0;
	oracle_vmcs[VM_EXIT_INTR_INFO] =
		INTR_INFO_VALID_MASK | (in[1] == NMI_VECTOR ? INTR_TYPE_NMI_INTR : INTR_TYPE_HARD_EXCEPTION) | in[1];
	oracle_l1_vmcs12.exception_bitmap = in[2];
	out[0] = nested_vmx_l1_wants_exit(oracle_vcpu, reason);
}

/* in: EPT capabilities L1 is offered, type; out: whether the type is one L1 may use (then its operand is read) */
ENTRY(handle_invept, 2, 1)
{
	struct vcpu_vmx *vmx = vmx_of_case();

	memset(&vmx->nested.msrs, 0, sizeof(vmx->nested.msrs));
	vmx->nested.msrs.secondary_ctls_high = SECONDARY_EXEC_ENABLE_EPT;
	vmx->nested.msrs.ept_caps = in[0];
	vmx->nested.vmxon = true;
	vmx->nested.current_vmptr = 0;
	oracle_vcpu->arch.regs_avail = ~0u;
	oracle_vcpu->arch.regs[VCPU_REGS_RAX] = in[1];
	oracle_vmcs[VMX_INSTRUCTION_INFO] = 0;
	oracle_vmcs[EXIT_QUALIFICATION] = 0;
	oracle_world.operands = 0;
	oracle_vcpu->arch.efer = EFER_LMA;
	handle_invept(oracle_vcpu);
	oracle_vcpu->arch.efer = 0;
	out[0] = oracle_world.operands;
}

/* in: vmcs12's PML index, L1 uses PML, its log is full; out: returned value, index afterwards, log is full */
ENTRY(nested_vmx_write_pml_buffer, 3, 3)
{
	struct vcpu_vmx *vmx = vmx_of_case();

	memset(&oracle_l1_vmcs12, 0, sizeof(oracle_l1_vmcs12));
	oracle_l1_vmcs12.cpu_based_vm_exec_control = CPU_BASED_ACTIVATE_SECONDARY_CONTROLS;
	oracle_l1_vmcs12.secondary_vm_exec_control = in[1] ? SECONDARY_EXEC_ENABLE_PML : 0;
	oracle_l1_vmcs12.guest_pml_index = in[0];
	vmx->nested.pml_full = in[2];
	oracle_vcpu->arch.hflags = HF_GUEST_MASK;
	out[0] = nested_vmx_write_pml_buffer(oracle_vcpu, 0x5000);
	out[1] = oracle_l1_vmcs12.guest_pml_index;
	out[2] = vmx->nested.pml_full;
	vmx->nested.pml_full = false;
	oracle_vcpu->arch.hflags = 0;
}

/*
 * in: EPT capabilities L1 is offered, vmcs12's EPT pointer
 * out: cpu_role base and ext, root_role, what L1's entries may not hold in 11 words; whether the MMU in use is this one,
 *      its faults go to L1, and its dirty pages to L1's log
 */
ENTRY(nested_ept_init_mmu_context, 2, 17)
{
	struct vcpu_vmx *vmx = vmx_of_case();
	struct kvm_mmu *mmu = &oracle_vcpu->arch.guest_mmu;

	memset(&oracle_l1_vmcs12, 0, sizeof(oracle_l1_vmcs12));
	vmx->nested.msrs.ept_caps = in[0];
	oracle_l1_vmcs12.ept_pointer = in[1];
	mmu->root.hpa = INVALID_PAGE;
	for (int i = 0; i < KVM_MMU_NUM_PREV_ROOTS; i++)
		mmu->prev_roots[i] = KVM_MMU_ROOT_INFO_INVALID;
	mmu->cpu_role.as_u64 = 0;
	oracle_vcpu->arch.mmu = oracle_vcpu->arch.walk_mmu = &oracle_vcpu->arch.root_mmu;
	mmu->inject_page_fault = NULL;
	nested_ept_init_mmu_context(oracle_vcpu);
	out[14] = oracle_vcpu->arch.mmu == mmu;
	out[15] = mmu->inject_page_fault == nested_ept_inject_page_fault;
	out[16] = vmx_nested_ops.write_log_dirty == nested_vmx_write_pml_buffer;
	oracle_vcpu->arch.mmu = mmu;
	out[0] = mmu->cpu_role.base.word;
	out[1] = mmu->cpu_role.ext.word;
	out[2] = mmu->root_role.word;
	memcpy(out + 3, mmu->guest_rsvd_check.rsvd_bits_mask, 10 * sizeof(u64));
	out[13] = mmu->guest_rsvd_check.bad_mt_xwr;
}
