/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * L1's local-APIC timer gives L1 its CPU back from an L2 that makes no progress.
 *
 * It is armed before each entry and not disarmed after it: the next arming replaces it. A timer that ran out
 * while L1 ran stays pending and ends the next entry at once; timer_early() tells such an exit from a real one.
 */
#include "probe.h"

#define VECTOR		0x40
#define APIC_SVR	0x0f
#define APIC_EOI	0x0b
#define APIC_LVT_TIMER	0x32
#define APIC_LVT_LINT0	0x35
#define APIC_INITIAL	0x38
#define APIC_CURRENT	0x39
#define APIC_DIVIDE	0x3e
#define MASKED		(1u << 16)
#define TSC_DEADLINE	(2u << 17)
#define BASE_ENABLE	(1u << 11)
#define BASE_X2APIC	(1u << 10)
#define DEFAULT_US	60	/* of guest time: a few times what the slowest vector takes on the emulated host */
#define PIT_HZ		1193182u
#define PIT_CHANNEL_0	0x40
#define PIT_COMMAND	0x43
#define PIT_ONCE	0x30	/* channel 0, both bytes, mode 0: counts down once */
#define PIT_LATCH_STATUS	0xe2
#define PIT_THROUGH	0x80
#define PIT_SET		0x3f
#define CALIBRATE_US	500u
#define CALIBRATE_TICKS	(PIT_HZ / (1000000u / CALIBRATE_US))	/* under a hypervisor each look at the PIT is an exit */

static int x2apic, deadline_mode;
static volatile uint32_t *mmio;
static uint64_t period_tsc;
static uint32_t period_apic;

static void apic_write(uint32_t reg, uint32_t v)
{
	if (x2apic)
		wrmsr(MSR_X2APIC + reg, v);
	else
		mmio[reg * 4] = v;
}

static uint32_t apic_read(uint32_t reg)
{
	return x2apic ? (uint32_t)rdmsr(MSR_X2APIC + reg) : mmio[reg * 4];
}

/* The status of the PIT's channel 0: its output, high once the count is through, a flag, and how it was set. */
static uint8_t pit_status(void)
{
	outb(PIT_COMMAND, PIT_LATCH_STATUS);
	return inb(PIT_CHANNEL_0);
}

/*
 * Waits CALIBRATE_US by the PIT, which needs no port beside its own; 0 where there is none. CPUID's frequencies are not
 * used: an emulator's TSC does not follow them.
 */
static int pit_wait(void)
{
	uint8_t status;

	outb(PIT_COMMAND, PIT_ONCE);
	outb(PIT_CHANNEL_0, CALIBRATE_TICKS & 0xff);
	outb(PIT_CHANNEL_0, CALIBRATE_TICKS >> 8);
	for (uint32_t i = 0; i < 1u << 22; i++) {
		status = pit_status();
		if ((status & PIT_SET) != PIT_ONCE)	/* a port without a device reads as ones */
			return 0;
		if (status & PIT_THROUGH)
			return 1;
	}
	return 0;
}

/* Gets the timer ready to be armed for `deadline_us` (0: DEFAULT_US); 0 where there is nothing to measure it by. */
int timer_init(uint32_t deadline_us)
{
	uint64_t us = deadline_us ? deadline_us : DEFAULT_US;
	uint32_t r[4], apic_ticks;
	uint64_t tsc, base = rdmsr(MSR_APIC_BASE);

	cpuid(1, 0, r);
	x2apic = r[2] >> 21 & 1;
	deadline_mode = r[2] >> 24 & 1;
	mmio = (volatile uint32_t *)(base & 0xfffff000ull);
	base |= BASE_ENABLE;
	if (x2apic)
		base |= BASE_X2APIC;
	wrmsr(MSR_APIC_BASE, base);
	apic_write(APIC_SVR, 0x1ff);
	apic_write(APIC_LVT_LINT0, MASKED);
	apic_write(APIC_DIVIDE, 0xb);	/* by 1 */
	apic_write(APIC_LVT_TIMER, MASKED | VECTOR);
	apic_write(APIC_INITIAL, 0xffffffffu);

	tsc = rdtsc();
	apic_ticks = apic_read(APIC_CURRENT);
	if (!pit_wait())
		return 0;
	tsc = rdtsc() - tsc;
	apic_ticks -= apic_read(APIC_CURRENT);

	period_tsc = tsc * us / CALIBRATE_US;
	period_apic = (uint32_t)((uint64_t)apic_ticks * us / CALIBRATE_US);
	apic_write(APIC_INITIAL, 0);
	apic_write(APIC_LVT_TIMER, VECTOR | (deadline_mode ? TSC_DEADLINE : 0));
	return 1;
}

void timer_arm(void)
{
	if (deadline_mode)
		wrmsr(MSR_TSC_DEADLINE, rdtsc() + period_tsc);
	else
		apic_write(APIC_INITIAL, period_apic ? period_apic : 1);
}

/* Nothing fires any more: what is pending later would end the next L2 before it ran. */
void timer_disarm(void)
{
	if (deadline_mode)
		wrmsr(MSR_TSC_DEADLINE, 0);
	else
		apic_write(APIC_INITIAL, 0);
}

void timer_acknowledge(void)
{
	apic_write(APIC_EOI, 0);
}

/* Whether an interrupt seen now is too early for a timer armed at TSC `since`. */
int timer_early(uint64_t since)
{
	return rdtsc() - since < period_tsc / 2;
}
