// SPDX-License-Identifier: GPL-2.0-only
/* Entries for mmu/mmu.c, mmu.h and the EPT flavour of mmu/paging_tmpl.h. */

/* Whether a shadow page may become unsync is an input of make_spte()'s cases. */
#define mmu_try_to_unsync_pages oracle_real_mmu_try_to_unsync_pages
#include "mmu/mmu.c"
#undef mmu_try_to_unsync_pages
#include "oracle.h"

int mmu_try_to_unsync_pages(struct kvm *kvm, const struct kvm_memory_slot *slot, gfn_t gfn, bool can_unsync,
			    bool prefetch);
int mmu_try_to_unsync_pages(struct kvm *kvm, const struct kvm_memory_slot *slot, gfn_t gfn, bool can_unsync,
			    bool prefetch)
{
	return oracle_world.unsync_fails ? -EPERM : 0;
}
