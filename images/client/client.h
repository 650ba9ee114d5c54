/* SPDX-License-Identifier: GPL-2.0-only */
/* What the parts of the small KVM client share. */
#ifndef CLIENT_H
#define CLIENT_H

#include <stddef.h>
#include <stdint.h>

#define PAGE		4096ull
#define HUGE		(512 * PAGE)

void die(const char *what) __attribute__((noreturn));
int find(const char *const *names, int n, const char *name);
int create_vcpu(int kvm, int vm);	/* with the CPUID that KVM supports: newer kernels take no long mode without it */

/*
 * memory.c: the guest's page under test lies in a 2 MiB region of the host, mapped there whole ("2m") or by 4 KiB
 * entries ("4k"). A region is made once and kept, so that its place in the host's memory has to be found once only.
 */
enum { SMALL, LARGE };
unsigned char *region(int size);
void prepare_age(int size);
void age(int size);

/* stats.c */
enum {
	PAGES_4K, PAGES_2M, NX_LPAGE_SPLITS,					/* of the VM */
	PF_TAKEN, PF_FIXED, PF_SPURIOUS, PF_FAST, PF_EMULATE, PF_MMIO, EXITS, MMIO_EXITS,	/* of the vCPU */
	STATS
};
void read_stats(int vm, int vcpu, uint64_t *values);
void print_stats(const uint64_t *values);

/* warn.c: the kernel's warnings from now on; the function that warned since the last look, or NULL; whether any did */
void watch_warnings(void);
const char *warned(void);
int has_warned(void);

/* refused.c */
int refused(int kvm);

/* sequence.c */
int sequence(int kvm, const char *mode, const char *page, const char *size, char *steps, int ms);

#endif
