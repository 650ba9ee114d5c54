/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a VM entry, and the exit that follows, leave in the VMCS and in L1 itself, held against the manual: the fields
 * are read before and after, L1's registers too. Where the manual calls a field undefined nothing is said of it.
 */
#include "probe.h"

#define VALID		(1u << 31)	/* of VM-entry interruption information, exit interruption and vectoring */
#define REASON_RESERVED	0x7fff0000u	/* bits 30:16, which a failed entry clears */
#define CR0_LOADED	0x8005002full	/* PE, MP, EM, TS, NE, WP, AM, PG: the others stay (SDM 27.3.2.1, 28.5.1) */
#define CR0_PE		(1ull << 0)
#define CR0_PG		(1ull << 31)
#define CR4_PAE		(1ull << 5)
#define EFER_LME	(1ull << 8)
#define EFER_LMA	(1ull << 10)
#define RFLAGS_RF	(1ull << 16)
#define DR7_AT_EXIT	0x400ull
#define DR7_OF_L1	0x700ull	/* LE and GE, which break on nothing: an exit has to clear them */
#define DR7_CLEAR	(~0xffffffffull | 1 << 12 | 1 << 14 | 1 << 15)
#define AR_TYPE		0xfu
#define AR_UNUSABLE	(1u << 16)
#define SS_DPL		0x60u
#define CS_L_D_G	0xe000u
#define BLOCKING_ONCE	3u		/* by STI and by MOV SS: for one instruction */
#define EXIT_SAVE_DEBUG	(1u << 2)
#define EXIT_SAVE_PAT	(1u << 18)
#define EXIT_LOAD_PAT	(1u << 19)
#define EXIT_SAVE_EFER	(1u << 20)
#define ENTRY_LOAD_DEBUG (1u << 2)
#define ENTRY_LOAD_PAT	(1u << 14)
#define TABLE_LIMIT	0xffff		/* of GDTR and IDTR after an exit */
#define MSR_DEBUGCTL	0x1d9
#define NO_FIELD	(~0ull)
#define MOST		96

enum sort { CONTROL, INJECTION, GUEST, INFORMATION };

/* `count` fields from `first` on, whose encodings go up by 2 */
struct row {
	uint16_t first;
	uint8_t count, sort;
};

static const struct row rows[] = {
	{ VMCS_PIN, 1, CONTROL },
	{ VMCS_PROC, 1, CONTROL },
	{ VMCS_EXIT, 1, CONTROL },
	{ VMCS_ENTRY, 1, CONTROL },
	{ VMCS_PROC2, 1, CONTROL },
	{ ENTRY_INTR_INFO, 1, INJECTION },
	{ GUEST_ES_SELECTOR, 8, GUEST },
	{ VMCS_LINK, 4, GUEST },		/* DEBUGCTL, PAT, EFER */
	{ GUEST_PDPTE0, 4, GUEST },
	{ GUEST_ES_LIMIT, 18, GUEST },		/* to GDTR and IDTR, then access rights ES to TR */
	{ GUEST_INTERRUPTIBILITY, 2, GUEST },	/* activity state */
	{ GUEST_SYSENTER_CS, 1, GUEST },
	{ GUEST_CR0, 17, GUEST },		/* CR3, CR4, bases ES to IDTR, DR7, RSP, RIP, RFLAGS */
	{ GUEST_PENDING_DEBUG, 3, GUEST },	/* SYSENTER ESP and EIP */
	{ EXIT_REASON, 7, INFORMATION },	/* interruption and vectoring, instruction length and information */
	{ EXIT_QUALIFICATION, 1, INFORMATION },
	{ GUEST_LINEAR, 1, INFORMATION },
	{ GUEST_PHYSICAL, 1, INFORMATION },
};

struct __attribute__((packed)) table {
	uint16_t limit;
	uint64_t base;
};

/* L1's own state, as far as an exit loads it (SDM 28.5) */
struct l1_state {
	struct l1_registers registers;
	uint64_t fs, gs, sysenter[3], efer, pat, debugctl, dr7;
	int any_efer, any_pat;		/* not loaded by the exit: as L2 left them, which is not followed */
	struct table gdtr, idtr;
};

static struct {
	int fields;			/* whether there is a VMCS to look at */
	uint64_t was[MOST];		/* in the order of rows[] */
	struct l1_state own, host;	/* before the entry; after an exit */
} before;

/* The fields that the vector gives a value: of exit information no others are looked at, whatever else they held. */
static uint32_t given[CHANGES];
static unsigned int given_count;

/* A field that the next VM entry's vector gives a value; 0: from here on none. */
void leaves_given(uint32_t field)
{
	if (!field)
		given_count = 0;
	else if (given_count < CHANGES)
		given[given_count++] = field;
}

static int skipped(uint64_t field, uint8_t sort)
{
	for (unsigned int i = 0; i < given_count; i++)
		if (given[i] == field)
			return 0;
	return sort == INFORMATION;
}

static uint64_t was(uint64_t field)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < sizeof(rows) / sizeof(rows[0]); n += rows[i++].count)
		if (field >= rows[i].first && field < rows[i].first + 2u * rows[i].count)
			return before.was[n + (field - rows[i].first) / 2];
	return 0;
}

static void own_state(struct l1_state *s)
{
	static const uint32_t sysenter = 0x174;

	l1_registers(&s->registers);
	s->fs = rdmsr(0xc0000100);
	s->gs = rdmsr(0xc0000101);
	for (unsigned int i = 0; i < 3; i++)
		s->sysenter[i] = rdmsr(sysenter + i);
	s->efer = rdmsr(MSR_EFER);
	s->pat = rdmsr(MSR_PAT);
	if (rdmsr_safe(MSR_DEBUGCTL, &s->debugctl))
		s->debugctl = 0;
	asm volatile("mov %%dr7, %0" : "=r"(s->dr7));
	asm volatile("sgdt %0\n\tsidt %1" : "=m"(s->gdtr), "=m"(s->idtr));
	s->any_efer = s->any_pat = 0;
}

/* What the host-state area has for L1; what an exit does not load stays. */
static void host_state(struct l1_state *s, const struct l1_state *own)
{
	uint32_t exits = (uint32_t)vmread(VMCS_EXIT);

	s->registers.cr[0] = (vmread(HOST_CR0) & CR0_LOADED) | (own->registers.cr[0] & ~CR0_LOADED);
	s->registers.cr[1] = vmread(HOST_CR0 + 2);
	s->registers.cr[2] = vmread(HOST_CR0 + 4) | CR4_PAE;
	for (unsigned int i = 0; i < 7; i++)
		s->registers.selectors[i] = (uint16_t)vmread(HOST_ES_SELECTOR + 2 * i);
	s->fs = vmread(HOST_FS_BASE);
	s->gs = vmread(HOST_GS_BASE);
	s->sysenter[0] = vmread(HOST_SYSENTER_CS);
	s->sysenter[1] = vmread(HOST_SYSENTER_ESP);
	s->sysenter[2] = vmread(HOST_SYSENTER_EIP);
	s->any_efer = !(exits & EXIT_LOAD_EFER);
	s->efer = vmread(HOST_EFER);
	s->any_pat = !(exits & EXIT_LOAD_PAT);
	s->pat = vmread(HOST_PAT);
	s->debugctl = 0;
	s->dr7 = DR7_AT_EXIT;
	s->gdtr = (struct table){ TABLE_LIMIT, vmread(HOST_GDTR_BASE) };
	s->idtr = (struct table){ TABLE_LIMIT, vmread(HOST_IDTR_BASE) };
}

/* Before a VM entry: what is there. `fields` 0 where no VMCS is current. */
void leaves_before(int fields)
{
	unsigned int n = 0;

	asm volatile("mov %0, %%dr7" : : "r"(DR7_OF_L1));
	own_state(&before.own);
	before.fields = fields;
	if (!fields)
		return;
	host_state(&before.host, &before.own);
	for (unsigned int i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		for (unsigned int k = 0; k < rows[i].count; k++)
			before.was[n++] = skipped(rows[i].first + 2 * k, rows[i].sort) ? 0 :
					  vmread(rows[i].first + 2 * k);
}

static uint32_t own_astray(const struct l1_state *want)
{
	struct l1_state now;
	uint32_t astray;

	own_state(&now);
	asm volatile("mov %0, %%dr7" : : "r"(DR7_AT_EXIT));
	astray = l1_astray(&now.registers, &want->registers);
	if (now.fs != want->fs || now.gs != want->gs)
		astray |= ASTRAY_BASE;
	for (unsigned int i = 0; i < 3; i++)
		astray |= now.sysenter[i] != want->sysenter[i] ? ASTRAY_SYSENTER : 0;
	astray |= !want->any_efer && now.efer != want->efer ? ASTRAY_EFER : 0;
	astray |= !want->any_pat && now.pat != want->pat ? ASTRAY_PAT : 0;
	astray |= now.debugctl != want->debugctl || now.dr7 != want->dr7 ? ASTRAY_DEBUG : 0;
	if (now.gdtr.base != want->gdtr.base || now.gdtr.limit != want->gdtr.limit || now.idtr.base != want->idtr.base ||
	    now.idtr.limit != want->idtr.limit)
		astray |= ASTRAY_TABLE;
	return astray;
}

static int under_hypervisor(void)
{
	uint32_t r[4];

	cpuid(1, 0, r);
	return r[2] & HYPERVISOR ? 1 : 0;
}

/* Whether an access-rights field says that its segment is usable. */
static int usable(unsigned int segment)
{
	return !(was(GUEST_ES_AR + 2 * segment) & AR_UNUSABLE);
}

/* Of segment `n` (ES, CS, SS, DS, FS, GS, LDTR, TR): the bits of a field that an exit saves as they were (28.3.2). */
static uint64_t segment_bits(uint64_t first, unsigned int n)
{
	/* the emulated CPU gives CS the type of data while CR0.PE is clear, and is not mended for it */
	if (first == GUEST_ES_AR && n == 1 && !(was(GUEST_CR0) & CR0_PE))
		return ~(uint64_t)AR_TYPE;
	if (first == GUEST_ES_SELECTOR || usable(n))
		return ~0ull;
	if (first == GUEST_ES_AR)
		return AR_UNUSABLE | (n == 1 ? CS_L_D_G : n == 2 ? SS_DPL : 0);
	return n == 1 || (first == GUEST_ES_BASE && (n == 4 || n == 5)) ? ~0ull : 0;
}

static int pae_paging(void)
{
	return !(was(VMCS_ENTRY) & ENTRY_IA32E) && was(GUEST_CR0) & CR0_PG && was(GUEST_CR4) & CR4_PAE;
}

/* EFER of L2 as VM entry makes it: its field, or L1's with LMA and LME by "IA-32e mode guest" (27.3.2.1). */
static uint64_t efer_entered(uint32_t entry)
{
	uint64_t own = before.own.efer, lma = entry & ENTRY_IA32E ? EFER_LMA : 0;
	uint64_t lme = was(GUEST_CR0) & CR0_PG ? (lma ? EFER_LME : 0) : own & EFER_LME;

	return entry & ENTRY_LOAD_EFER ? was(GUEST_EFER) : (own & ~(EFER_LMA | EFER_LME)) | lma | lme;
}

/*
 * Which bits of a guest-state field the exit of an L2 that did nothing but VMCALL must have saved, and as what: what VM
 * entry loaded (27.3), or where it is not saved the field as it was (28.3).
 */
static uint64_t saved_bits(uint64_t field, uint64_t *want)
{
	static const uint16_t segments[] = { GUEST_ES_SELECTOR, GUEST_ES_LIMIT, GUEST_ES_AR, GUEST_ES_BASE };
	uint32_t entry = (uint32_t)was(VMCS_ENTRY), exits = (uint32_t)was(VMCS_EXIT);
	int loaded = entry & ENTRY_LOAD_DEBUG, kept = exits & EXIT_SAVE_DEBUG;

	*want = was(field);
	for (unsigned int i = 0; i < sizeof(segments) / sizeof(segments[0]); i++)
		if (field >= segments[i] && field < segments[i] + 16u)
			return segment_bits(segments[i], (unsigned int)(field - segments[i]) / 2);
	switch (field) {
	case GUEST_CR0:
		*want = (*want & CR0_LOADED) | (before.own.registers.cr[0] & ~CR0_LOADED);
		return ~0ull;
	case GUEST_DR7:
		if (kept)
			*want = loaded ? (*want & ~DR7_CLEAR) | DR7_AT_EXIT : before.own.dr7;
		return ~0ull;
	case GUEST_DEBUGCTL:
		if (kept && !loaded)
			*want = before.own.debugctl;
		return kept && !loaded && !under_hypervisor() ? 0 : ~0ull;	/* it does not save what was not loaded */
	case GUEST_PAT:
		if (exits & EXIT_SAVE_PAT && !(entry & ENTRY_LOAD_PAT))
			*want = before.own.pat;
		return ~0ull;
	case GUEST_EFER:
		if (exits & EXIT_SAVE_EFER)
			*want = efer_entered(entry);
		return ~0ull;
	case GUEST_PDPTE0:
	case GUEST_PDPTE0 + 2:
	case GUEST_PDPTE0 + 4:
	case GUEST_PDPTE0 + 6:
		return pae_paging() ? ~0ull : 0;
	case GUEST_RFLAGS:
		return ~RFLAGS_RF;
	case GUEST_INTERRUPTIBILITY:
		return ~(uint64_t)BLOCKING_ONCE;
	case GUEST_ACTIVITY:
		*want = 0;
		return ~0ull;
	case GUEST_PENDING_DEBUG:
		return 0;
	default:
		return ~0ull;
	}
}

/* What may become of a field: which of its bits are sure, and as what they must be found. */
static uint64_t sure(uint64_t field, uint8_t sort, int entered, int idle, uint64_t *want)
{
	*want = was(field);
	switch (sort) {
	case INJECTION:
		if (entered)
			*want &= ~(uint64_t)VALID;	/* each exit clears it, a failed entry does not (25.8.3, 27.8) */
		return ~0ull;
	case GUEST:
		return !entered ? ~0ull : idle ? saved_bits(field, want) : 0;
	case INFORMATION:
		return entered ? 0 : ~0ull;
	default:
		return ~0ull;
	}
}

/* The fields after the entry; of state and of exit information the first that is astray goes into the record. */
static uint32_t fields_astray(struct kvm_observation *o, int failed, int entered, int idle)
{
	static const uint32_t told[] = {
		[CONTROL] = ASTRAY_CONTROL, [INJECTION] = ASTRAY_INJECTION, [GUEST] = ASTRAY_GUEST,
		[INFORMATION] = ASTRAY_INFORMATION,
	};
	uint32_t astray = 0;

	for (unsigned int i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (unsigned int k = 0; k < rows[i].count; k++) {
			uint64_t field = rows[i].first + 2 * k, want, now, bits;

			bits = sure(field, rows[i].sort, entered, idle, &want);
			if (!failed && (field == EXIT_REASON || field == EXIT_QUALIFICATION))
				bits = 0;
			if (!bits || skipped(field, rows[i].sort))
				continue;
			now = vmread(field);
			if (!((now ^ want) & bits))
				continue;
			if (rows[i].sort == INFORMATION && !(astray & ASTRAY_INFORMATION)) {
				o->gpt_gpa = field;
				o->target_gla = want;
				o->target_gpa = now;
			} else if (rows[i].sort != INFORMATION && !astray) {
				o->gpa = field;
				o->gla = want;
				o->value = now;
			}
			astray |= rows[i].sort == GUEST && entered ? ASTRAY_SAVED : told[rows[i].sort];
		}
	}
	return astray;
}

/*
 * After the VM entry: everything that is otherwise than the manual has it, ASTRAY_*. `failed` is what vm_enter() gave.
 * A VMfail changes nothing but the error (31.2); an entry that fails later loads L1's state and tells reason and
 * qualification, nothing more (27.8).
 */
uint32_t leaves_after(struct kvm_observation *o, int failed)
{
	uint32_t reason = failed ? 0 : (uint32_t)vmread(EXIT_REASON), astray = own_astray(failed ? &before.own : &before.host);
	int entered = !failed && !(reason & REASON_ENTRY_FAILED);
	int idle = entered && reason == REASON_VMCALL && vmread(GUEST_RIP) == was(GUEST_RIP);

	if (!failed && !entered && reason & REASON_RESERVED)
		astray |= ASTRAY_INFORMATION;
	if (!failed)
		astray |= exit_astray(reason, reason != REASON_VMCALL);	/* L2 may have met events of all kinds */
	return before.fields ? astray | fields_astray(o, failed, entered, idle) : astray;
}
