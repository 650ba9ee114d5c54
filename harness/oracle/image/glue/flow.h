/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whole page faults: kvm_mmu_page_fault() on shadow pages and guest memory that are made for each case.
 * Included at the end of the glue's mmu.c.
 *
 * A user-space address A has the physical address A - PAGE_OFFSET for the kernel's __pa(), and __va() takes it
 * back: page tables that KVM makes can be followed by the kernel's own code. What depends on where the image
 * lies is told by the page's number: the n-th table is at (n + 1) << 12.
 */
#define RAM_GFNS (1ul << 19)

u64 oracle_pool[ORACLE_POOL][512] __aligned(PAGE_SIZE);
struct page oracle_pool_page[ORACLE_POOL];
struct page oracle_prefetched[8];
unsigned long oracle_prefetched_pfn;
static u64 pool_info[ORACLE_POOL][512];
static struct kvm_mmu_page pool_head[ORACLE_POOL];
static struct pte_list_desc pool_desc[64];
static int pool_used, heads_used, infos_used, descs_used;

static struct kvm_rmap_head rmap_4k[RAM_GFNS], rmap_2m[RAM_GFNS >> 9], rmap_1g[RAM_GFNS >> 18];
static struct kvm_lpage_info lpage_2m[RAM_GFNS >> 9], lpage_1g[RAM_GFNS >> 18];
static u16 write_track[RAM_GFNS];
static u64 host_tables[3][512] __aligned(PAGE_SIZE);
static struct mm_struct host_mm;

/* From the top. The last lies in 2 MiB of its own, which a huge page may map before it is shadowed. */
static const gfn_t table_gfn[4] = { 0x1, 0x12, 0x13, 0x215 };
static struct x86_exception injected;
static u64 injections;

u64 *oracle_flow_table(gfn_t gfn)
{
	for (int n = 0; n < 4; n++)
		if (gfn == table_gfn[n])
			return oracle_tables[n];
	return oracle_tables[4];
}

int kvm_mmu_topup_memory_cache(struct kvm_mmu_memory_cache *mc, int min)
{
	return 0;
}

void *kvm_mmu_memory_cache_alloc(struct kvm_mmu_memory_cache *mc)
{
	struct kvm_vcpu_arch *arch = &oracle_vcpu->arch;

	if (mc == &arch->mmu_page_header_cache)
		return memset(&pool_head[heads_used++], 0, sizeof(pool_head[0]));
	if (mc == &arch->mmu_shadow_page_cache) {
		for (int i = 0; i < 512; i++)
			oracle_pool[pool_used][i] = SHADOW_NONPRESENT_VALUE;
		return oracle_pool[pool_used++];
	}
	if (mc == &arch->mmu_shadowed_info_cache)
		return memset(pool_info[infos_used++], 0, PAGE_SIZE);
	return memset(&pool_desc[descs_used++], 0, sizeof(pool_desc[0]));
}

/* A shadow page that is freed is no page of the pool any longer. */
void kmem_cache_free(struct kmem_cache *cache, void *object)
{
	for (int n = 0; n < pool_used; n++)
		if (page_private(&oracle_pool_page[n]) == (unsigned long)object)
			set_page_private(&oracle_pool_page[n], 0);
}

/* A huge page is split into a table that comes from the allocator itself. */
void *kmem_cache_alloc_noprof(struct kmem_cache *cache, gfp_t flags)
{
	return memset(&pool_head[heads_used++], 0, sizeof(pool_head[0]));
}

unsigned long get_zeroed_page_noprof(gfp_t flags)
{
	return (unsigned long)memset(oracle_pool[pool_used++], 0, PAGE_SIZE);
}

static u64 left;	/* entries that tables still held when they were removed: neither frozen nor without a value */

/* A table that is removed is seen by nobody else: it goes at once. */
void call_rcu(struct rcu_head *head, rcu_callback_t function)
{
	struct kvm_mmu_page *sp = container_of(head, struct kvm_mmu_page, rcu_head);

	for (int i = 0; i < 512; i++)
		left += sp->spt[i] != FROZEN_SPTE && sp->spt[i] != SHADOW_NONPRESENT_VALUE;
	kmem_cache_free(NULL, sp);
}

int gfn_to_page_many_atomic(struct kvm_memory_slot *slot, gfn_t gfn, struct page **pages, int nr)
{
	int n;

	oracle_prefetched_pfn = gfn + oracle_world.pfn_base;
	for (n = 0; n < nr && gfn + n < slot->npages; n++) {
		atomic_set(&oracle_prefetched[n]._refcount, 1000);
		pages[n] = &oracle_prefetched[n];
	}
	return n;
}

static void flow_inject(struct kvm_vcpu *vcpu, struct x86_exception *fault)
{
	injected = *fault;
	injections++;
}

/* The page of the pool at a physical address, -1 for another. */
static int page_number(u64 pa)
{
	u64 n = (pa - __pa(oracle_pool)) >> PAGE_SHIFT;

	return n < ORACLE_POOL ? n : -1;
}

static u64 told(u64 spte, int level)
{
	int n;

	if (!is_shadow_present_pte(spte) || is_last_spte(spte, level))
		return spte;
	n = page_number(spte & SPTE_BASE_ADDR_MASK);
	return n < 0 ? spte : (spte & ~SPTE_BASE_ADDR_MASK) | (u64)(n + 1) << PAGE_SHIFT;
}

static u64 mix(u64 h, u64 value)
{
	return (h ^ value) * 0x100000001b3ull;
}

static struct kvm_mmu_page *page_of(int n)
{
	return (void *)page_private(&oracle_pool_page[n]);
}

/*
 * in: number of the current root (1 to 4, 0 for none), those of the three before it; pgd of each of the four pages;
 *     role word of each; the new pgd and role word
 * out: found; number of the current root and of the three before it, afterwards
 */
ENTRY(fast_pgd_switch, 14, 5)
{
	static struct kvm_mmu_page roots[4];
	static struct kvm_mmu mmu;
	struct kvm_mmu_root_info none = KVM_MMU_ROOT_INFO_INVALID, *root[4] = { &mmu.root };

	for (int n = 0; n < 4; n++) {
		if (n)
			root[n] = &mmu.prev_roots[n - 1];
		memset(&roots[n], 0, sizeof(roots[n]));
		roots[n].role.word = in[8 + n];
		roots[n].root_count = 1;
		set_page_private(&oracle_pool_page[n], (unsigned long)&roots[n]);
		*root[n] = none;
		if (in[n]) {
			root[n]->hpa = __pa(oracle_pool[in[n] - 1]);
			root[n]->pgd = in[4 + in[n] - 1];
		}
	}
	mmu.root_role.word = in[13];
	out[0] = fast_pgd_switch(oracle_kvm, &mmu, in[12], mmu.root_role);
	for (int n = 0; n < 4; n++)
		out[1 + n] = VALID_PAGE(root[n]->hpa) ? page_number(root[n]->hpa) + 1 : 0;
	memset(oracle_pool_page, 0, sizeof(oracle_pool_page));
}

static gfn_t tracked;	/* a guest table's page that a case of tdp_fault has beside the four */

/* What the last case left in the slot and in the hash of shadow pages, found by the entries and pages it left. */
static void flow_forget(void)
{
	for (int n = 0; n < pool_used; n++) {
		struct kvm_mmu_page *sp = page_of(n);

		if (!sp || is_tdp_mmu_page(sp))
			continue;
		INIT_HLIST_HEAD(&oracle_kvm->arch.mmu_page_hash[kvm_page_table_hashfn(sp->gfn)]);
		for (int i = 0; i < 512; i++) {
			gfn_t gfn;

			if (sp->spt[i] == SHADOW_NONPRESENT_VALUE)
				continue;
			gfn = kvm_mmu_page_get_gfn(sp, i);
			if (gfn >= RAM_GFNS || (!sp->role.direct && sp->shadowed_translation && !gfn))
				continue;
			rmap_4k[gfn].val = 0;
			rmap_2m[gfn >> 9].val = 0;
			rmap_1g[gfn >> 18].val = 0;
		}
	}
	for (int n = 0; n < 4; n++) {
		rmap_4k[table_gfn[n]].val = write_track[table_gfn[n]] = 0;
		lpage_2m[table_gfn[n] >> 9].disallow_lpage = 0;
	}
	lpage_1g[0].disallow_lpage = 0;
	write_track[tracked] = 0;
	lpage_2m[tracked >> 9].disallow_lpage = lpage_1g[tracked >> 18].disallow_lpage = 0;
	memset(oracle_pool_page, 0, sizeof(oracle_pool_page));
	pool_used = heads_used = infos_used = descs_used = 0;
}

static void flow_host(int level)
{
	const u64 table = _PAGE_PRESENT | _PAGE_RW | _PAGE_USER | _PAGE_ACCESSED;
	u64 entry[3] = { __pa(host_tables[1]) | table, __pa(host_tables[2]) | table, table };

	if (level == PG_LEVEL_1G)
		entry[1] = table | _PAGE_PSE;
	else if (level == PG_LEVEL_2M)
		entry[2] = table | _PAGE_PSE;
	for (int i = 0; i < 512; i++)
		for (int n = 0; n < 3; n++)
			host_tables[n][i] = entry[n];
	host_mm.pgd = (pgd_t *)host_tables[0];
}

static void flow_begin(u64 host_level, bool readonly, bool dirty_track)
{
	struct kvm *kvm = oracle_kvm;
	static int host_level_now = -1;

	flow_forget();
	if (tables_used)
		memset(oracle_tables, 0, sizeof(oracle_tables));
	tables_used = true;	/* until the end, which a case that traps does not reach */
	if (host_level_now != host_level)
		flow_host(host_level);
	host_level_now = host_level;
	oracle_slot.base_gfn = 0;
	oracle_slot.npages = RAM_GFNS;
	oracle_slot.flags = (readonly ? KVM_MEM_READONLY : 0) | (dirty_track ? KVM_MEM_LOG_DIRTY_PAGES : 0);
	oracle_slot.userspace_addr = 0;
	oracle_slot.arch.rmap[0] = rmap_4k;
	oracle_slot.arch.rmap[1] = rmap_2m;
	oracle_slot.arch.rmap[2] = rmap_1g;
	oracle_slot.arch.lpage_info[0] = lpage_2m;
	oracle_slot.arch.lpage_info[1] = lpage_1g;
	oracle_slot.arch.gfn_write_track = write_track;
	atomic_long_set(&oracle_memslots.last_used_slot, (long)&oracle_slot);
	oracle_memslots.gfn_tree = RB_ROOT;
	kvm->memslots[0] = kvm->memslots[1] = &oracle_memslots;
	kvm->mm = &host_mm;
	kvm->arch.n_max_mmu_pages = 1000;
	kvm->arch.n_used_mmu_pages = 0;
	kvm->arch.indirect_shadow_pages = 0;
	kvm->arch.shadow_root_allocated = true;
	kvm->arch.mmu_valid_gen = 0;
	INIT_LIST_HEAD(&kvm->arch.active_mmu_pages);
	INIT_LIST_HEAD(&kvm->arch.zapped_obsolete_pages);
	INIT_LIST_HEAD(&kvm->arch.possible_nx_huge_pages);
	INIT_LIST_HEAD(&kvm->arch.tdp_mmu_roots);
	kvm->mmu_invalidate_in_progress = 0;
	oracle_world.flow = true;
	oracle_world.pfn_base = 1ul << 18;
	oracle_vcpu->arch.root_mmu.inject_page_fault = flow_inject;
	oracle_vcpu->arch.guest_mmu.inject_page_fault = flow_inject;
	oracle_vcpu->arch.regs_avail = ~0u;
	oracle_memslots.generation = 0;
	injections = left = 0;
	memset(&injected, 0, sizeof(injected));
	memset(&oracle_vcpu->stat, 0, sizeof(oracle_vcpu->stat));
	memset(&kvm->stat, 0, sizeof(kvm->stat));
}

/* The vCPU's counts of faults, 8 bits each: taken, fixed, emulated, spurious, fast, MMIO entries made. */
static u64 flow_counts(void)
{
	const struct kvm_vcpu_stat *stat = &oracle_vcpu->stat;
	const u64 counts[] = { stat->pf_taken, stat->pf_fixed, stat->pf_emulate,
			       stat->pf_spurious, stat->pf_fast, stat->pf_mmio_spte_created };
	u64 word = 0;

	for (int n = 0; n < ARRAY_SIZE(counts); n++)
		word |= (counts[n] & 0xff) << 8 * n;
	return word;
}

/* The VM's counts of pages, 16 bits each: 4 KiB, 2 MiB, 1 GiB, and huge ones that are split for NX. */
static u64 flow_page_counts(void)
{
	const struct kvm_vm_stat *stat = &oracle_kvm->stat;
	const u64 counts[] = { atomic64_read(&stat->pages_4k), atomic64_read(&stat->pages_2m),
			       atomic64_read(&stat->pages_1g), stat->nx_lpage_splits };
	u64 word = 0;

	for (int n = 0; n < ARRAY_SIZE(counts); n++)
		word |= (counts[n] & 0xffff) << 16 * n;
	return word;
}

static u64 flow_fault(u64 addr, u64 error_code)
{
	oracle_world.emulated = 0;
	oracle_vcpu->arch.mmio_gva = oracle_vcpu->arch.mmio_gfn = 0;	/* the entry is asked, not the cache */
	return kernel_kvm_mmu_page_fault(oracle_vcpu, addr, error_code, NULL, 0);
}

/* SPTEs of the walk for addr, from the root: 4 words; tables made; a digest of all of them. */
static void flow_dump(u64 addr, u64 *out)
{
	struct kvm_mmu_page *sp = root_to_sp(oracle_vcpu->arch.mmu->root.hpa);
	u64 h = 0, pages = 0;

	memset(out, 0, 4 * sizeof(u64));
	for (int n = 0; sp && n < 4; n++) {
		u64 spte = sp->spt[(addr >> (PAGE_SHIFT + 9 * (sp->role.level - 1))) & 511];

		out[n] = told(spte, sp->role.level);
		if (!is_shadow_present_pte(spte) || is_last_spte(spte, sp->role.level))
			break;
		sp = spte_to_child_sp(spte);
	}
	for (int n = 0; n < pool_used; n++) {
		sp = page_of(n);
		if (!sp)
			continue;
		pages++;
		h = mix(mix(h, sp->gfn), sp->role.word);
		h = mix(h, sp->nx_huge_page_disallowed);
		for (int i = 0; i < 512; i++) {
			if (sp->spt[i] != SHADOW_NONPRESENT_VALUE)
				h = mix(mix(h, i), told(sp->spt[i], sp->role.level));
			if (!is_tdp_mmu_page(sp) && sp->shadowed_translation && sp->shadowed_translation[i] &&
			    sp->spt[i] != SHADOW_NONPRESENT_VALUE)
				h = mix(h, sp->shadowed_translation[i]);
		}
		if (!is_tdp_mmu_page(sp)) {
			h = mix(mix(mix(h, sp->unsync), sp->unsync_children), atomic_read(&sp->write_flooding_count));
			h = mix(h, pte_list_count(&sp->parent_ptes));
		}
	}
	out[4] = pages;
	out[5] = h;
}

/* Between two faults: 1 the entries on the way get a bit of the memory type wrong, 2 the memslots' generation moves on. */
static void flow_happens(u64 addr, u64 what)
{
	struct kvm_mmu_page *sp = root_to_sp(oracle_vcpu->arch.mmu->root.hpa);

	if (what & 2)
		oracle_memslots.generation += 2;
	while (sp && what & 1) {
		u64 *spte = &sp->spt[(addr >> (PAGE_SHIFT + 9 * (sp->role.level - 1))) & 511];
		const u64 was = *spte;

		if (!is_shadow_present_pte(was))
			break;
		*spte ^= 1 << VMX_EPT_MT_EPTE_SHIFT;
		sp = is_last_spte(was, sp->role.level) ? NULL : spte_to_child_sp(was);
	}
}

static u64 *flow_entry(u64 addr, int n)
{
	return &oracle_tables[n][(addr >> (39 - 9 * n)) & 511];
}

/* L1's tables for addr, 4 entries from the top; the others are zero before and after a case. */
static void flow_tables(u64 addr, const u64 *entries)
{
	for (int n = 0; n < 4; n++)
		*flow_entry(addr, n) = entries[n];
}

/* Eight entries: the first of them, its index added to the address; 0 for none. */
static void flow_eight(u64 *entry, u64 first)
{
	for (int i = 0; i < 8; i++)
		entry[i] = first ? first + ((u64)i << PAGE_SHIFT) : 0;
}

/* The entries around the leaf. */
static void flow_neighbours(u64 addr, u64 first)
{
	flow_eight(&oracle_tables[3][(addr >> PAGE_SHIFT) & 511 & ~7], first);
}

static void flow_end(u64 addr)
{
	flow_neighbours(addr, 0);
	flow_eight(oracle_flow_table(0), 0);
	flow_tables(addr, (const u64[4]){ 0 });
	tables_used = false;
	oracle_world.flow = false;
	oracle_vcpu->arch.mmu->root.hpa = INVALID_PAGE;
	oracle_vcpu->arch.hflags = 0;
}

/* The leaf tables that are shadowed, as __kvm_sync_page() brings them in step; its last answer, 0 for none. */
static u64 flow_sync(void)
{
	u64 gave = 0;

	for (int n = 0; n < pool_used; n++)
		if (page_of(n)->role.level == PG_LEVEL_4K && !page_of(n)->role.direct)
			gave = __kvm_sync_page(oracle_vcpu, page_of(n));
	return gave;
}

/* In an MMU of another role kvm_sync_page() cannot bring them in step: they go. */
static u64 flow_sync_other(void)
{
	struct kvm_mmu *mmu = oracle_vcpu->arch.mmu;
	LIST_HEAD(invalid);
	u64 gave = 0;

	mmu->root_role.ad_disabled ^= 1;
	for (int n = 0; n < pool_used; n++)
		if (page_of(n)->role.level == PG_LEVEL_4K && !page_of(n)->role.direct)
			gave = kvm_sync_page(oracle_vcpu, page_of(n), &invalid);
	mmu->root_role.ad_disabled ^= 1;
	kvm_mmu_commit_zap_page(oracle_kvm, &invalid);
	return gave;
}

/*
 * L2 faults; L1 changes its leaf entry; the leaf table may be synchronised, then or once more after another change;
 * L2 faults again.
 * in: address, first error code, second error code, flag, host's page size (level), slot: 1 read-only 2 dirty
 *     logging, what comes between: bits 1:0 times to synchronise (3: once, in an MMU of another role), bit 2 the leaf
 *     table gets out of step as by a write of L1, bit 3 the neighbours are there only then, from bit 4 on
 *     flow_happens(); 4 entries from the top; the leaf entry afterwards; the entry of the leaf's
 *     neighbours (their index is added to the address); the leaf entry after the first synchronising
 * out: first answer, second answer, what synchronising gave last, faults injected, error code, qualification
 *      and address of the last; 4 entries afterwards; SPTEs of the walk in 4 words, tables made, digest; counts
 */
ENTRY(shadow_fault, 14, 18)
{
	const u64 addr = in[0], sync = in[6] & 3;

	flow_begin(in[4], in[5] & 1, in[5] & 2);
	oracle_set_flag(oracle_vcpu, in[3]);
	oracle_vcpu->arch.hflags = HF_GUEST_MASK;
	oracle_world.writable = ~0ull;
	oracle_world.log_dirty_fails = 0;
	flow_neighbours(addr, in[6] & 8 ? 0 : in[12]);
	if (in[6] & 0x40)
		flow_eight(oracle_flow_table(0), in[12]);
	flow_tables(addr, in + 7);
	mmu_alloc_shadow_roots(oracle_vcpu);
	out[0] = flow_fault(addr, in[1]);
	if (in[6] & 4)
		kernel_mmu_try_to_unsync_pages(oracle_kvm, &oracle_slot, table_gfn[3], true, false);
	flow_happens(addr, in[6] >> 4 & 3);
	flow_neighbours(addr, in[12]);
	*flow_entry(addr, 3) = in[11];
	out[2] = sync == 3 ? flow_sync_other() : sync ? flow_sync() : 0;
	if (sync == 2) {
		*flow_entry(addr, 3) = in[13];
		out[2] = flow_sync();
	}
	out[1] = flow_fault(addr, in[2]);
	out[3] = injections;
	out[4] = injected.error_code;
	out[5] = injected.exit_qualification;
	out[6] = injected.address;
	for (int n = 0; n < 4; n++)
		out[7 + n] = *flow_entry(addr, n);
	flow_dump(addr, out + 11);
	out[17] = flow_counts();
	flow_end(addr);
}

/* L1 writes an entry to the n-th table from the top: trapped where that is shadowed as an upper table. */
static void flow_write(int n, int index, u64 entry)
{
	const gfn_t gfn = table_gfn[n];

	if (!kvm_gfn_is_write_tracked(oracle_kvm, &oracle_slot, gfn)) {
		kernel_mmu_try_to_unsync_pages(oracle_kvm, &oracle_slot, gfn, true, false);
		oracle_tables[n][index] = entry;
		return;
	}
	oracle_tables[n][index] = entry;
	kvm_mmu_track_write(oracle_vcpu, gfn_to_gpa(gfn) + index * sizeof(u64), (const u8 *)&entry, sizeof(entry));
}

/* What KVM does before it enters the guest again: a root that was zapped goes, and another is made and synchronised. */
static void flow_enter(void)
{
	struct kvm_mmu *mmu = oracle_vcpu->arch.mmu;

	kvm_mmu_free_obsolete_roots(oracle_vcpu);
	if (!VALID_PAGE(mmu->root.hpa)) {
		mmu_alloc_shadow_roots(oracle_vcpu);
		kvm_mmu_sync_roots(oracle_vcpu);
	}
}

/* L1 enters its guest by an EPT pointer that differs in enabling accessed/dirty bits, or by the first one again. */
static void flow_switch(bool other)
{
	oracle_pgd = l1_ept[3] ^ (other ? VMX_EPTP_AD_ENABLE_BIT : 0);
	kvm_init_shadow_ept_mmu(oracle_vcpu, l1_ept[0], l1_ept[1], l1_ept[2] ^ other, oracle_pgd);
	flow_enter();
}

static void flow_writes(u64 addr, const u64 *write)
{
	for (u64 n = 0; n < write[1]; n++)
		flow_write(write[0], (addr >> (39 - 9 * write[0])) & 511, write[2]);
	kvm_mmu_free_obsolete_roots(oracle_vcpu);
}

/*
 * L2 may fault on another address, 1 GiB further, then on this one; L1 may let another EPT pointer fault there too;
 * it writes an entry of one of its tables, once or several times, goes back to the first pointer, may have all roots
 * freed, writes another entry, and may go to the other pointer once more; all may be synchronised; L2 faults again.
 * in: address, first error code, second error code, flag, host's page size (level), the other address' entry of the
 *     second table (0: no such fault), another pointer (0: none, 1: at first, 2: in the end as well); table (0: the
 *     top), writes, the entry written; the same again;
 *     1 synchronise 2 free the roots, 4 entries from the top
 * out: first answer, second answer, faults injected, error code and qualification of the last; SPTEs of the walk in
 *      4 words, tables there, digest; counts
 */
ENTRY(shadow_write, 18, 12)
{
	const u64 addr = in[0], other = addr + (1ul << 30);
	struct kvm_mmu *mmu = oracle_vcpu->arch.mmu;

	flow_begin(in[4], false, false);
	oracle_set_flag(oracle_vcpu, in[3]);
	oracle_vcpu->arch.hflags = HF_GUEST_MASK;
	oracle_world.writable = ~0ull;
	oracle_world.log_dirty_fails = 0;
	flow_tables(addr, in + 14);
	mmu_alloc_shadow_roots(oracle_vcpu);
	if (in[5]) {
		*flow_entry(other, 1) = in[5];
		flow_fault(other, in[1]);
	}
	out[0] = flow_fault(addr, in[1]);
	if (in[6]) {
		flow_switch(true);
		flow_fault(addr, in[1]);
	}
	flow_writes(addr, in + 7);
	if (in[6])
		flow_switch(false);
	if (in[13] & 2) {
		kvm_mmu_free_roots(oracle_kvm, mmu, KVM_MMU_ROOTS_ALL);
		flow_enter();
	}
	flow_writes(addr, in + 10);
	if (in[6] == 2)
		flow_switch(true);
	flow_enter();
	if (in[13] & 1)
		kvm_mmu_sync_roots(oracle_vcpu);
	out[1] = flow_fault(addr, in[2]);
	out[2] = injections;
	out[3] = injected.error_code;
	out[4] = injected.exit_qualification;
	flow_dump(addr, out + 5);
	out[11] = flow_counts();
	if (in[6] == 2)
		flow_switch(false);
	*flow_entry(other, 1) = 0;
	for (int n = 0; n < KVM_MMU_NUM_PREV_ROOTS; n++)
		mmu->prev_roots[n] = KVM_MMU_ROOT_INFO_INVALID;
	flow_end(addr);
}

/*
 * L1 faults on KVM's own EPT; its pages may be aged, once or twice; it faults again.
 * in: address, first error code, second error code, flag, host's page size, slot as above, times it is aged, the page
 *     holds a guest's table that is shadowed, what else happens (flow_happens())
 * out: first answer, second answer, was young the first and (bit 1) the second time; SPTEs of the walk in 4 words,
 *      tables made, digest; the page in the dirty log + 1 of the first fault and of the second; counts, counts of
 *      pages, entries left
 */
ENTRY(tdp_fault, 9, 14)
{
	struct kvm_gfn_range range = { .slot = &oracle_slot, .start = in[0] >> PAGE_SHIFT };

	flow_begin(in[4], in[5] & 1, in[5] & 2);
	oracle_set_flag(oracle_vcpu, in[3]);
	oracle_world.logged = 0;
	tracked = range.start < RAM_GFNS ? range.start : 0;
	if (in[7] && range.start < RAM_GFNS) {
		write_track[tracked] = 1;
		kvm_mmu_gfn_disallow_lpage(&oracle_slot, tracked);
	}
	mmu_alloc_direct_roots(oracle_vcpu);
	out[0] = flow_fault(in[0], in[1]);
	out[9] = oracle_world.logged;
	range.end = range.start + 1;
	out[2] = 0;
	for (u64 n = 0; n < in[6]; n++)
		out[2] |= (u64)kvm_tdp_mmu_age_gfn_range(oracle_kvm, &range) << n;
	oracle_world.logged = 0;
	flow_happens(in[0], in[8]);
	out[1] = flow_fault(in[0], in[2]);
	flow_dump(in[0], out + 3);
	out[10] = oracle_world.logged;
	out[11] = flow_counts();
	out[12] = flow_page_counts();
	out[13] = left;
	flow_end(in[0]);
}

enum slot_work { SLOT_AGE, SLOT_WRPROT, SLOT_CLEAR_DIRTY, SLOT_CLEAR_DIRTY_MASKED, SLOT_SPLIT, SLOT_ZAP_COLLAPSIBLE };

static u64 slot_work(enum slot_work work, struct kvm_memory_slot *slot, int level, u64 gfn, u64 mask)
{
	struct kvm_gfn_range range = { .slot = slot, .start = slot->base_gfn, .end = slot->base_gfn + slot->npages };

	switch (work) {
	case SLOT_AGE:
		return kvm_tdp_mmu_age_gfn_range(oracle_kvm, &range);
	case SLOT_WRPROT:
		return kvm_tdp_mmu_wrprot_slot(oracle_kvm, slot, level);
	case SLOT_CLEAR_DIRTY:
		return kvm_tdp_mmu_clear_dirty_slot(oracle_kvm, slot);
	case SLOT_CLEAR_DIRTY_MASKED:
		kvm_tdp_mmu_clear_dirty_pt_masked(oracle_kvm, slot, gfn, mask, level > PG_LEVEL_4K);
		return 0;
	case SLOT_SPLIT:
		kvm_tdp_mmu_try_split_huge_pages(oracle_kvm, slot, range.start, range.end, level, false);
		return 0;
	default:
		kvm_tdp_mmu_zap_collapsible_sptes(oracle_kvm, slot);
		return 0;
	}
}

/*
 * L1 faults twice on KVM's own EPT; something is done to all of a slot; it faults again.
 * in: two addresses, three error codes (the third at the first address), host's page size, dirty logging before and
 *     after; what is done (enum slot_work), its level (a write-protecting mask: above 1), its mask from the first
 *     address' 64 pages on, the slot's first gfn and its pages, a page that holds a guest's table (0: none)
 * out: what it gave, last answer; SPTEs of the first address' walk in 4 words, tables there, digest; the page in the
 *      dirty log + 1 of the last fault; counts, counts of pages, entries left
 */
ENTRY(tdp_slot, 14, 12)
{
	struct kvm_memory_slot slot;

	flow_begin(in[5], false, in[6]);
	oracle_set_flag(oracle_vcpu, false);
	tracked = in[13];
	if (tracked) {
		write_track[tracked] = 1;
		kvm_mmu_gfn_disallow_lpage(&oracle_slot, tracked);
	}
	mmu_alloc_direct_roots(oracle_vcpu);
	flow_fault(in[0], in[2]);
	flow_fault(in[1], in[3]);
	slot = oracle_slot;
	slot.base_gfn = in[11];
	slot.npages = in[12];
	slot.arch.lpage_info[0] += slot.base_gfn >> 9;
	slot.arch.lpage_info[1] += slot.base_gfn >> 18;
	write_lock(&oracle_kvm->mmu_lock);
	out[0] = slot_work(in[8], &slot, in[9], in[0] >> PAGE_SHIFT & ~63ull, in[10]);
	write_unlock(&oracle_kvm->mmu_lock);
	oracle_slot.flags = in[7] ? KVM_MEM_LOG_DIRTY_PAGES : 0;
	oracle_world.logged = 0;
	out[1] = flow_fault(in[0], in[4]);
	flow_dump(in[0], out + 2);
	out[8] = oracle_world.logged;
	out[9] = flow_counts();
	out[10] = flow_page_counts();
	out[11] = left;
	flow_end(in[0]);
}
