/* SPDX-License-Identifier: GPL-2.0-only */
/* Where the workload's memory lies, for C and for L2's own code: L2-physical addresses are L1-physical ones. */
#ifndef EXITS_LAYOUT_H
#define EXITS_LAYOUT_H

/* pages of the probe's scaffold (16 MiB up) that it leaves free */
#define L2_KERNEL	0x01020000
#define L2_USER		0x01021000
#define L2_KERNEL_DATA	0x01022000

/* L2-linear: kernel code, kernel data, user code; fresh data pages (user), pages for new code (kernel) */
#define GLA_KERNEL	0x00400000
#define GLA_KERNEL_DATA	0x00401000
#define GLA_USER	0x00402000
#define GLA_FRESH	0x00800000
#define GLA_LOAD	0x01000000

/* bytes from one such page to the next: each has the eight entries that KVM may fill ahead to itself */
#define STRIDE		0x8000

/* bytes in the kernel's data page */
#define DATA_CALLS	0x00	/* system calls made, 64 bits */
#define DATA_HYPERCALLS	0x08	/* hypercalls at each system call that makes any, 64 bits */
#define DATA_SILENT	0x10	/* the kernel runs new code without asking L1, 64 bits */
#define DATA_STACK	0x1000

/* RAX at a VMCALL */
#define CALL_SERVICE	1	/* L1 has something to do, whatever it is */
#define CALL_LOAD	2	/* RDI: linear address of a page with new code */
#define CALL_DONE	3
#define CALL_BROKEN	4	/* L2's new code did not do what it says */

#endif
