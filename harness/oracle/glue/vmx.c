// SPDX-License-Identifier: GPL-2.0-only
/* Entries for vmx/vmx.c. */
#include "vmcs_table.h"
#include "vmx/vmx.c"
#include "oracle.h"

static struct vcpu_vmx oracle_vmx = {
	.vcpu = {
		.kvm = &oracle_kvm,
		.arch.mmu = &oracle_mmu,
		.arch.root_mmu = { },
	},
};

struct kvm_vcpu *const oracle_vcpu = &oracle_vmx.vcpu;

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
