// SPDX-License-Identifier: GPL-2.0-only
/*
 * The small KVM client: one vCPU on /dev/kvm, one access of one page, no QEMU, no firmware, no nesting.
 *
 *   kvmclient info                                  what /dev/kvm offers
 *   kvmclient all [MS]                              every case
 *   kvmclient case MODE ACCESS PAGE [MS]            one case: real|prot|long read|write|rmw|fetch u|s
 *
 * One JSON object a line. A case is its own VM, ended after MS milliseconds (default 20). Exit status: 0 answered,
 * 2 bad usage, 4 no usable /dev/kvm.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define PAGE		4096ull
#define MEMORY		(16 * PAGE)
#define CODE		(1 * PAGE)
#define PML4		(2 * PAGE)	/* then PDPT, PD, PT */
#define TARGET		(8 * PAGE)
#define TSS_ADDRESS	0xfffbd000ul
#define MAP_ADDRESS	0xfffbc000ul
#define MSR_FIRST	0x480
#define MSR_COUNT	18
#define DEFAULT_MS	20
#define WAKEUPS		8		/* returns of KVM_RUN without an answer, per case */
#define HLT		0xf4
#define WRITTEN		0x5a
#define PARAMETER	"/sys/module/kvm/parameters/enable_pt_guest_exec_control"

#define PTE_USER	0x67ull		/* P, W, U, A, D */
#define PTE_SUPERVISOR	0x63ull
#define CR0_PE		(1ull << 0)
#define CR0_ET		(1ull << 4)
#define CR0_NE		(1ull << 5)
#define CR0_PG		(1ull << 31)
#define CR4_PAE		(1ull << 5)
#define EFER_LONG	0x500ull	/* LME, LMA */

static const char *const modes[] = { "real", "prot", "long" };
static const char *const accesses[] = { "read", "write", "rmw", "fetch" };
enum { READ, WRITE, RMW, FETCH };

/* The same bytes mean the same in 16-bit ([bx], di), 32-bit ([edi]) and 64-bit ([rdi]) mode; HLT ends each. */
static const unsigned char code[4][4] = {
	[READ] = { 0x8a, 0x07, HLT },
	[WRITE] = { 0x88, 0x07, HLT },
	[RMW] = { 0xf0, 0xfe, 0x07, HLT },
	[FETCH] = { 0xff, 0xe7 },
};

/* the statistics that tell a livelock from a slow machine */
static const char *const wanted_stats[] = {
	"pf_taken", "pf_fixed", "pf_spurious", "pf_fast", "pf_emulate", "pf_mmio_spte_created", "exits", "mmio_exits",
	"halt_exits", "signal_exits", "request_irq_exits", "irq_exits", "insn_emulation", "insn_emulation_fail",
	"guest_mode",
};

static const struct { const char *name; int number; } capabilities[] = {
	{ "immediate_exit", KVM_CAP_IMMEDIATE_EXIT }, { "get_msr_features", KVM_CAP_GET_MSR_FEATURES },
	{ "nested_state", KVM_CAP_NESTED_STATE }, { "hyperv_evmcs", KVM_CAP_HYPERV_ENLIGHTENED_VMCS },
	{ "hyperv_cpuid", KVM_CAP_HYPERV_CPUID }, { "stats_fd", KVM_CAP_BINARY_STATS_FD },
	{ "max_vcpus", KVM_CAP_MAX_VCPUS }, { "tsc_deadline", KVM_CAP_TSC_DEADLINE_TIMER },
	{ "x2apic_api", KVM_CAP_X2APIC_API }, { "set_tss_addr", KVM_CAP_SET_TSS_ADDR },
};

static struct kvm_run *volatile running;

static void on_alarm(int number)
{
	(void)number;
	if (running)
		running->immediate_exit = 1;
}

static void die(const char *what)
{
	fprintf(stderr, "kvmclient: %s: %s\n", what, strerror(errno));
	exit(4);
}

static int find(const char *const *names, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(names[i], name))
			return i;
	return -1;
}

/* The statistics of a vCPU as a JSON object (null where the kernel has none). */
static void print_stats(int vcpu)
{
	struct kvm_stats_header header;
	unsigned char *descriptors;
	size_t size;
	int fd = ioctl(vcpu, KVM_GET_STATS_FD, NULL), first = 1;

	if (fd < 0 || pread(fd, &header, sizeof(header), 0) != sizeof(header)) {
		printf("null");
		return;
	}
	size = sizeof(struct kvm_stats_desc) + header.name_size;
	descriptors = calloc(header.num_desc, size);
	if (!descriptors || pread(fd, descriptors, size * header.num_desc, header.desc_offset) < 0)
		die("reading statistics");
	printf("{");
	for (uint32_t i = 0; i < header.num_desc; i++) {
		const struct kvm_stats_desc *d = (const void *)(descriptors + i * size);
		uint64_t value;

		if (find(wanted_stats, sizeof(wanted_stats) / sizeof(*wanted_stats), d->name) < 0 || d->size != 1)
			continue;
		if (pread(fd, &value, sizeof(value), header.data_offset + d->offset) != sizeof(value))
			continue;
		printf("%s\"%s\":%" PRIu64, first ? "" : ",", d->name, value);
		first = 0;
	}
	printf("}");
	free(descriptors);
	close(fd);
}

static void print_info(int kvm)
{
	struct { struct kvm_msrs head; struct kvm_msr_entry entry; } msr;
	char parameter[8] = "";
	int fd, first = 1;

	printf("{\"info\":{\"api\":%d,\"msrs\":{", ioctl(kvm, KVM_GET_API_VERSION, 0));
	for (int i = 0; i < MSR_COUNT; i++) {
		memset(&msr, 0, sizeof(msr));
		msr.head.nmsrs = 1;
		msr.entry.index = MSR_FIRST + i;
		if (ioctl(kvm, KVM_GET_MSRS, &msr) != 1)
			continue;
		printf("%s\"%x\":%" PRIu64, first ? "" : ",", MSR_FIRST + i, (uint64_t)msr.entry.data);
		first = 0;
	}
	printf("},\"capabilities\":{");
	for (unsigned int i = 0; i < sizeof(capabilities) / sizeof(*capabilities); i++)
		printf("%s\"%s\":%d", i ? "," : "", capabilities[i].name,
		       ioctl(kvm, KVM_CHECK_EXTENSION, capabilities[i].number));
	printf("},\"parameter\":");
	fd = open(PARAMETER, O_RDONLY);
	if (fd >= 0 && read(fd, parameter, sizeof(parameter) - 1) > 0)
		printf("\"%c\"", parameter[0]);
	else
		printf("null");
	if (fd >= 0)
		close(fd);
	printf("}}\n");
}

static void build_memory(unsigned char *memory, int mode, int access, int user)
{
	uint64_t *pml4 = (uint64_t *)(memory + PML4), *pt = pml4 + 3 * 512;

	memcpy(memory + CODE, code[access], sizeof(code[access]));
	memory[TARGET] = HLT;
	if (mode != 2)
		return;
	for (int level = 0; level < 3; level++)
		pml4[level * 512] = (PML4 + (uint64_t)(level + 1) * PAGE) | PTE_USER;
	pt[CODE / PAGE] = CODE | PTE_SUPERVISOR;
	pt[TARGET / PAGE] = TARGET | (user ? PTE_USER : PTE_SUPERVISOR);
}

static void set_state(int vcpu, int mode)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs = { .rip = CODE, .rflags = 2, .rax = WRITTEN, .rbx = TARGET, .rdi = TARGET };
	struct kvm_segment *data[5];

	if (ioctl(vcpu, KVM_GET_SREGS, &sregs))
		die("KVM_GET_SREGS");
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	if (mode) {
		struct kvm_segment flat = { .limit = 0xffffffff, .selector = 0x10, .type = 3, .present = 1, .s = 1, .g = 1,
					    .db = 1 };

		data[0] = &sregs.ds, data[1] = &sregs.es, data[2] = &sregs.ss, data[3] = &sregs.fs, data[4] = &sregs.gs;
		for (int i = 0; i < 5; i++)
			*data[i] = flat;
		sregs.cs = flat;
		sregs.cs.selector = 0x08;
		sregs.cs.type = 11;
		sregs.cs.db = mode == 1;
		sregs.cs.l = mode == 2;
		sregs.cr0 = CR0_PE | CR0_ET | CR0_NE;
	}
	if (mode == 2) {
		sregs.cr0 |= CR0_PG;
		sregs.cr3 = PML4;
		sregs.cr4 |= CR4_PAE;
		sregs.efer |= EFER_LONG;
	}
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs))
		die("KVM_SET_SREGS");
	if (ioctl(vcpu, KVM_SET_REGS, &regs))
		die("KVM_SET_REGS");
}

/* Whether a halted guest did what its case says. */
static int completed(int access, const unsigned char *memory, const struct kvm_regs *regs)
{
	switch (access) {
	case READ:
		return (regs->rax & 0xff) == HLT && regs->rip == CODE + 3;
	case WRITE:
		return memory[TARGET] == WRITTEN && regs->rip == CODE + 3;
	case RMW:
		return memory[TARGET] == HLT + 1 && regs->rip == CODE + 4;
	default:
		return regs->rip == TARGET + 1;
	}
}

static void arm(int ms)
{
	struct itimerval t = { .it_value = { ms / 1000, ms % 1000 * 1000 } };

	setitimer(ITIMER_REAL, &t, NULL);
}

static void run_case(int kvm, int mode, int access, int user, int ms)
{
	unsigned long map_address = MAP_ADDRESS;
	int vm = ioctl(kvm, KVM_CREATE_VM, 0), vcpu, size, failed = 0, error = 0;
	unsigned char *memory;
	struct kvm_run *run;
	struct kvm_regs regs;
	struct timespec begin, end;
	const char *result = "timeout";
	uint64_t detail = 0;

	if (vm < 0)
		die("KVM_CREATE_VM");
	memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		die("guest memory");
	/* kvm_intel without unrestricted guest, or with ept=0, needs both for real mode and paging off */
	if (ioctl(vm, KVM_SET_TSS_ADDR, TSS_ADDRESS) || ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &map_address))
		die("KVM_SET_TSS_ADDR");
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY, .userspace_addr = (uintptr_t)memory };

	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region))
		die("KVM_SET_USER_MEMORY_REGION");
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (vcpu < 0)
		die("KVM_CREATE_VCPU");
	size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		die("kvm_run");
	build_memory(memory, mode, access, user);
	set_state(vcpu, mode);

	running = run;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	arm(ms);
	for (int i = 0; i < WAKEUPS; i++) {
		failed = ioctl(vcpu, KVM_RUN, 0);
		error = failed ? errno : 0;
		if (error == EAGAIN || (error == EINTR && !run->immediate_exit))
			continue;
		break;
	}
	arm(0);
	running = NULL;
	clock_gettime(CLOCK_MONOTONIC, &end);

	if (ioctl(vcpu, KVM_GET_REGS, &regs))
		die("KVM_GET_REGS");
	if (failed && error != EINTR && error != EAGAIN) {
		result = "errno";
	} else if (!failed) {
		result = "exit";
		if (run->exit_reason == KVM_EXIT_HLT)
			result = completed(access, memory, &regs) ? "done" : "wrong";
		else if (run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
			detail = run->internal.suberror;
		else if (run->exit_reason == KVM_EXIT_FAIL_ENTRY)
			detail = run->fail_entry.hardware_entry_failure_reason;
	}
	printf("{\"mode\":\"%s\",\"access\":\"%s\",\"page\":\"%c\",\"result\":\"%s\",\"exit_reason\":%u,\"detail\":%" PRIu64
	       ",\"errno\":%d,\"rip\":%llu,\"us\":%ld,\"stats\":",
	       modes[mode], accesses[access], user ? 'u' : 's', result, failed ? 0 : run->exit_reason, detail, error,
	       regs.rip, (end.tv_sec - begin.tv_sec) * 1000000 + (end.tv_nsec - begin.tv_nsec) / 1000);
	print_stats(vcpu);
	printf("}\n");
	fflush(stdout);
	munmap(run, (size_t)size);
	close(vcpu);
	close(vm);
	munmap(memory, MEMORY);
}

static int usage(void)
{
	fprintf(stderr, "usage: kvmclient info | all [MS] | case real|prot|long read|write|rmw|fetch u|s [MS]\n");
	return 2;
}

static int milliseconds(const char *text)
{
	char *end;
	long ms = strtol(text, &end, 10);

	return *end || ms < 1 || ms > 60000 ? 0 : (int)ms;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_alarm };
	int is_case = argc >= 5 && !strcmp(argv[1], "case"), is_all = argc >= 2 && !strcmp(argv[1], "all");
	int base = is_case ? 5 : 2, ms = DEFAULT_MS, kvm, mode = 0, access = 0;

	if (argc < 2 || argc > base + 1 || (!is_case && !is_all && (strcmp(argv[1], "info") || argc > 2)))
		return usage();
	if (argc > base && !(ms = milliseconds(argv[base])))
		return usage();
	if (is_case) {
		mode = find(modes, 3, argv[2]);
		access = find(accesses, 4, argv[3]);
		if (mode < 0 || access < 0 || (strcmp(argv[4], "u") && strcmp(argv[4], "s")))
			return usage();
		if (mode < 2 && *argv[4] == 's')	/* without paging there is no U/S: each page is a user page */
			return usage();
	}
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		die("/dev/kvm");
	if (ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		die("/dev/kvm: API version");
	sigaction(SIGALRM, &action, NULL);
	if (is_case) {
		run_case(kvm, mode, access, *argv[4] == 'u', ms);
	} else if (is_all) {
		for (mode = 0; mode < 3; mode++)
			for (access = 0; access < 4; access++)
				for (int user = 1; user >= (mode == 2 ? 0 : 1); user--)
					run_case(kvm, mode, access, user, ms);
	} else {
		print_info(kvm);
	}
	return 0;
}
