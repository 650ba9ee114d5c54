"""arch/x86/kvm/mmu/page_track.c: guest pages whose writes KVM has to see."""

from __future__ import annotations

from kvmodel.include.asm.kvm_host import PG_LEVEL_4K, Vcpu


def kvm_gfn_is_write_tracked(vcpu: Vcpu, gfn: int) -> bool:
    """mmu/page_track.c kvm_gfn_is_write_tracked: an upper-level guest table at ``gfn`` is shadowed."""
    return any(sp.level > PG_LEVEL_4K for sp in vcpu.indirect.get(gfn, ()))
