"""Checks of mmu/mmu.c, mmu.h and the EPT flavour of mmu/paging_tmpl.h."""

from __future__ import annotations

import itertools
from typing import Final

from harness.oracle.specs.spaces import ACCESS, BOOL, MASK64, Bits, Space
from harness.oracle.specs.spec import EPTP, Mirror, Side, Spec, State, functions_of
from kvmodel import mmu_h
from kvmodel.include.asm.kvm_host import kvm_mmu, rsvd_bits_validate, x86_exception
from kvmodel.include.asm.kvm_host_role import kvm_mmu_extended_role
from kvmodel.mmu import mmu, mmu_fault, mmu_page, mmu_role, paging_tmpl
from kvmodel.mmu.mmu_internal import kvm_mmu_page, kvm_page_fault

PFERR: Final = Bits(0x7)  # present, write, user
FETCH: Final = 1 << 4
ACCESSES: Final = tuple(w | u | f for w in (0, 2) for u in (0, 4) for f in (0, FETCH))

# An EPT entry of L1: permissions, memory type, ignored and software bits, A/D, page size, address, high bits.
ENTRY: Final = Bits((0xFFF | 0xFF << 12 | 1 << 40 | 1 << 45 | 1 << 46 | 1 << 51 | 0xFFF << 52) & ~0x80)
LEAF: Final = Bits(0xFFF | 0xFF << 12 | 1 << 40 | 1 << 46 | 1 << 51 | 0xFFF << 52)
GOOD: Final = tuple(p | u | m for p in (1, 3, 5, 7, 4, 0, 2) for u in (0, 1 << 10) for m in (0, 0x300, 0x100))
EACH_BIT: Final = tuple(0x3B7 | 1 << n for n in range(12, 64))  # a leaf in either of the lower tables
FLAGGED: Final = (0x7, 0x107, 0x307)
LEAVES: Final = tuple(g | t for g in GOOD for t in (0x30, 0x30 | 0x80, 0, 0x10, 0x50))

SHADOW: Final = tuple(
    State(xo=True, ux=True, param=True, flag=False, shadow=True, l1_execonly=xo, l1_ad=ad, l1_huge=huge)
    for xo, ad, huge in itertools.product((False, True), (False, True), (1, 2, 3))
)


def words(permissions: list[int]) -> tuple[int, int]:
    """The function gives 16 bytes as two little-endian words."""
    raw = bytes(permissions)
    return int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little")


def reserved(check: rsvd_bits_validate) -> tuple[int, ...]:
    """The function gives struct rsvd_bits_validate as the entries give it."""
    return (*check.rsvd_bits_mask[0], *check.rsvd_bits_mask[1], check.bad_mt_xwr)


def extended(ext: kvm_mmu_extended_role) -> int:
    """The function gives the word of union kvm_mmu_extended_role: a bit a field, in the order of the C (checked by
    role_layout).
    """
    flags = (ext.valid, ext.execonly, ext.cr4_pse, ext.cr4_pke, ext.cr4_smap, ext.cr4_smep, ext.cr4_la57, ext.efer_lma)
    return sum(on << n for n, on in enumerate(flags))


def _layout(s: Side) -> Mirror:
    fields = s.kvm.roles.fields
    order = "level has_4_byte_gpte quadrant direct access invalid efer_nx cr0_wp smep_andnot_wp smap_andnot_wp"
    order += " ad_disabled guest_mode passthrough smm"

    def call(_: int) -> tuple[int, ...]:
        base = tuple(fields[n][1] << fields[n][0] for n in order.split())
        names = ["valid", "execonly", "cr4_pse", "cr4_pke", "cr4_smap", "cr4_smep", "cr4_la57", "efer_lma"]
        return (*base, *(extended(kvm_mmu_extended_role(**{n: True})) for n in names))

    return call


def _tdp(s: Side) -> Mirror:
    def call(_smm: int, guest_mode: int, maxphyaddr: int) -> tuple[int, ...]:
        s.vcpu.maxphyaddr = maxphyaddr
        s.vcpu.guest_mode = bool(guest_mode)
        context = s.vcpu.root_mmu
        context.sync_spte = paging_tmpl.sync_spte
        mmu_fault.init_kvm_tdp_mmu(s.vcpu)
        masks = reserved(context.shadow_zero_check)
        return context.cpu_role.base, context.root_role, *masks, context.sync_spte is not None

    return call


def _shadow(s: Side) -> Mirror:
    def call(execonly: int, huge: int, ad: int, eptp: int, gpa: int) -> tuple[int, ...]:
        s.vcpu.guest_mmu = context = kvm_mmu()
        context.pkru_mask, context.root_direct = 0xFFFF_FFFF, True
        s.vcpu.reserved_gpa_bits = gpa
        mmu_fault.kvm_init_shadow_ept_mmu(s.vcpu, bool(execonly), huge, bool(ad), eptp)
        return (
            context.cpu_role.base,
            extended(context.cpu_role.ext),
            context.root_role,
            context.pkru_mask,
            *words(context.permissions),
            *reserved(context.guest_rsvd_check),
            *reserved(context.shadow_zero_check),
            context.root_direct,
        )

    return call


def _bitmask(_: Side) -> Mirror:
    context = kvm_mmu()

    def call(ept: int, smep: int, smap: int, wp: int, nx: int) -> tuple[int, ...]:
        context.cr4_smep, context.cr4_smap, context.cr0_wp, context.efer_nx = bool(smep), bool(smap), bool(wp), bool(nx)
        mmu_role.update_permission_bitmask(context, bool(ept))
        return words(context.permissions)

    return call


def _reserved(_: Side) -> Mirror:
    check = rsvd_bits_validate()

    def call(bits: int, execonly: int, huge: int) -> tuple[int, ...]:
        getattr(mmu_role, "__reset_rsvds_bits_mask_ept")(check, bits, bool(execonly), huge)
        return reserved(check)

    return call


def _child(s: Side) -> Mirror:
    make = s.kvm.roles.make

    def call(
        level: int,
        four: int,
        direct: int,
        access: int,
        ad: int,
        guest: int,
        passthrough: int,
        index: int,
        d: int,
        a: int,
    ) -> tuple[int]:
        parent = make(
            level=level,
            has_4_byte_gpte=four,
            direct=direct,
            access=access,
            ad_disabled=ad,
            guest_mode=guest,
            passthrough=passthrough,
        )
        if four and level != 2:
            s.vcpu.warns.append("kvm_mmu_child_role")  # in C a WARN; the mirror has no such guest
        return (mmu_role.kvm_mmu_child_role(s.kvm, parent, bool(d), a, index),)

    return call


def _cpu_role(s: Side) -> Mirror:
    def call(cr0: int, cr4: int, efer: int, smm: int, guest_mode: int) -> tuple[int, ...]:
        role = mmu_role.kvm_calc_cpu_role(s.kvm, cr0, cr4, efer, bool(smm), bool(guest_mode))
        return role.base, extended(role.ext)

    return call


def _sync(s: Side) -> Mirror:
    def call(role: int, root: int) -> tuple[int]:
        page = kvm_mmu_page(0, 0, role, s.kvm.roles)
        s.vcpu.mmu.root_role = root
        ok = mmu_role.kvm_sync_page_check(s.vcpu, page)
        if not ok:
            s.vcpu.warns.append("kvm_sync_page_check")  # in C a refusal is a WARN
        return (ok,)

    return call


def _allowed(s: Side) -> Mirror:
    def call(entry: int, fetch: int, write: int, user: int, flag: int) -> tuple[int]:
        s.set_flag(flag)
        code = (FETCH if fetch else 0) | (2 if write else 0) | (4 if user else 0)
        return (mmu.is_access_allowed(kvm_page_fault(0, code, False, True, False), entry, s.vcpu),)

    return call


def _mmio(s: Side) -> Mirror:
    def call(entry: int, generation: int) -> tuple[int, ...]:
        s.kvm.generation = generation
        return (
            mmu.get_mmio_spte_gfn(s.kvm, entry),
            mmu.get_mmio_spte_access(s.kvm, entry),
            mmu.check_mmio_spte(s.kvm, entry),
        )

    return call


def _update(s: Side) -> Mirror:
    sp = kvm_mmu_page(0, 0, s.kvm.roles.make(level=1), s.kvm.roles)

    def call(old: int, new: int) -> tuple[int, ...]:
        sp.spt = {0: old}
        return mmu_page.mmu_spte_update(s.vcpu, sp, 0, new), sp.spt[0]

    return call


def _fast(s: Side) -> Mirror:
    return lambda code: (mmu.page_fault_can_be_fast(s.kvm, kvm_page_fault(0, code, False, True, False)),)


def _gpte(s: Side) -> Mirror:
    vcpu = s.vcpu

    def call(entry: int, level: int) -> tuple[int, ...]:
        context = vcpu.guest_mmu
        return (
            paging_tmpl.gpte_access(vcpu, entry),
            paging_tmpl.is_present_gpte(entry),
            paging_tmpl.is_last_gpte(level, entry),
            paging_tmpl.is_bad_mt_xwr(context, entry),
            paging_tmpl.is_rsvd_bits_set(context, entry, level),
        )

    return call


class _Tables(dict[int, int]):
    """L1's memory as the image has it: the n-th entry read is the n-th given, whatever its address."""

    def __init__(self, entries: tuple[int, ...]) -> None:
        super().__init__()
        self.entries = list(entries)
        self.read: list[int] = []  # addresses, in order
        self.written = 0  # levels that were written, or passed over for good

    def get(self, address: int, default: int = 0) -> int:  # type: ignore[override]
        self.read.append(address)
        return self.entries[len(self.read) - 1]

    def __getitem__(self, address: int) -> int:
        # What is about to be written: it lacks the accessed flag, or it is the last, which may lack the dirty flag.
        last = len(self.read) - 1
        return next(
            self.entries[n]
            for n in range(self.written, last + 1)
            if self.read[n] == address and (n == last or not self.entries[n] & 0x100)
        )

    def __setitem__(self, address: int, entry: int) -> None:
        # Two levels may read one address: the entry that is written is the one that only lacks what is added,
        # accessed and dirty, and levels are written once, in the order in which they were read.
        for n in range(self.written, len(self.read)):
            added = entry ^ self.entries[n]
            if self.read[n] == address and added and not added & ~(entry & 0x300):
                self.entries[n], self.written = entry, n + 1
                return
        raise AssertionError(f"the walk writes {entry:#x}, which is none of the entries it read with A and D added")


class _Missing(frozenset[int]):
    """L1's memory as the image has it: the n-th table asked for is in no memslot where bit n is set."""

    mask: int
    asked: int

    def __new__(cls, mask: int) -> _Missing:
        found = super().__new__(cls)
        found.mask, found.asked = mask, 0
        return found

    def __contains__(self, gfn: object) -> bool:
        self.asked += 1
        return self.mask >> self.asked - 1 & 1 != 0


def _walk(s: Side) -> Mirror:
    vcpu = s.vcpu
    vcpu.ram_gfns = 1 << 52

    def call(addr: int, access: int, flag: int, inv: int, _wr: int, full: int, *entries: int) -> tuple[int, ...]:
        s.set_flag(flag)
        vcpu.invisible = _Missing(inv)
        vcpu.stat = {}
        vcpu.write_log_dirty = (lambda *_: bool(full)) if full else None
        tables = vcpu.memory = _Tables(entries)
        walker = paging_tmpl.guest_walker()
        ok = paging_tmpl.walk_addr_generic(walker, vcpu, vcpu.guest_mmu, addr, access)
        fault = walker.fault
        return (
            ok,
            walker.level,
            walker.gfn,
            walker.pte_access,
            fault.error_code,
            fault.exit_qualification,
            fault.address,
            fault.nested_page_fault,
            *tables.entries,
            *walker.pt_access[:4],
            vcpu.stat.get("mark_page_dirty", 0),
            *walker.ptes[:4],
        )

    return call


def _translate(s: Side) -> Mirror:
    vcpu = s.vcpu
    vcpu.ram_gfns = 1 << 52

    def call(addr: int, access: int, flag: int, *entries: int) -> tuple[int, ...]:
        s.set_flag(flag)
        vcpu.write_log_dirty = None
        vcpu.memory = _Tables(entries)
        fault = x86_exception()
        gpa = paging_tmpl.gva_to_gpa(vcpu, vcpu.guest_mmu, addr, access, fault)
        return MASK64 if gpa is None else gpa, fault.error_code, fault.exit_qualification, fault.address, gpa is None

    return call


_m: Final = functions_of("mmu/mmu.c")
_p: Final = functions_of("mmu/paging_tmpl.h")
WALK: Final = _p("walk_addr_generic", "update_accessed_dirty_bits", "gpte_to_gfn_lvl")
ADDRESS: Final = Bits(((1 << 48) - 1) & -4096)
# Of an SPTE: R, W, A, D, no use of A and D, host-writable, MMU-writable.
CHANGING: Final = 0x3 | 0x300 | 1 << 52 | 3 << 57
PRESENT: Final = 1 << 11

SPECS: Final = (
    Spec("role_layout", ("include/asm/kvm_host.h union kvm_mmu_page_role",), Space(((0,),)), _layout),
    Spec(
        "init_kvm_tdp_mmu",
        (
            *_m("init_kvm_tdp_mmu", "kvm_calc_tdp_mmu_root_page_role", "reset_tdp_shadow_zero_bits_mask"),
            *_m("kvm_mmu_get_tdp_level", "reserved_hpa_bits"),
        ),
        Space(((0,), BOOL, tuple(range(36, 53)))),
        _tdp,
        tuple(State(ad=ad, huge=h, maxphyaddr=w) for ad in (False, True) for h in (1, 2, 3) for w in (36, 46, 52)),
    ),
    Spec(
        "kvm_init_shadow_ept_mmu",
        (
            *_m("kvm_init_shadow_ept_mmu", "kvm_calc_shadow_ept_root_page_role", "reset_rsvds_bits_mask_ept"),
            *_m("reset_ept_shadow_zero_bits_mask"),
        ),
        Space((BOOL, (1, 2, 3), BOOL, (EPTP, 0x1000 | 6 | 4 << 3), tuple(MASK64 & -(1 << w) for w in range(36, 53)))),
        _shadow,
        tuple(State(huge=h, maxphyaddr=w) for h in (1, 2, 3) for w in (36, 46, 52)),
    ),
    Spec(
        "kvm_calc_cpu_role",
        _m("kvm_calc_cpu_role"),
        Space((Bits(1 << 31 | 1 << 16 | 1), Bits(0x20 | 0x10 | 1 << 12 | 7 << 20), Bits(0xD00), BOOL, BOOL)),
        _cpu_role,
    ),
    Spec("update_permission_bitmask", _m("update_permission_bitmask", "BYTE_MASK"), Space((BOOL,) * 5), _bitmask),
    Spec(
        "permission_fault",
        ("mmu.h permission_fault",),
        Space(
            (
                ACCESS,
                tuple(a | p | i for a in ACCESSES for p in BOOL for i in (0, 1 << 48, 1 << 32)),
                (0, 1 << 18, 1 << 9),
            )
        ),
        lambda s: lambda access, code, flags: (mmu_h.permission_fault(s.vcpu.guest_mmu, access, code, flags),),
        SHADOW,
    ),
    Spec(
        "__reset_rsvds_bits_mask_ept",
        (*_m("__reset_rsvds_bits_mask_ept"), "include/linux/wordpart.h REPEAT_BYTE"),
        Space((Bits(), BOOL, (1, 2, 3))),
        _reserved,
    ),
    Spec(
        "kvm_mmu_child_role",
        _m("kvm_mmu_child_role"),
        Space(((2, 3, 4, 5), BOOL, BOOL, ACCESS, BOOL, BOOL, BOOL, (0, 1, 511), BOOL, ACCESS)),
        _child,
    ),
    Spec(
        "kvm_sync_page_check",
        _m("kvm_sync_page_check"),
        Space((Bits(0xFFFFFFFF), Bits(0xFFFFFFFF))),
        _sync,
        (State(shadow=True),),
    ),
    Spec(
        "kvm_sync_page_check",
        _m("kvm_sync_page_check"),
        Space((Bits(0x000FFFFF & ~0x80, 0x20000), (0x20000, 0x60000, 0x20004))),
        _sync,
        (State(shadow=True),),
    ),
    Spec(
        "is_access_allowed",
        _m("is_access_allowed"),
        Space((Bits(), BOOL, BOOL, BOOL, BOOL)),
        _allowed,
        tuple(State(ad=ad, xo=xo, ux=ux) for ad, xo, ux in itertools.product((False, True), repeat=3)),
    ),
    Spec(
        "mmio_spte",
        (*_m("get_mmio_spte_gfn", "get_mmio_spte_access", "check_mmio_spte"), "mmu/spte.h get_mmio_spte_generation"),
        Space((Bits(), Bits((1 << 20) - 1 | 1 << 63))),
        _mmio,
        (State(), State(ept=False), State(l1tf=True, cache_bits=46), State(ux=True, param=True, xo=False)),
    ),
    Spec(
        "mmio_spte",
        _m("check_mmio_spte"),
        Space((Bits(0x7F8), Bits(0xFF))),
        _mmio,
    ),
    # While the memslots change no generation is good.
    Spec("mmio_spte", _m("check_mmio_spte"), Space((Bits(0x38), Bits(0x7 | 1 << 63))), _mmio),
    Spec(
        "mmu_spte_update",
        _m("mmu_spte_update", "mmu_spte_update_no_track"),
        Space((Bits(CHANGING | PRESENT), Bits(CHANGING, PRESENT))),
        _update,
        (State(), State(ad=False)),
    ),
    Spec(
        "mmu_spte_update",
        _m("mmu_spte_update_no_track"),
        Space(((PRESENT | 0x101, 0x101), Bits(0x103 | 1 << 57 | 1 << 63))),
        _update,
    ),
    Spec(
        "page_fault_can_be_fast",
        (*_m("page_fault_can_be_fast"), "mmu/spte.h kvm_ad_enabled"),
        Space((Bits(0x1F | 1 << 32),)),
        _fast,
        (State(), State(ad=False), State(ept=False)),
    ),
    Spec(
        "ept_gpte",
        _p("gpte_access", "is_present_gpte", "is_last_gpte", "is_bad_mt_xwr", "is_rsvd_bits_set"),
        Space((Bits(), (1, 2, 3, 4, 5))),
        _gpte,
        SHADOW,
    ),
    Spec(
        "ept_protect_clean_gpte",
        _p("protect_clean_gpte", "PT_HAVE_ACCESSED_DIRTY"),
        Space((ACCESS, Bits(0xFFF))),
        lambda s: lambda access, entry: (paging_tmpl.protect_clean_gpte(s.vcpu.guest_mmu, access, entry),),
        SHADOW,
    ),
    Spec(
        "ept_walk_addr_generic",
        WALK,
        Space((ADDRESS, ACCESSES, BOOL, (0,), (0xF,), BOOL, GOOD, GOOD, LEAVES, LEAVES)),
        _walk,
        SHADOW,
    ),
    Spec(
        "ept_walk_addr_generic",
        WALK,
        Space((ADDRESS, ACCESSES, BOOL, (0,), (0xF,), BOOL, ENTRY, ENTRY, LEAF, LEAF)),
        _walk,
        SHADOW,
    ),
    Spec(
        "ept_gva_to_gpa",
        _p("gva_to_gpa"),
        Space((Bits((1 << 48) - 1), ACCESSES, BOOL, GOOD, GOOD, LEAVES, LEAVES)),
        _translate,
        SHADOW,
    ),
    Spec(
        "ept_walk_addr_generic",
        _p("gpte_to_gfn_lvl"),
        Space(((0x4040_3000,), (0,), (0,), (0,), (0xF,), (0,), (0x307,), (0x307,), (0x307, *EACH_BIT), EACH_BIT)),
        _walk,
        (State(shadow=True, maxphyaddr=52),),
    ),
    # L1 permits all, and its accessed and dirty flags are there or not.
    Spec(
        "ept_walk_addr_generic",
        _p("update_accessed_dirty_bits"),
        Space(((0x4040_3000,), (0, 2, 4), BOOL, (0,), (0xF,), BOOL, *(FLAGGED,) * 3, tuple(e | 0x30 for e in FLAGGED))),
        _walk,
        SHADOW,
    ),
    # One of L1's tables is where there is no memory.
    Spec(
        "ept_walk_addr_generic",
        WALK,
        Space(((0x4040_3000,), ACCESSES, (0,), tuple(range(16)), (0xF,), (0,), *((0x307, 0x5, 0),) * 4)),
        _walk,
        SHADOW[:1],
    ),
)
