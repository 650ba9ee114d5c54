/* SPDX-License-Identifier: GPL-2.0-only */
/* The text of the MMU's tracepoints. Included at the end of the glue's mmu.c. */
#ifdef ORACLE_SET_SPTE_TAKES_VCPU
#define SET_SPTE_ARGS(level, gfn, sptep) oracle_vcpu, level, gfn, sptep
#else
#define SET_SPTE_ARGS(level, gfn, sptep) level, gfn, sptep
#endif

#define SHOW(event, ...) do {									\
	trace_event_raw_event_##event(&file, __VA_ARGS__);					\
	trace_raw_output_##event(oracle_iterator(), 0, NULL);					\
} while (0)

/*
 * in: event (0 kvm_mmu_set_spte, 1 mark_mmio_spte, 2 kvm_mmu_get_page, 3 kvm_mmu_pagetable_walk,
 *     4 kvm_mmu_paging_element, 5 kvm_mmu_walker_error, 6 kvm_mmu_spte_requested, 7 kvm_tdp_mmu_spte_changed,
 *     8 the format that kvm_mmu_set_spte's format file has), its 4 arguments, flag
 * out: the text, 8 characters a word; the address of an SPTE is 0
 */
ENTRY(mmutrace, 6, 24)
{
	static struct trace_event_file file;
	static struct kvm_mmu_page sp;
	static u64 spte;
	struct kvm_page_fault fault = { .gfn = in[1], .pfn = in[2], .goal_level = in[3] };
	const char *format;
	int n;

	oracle_set_flag(oracle_vcpu, in[5]);
	memset(oracle_text, 0, sizeof(oracle_text));
	oracle_world.here = 0;
	switch (in[0]) {
	case 0:
		spte = in[3];
		oracle_world.here = __pa(&spte);
		SHOW(kvm_mmu_set_spte, SET_SPTE_ARGS(in[1], in[2], &spte));
		break;
	case 1:
		oracle_world.here = (u64)&spte;
		SHOW(mark_mmio_spte, &spte, in[2], in[3]);
		break;
	case 2:
		sp.gfn = in[1];
		sp.role.word = in[2];
		SHOW(kvm_mmu_get_page, &sp, in[3]);
		break;
	case 3:
		SHOW(kvm_mmu_pagetable_walk, in[1], in[2]);
		break;
	case 4:
		SHOW(kvm_mmu_paging_element, in[1], in[2]);
		break;
	case 5:
		SHOW(kvm_mmu_walker_error, in[1]);
		break;
	case 6:
		SHOW(kvm_mmu_spte_requested, &fault);
		break;
	case 7:
		SHOW(kvm_tdp_mmu_spte_changed, 0, in[1], in[2], in[3], in[4]);
		break;
	case 8:
		format = print_fmt_kvm_mmu_set_spte + 1;
		for (n = 0; format[n] != '"'; n++)
			oracle_text[n] = format[n];
		oracle_text[n] = '\n';
		break;
	}
	memcpy(out, oracle_text, 24 * sizeof(u64));
}
