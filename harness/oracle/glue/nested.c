// SPDX-License-Identifier: GPL-2.0-only
/* Entries for vmx/nested.c. */
#include "vmcs_table.h"
#include "x86.h"
#include "vmx/nested.h"
#include "msrs.h"

/* The exit that is injected into L1 is a result: captured by world.c. */
#pragma weak nested_vmx_vmexit
#include "vmx/nested.c"
#include "oracle.h"

static struct vmcs12 oracle_l1_vmcs12;

static struct vcpu_vmx *vmx_of_case(void)
{
	struct vcpu_vmx *vmx = to_vmx(oracle_vcpu);

	vmx->nested.cached_vmcs12 = &oracle_l1_vmcs12;
	return vmx;
}

/*
 * in: CPU's EPT capabilities, vmcs_config's secondary controls, enable_ept, enable_ept_ad_bits, enable_vpid,
 *     enable_unrestricted_guest, flexpriority_enabled, param
 * out: secondary_ctls_low, secondary_ctls_high, ept_caps, vpid_caps, vmfunc_controls
 */
ENTRY(nested_vmx_setup_secondary_ctls, 8, 5)
{
	static struct vmcs_config config;
	struct nested_vmx_msrs msrs = { 0 };

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
 *     basic reason of L2's exit
 * out: exit reason, exit qualification and guest-physical address that L1 gets
 */
ENTRY(nested_ept_inject_page_fault, 6, 3)
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
	nested_ept_inject_page_fault(oracle_vcpu, &fault);
	out[0] = oracle_world.exit_reason;
	out[1] = oracle_world.exit_qualification;
	out[2] = oracle_l1_vmcs12.guest_physical_address;
}

/* in: MSR, secondary_ctls_high, ept_caps, vpid_caps, vmfunc_controls; out: returned value, MSR value */
ENTRY(vmx_get_vmx_msr, 5, 2)
{
	struct nested_vmx_msrs msrs = { 0 };

	msrs.secondary_ctls_high = in[1];
	msrs.ept_caps = in[2];
	msrs.vpid_caps = in[3];
	msrs.vmfunc_controls = in[4];
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
 * out: cpu_role base and ext, root_role, what L1's entries may not hold in 11 words
 */
ENTRY(nested_ept_init_mmu_context, 2, 14)
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
	oracle_vcpu->arch.walk_mmu = &oracle_vcpu->arch.root_mmu;
	nested_ept_init_mmu_context(oracle_vcpu);
	out[0] = mmu->cpu_role.base.word;
	out[1] = mmu->cpu_role.ext.word;
	out[2] = mmu->root_role.word;
	memcpy(out + 3, mmu->guest_rsvd_check.rsvd_bits_mask, 10 * sizeof(u64));
	out[13] = mmu->guest_rsvd_check.bad_mt_xwr;
}
