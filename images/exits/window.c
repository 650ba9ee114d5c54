/* SPDX-License-Identifier: GPL-2.0-only */
/* One window: warmed up, then counted between two passages of the gate. The probe's main.c goes over the batch. */
#include "exits.h"

#define REFUSED_MEMORY	0x1004		/* no room for EPT12 in the arena */
#define REFUSED_WINDOW	0x1005		/* more pages or looks than there are, or no system call */

_Static_assert(sizeof(struct kvm_window) == sizeof(struct kvm_vector), "a window takes a vector's place");
_Static_assert(offsetof(struct kvm_window, kind) == offsetof(struct kvm_vector, kind), "told apart by their kind");
_Static_assert(offsetof(struct kvm_window, marks) == offsetof(struct kvm_vector, flags), "no window is marked");

/* L1 waits here until whoever counts has seen that it came: a loop without an exit, and without PAUSE, which may be one. */
static void gate(const struct kvm_window *w)
{
	volatile struct kvm_gate *g = (volatile struct kvm_gate *)(uint64_t)GATE_BASE;
	uint64_t n;

	if (!(w->flags & WINDOW_GATED))
		return;
	n = g->arrived + 1;
	g->arrived = n;
	while (g->opened < n)
		;
}

static int fits(const struct kvm_window *w)
{
	uint64_t fresh = w->fresh_every ? w->calls / w->fresh_every : 0;
	uint64_t loads = w->load_every ? w->calls / w->load_every : 0;

	return fresh <= FRESH_PAGES && loads <= LOAD_PAGES && w->looks <= LOOKED_AT_MOST && w->warm && w->calls;
}

/* `calls` system calls; with `mix` all that the window asks for beside them. */
static int phase(struct run *run, uint32_t calls, int mix)
{
	const struct kvm_window *w = run->w;
	struct registers *r = &run->r;

	*(volatile uint64_t *)(uint64_t)(L2_KERNEL_DATA + DATA_HYPERCALLS) = w->hypercalls;
	*(volatile uint64_t *)(uint64_t)(L2_KERNEL_DATA + DATA_SILENT) = w->flags & WINDOW_SILENT;
	r->r12 = calls;
	r->r13 = GLA_FRESH;
	r->r15 = GLA_LOAD;
	r->rbp = r->r14 = mix ? w->fresh_every : 0;
	r->r9 = r->r8 = w->hypercalls ? w->hypercall_every : 0;
	r->rbx = r->r10 = mix ? w->load_every : 0;
	return handler_run(run);
}

static void run_window(const struct kvm_window *w, struct kvm_observation *o)
{
	/* the vmcs12 of the window before, entered: one of the same kind resumes it */
	static int last = -1;
	struct kvm_vector kind = { .ept = w->flags & WINDOW_EVMCS ? EPT_EVMCS : 0 };
	volatile uint64_t *calls = (volatile uint64_t *)(uint64_t)(L2_KERNEL_DATA + DATA_CALLS);
	struct run run = { .w = w, .o = o };
	int now = w->flags & WINDOW_EVMCS ? 1 : 0;

	memset(o, 0, sizeof(*o));
	o->verdict = VERDICT_SCAFFOLD;
	o->index = w->index;
	if (!fits(w)) {
		o->error = REFUSED_WINDOW;
		return;
	}
	if (vmx_use(&kind)) {
		o->error = REFUSED_EVMCS;
		return;
	}
	if (memory_build(&run)) {
		o->error = REFUSED_MEMORY;
		return;
	}
	run.launched = last == now;
	handler_load(&run);
	if (!phase(&run, w->warm, 0)) {
		*calls = 0;
		o->exits = 0;
		gate(w);
		phase(&run, w->calls, 1);
		gate(w);
	}
	last = run.launched ? now : -1;
	o->value = *calls;
}

/* The probe's main.c has a vector of its own to warm up with: every window here warms up for itself. */
void run_vector(struct kvm_batch *batch, const struct kvm_vector *v, struct kvm_observation *o)
{
	(void)batch;
	if (v->kind == KIND_WINDOW)
		run_window((const struct kvm_window *)v, o);
}

/* What else main.c asks of the probe's other files: nothing is traced, and no timer ends a window. */
void put_mark(const struct kvm_vector *v)
{
	(void)v;
}

void tables_touch(uint32_t vectors)
{
	(void)vectors;
}

int timer_init(uint32_t deadline_us)
{
	(void)deadline_us;
	return 1;
}
