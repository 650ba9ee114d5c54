/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Takes the place of vmx/vmx_ops.h, whose guard is defined here: the VMCS is a table that cases fill
 * and read. A field's encoding is at most 15 bits and is the index.
 */
#ifndef KVMIRROR_VMCS_TABLE_H
#define KVMIRROR_VMCS_TABLE_H
#define __KVM_X86_VMX_INSN_H

#include <linux/kvm_host.h>
#include <asm/vmx.h>
#include "vmx/vmx_onhyperv.h"
#include "vmx/vmcs.h"
#include "x86.h"

#define ORACLE_VMCS_FIELDS 0x8000

extern u64 oracle_vmcs[ORACLE_VMCS_FIELDS];

static __always_inline u64 oracle_vmcs_get(unsigned long field)
{
	return oracle_vmcs[field & (ORACLE_VMCS_FIELDS - 1)];
}

static __always_inline void oracle_vmcs_set(unsigned long field, u64 value)
{
	oracle_vmcs[field & (ORACLE_VMCS_FIELDS - 1)] = value;
}

#define ORACLE_ACCESSORS(suffix, type)								\
static __always_inline type vmcs_read##suffix(unsigned long field)				\
{												\
	return oracle_vmcs_get(field);								\
}												\
static __always_inline void vmcs_write##suffix(unsigned long field, type value)			\
{												\
	oracle_vmcs_set(field, value);								\
}

ORACLE_ACCESSORS(16, u16)
ORACLE_ACCESSORS(32, u32)
ORACLE_ACCESSORS(64, u64)
ORACLE_ACCESSORS(l, unsigned long)

static __always_inline unsigned long __vmcs_readl(unsigned long field)
{
	return oracle_vmcs_get(field);
}

static __always_inline void __vmcs_writel(unsigned long field, unsigned long value)
{
	oracle_vmcs_set(field, value);
}

static __always_inline void vmcs_clear_bits(unsigned long field, u32 mask)
{
	oracle_vmcs_set(field, oracle_vmcs_get(field) & ~(u64)mask);
}

static __always_inline void vmcs_set_bits(unsigned long field, u32 mask)
{
	oracle_vmcs_set(field, oracle_vmcs_get(field) | mask);
}

/* No processor stands behind the table: nothing to load, clear or flush. */
static inline void vmcs_clear(struct vmcs *vmcs) { }
static inline void vmcs_load(struct vmcs *vmcs) { }
static inline void vpid_sync_vcpu_single(int vpid) { }
static inline void vpid_sync_vcpu_global(void) { }
static inline void vpid_sync_context(int vpid) { }
static inline void vpid_sync_vcpu_addr(int vpid, gva_t addr) { }
static inline void ept_sync_global(void) { }
static inline void ept_sync_context(u64 eptp) { }

/* Declared where vmx_ops.h declares them; vmx.c defines them. */
void vmread_error(unsigned long field);
void vmwrite_error(unsigned long field, unsigned long value);
void vmclear_error(struct vmcs *vmcs, u64 phys_addr);
void vmptrld_error(struct vmcs *vmcs, u64 phys_addr);
void invvpid_error(unsigned long ext, u16 vpid, gva_t gva);
void invept_error(unsigned long ext, u64 eptp, gpa_t gpa);
void vmread_error_trampoline2(unsigned long field, bool fault);

#endif
