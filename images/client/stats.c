// SPDX-License-Identifier: GPL-2.0-only
/* KVM's statistics of a VM and a vCPU. Where they lie is asked once: it is the same for all of one load. */
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "client.h"

#define OF_VM	PF_TAKEN	/* those before are the VM's */

static const char *const names[STATS] = {
	[PAGES_4K] = "pages_4k", [PAGES_2M] = "pages_2m", [NX_LPAGE_SPLITS] = "nx_lpage_splits",
	[PF_TAKEN] = "pf_taken", [PF_FIXED] = "pf_fixed", [PF_SPURIOUS] = "pf_spurious", [PF_FAST] = "pf_fast",
	[PF_EMULATE] = "pf_emulate", [PF_MMIO] = "pf_mmio_spte_created", [EXITS] = "exits", [MMIO_EXITS] = "mmio_exits",
};
static uint64_t places[STATS];	/* in the file, 0: this kernel has it not */

static void locate(int fd)
{
	struct kvm_stats_header header;
	unsigned char *descriptors;
	size_t size;

	if (pread(fd, &header, sizeof(header), 0) != sizeof(header))
		die("reading statistics");
	size = sizeof(struct kvm_stats_desc) + header.name_size;
	descriptors = calloc(header.num_desc, size);
	if (!descriptors || pread(fd, descriptors, size * header.num_desc, header.desc_offset) < 0)
		die("reading statistics");
	for (uint32_t i = 0; i < header.num_desc; i++) {
		const struct kvm_stats_desc *d = (const void *)(descriptors + i * size);
		int n = find(names, STATS, d->name);

		if (n >= 0 && d->size == 1)
			places[n] = header.data_offset + d->offset;
	}
	free(descriptors);
}

void read_stats(int vm, int vcpu, uint64_t *values)
{
	static int located;
	int fds[2] = { ioctl(vm, KVM_GET_STATS_FD, NULL), ioctl(vcpu, KVM_GET_STATS_FD, NULL) };

	if (fds[0] < 0 || fds[1] < 0)
		die("KVM_GET_STATS_FD");
	for (int i = 0; i < 2 && !located; i++)
		locate(fds[i]);
	located = 1;
	memset(values, 0, STATS * sizeof(*values));
	for (int i = 0; i < STATS; i++)
		if (places[i] && pread(fds[i >= OF_VM], &values[i], sizeof(*values), (off_t)places[i]) != sizeof(*values))
			die("reading statistics");
	close(fds[0]);
	close(fds[1]);
}

void print_stats(const uint64_t *values)
{
	for (int i = 0; i < STATS; i++)
		printf("%s\"%s\":%" PRIu64, i ? "," : "{", names[i], values[i]);
	printf("}");
}
