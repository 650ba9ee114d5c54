// SPDX-License-Identifier: GPL-2.0-only
/* Entries for vmx/hyperv.c. */
#include "vmcs_table.h"
#include "vmx/hyperv.c"
#include "oracle.h"

/* in: MSR, its value, flag, CPUID's PERF_GLOBAL_CTRL bit; out: filtered value */
ENTRY(nested_evmcs_filter_control_msr, 4, 1)
{
	static struct kvm_vcpu_hv hv;

	oracle_vcpu->arch.hyperv = &hv;
	hv.cpuid_cache.nested_ebx = in[3] ? HV_X64_NESTED_EVMCS1_PERF_GLOBAL_CTRL : 0;
	oracle_set_flag(oracle_vcpu, in[2]);
	out[0] = in[1];
	nested_evmcs_filter_control_msr(oracle_vcpu, in[0], &out[0]);
}

/* in: pin-based, primary, secondary, exit, entry controls, VM-function controls; out: 0 or a negative errno */
ENTRY(nested_evmcs_check_controls, 6, 1)
{
	static struct vmcs12 vmcs12;

	vmcs12.pin_based_vm_exec_control = in[0];
	vmcs12.cpu_based_vm_exec_control = in[1];
	vmcs12.secondary_vm_exec_control = in[2];
	vmcs12.vm_exit_controls = in[3];
	vmcs12.vm_entry_controls = in[4];
	vmcs12.vm_function_control = in[5];
	out[0] = nested_evmcs_check_controls(&vmcs12);
}
