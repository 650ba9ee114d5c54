/* SPDX-License-Identifier: GPL-2.0-only */
/* What the workload's files share. */
#ifndef EXITS_H
#define EXITS_H

#include "layout.h"
#include "probe.h"
#include "windows.h"

/* L2's general registers, in the order that enter.S knows */
struct registers {
	uint64_t rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15;
};

/* L1's views of L2's memory. With MBEC the first serves both. */
enum view { VIEW_KERNEL, VIEW_USER, VIEWS };

/* one window as L1 runs it */
struct run {
	const struct kvm_window *w;
	struct kvm_observation *o;
	struct registers r;
	uint64_t root[VIEWS];		/* EPT12 PML4 */
	enum view view;			/* the one L2 runs on */
	int launched;
	uint64_t enlightened;		/* the enlightened VMCS, 0: a plain one */
};

/* memory.c */
int memory_build(struct run *run);
int is_verified(uint64_t gpa);
int verify(struct run *run, uint64_t gla);

/* handler.c */
void handler_load(struct run *run);
int handler_run(struct run *run);

/* enter.S */
int enter_l2(struct registers *r, int resume);
void l2_exited(void);

#endif
