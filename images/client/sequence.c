// SPDX-License-Identifier: GPL-2.0-only
/*
 * One vCPU and a page of its memory: accesses by the guest and actions of the host, one after the other.
 *
 * The page under test lies in a memory slot of 2 MiB at guest address 0, on the host memory of region(); code and
 * page tables lie in a slot of their own at 4 MiB, so that no action on the first slot touches them.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "client.h"

#define TARGET		(8 * PAGE)
#define DATA		(TARGET + 0x800)
#define MMIO		0xe0000000ull
#define MMIO_LINEAR	(16 * PAGE)	/* where long mode's page tables map it */
#define FRAME		(2 * HUGE)	/* the other slot: code and page tables */
#define FRAME_SIZE	(16 * PAGE)
#define CODE		(FRAME + PAGE)
#define PML4		(FRAME + 2 * PAGE)	/* then PDPT, PD, the target's PT, the code's PT */
#define ELSEWHERE	0x10000000ull	/* further slots */
#define MOVED_TO	0x20000000ull	/* where the slot of the page under test goes */
#define TSS_ADDRESS	0xfffbd000ul
#define MAP_ADDRESS	0xfffbc000ul
#define WAKEUPS		8		/* returns of KVM_RUN without an answer, per access */
#define MANY		64		/* slots added by "slots": enough for the MMIO generation to reach its eighth bit */
#define HLT		0xf4
#define BEGIN		0x21		/* the data byte before the first write */
#define DEVICE		0xa5		/* what the device answers */

#define PTE_USER	0x67ull		/* P, W, U, A, D */
#define PTE_SUPERVISOR	0x63ull
#define CR0_PE		(1ull << 0)
#define CR0_ET		(1ull << 4)
#define CR0_NE		(1ull << 5)
#define CR0_PG		(1ull << 31)
#define CR4_PAE		(1ull << 5)
#define EFER_LONG	0x500ull	/* LME, LMA */

enum { REAL, PROT, LONG };
static const char *const modes[] = { "real", "prot", "long" };
static const char *const sizes[] = { [SMALL] = "4k", [LARGE] = "2m" };
enum { READ, WRITE, RMW, FETCH, MREAD, MWRITE, ACCESSES, AGE = ACCESSES, LOG, UNLOG, SYNC, SLOT, SLOTS, GONE, MOVED, RONLY, BACK,
       STEPS };
static const char *const step_names[STEPS] = {
	[READ] = "read", [WRITE] = "write", [RMW] = "rmw", [FETCH] = "fetch", [MREAD] = "mread", [MWRITE] = "mwrite",
	[AGE] = "age", [LOG] = "log", [UNLOG] = "unlog", [SYNC] = "sync", [SLOT] = "slot", [SLOTS] = "slots",
	[GONE] = "gone", [MOVED] = "moved", [RONLY] = "ronly", [BACK] = "back",
};
enum { THERE, READ_ONLY, AWAY };	/* the slot of the page under test */

/* The same bytes mean the same in 16-bit ([bx]), 32-bit ([edi]) and 64-bit ([rdi]) mode; HLT ends each. */
#define CODE_SIZE	16
static const unsigned char code[ACCESSES][CODE_SIZE] = {
	[READ] = { 0x8a, 0x07, HLT }, [MREAD] = { 0x8a, 0x07, HLT },
	[WRITE] = { 0x88, 0x07, HLT }, [MWRITE] = { 0x88, 0x07, HLT },
	[RMW] = { 0xf0, 0xfe, 0x07, HLT },
	[FETCH] = { 0xff, 0xe7 },
};
static const unsigned char far_jump[] = { 0xea, TARGET & 0xff, TARGET >> 8, 0, 0 };
static const unsigned int length[ACCESSES] = { [READ] = 3, [WRITE] = 3, [RMW] = 4, [MREAD] = 3, [MWRITE] = 3 };

struct guest {
	int vm, vcpu, mode, size, slots, logging, state, there;
	size_t run_size;
	struct kvm_run *run;
	unsigned char *frame, *target;
	unsigned char byte;		/* the data byte as it should be */
	const char *result;
	int error, exit_reason;
	uint64_t detail;
};

static struct kvm_run *volatile running;

static void on_alarm(int number)
{
	(void)number;
	if (running)
		running->immediate_exit = 1;
}

static void arm(int ms)
{
	struct itimerval t = { .it_value = { ms / 1000, ms % 1000 * 1000 } };

	setitimer(ITIMER_REAL, &t, NULL);
}

static void set_slot(struct guest *g, int slot, uint32_t flags, uint64_t at, uint64_t size, void *memory)
{
	struct kvm_userspace_memory_region r = {
		.slot = (uint32_t)slot, .flags = flags, .guest_phys_addr = at, .memory_size = size,
		.userspace_addr = (uintptr_t)memory,
	};

	if (ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &r))
		die("KVM_SET_USER_MEMORY_REGION");
}

static void build_memory(struct guest *g, int user)
{
	uint64_t *pml4 = (uint64_t *)(g->frame + (PML4 - FRAME)), *pt = pml4 + 3 * 512, *code_pt = pml4 + 4 * 512;
	unsigned char *at = g->frame + (CODE - FRAME);

	memcpy(at, code, sizeof(code));
	if (g->mode == REAL)
		memcpy(at + FETCH * CODE_SIZE, far_jump, sizeof(far_jump));
	g->target[TARGET] = HLT;
	g->target[DATA] = g->byte = BEGIN;
	pml4[0] = (PML4 + PAGE) | PTE_USER;
	pml4[512] = (PML4 + 2 * PAGE) | PTE_USER;
	pml4[1024] = (PML4 + 3 * PAGE) | PTE_USER;
	pml4[1024 + FRAME / HUGE] = (PML4 + 4 * PAGE) | PTE_USER;
	pt[TARGET / PAGE] = TARGET | (user ? PTE_USER : PTE_SUPERVISOR);
	pt[MMIO_LINEAR / PAGE] = MMIO | (user ? PTE_USER : PTE_SUPERVISOR);
	code_pt[CODE / PAGE % 512] = CODE | PTE_SUPERVISOR;
}

static void set_state(struct guest *g)
{
	struct kvm_sregs sregs;

	if (ioctl(g->vcpu, KVM_GET_SREGS, &sregs))
		die("KVM_GET_SREGS");
	sregs.cs.base = g->mode == REAL ? CODE : 0;
	sregs.cs.selector = 0;
	if (g->mode != REAL) {
		struct kvm_segment *data[] = { &sregs.ds, &sregs.es, &sregs.ss, &sregs.fs, &sregs.gs };
		struct kvm_segment flat = { .limit = 0xffffffff, .selector = 0x10, .type = 3, .present = 1, .s = 1, .g = 1,
					    .db = 1 };

		for (unsigned int i = 0; i < sizeof(data) / sizeof(*data); i++)
			*data[i] = flat;
		sregs.cs = flat;
		sregs.cs.selector = 0x08;
		sregs.cs.type = 11;
		sregs.cs.db = g->mode == PROT;
		sregs.cs.l = g->mode == LONG;
		sregs.cr0 = CR0_PE | CR0_ET | CR0_NE;
	}
	if (g->mode == LONG) {
		sregs.cr0 |= CR0_PG;
		sregs.cr3 = PML4;
		sregs.cr4 |= CR4_PAE;
		sregs.efer |= EFER_LONG;
	}
	if (ioctl(g->vcpu, KVM_SET_SREGS, &sregs))
		die("KVM_SET_SREGS");
}

static void create(int kvm, struct guest *g, int user)
{
	unsigned long map_address = MAP_ADDRESS;
	int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

	g->vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (g->vm < 0)
		die("KVM_CREATE_VM");
	/* kvm_intel without unrestricted guest, or with ept=0, needs both for real mode and paging off */
	if (ioctl(g->vm, KVM_SET_TSS_ADDR, TSS_ADDRESS) || ioctl(g->vm, KVM_SET_IDENTITY_MAP_ADDR, &map_address))
		die("KVM_SET_TSS_ADDR");
	g->frame = mmap(NULL, FRAME_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (g->frame == MAP_FAILED)
		die("guest memory");
	memset(g->frame, 0, FRAME_SIZE);
	g->target = region(g->size);
	set_slot(g, 0, 0, 0, HUGE, g->target);
	set_slot(g, 1, 0, FRAME, FRAME_SIZE, g->frame);
	g->slots = 2;
	g->there = 1;
	g->vcpu = create_vcpu(kvm, g->vm);
	g->run_size = (size_t)size;
	g->run = mmap(NULL, g->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
	if (g->run == MAP_FAILED)
		die("kvm_run");
	build_memory(g, user);
	set_state(g);
}

static void destroy(struct guest *g)
{
	munmap(g->run, g->run_size);
	close(g->vcpu);
	close(g->vm);
	munmap(g->frame, FRAME_SIZE);
}

/* KVM_RUN until it says something: 0 and exit_reason, or -1 and error. */
static int run_once(struct guest *g)
{
	int failed = 0;

	for (int i = 0; i < WAKEUPS; i++) {
		failed = ioctl(g->vcpu, KVM_RUN, 0);
		g->error = failed ? errno : 0;
		if (g->error == EAGAIN || (g->error == EINTR && !g->run->immediate_exit))
			continue;
		break;
	}
	g->exit_reason = failed ? 0 : (int)g->run->exit_reason;
	return failed;
}

/* How many MMIO exits an access has: of the page under test while its slot is away, or a write to a read-only one. */
static int mmio_exits(const struct guest *g, int access)
{
	if (access == MREAD || access == MWRITE)
		return 1;
	if (g->state == THERE || access == FETCH || (g->state == READ_ONLY && access == READ))
		return 0;
	return g->state == AWAY && access == RMW ? 2 : 1;
}

/* The device's side of an access's MMIO exit, of which `left` follow; whether it is the one expected. */
static int device(struct guest *g, int access, unsigned char value, int left)
{
	int write = access == MWRITE || access == WRITE || (access == RMW && !left);
	uint64_t at = access == MREAD || access == MWRITE ? MMIO : DATA;

	if (g->run->mmio.phys_addr != at || g->run->mmio.len != 1 || g->run->mmio.is_write != write)
		return 0;
	if (access == RMW)
		value = (unsigned char)((g->state == AWAY ? DEVICE : g->byte) + 1);
	if (write)
		return g->run->mmio.data[0] == value;
	g->run->mmio.data[0] = DEVICE;
	return 1;
}

/* Whether a halted guest did what its access says. */
static int completed(struct guest *g, int access, const struct kvm_regs *regs, unsigned char value, uint64_t begin)
{
	if (access == FETCH)
		return regs->rip == TARGET + 1;
	if (access == WRITE && g->state == THERE)
		g->byte = value;
	if (access == RMW && g->state == THERE)
		g->byte++;
	if (access == READ && (regs->rax & 0xff) != (g->state == AWAY ? DEVICE : g->byte))
		return 0;
	if (access == MREAD && (regs->rax & 0xff) != DEVICE)
		return 0;
	return g->target[DATA] == g->byte && regs->rip == begin + length[access];
}

/* One access. 1 where it was made, else result, error, exit_reason and detail say why not. */
static int make_access(struct guest *g, int access, int ms)
{
	int is_mmio = access == MREAD || access == MWRITE, left = mmio_exits(g, access), failed;
	uint64_t begin = (g->mode == REAL ? 0 : CODE) + (unsigned int)access * CODE_SIZE;
	uint64_t address = !is_mmio ? DATA : g->mode == LONG ? MMIO_LINEAR : MMIO;
	unsigned char value = (unsigned char)(g->byte ^ 0x5a);
	struct kvm_regs regs = { .rip = begin, .rflags = 2, .rax = value, .rbx = address, .rdi = address };

	if (access == FETCH)
		regs.rdi = TARGET;
	if (g->mode == REAL)
		set_state(g);	/* a fetch changed CS */
	if (ioctl(g->vcpu, KVM_SET_REGS, &regs))
		die("KVM_SET_REGS");
	g->run->immediate_exit = 0;
	running = g->run;
	arm(ms);
	do {
		failed = run_once(g);
	} while (!failed && g->exit_reason == KVM_EXIT_MMIO && left-- > 0 && device(g, access, value, left));
	arm(0);
	running = NULL;
	if (ioctl(g->vcpu, KVM_GET_REGS, &regs))
		die("KVM_GET_REGS");
	if (failed) {
		g->result = g->error == EINTR || g->error == EAGAIN ? "timeout" : "errno";
		return 0;
	}
	g->result = "exit";
	if (g->exit_reason == KVM_EXIT_HLT) {
		int made = !left && completed(g, access, &regs, value, begin);

		g->result = made ? "done" : "wrong";
		return made;
	} else if (g->exit_reason == KVM_EXIT_INTERNAL_ERROR) {
		g->detail = g->run->internal.suberror;
	} else if (g->exit_reason == KVM_EXIT_FAIL_ENTRY) {
		g->detail = g->run->fail_entry.hardware_entry_failure_reason;
	}
	return 0;
}

/* Pages that the log says were written, since it was read last. */
static int dirty_pages(struct guest *g)
{
	uint64_t bits[HUGE / PAGE / 64] = { 0 };
	struct kvm_dirty_log log = { .slot = 0, .dirty_bitmap = bits };
	int count = 0;

	if (ioctl(g->vm, KVM_GET_DIRTY_LOG, &log))
		die("KVM_GET_DIRTY_LOG");
	for (unsigned int i = 0; i < sizeof(bits) / sizeof(*bits); i++)
		count += __builtin_popcountll(bits[i]);
	return count;
}

/*
 * The slot of the page under test is deleted, moved to `at`, or made again, read-only or as it was: KVM moves a slot
 * that is there, and takes another flag for reading only from a new one alone.
 */
static void put_target(struct guest *g, int state, uint64_t at)
{
	int read_only = state == READ_ONLY || (at && g->state == READ_ONLY);
	uint32_t flags = read_only ? KVM_MEM_READONLY : 0;

	if (!at && g->there)
		set_slot(g, 0, 0, 0, 0, NULL);
	if (at || state != AWAY)
		set_slot(g, 0, flags, at, HUGE, g->target);
	g->there = at || state != AWAY;
	g->state = state;
}

static void act(struct guest *g, int action)
{
	switch (action) {
	case AGE:
		age(g->size);
		break;
	case LOG:
	case UNLOG:
		g->logging = action == LOG;
		set_slot(g, 0, g->logging ? KVM_MEM_LOG_DIRTY_PAGES : 0, 0, HUGE, g->target);
		break;
	case SYNC:
		dirty_pages(g);
		break;
	case GONE:
	case MOVED:
		put_target(g, AWAY, action == MOVED ? MOVED_TO : 0);
		break;
	case RONLY:
		put_target(g, READ_ONLY, 0);
		break;
	case BACK:
		put_target(g, THERE, 0);
		break;
	default:
		for (int i = 0; i < (action == SLOT ? 1 : MANY); i++, g->slots++)
			set_slot(g, g->slots, 0, ELSEWHERE + (uint64_t)g->slots * PAGE, PAGE, g->frame);
	}
}

int sequence(int kvm, const char *mode_name, const char *page, const char *size_name, char *steps, int ms)
{
	struct sigaction action = { .sa_handler = on_alarm };
	struct guest g = { .mode = find(modes, 3, mode_name), .size = find(sizes, 2, size_name), .result = "done" };
	int ops[64], count = 0, at, stopped = 0, dirty = 0;
	uint64_t stats[STATS], before = 0;
	struct timespec begin, end;
	const char *warn = NULL;
	char *rest = NULL;

	if (g.mode < 0 || g.size < 0 || (strcmp(page, "u") && strcmp(page, "s")) || (g.mode != LONG && *page == 's'))
		return 2;
	for (char *word = strtok_r(steps, "+", &rest); word; word = strtok_r(NULL, "+", &rest)) {
		if (count == 64 || (ops[count++] = find(step_names, STEPS, word)) < 0)
			return 2;
		if (g.mode == REAL && (ops[count - 1] == MREAD || ops[count - 1] == MWRITE))
			return 2;	/* beyond 64 KiB */
	}
	if (!count)
		return 2;
	sigaction(SIGALRM, &action, NULL);
	for (int i = 0; i < count; i++)
		if (ops[i] == AGE)
			prepare_age(g.size);	/* before KVM maps the memory: finding it moves its mappings */
	create(kvm, &g, *page == 'u');
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (at = 0; at < count && !stopped; at++) {
		read_stats(g.vm, g.vcpu, stats);
		before = stats[PF_SPURIOUS];
		if (ops[at] >= ACCESSES)
			act(&g, ops[at]);
		else if (!make_access(&g, ops[at], ms))
			stopped = at + 1;
		warn = warned();
		if (warn && !stopped) {
			g.result = "warning";
			stopped = at + 1;
		}
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	read_stats(g.vm, g.vcpu, stats);
	if (g.logging && !stopped)
		dirty = dirty_pages(&g);
	printf("{\"result\":\"%s\",\"step\":%d,\"exit_reason\":%d,\"detail\":%" PRIu64 ",\"errno\":%d,\"warning\":",
	       g.result, stopped, g.exit_reason, g.detail, g.error);
	if (warn)
		printf("\"%s\"", warn);
	else
		printf("null");
	printf(",\"spurious\":%" PRIu64 ",\"dirty\":%d,\"us\":%ld,\"stats\":", stats[PF_SPURIOUS] - before, dirty,
	       (end.tv_sec - begin.tv_sec) * 1000000 + (end.tv_nsec - begin.tv_nsec) / 1000);
	print_stats(stats);
	printf("}\n");
	fflush(stdout);
	destroy(&g);
	return 0;
}
