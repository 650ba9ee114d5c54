/* SPDX-License-Identifier: GPL-2.0-only */
/* The batch: where it comes from, its header, one vector after the other. */
#include "probe.h"

#define MULTIBOOT_MAGIC	0x2badb002u
#define INFO_MODULES	(1u << 3)
#define VMX		(1u << 5)	/* CPUID 1 ECX */

struct multiboot_info {
	uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr;
};

struct multiboot_module {
	uint32_t start, end, string, reserved;
};

/* A boot module is the batch: it goes where the batch is on KVM. Without one it is there already. */
static int take_module(uint32_t magic, const struct multiboot_info *info)
{
	const struct multiboot_module *m;

	if (magic != MULTIBOOT_MAGIC || !(info->flags & INFO_MODULES) || !info->mods_count)
		return 0;
	m = (const struct multiboot_module *)(uint64_t)info->mods_addr;
	memmove((void *)(uint64_t)BATCH_BASE, (const void *)(uint64_t)m->start, m->end - m->start);
	return 1;
}

static void fill_header(struct kvm_batch *b)
{
	uint32_t r[4];

	cpuid(1, 0, r);
	b->cpuid1_eax = r[0];
	b->cpuid1_ecx = r[2];
	b->bare = !(r[2] & HYPERVISOR);
	cpuid(7, 0, r);
	b->cpuid7_ebx = r[1];
	cpuid(0x80000000u, 0, r);
	b->maxphyaddr = 36;
	if (r[0] >= 0x80000008u) {
		cpuid(0x80000008u, 0, r);
		b->maxphyaddr = r[0] & 0xff;
	}
	b->msr_faults = 0;
	for (uint32_t i = 0; i < MSR_COUNT; i++) {
		vmx_msrs[i] = 0;
		if (rdmsr_safe(MSR_FIRST + i, &vmx_msrs[i]))
			b->msr_faults |= 1u << i;
		b->msrs[i] = vmx_msrs[i];
	}
}

/*
 * One harmless entry before the first vector: a hypervisor under us may take milliseconds to set itself up for its
 * first nested guest, and that must not be taken for the first vector's livelock.
 */
static void warm_up(struct kvm_batch *b)
{
	static const struct kvm_vector v = {
		.kind = KIND_ENTRY, .leaf_level = 1, .upper_level = 2, .leaf = EPT_LEAF, .upper = EPT_NONLEAF,
		.gp = PTE_ALL | PTE_D, .gu = PTE_ALL, .paging = PAGING_64, .cr = CR_WP, .ept = EPT_ENABLE,
	};
	static struct kvm_observation o;

	run_vector(b, &v, &o);
}

static void run_batch(struct kvm_batch *b)
{
	const struct kvm_vector *v = (const void *)((const char *)b + b->vectors);
	struct kvm_observation *o = (void *)((char *)b + b->observations);
	uint32_t traced = 0;

	for (uint32_t i = b->start; i < b->count; i++)
		traced += v[i].flags & FLAG_MARK ? 1 : 0;
	if (traced)
		tables_touch(traced);
	warm_up(b);
	b->tsc_begin = rdtsc();
	for (uint32_t i = b->start; i < b->count; i++) {
		*(volatile uint32_t *)&b->current = i;
		put_mark(&v[i]);
		run_vector(b, &v[i], &o[i]);
	}
	b->tsc_end = rdtsc();
}

void probe_main(uint32_t magic, uint32_t info)
{
	struct kvm_batch *b = (struct kvm_batch *)(uint64_t)BATCH_BASE;
	volatile uint32_t *state = &b->state;
	int module = take_module(magic, (const struct multiboot_info *)(uint64_t)info), refused;

	platform_init();
	if (b->magic != KVMIRROR_MAGIC || b->version != KVMIRROR_VERSION) {
		platform_say("probe: no batch, magic", b->magic);
		*state = STATE_REFUSED;
		platform_off();
	}
	*state = STATE_RUNNING;
	fill_header(b);
	tables_init(b);
	refused = b->cpuid1_ecx & VMX ? vmx_init() : 5;
	if (refused) {
		platform_say("probe: no VMX, step", (uint64_t)refused);
		*state = STATE_REFUSED;
	} else if (!timer_init(b->deadline)) {
		platform_say("probe: no PIT that counts, deadline", b->deadline);
		*state = STATE_REFUSED;
	} else {
		run_batch(b);
		*state = STATE_DONE;
	}
	if (module && b->bare)
		platform_emit(b);
	platform_off();
}
