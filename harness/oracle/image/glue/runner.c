// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs an oracle image: a child process that maps the image at its own address and calls its entries.
 *
 * runner IMAGE SHM_FD BYTES SOCKET_FD: the shared memory holds a struct control and the cases behind it.
 * For each byte read from the socket the batch is run and one byte written back. What a case does beside
 * returning a value (WARN, BUG, a call or read of something the image does not have, any other fault)
 * becomes an event.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <ucontext.h>
#include <unistd.h>

enum { EVENT_WARN = 1, EVENT_BUG = 2, EVENT_STRAY = 3, EVENT_FAULT = 4 };

struct event {
	uint64_t index;		/* of the case in the batch */
	uint64_t kind;		/* EVENT_* */
	uint64_t rip;
	uint64_t address;	/* that faulted */
};

struct control {
	uint64_t fn;		/* address of the entry */
	uint64_t words_in, words_out, count;
	uint64_t in, out;	/* offsets of the cases and the results, bytes */
	uint64_t events, events_max;	/* offset, room */
	uint64_t events_count;	/* may exceed events_max: the rest is lost */
	uint64_t current;	/* case being run */
	uint64_t bug_start, bug_stop;	/* the image's bug table */
	uint64_t stray_start, stray_stop;	/* address space of missing symbols */
	uint64_t once_start, once_stop;	/* the image's "once" flags, cleared before each case */
	uint64_t status;	/* offset of one byte a case: its worst EVENT_*, 0 for none */
	uint64_t trap;		/* the image's pointer to what a WARN or BUG calls */
};

/* One row of __bug_table with relative pointers and verbose file names. */
struct bug_entry {
	int32_t addr_disp, file_disp;
	uint16_t line, flags;
};

static struct control *control;
static uint8_t *shm;
static sigjmp_buf next_case;

static void note(uint64_t kind, uint64_t rip, uint64_t address)
{
	struct event *e = (void *)(shm + control->events);
	uint8_t *status = shm + control->status + control->current;

	if (*status < kind)
		*status = kind;

	if (control->events_count < control->events_max)
		e[control->events_count] = (struct event){ control->current, kind, rip, address };
	control->events_count++;
}

static const struct bug_entry *bug_at(uint64_t rip)
{
	const struct bug_entry *b = (void *)control->bug_start;

	for (; (uint64_t)b < control->bug_stop; b++)
		if ((uint64_t)&b->addr_disp + b->addr_disp == rip)
			return b;
	return NULL;
}

/* The image's WARNs and BUGs come here instead of trapping. */
static void on_trap(uint64_t rip)
{
	const struct bug_entry *bug = bug_at(rip);

	note(bug && bug->flags & 1 ? EVENT_WARN : bug ? EVENT_BUG : EVENT_FAULT, rip, 0);
	if (!bug || !(bug->flags & 1))
		siglongjmp(next_case, 1);
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	uint64_t rip = regs[REG_RIP], address = (uint64_t)info->si_addr;

	if (address >= control->stray_start && address < control->stray_stop) {
		/* A call of a missing function: the caller's address is on the stack. */
		note(EVENT_STRAY, rip == address ? *(uint64_t *)regs[REG_RSP] : rip, address);
	} else {
		note(EVENT_FAULT, rip, address);
	}
	siglongjmp(next_case, 1);
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void map_image(const char *path)
{
	int fd = open(path, O_RDONLY);
	Elf64_Ehdr eh;
	Elf64_Phdr ph;

	if (fd < 0 || pread(fd, &eh, sizeof(eh), 0) != sizeof(eh))
		die(path);
	for (int i = 0; i < eh.e_phnum; i++) {
		if (pread(fd, &ph, sizeof(ph), eh.e_phoff + i * sizeof(ph)) != sizeof(ph))
			die(path);
		if (ph.p_type != PT_LOAD || !ph.p_memsz)
			continue;
		uint64_t start = ph.p_vaddr & ~4095ull;
		uint64_t end = (ph.p_vaddr + ph.p_memsz + 4095) & ~4095ull;
		void *at = mmap((void *)start, end - start, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		if (at != (void *)start)
			die("mmap of the image");
		if (pread(fd, (void *)ph.p_vaddr, ph.p_filesz, ph.p_offset) != (ssize_t)ph.p_filesz)
			die(path);
		int prot = PROT_READ | (ph.p_flags & PF_W ? PROT_WRITE : 0) | (ph.p_flags & PF_X ? PROT_EXEC : 0);
		if (mprotect(at, end - start, prot))
			die("mprotect");
	}
	close(fd);
}

static void run_batch(void)
{
	void (*fn)(const uint64_t *, uint64_t *) = (void *)control->fn;
	const uint64_t *in = (void *)(shm + control->in);
	uint64_t *out = (void *)(shm + control->out);
	uint64_t wi = control->words_in, wo = control->words_out, n = control->count;
	size_t once = control->once_stop - control->once_start;

	*(uint64_t *)control->trap = (uint64_t)on_trap;
	control->events_count = 0;
	control->current = 0;
	if (sigsetjmp(next_case, 0))
		control->current++;
	while (control->current < n) {
		uint64_t i = control->current;

		if (once)
			memset((void *)control->once_start, 0, once);
		fn(in + i * wi, out + i * wo);
		control->current = i + 1;
	}
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK };
	static uint8_t stack[65536];
	stack_t ss = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct rlimit none = { 0, 0 };
	char c;

	if (argc != 5)
		return 2;
	int sock = atoi(argv[4]);
	setrlimit(RLIMIT_CORE, &none);
	shm = mmap(NULL, strtoull(argv[3], NULL, 0), PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argv[2]), 0);
	if (shm == MAP_FAILED)
		die("mmap of the shared memory");
	control = (void *)shm;
	map_image(argv[1]);
	sigaltstack(&ss, NULL);
	sigemptyset(&sa.sa_mask);
	for (const int *s = (const int[]){ SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGTRAP, 0 }; *s; s++)
		sigaction(*s, &sa, NULL);
	while (read(sock, &c, 1) == 1) {
		run_batch();
		if (write(sock, &c, 1) != 1)
			return 1;
	}
	return 0;
}
