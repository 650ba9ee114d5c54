// SPDX-License-Identifier: GPL-2.0-only
/* The kernel's log: WARNs met since the last look. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "client.h"

static int log_fd = -1, ever;

void watch_warnings(void)
{
	log_fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (log_fd < 0 || lseek(log_fd, 0, SEEK_END) < 0)
		die("/dev/kmsg");
}

/*
 * A record: "6,339,5140900,-;WARNING: CPU: 0 PID: 61 at arch/x86/kvm/mmu/spte.c:341 function+0x1c/0x60 [kvm]", and from
 * Linux 7 on "4,339,5140900,-;WARNING: arch/x86/kvm/mmu/spte.c:341 at function+0x1c/0x60 [kvm], CPU#0: kvmclient/61".
 * The function is the word with an offset.
 */
const char *warned(void)
{
	static char function[64];
	char record[1024], *at;
	ssize_t n;

	*function = 0;
	while ((n = read(log_fd, record, sizeof(record) - 1)) > 0) {
		record[n] = 0;
		at = strstr(record, ";WARNING: ");
		if (*function || !at)
			continue;
		at = strstr(at, "+0x");
		while (at && at[-1] != ' ')
			at--;
		strncpy(function, at ? at : "unknown", sizeof(function) - 1);
		function[strcspn(function, "+ \n")] = 0;
	}
	ever |= *function;
	return *function ? function : NULL;
}

int has_warned(void)
{
	return ever;
}
