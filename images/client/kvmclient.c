// SPDX-License-Identifier: GPL-2.0-only
/*
 * The small KVM client: a user of /dev/kvm with one vCPU. No QEMU, no firmware, no nesting.
 *
 *   kvmclient info                             what /dev/kvm offers
 *   kvmclient seq MODE PAGE SIZE STEPS [MS]    accesses and host actions, as in "seq long u 2m read+age+fetch"
 *   kvmclient caps vcpu|kvm                    the VMX capability MSRs, of a vCPU or of /dev/kvm
 *   kvmclient msr NUMBER STEPS                 user space writes a vCPU's MSR, as in "msr 48b c54+kvm"
 *   kvmclient run                              such requests from standard input, one a line
 *   kvmclient refused                          a vCPU that cannot be entered (refused.c)
 *
 * MODE real, prot (paging off) or long; PAGE u or s, its U/S; SIZE 4k or 2m, how the host maps the guest's memory.
 * STEPS of seq: read write rmw fetch, mread mwrite (no memory there: MMIO); age, log, unlog (dirty logging), sync (the
 * log is read), slot, slots (memory is added elsewhere, once or 64 times).
 * STEPS of msr: cN clears bit N of what is read back, sN sets it, kvm writes what KVM offers.
 *
 * One JSON object a line. Each seq is its own VM; an access is ended after MS milliseconds (default 4). "run" stops
 * behind a request that made the kernel warn, since it warns once, and at one that KVM or the host refuses, whose reason
 * is on standard error. Exit status: 0 answered, 2 bad usage, 4 refused, or no usable /dev/kvm.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "client.h"

#define MSR_FIRST	0x480
#define MSR_COUNT	18
#define DEFAULT_MS	4
#define CPUID_ENTRIES	128
#define PARAMETER	"/sys/module/kvm/parameters/enable_pt_guest_exec_control"

static const struct { const char *name; int number; } capabilities[] = {
	{ "immediate_exit", KVM_CAP_IMMEDIATE_EXIT }, { "get_msr_features", KVM_CAP_GET_MSR_FEATURES },
	{ "nested_state", KVM_CAP_NESTED_STATE }, { "hyperv_evmcs", KVM_CAP_HYPERV_ENLIGHTENED_VMCS },
	{ "hyperv_cpuid", KVM_CAP_HYPERV_CPUID }, { "stats_fd", KVM_CAP_BINARY_STATS_FD },
	{ "max_vcpus", KVM_CAP_MAX_VCPUS }, { "tsc_deadline", KVM_CAP_TSC_DEADLINE_TIMER },
	{ "x2apic_api", KVM_CAP_X2APIC_API }, { "set_tss_addr", KVM_CAP_SET_TSS_ADDR },
};

struct msr { struct kvm_msrs head; struct kvm_msr_entry entry; };

void die(const char *what)
{
	fprintf(stderr, "kvmclient: %s: %s\n", what, strerror(errno));
	exit(4);
}

int find(const char *const *names, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(names[i], name))
			return i;
	return -1;
}

int create_vcpu(int kvm, int vm)
{
	static struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entries[CPUID_ENTRIES]; } cpuid;
	int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);

	if (vcpu < 0)
		die("KVM_CREATE_VCPU");
	cpuid.head.nent = CPUID_ENTRIES;
	if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid))
		die("KVM_GET_SUPPORTED_CPUID");
	if (ioctl(vcpu, KVM_SET_CPUID2, &cpuid))
		die("KVM_SET_CPUID2");
	return vcpu;
}

/* "msrs":{...}: the VMX capability MSRs that `fd` (a vCPU or /dev/kvm) lets us read */
static void print_msrs(int fd)
{
	struct msr msr;
	int first = 1;

	printf("\"msrs\":{");
	for (int i = 0; i < MSR_COUNT; i++) {
		memset(&msr, 0, sizeof(msr));
		msr.head.nmsrs = 1;
		msr.entry.index = MSR_FIRST + i;
		if (ioctl(fd, KVM_GET_MSRS, &msr) != 1)
			continue;
		printf("%s\"%x\":%" PRIu64, first ? "" : ",", MSR_FIRST + i, (uint64_t)msr.entry.data);
		first = 0;
	}
	printf("}");
}

static void print_info(int kvm)
{
	char parameter[8] = "";
	int fd;

	printf("{\"info\":{\"api\":%d,", ioctl(kvm, KVM_GET_API_VERSION, 0));
	print_msrs(kvm);
	printf(",\"capabilities\":{");
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

static struct msr get_msr(int fd, uint32_t number)
{
	struct msr msr = { .head.nmsrs = 1, .entry.index = number };

	if (ioctl(fd, KVM_GET_MSRS, &msr) != 1)
		die("KVM_GET_MSRS");
	return msr;
}

/* User space as it restores a vCPU: what of an MSR it may change. */
static int user_msr(int kvm, const char *number, char *steps)
{
	uint32_t index = (uint32_t)strtoul(number, NULL, 16);
	int vm = ioctl(kvm, KVM_CREATE_VM, 0), vcpu, step = 0;
	uint64_t refused = 0;
	struct msr msr;
	char *rest = NULL;

	if (vm < 0)
		die("KVM_CREATE_VM");
	vcpu = create_vcpu(kvm, vm);
	for (char *word = strtok_r(steps, "+", &rest); word; word = strtok_r(NULL, "+", &rest), step++) {
		char *end;
		uint64_t bit = 1ull << (strtoul(word + 1, &end, 10) & 63);

		msr = get_msr(strcmp(word, "kvm") ? vcpu : kvm, index);
		if (*word == 'c' && !*end)
			msr.entry.data &= ~bit;
		else if (*word == 's' && !*end)
			msr.entry.data |= bit;
		else if (strcmp(word, "kvm"))
			return 2;
		if (ioctl(vcpu, KVM_SET_MSRS, &msr) != 1)
			refused |= 1ull << step;
	}
	msr = get_msr(vcpu, index);
	printf("{\"value\":%" PRIu64 ",\"refused\":%" PRIu64 "}\n", (uint64_t)msr.entry.data, refused);
	fflush(stdout);
	close(vcpu);
	close(vm);
	return 0;
}

/* The capability MSRs of a new vCPU, or of /dev/kvm itself. */
static int caps(int kvm, const char *reader)
{
	int vm, vcpu;

	if (strcmp(reader, "kvm") && strcmp(reader, "vcpu"))
		return 2;
	printf("{");
	if (*reader == 'k') {
		print_msrs(kvm);
	} else {
		vm = ioctl(kvm, KVM_CREATE_VM, 0);
		if (vm < 0)
			die("KVM_CREATE_VM");
		vcpu = create_vcpu(kvm, vm);
		print_msrs(vcpu);
		close(vcpu);
		close(vm);
	}
	printf("}\n");
	fflush(stdout);
	return 0;
}

static int usage(void)
{
	fprintf(stderr, "usage: kvmclient info | run | refused | seq real|prot|long u|s 4k|2m STEP+STEP.. [MS] | msr HEX STEP+STEP.. | caps vcpu|kvm\n");
	return 2;
}

/* One request in words; 2 where it is none. */
static int request(int kvm, int n, char **words)
{
	int ms = n == 6 ? atoi(words[5]) : DEFAULT_MS;

	if ((n == 5 || n == 6) && !strcmp(words[0], "seq") && ms > 0 && ms <= 60000)
		return sequence(kvm, words[1], words[2], words[3], words[4], ms);
	if (n == 3 && !strcmp(words[0], "msr"))
		return user_msr(kvm, words[1], words[2]);
	if (n == 2 && !strcmp(words[0], "caps"))
		return caps(kvm, words[1]);
	return usage();
}

static int requests(int kvm)
{
	char line[512], *words[8], *rest;
	int n, status;

	while (!has_warned() && fgets(line, sizeof(line), stdin)) {
		n = 0;
		rest = NULL;
		for (char *word = strtok_r(line, " \n", &rest); word && n < 8; word = strtok_r(NULL, " \n", &rest))
			words[n++] = word;
		status = request(kvm, n, words);
		if (status)
			return status;
	}
	return 0;
}

int main(int argc, char **argv)
{
	int kvm, info = argc == 2 && !strcmp(argv[1], "info");

	if (argc < 2)
		return usage();
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		die("/dev/kvm");
	if (ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		die("/dev/kvm: API version");
	if (info) {
		print_info(kvm);
		return 0;
	}
	if (argc == 2 && !strcmp(argv[1], "refused"))
		return refused(kvm);
	watch_warnings();
	if (argc == 2 && !strcmp(argv[1], "run"))
		return requests(kvm);
	return request(kvm, argc - 1, argv + 1);
}
