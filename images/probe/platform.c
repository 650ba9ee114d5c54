/* SPDX-License-Identifier: GPL-2.0-only */
/* The board: L1's IDT, messages, the way out of a bare machine, power off. */
#include "probe.h"

#define COM1		0x3f8
#define BOCHS_E9	0xe9
#define BOCHS_SHUTDOWN	0x8900
#define PVPANIC		CALL_PORT	/* QEMU's device by which a guest tells its end */
#define PVPANIC_SHUTDOWN	(1u << 2)
#define PM1A_CNT	0x604	/* where SeaBIOS puts QEMU's ACPI control register */
#define SLP_EN		(1u << 13)	/* with sleep type 0, which is S5 there */

struct gate {
	uint16_t low, selector;
	uint8_t ist, type;
	uint16_t mid;
	uint32_t high, zero;
};

struct descriptor {
	uint16_t limit;
	uint64_t base;
} __attribute__((packed));

extern char exception_entries[];
static struct gate idt[32];

void *memcpy(void *to, const void *from, size_t n)
{
	void *d = to;

	asm volatile("rep movsb" : "+D"(d), "+S"(from), "+c"(n) : : "memory");
	return to;
}

void *memset(void *to, int c, size_t n)
{
	void *d = to;

	asm volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
	return to;
}

void *memmove(void *to, const void *from, size_t n)
{
	if (to <= from || (const char *)from + n <= (char *)to)
		return memcpy(to, from, n);
	char *d = (char *)to + n - 1;
	const char *s = (const char *)from + n - 1;

	asm volatile("std\n\trep movsb\n\tcld" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
	return to;
}

void zero_pages(uint64_t address, uint64_t pages)
{
	uint64_t n = pages * (PAGE / 8);

	asm volatile("rep stosq" : "+D"(address), "+c"(n) : "a"(0ull) : "memory");
}

static void say_char(char c)
{
	for (int i = 0; i < 1000 && !(inb(COM1 + 5) & 0x20); i++)
		;
	outb(COM1, (uint8_t)c);
}

/* A line on the serial port: text and a number in hexadecimal. For what ends the probe only: it is slow. */
void platform_say(const char *text, uint64_t number)
{
	while (*text)
		say_char(*text++);
	say_char(' ');
	for (int shift = 60; shift >= 0; shift -= 4)
		say_char("0123456789abcdef"[number >> shift & 15]);
	say_char('\r');
	say_char('\n');
}

void probe_exception(uint64_t vector, uint64_t error, uint64_t rip)
{
	platform_say("probe: exception", vector);
	platform_say("probe: error code", error);
	platform_say("probe: rip", rip);
	platform_say("probe: cr2", READ_CR(2));
	platform_off();		/* the batch stays in STATE_RUNNING: the host sees that L1 died */
}

void platform_init(void)
{
	struct descriptor d = { sizeof(idt) - 1, (uint64_t)idt };

	for (int i = 0; i < 32; i++) {
		uint64_t to = (uint64_t)exception_entries + 16ull * (uint64_t)i;

		idt[i] = (struct gate){ (uint16_t)to, 8, 0, 0x8e, (uint16_t)(to >> 16), (uint32_t)(to >> 32), 0 };
	}
	asm volatile("lidt %0" : : "m"(d));
	/* no legacy interrupt may end an L2 run: mask both 8259s */
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
}

static void emit(const void *from, size_t n)
{
	asm volatile("rep outsb" : "+S"(from), "+c"(n) : "d"((uint16_t)BOCHS_E9) : "memory");
}

/*
 * The bare machine has no shared memory: the header and the observations leave through port 0xE9, framed by a
 * mark, their length (8 bytes), and a sum of all payload bytes (8 bytes).
 */
void platform_emit(const struct kvm_batch *batch)
{
	static const char mark[8] = { 'K', 'V', 'M', 'I', 'R', 'O', 'U', 'T' };
	const uint8_t *header = (const uint8_t *)batch;
	const uint8_t *seen = header + batch->observations;
	uint64_t size = batch->count * sizeof(struct kvm_observation);
	uint64_t length = sizeof(*batch) + size, sum = 0;

	for (uint64_t i = 0; i < sizeof(*batch); i++)
		sum += header[i];
	for (uint64_t i = 0; i < size; i++)
		sum += seen[i];
	emit(mark, sizeof(mark));
	emit(&length, sizeof(length));
	emit(header, sizeof(*batch));
	emit(seen, size);
	emit(&sum, sizeof(sum));
}

/* Calls the host that runs QEMU; 0 where nobody would hear. */
int platform_call(void)
{
	if (inb(PVPANIC) == 0xff || !(inb(PVPANIC) & CALL_OF_L1))
		return 0;
	outb(PVPANIC, CALL_OF_L1);
	return 1;
}

void platform_off(void)
{
	static const char word[] = "Shutdown";

	if (inb(PVPANIC) != 0xff)
		outb(PVPANIC, PVPANIC_SHUTDOWN);
	else
		outw(PM1A_CNT, SLP_EN);
	for (int i = 0; i < 8; i++)
		outb(BOCHS_SHUTDOWN, (uint8_t)word[i]);
	for (;;)
		asm volatile("cli\n\thlt");
}
