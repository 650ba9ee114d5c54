/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The enlightened VMCS: a vmcs12 that is a page of L1's memory, used by plain loads and stores, and named to the
 * hypervisor under us in the VP assist page rather than by VMPTRLD (Hyper-V TLFS, nested virtualization).
 */
#include "probe.h"

#define LEAF_INTERFACE		0x40000001u
#define LEAF_NESTED		0x4000000au	/* EAX: lowest and highest eVMCS version, a byte each */
#define INTERFACE_HV1		0x31237648u	/* "Hv#1" */
#define MSR_HV_GUEST_OS_ID	0x40000000u
#define MSR_HV_VP_ASSIST	0x40000073u
#define ASSIST_ENABLE		1ull
#define OPEN_SOURCE_OS		(1ull << 63)	/* a guest identity is due before any other MSR; ours has no more to say */
#define VERSION			1u

/* byte offsets in the VP assist page */
#define ASSIST_ENLIGHTEN_ENTRY	40
#define ASSIST_CURRENT_VMCS	48
/* byte offsets in the enlightened VMCS of what has no field encoding */
#define EVMCS_REVISION		0
#define EVMCS_CLEAN_FIELDS	824

/* `count` fields whose encodings go up by 2 and that lie one behind the other from `offset` on */
struct run {
	uint16_t field, offset, count;
};

/* Version 1. A field's width is in its encoding (SDM vol. 3, appendix B). */
static const struct run runs[] = {
	{ GUEST_ES_SELECTOR, 128, 8 },
	{ HOST_ES_SELECTOR, 8, 7 },
	{ VMCS_VPID, 632, 1 },
	{ VMCS_EPTP, 624, 1 },
	{ GUEST_PHYSICAL, 680, 1 },
	{ VMCS_LINK, 416, 4 },		/* DEBUGCTL, PAT, EFER */
	{ GUEST_PDPTE0, 448, 4 },
	{ IO_BITMAP_A, 104, 3 },	/* B, MSR bitmap */
	{ VIRTUAL_APIC_PAGE, 408, 1 },
	{ HOST_PAT, 24, 2 },		/* EFER */
	{ VMCS_PIN, 92, 1 },
	{ VMCS_PROC, 788, 2 },		/* exception bitmap */
	{ PF_MASK, 376, 3 },		/* match, CR3-target count */
	{ VMCS_EXIT, 96, 1 },
	{ EXIT_MSR_STORE, 388, 2 },	/* load */
	{ VMCS_ENTRY, 796, 1 },
	{ ENTRY_MSR_LOAD, 396, 1 },
	{ ENTRY_INTR_INFO, 800, 1 },
	{ VMCS_PROC2, 100, 1 },
	{ INSTRUCTION_ERROR, 688, 7 },	/* exit reason, interruption and vectoring information, instruction length */
	{ GUEST_ES_LIMIT, 144, 18 },	/* to GDTR and IDTR, then access rights ES to TR */
	{ GUEST_INTERRUPTIBILITY, 784, 1 },
	{ GUEST_ACTIVITY, 504, 1 },
	{ GUEST_SYSENTER_CS, 508, 1 },
	{ HOST_SYSENTER_CS, 88, 1 },
	{ CR0_MASK, 512, 4 },		/* CR4 mask, both read shadows */
	{ EXIT_QUALIFICATION, 720, 1 },
	{ GUEST_LINEAR, 760, 1 },
	{ GUEST_CR0, 544, 3 },		/* CR3, CR4 */
	{ GUEST_ES_BASE, 216, 10 },	/* to GDTR and IDTR */
	{ GUEST_DR7, 568, 1 },
	{ GUEST_RSP, 768, 1 },
	{ GUEST_RIP, 816, 1 },
	{ GUEST_RFLAGS, 776, 1 },
	{ GUEST_PENDING_DEBUG, 480, 3 },	/* SYSENTER ESP and EIP */
	{ HOST_CR0, 40, 3 },		/* CR3, CR4 */
	{ HOST_FS_BASE, 576, 5 },	/* GS, TR, GDTR, IDTR */
	{ HOST_SYSENTER_ESP, 64, 2 },	/* EIP */
	{ HOST_RSP, 616, 1 },
	{ HOST_RIP, 80, 1 },
};

static int enabled;

/* bytes of a field: 16, 64, 32 bits, natural width by encoding bits 14:13 */
static unsigned int width(uint64_t field)
{
	static const uint8_t bytes[4] = { 2, 8, 4, 8 };

	return bytes[field >> 13 & 3];
}

static uint64_t place(uint64_t region, uint64_t field)
{
	for (unsigned int i = 0; i < sizeof(runs) / sizeof(runs[0]); i++) {
		uint64_t n = (field - runs[i].field) / 2;

		if (field >= runs[i].field && n < runs[i].count)
			return region + runs[i].offset + n * width(field);
	}
	platform_say("probe: not a field of the enlightened VMCS", field);
	platform_off();
}

uint64_t evmcs_read(uint64_t region, uint64_t field)
{
	uint64_t at = place(region, field);

	switch (width(field)) {
	case 2:
		return *(volatile uint16_t *)at;
	case 4:
		return *(volatile uint32_t *)at;
	default:
		return *(volatile uint64_t *)at;
	}
}

void evmcs_write(uint64_t region, uint64_t field, uint64_t v)
{
	uint64_t at = place(region, field);

	switch (width(field)) {
	case 2:
		*(volatile uint16_t *)at = (uint16_t)v;
		break;
	case 4:
		*(volatile uint32_t *)at = (uint32_t)v;
		break;
	default:
		*(volatile uint64_t *)at = v;
		break;
	}
}

/* The VP assist page, once; VM entries go by VMPTRLD as before. Non-zero where this L1 is not offered version 1. */
int evmcs_enable(void)
{
	uint32_t r[4];

	if (enabled)
		return 0;
	cpuid(1, 0, r);
	if (!(r[2] & HYPERVISOR))
		return 1;
	cpuid(LEAF_INTERFACE, 0, r);
	if (r[0] != INTERFACE_HV1)
		return 1;
	cpuid(LEAF_NESTED, 0, r);
	if (VERSION < (r[0] & 0xff) || VERSION > (r[0] >> 8 & 0xff))
		return 1;
	zero_pages(ASSIST_PAGE, 1);
	if (wrmsr_safe(MSR_HV_GUEST_OS_ID, OPEN_SOURCE_OS) || wrmsr_safe(MSR_HV_VP_ASSIST, ASSIST_PAGE | ASSIST_ENABLE))
		return 1;
	enabled = 1;
	return 0;
}

/* An empty one. */
void evmcs_clear(uint64_t region)
{
	zero_pages(region, 1);
	*(volatile uint32_t *)(region + EVMCS_REVISION) = VERSION;
}

/* From now on VM entries go by the enlightened VMCS at `region`. */
void evmcs_use(uint64_t region)
{
	*(volatile uint64_t *)(ASSIST_PAGE + ASSIST_CURRENT_VMCS) = region;
	*(volatile uint8_t *)(ASSIST_PAGE + ASSIST_ENLIGHTEN_ENTRY) = 1;
}

/* From now on VM entries go by VMPTRLD again. */
void evmcs_leave(void)
{
	*(volatile uint8_t *)(ASSIST_PAGE + ASSIST_ENLIGHTEN_ENTRY) = 0;
}

/* Nothing of it may be taken from the entry before: the hypervisor marks all fields clean when it has read them. */
void evmcs_dirty(uint64_t region)
{
	*(volatile uint32_t *)(region + EVMCS_CLEAN_FIELDS) = 0;
}
