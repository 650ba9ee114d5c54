/* SPDX-License-Identifier: GPL-2.0-only */
/* What the probe's files share, and where its fixed memory lies. */
#ifndef PROBE_H
#define PROBE_H

#include <stddef.h>
#include <stdint.h>
#include "cpu.h"
#include "protocol.h"

#define PAGE		4096ull
#define MIB		(1ull << 20)
#define GIB		(1ull << 30)

/*
 * Fixed L1-physical memory between the image (1 MiB up) and the batch (32 MiB up). It is not part of the image,
 * so that loaders have less to load; boot modules that lie in it are moved away before it is used.
 *
 * The scaffold window is mapped to L2 at the same address (L2-physical = L1-physical).
 */
#define SCAFFOLD	(16 * MIB)
#define SCAFFOLD_PAGES	38
#define L2_CODE		(SCAFFOLD + 0 * PAGE)
#define L2_PML4		(SCAFFOLD + 1 * PAGE)
#define L2_PDPT		(SCAFFOLD + 2 * PAGE)
#define L2_PAE_PDPT	(SCAFFOLD + 3 * PAGE)
#define L2_PD		(SCAFFOLD + 4 * PAGE)	/* long mode and PAE */
#define L2_PT_CODE	(SCAFFOLD + 5 * PAGE)
#define L2_PT		(SCAFFOLD + 6 * PAGE)
#define L2_PD32		(SCAFFOLD + 7 * PAGE)
#define L2_PT32_CODE	(SCAFFOLD + 8 * PAGE)
#define L2_PT32		(SCAFFOLD + 9 * PAGE)
#define L2_DATA		(SCAFFOLD + 10 * PAGE)	/* the page accessed where the walk is under test */
/* the guest's page tables of a program's windows are pages 11 to 13: PROGRAM_GPT */
#define L2_PROGRAM	(SCAFFOLD + 14 * PAGE)	/* L2's code in a program, and what it read */
#define EPT_PD		(SCAFFOLD + 16 * PAGE)	/* EPT12 tables of the scaffold itself, shared by all vectors */
#define EPT_PT		(SCAFFOLD + 17 * PAGE)
#define L2_MMIO		(SCAFFOLD + 511 * PAGE)	/* L2-physical only: what L1 maps there has no memory */
#define VMXON_REGION	(SCAFFOLD + 20 * PAGE)	/* PROBE_VMXON */
#define VMCS_REGION	(SCAFFOLD + 21 * PAGE)	/* PROBE_VMCS: two, then two enlightened ones */
#define ASSIST_PAGE	(SCAFFOLD + 25 * PAGE)	/* Hyper-V's VP assist page */
/* pages 32 and on, as the protocol has it: where CR3 leads in programs, and their MSR bitmap */
/* pages 26 to 28: PROGRAM_VMCS; 29 and 30, as the protocol has it, SCRATCH_PAGE and VMCS_ASKED of VM entries */
#define POOL		(SCAFFOLD + 2 * MIB)	/* 2 MiB: the pages under test */
#define POOL_PAGES	512

/* L2-linear: a supervisor and a user alias of the code page (GLA_MMIO is behind them), and the page under test */
#define GLA_CODE	0x00400000ull
#define GLA_CODE_USER	0x00401000ull
#define GLA_TARGET	0x00800000ull

/* L1-physical, without memory: two pages, the first the HPET's where there is one */
#define MMIO		0xfed00000ull
#define MMIO_OFFSET	(GLA_MMIO & (PAGE - 1))

/* offsets in the code page: each access, followed by VMCALL */
#define CODE_READ	0x00
#define CODE_WRITE	0x10
#define CODE_RMW	0x20
#define CODE_FETCH	0x30
#define CODE_IDLE	0x40
#define CODE_SPIN	0x50
#define CODE_MOVS	0x60
#define CODE_JUMP	0x70
#define MOVSD		0xa5

/* guest paging-structure bits */
#define PTE_P		0x1ull
#define PTE_W		0x2ull
#define PTE_U		0x4ull
#define PTE_A		0x20ull
#define PTE_D		0x40ull
#define PTE_ALL		(PTE_P | PTE_W | PTE_U | PTE_A)

/* EPT entry bits */
#define EPT_RWXU	0x407ull
#define EPT_A		0x100ull
#define EPT_D		0x200ull
#define EPT_PS		0x80ull
#define EPT_WB		(6ull << 3)
#define EPT_NONLEAF	(EPT_RWXU | EPT_A)
#define EPT_LEAF	(EPT_RWXU | EPT_A | EPT_D | EPT_WB)

/* error of a VERDICT_SCAFFOLD that the probe itself gives before any VM entry */
#define REFUSED_ADDRESS	0x1000	/* no L2-physical address fits: paging mode, levels or MAXPHYADDR */
#define REFUSED_SEQUENCE 0x1001	/* FLAG_CONTINUE without a fitting record before */
#define REFUSED_KIND	0x1002	/* unknown kind, access or paging */
#define REFUSED_EVMCS	0x1003	/* this L1 is not offered an enlightened VMCS */
#define REFUSED_HOST	0x1004	/* nobody hears when L1 calls its host */
#define REFUSED_BY_HOST	0x1005	/* the host could not do what a program asks of it */
#define REFUSED_CHANGES	0x1006	/* more changes than the protocol allows */
#define REFUSED_FIELD	0x1007	/* no such VMCS field here */
/* ... and after an exit */
#define BROKEN_RIP	0x1011

/* the memory of one vector under test */
struct setting {
	uint64_t root;		/* EPT12 PML4 */
	uint64_t *leaf;		/* entries under test */
	uint64_t *upper;
	uint64_t upper_next;	/* the table the upper entry points to */
	uint64_t leaf_given, upper_given;	/* the record's entries, as last written */
	void *gpte;		/* guest leaf entry */
	uint64_t page;		/* L1-physical page that the leaf under test maps */
	uint64_t data;		/* L1-physical page that L2 accesses */
	uint64_t target_gpa;
	uint64_t target_gla;
	uint64_t gpt_gpa;	/* of the guest leaf entry */
	uint64_t test_base;	/* L2-physical range under the leaf under test */
	uint64_t test_size;
	uint8_t leaf_level, upper_level, paging, walk;
	uint8_t valid;
	uint32_t mmio;		/* what is read at the MMIO address that L2 sees */
};

/* of L1, as an exit loads them: CR0, CR3, CR4, and ES, CS, SS, DS, FS, GS, TR */
struct l1_registers {
	uint64_t cr[3];
	uint16_t selectors[7];
};

struct l2_registers {
	uint64_t rax, rdi, rsi, rdx, rcx;
};

/* platform.c */
void platform_init(void);
void platform_say(const char *text, uint64_t number);
void platform_emit(const struct kvm_batch *batch);
int platform_call(void);
void platform_off(void) __attribute__((noreturn));
void zero_pages(uint64_t address, uint64_t pages);
void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int c, size_t n);
void *memmove(void *to, const void *from, size_t n);

/* timer.c */
int timer_init(uint32_t deadline_us);
void timer_arm(void);
void timer_disarm(void);
void timer_acknowledge(void);
int timer_early(uint64_t since);

/* tables.c */
void tables_init(const struct kvm_batch *batch);
void tables_touch(uint32_t vectors);
int tables_prepare(struct setting *s, const struct kvm_vector *v, uint32_t maxphyaddr);

/* vmx.c */
extern uint64_t vmx_msrs[MSR_COUNT];
int vmx_init(void);
int vmx_use(const struct kvm_vector *v);
void vmx_load(const struct kvm_vector *v, const struct setting *s, uint64_t rip);
int vmx_enter(struct l2_registers *r);
void vmx_invept(uint64_t root, int ad);
void l1_registers(struct l1_registers *r);
uint32_t l1_astray(const struct l1_registers *now, const struct l1_registers *want);
uint32_t exit_astray(uint32_t reason, int event);
uint32_t vmx_astray(int failed, uint32_t reason);
uint32_t vmx_launch_astray(int entered);
uint32_t vmx_saved_astray(void);
uint64_t vmread(uint64_t field);
void vmwrite(uint64_t field, uint64_t v);
int vmwrite_refused(uint64_t field, uint64_t v);
int vmx_renew(int enlightened);
uint64_t vmx_capability(uint32_t msr);
void vmx_current_unknown(void);
void vmx_launch_state(uint64_t region, int launched);

/* instruction.c */
void vmx_regions(void);
int vmx_instruction(uint64_t which, uint64_t operand, uint64_t *value, struct kvm_observation *o);
int vmx_invalidate(int vpid, uint64_t type, uint64_t low, uint64_t high);

/* leaves.c */
void leaves_given(uint32_t field);
void leaves_before(int fields);
uint32_t leaves_after(struct kvm_observation *o, int failed);

/* vm_entry.c */
void vm_entry_change(const struct kvm_vector *v, struct kvm_observation *o);
void vm_entry_forget(void);
void run_vm_entry(const struct kvm_batch *batch, const struct kvm_vector *v, struct kvm_observation *o);
void run_vm_exit(const struct kvm_batch *batch, const struct kvm_vector *v, struct kvm_observation *o);

/* evmcs.c */
int evmcs_enable(void);
void evmcs_use(uint64_t region);
void evmcs_leave(void);
void evmcs_clear(uint64_t region);
void evmcs_dirty(uint64_t region);
uint64_t evmcs_read(uint64_t region, uint64_t field);
void evmcs_write(uint64_t region, uint64_t field, uint64_t v);

/* switch.S */
int vm_enter(struct l2_registers *r, int resume);
void vm_exited(void);

void vmx_state_changed(void);
void vmx_load_pdptes(uint64_t table);
void vmx_goes_on(void);

/* program.c */
void run_step(struct kvm_batch *batch, const struct kvm_vector *v, struct kvm_observation *o);

/* run.c */
int l2_enter(struct l2_registers *r, struct kvm_observation *o);
void put_mark(const struct kvm_vector *v);
void run_vector(struct kvm_batch *batch, const struct kvm_vector *v, struct kvm_observation *o);

#endif
