// SPDX-License-Identifier: GPL-2.0-only
/* The kernel's log: what it reports of itself since the last look, WARN, BUG, oops, lockdep, KASAN, UBSAN. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "client.h"

/* how such a report begins, behind the ';' of its record */
static const char *const heads[] = {
	"WARNING: ", "BUG: ", "kernel BUG at ", "UBSAN: ", "Oops: ", "general protection fault", "watchdog: BUG: ",
};

static int log_fd = -1, ever;

void watch_warnings(void)
{
	log_fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (log_fd < 0 || lseek(log_fd, 0, SEEK_END) < 0)
		die("/dev/kmsg");
}

static const char *report(const char *record)
{
	const char *text = strchr(record, ';');

	for (unsigned int i = 0; text && i < sizeof(heads) / sizeof(*heads); i++)
		if (!strncmp(text + 1, heads[i], strlen(heads[i])))
			return text + 1;
	return NULL;
}

/*
 * A record: "6,339,5140900,-;WARNING: CPU: 0 PID: 61 at arch/x86/kvm/mmu/spte.c:341 function+0x1c/0x60 [kvm]", and from
 * Linux 7 on "4,339,5140900,-;WARNING: arch/x86/kvm/mmu/spte.c:341 at function+0x1c/0x60 [kvm], CPU#0: kvmclient/61".
 * The function is the word with an offset; a report that names none is told in its own words.
 */
const char *warned(void)
{
	static char told[64];
	char record[1024];
	const char *text, *at;
	ssize_t n;

	*told = 0;
	while ((n = read(log_fd, record, sizeof(record) - 1)) > 0) {
		record[n] = 0;
		text = report(record);
		if (*told || !text)
			continue;
		at = strstr(text, "+0x");
		while (at && at > text && at[-1] != ' ')
			at--;
		strncpy(told, at ? at : text, sizeof(told) - 1);
		told[strcspn(told, at ? "+ \n" : "\n\"\\")] = 0;
	}
	ever |= *told;
	return *told ? told : NULL;
}

int has_warned(void)
{
	return ever;
}
