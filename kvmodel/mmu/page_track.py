"""arch/x86/kvm/mmu/page_track.c: guest pages whose writes KVM has to see."""

from __future__ import annotations

from kvmodel.include.asm.kvm_host import PG_LEVEL_4K, Vcpu
from kvmodel.mirrors import mirrors


@mirrors("mmu/page_track.c kvm_gfn_is_write_tracked")
def kvm_gfn_is_write_tracked(vcpu: Vcpu, gfn: int) -> bool:
    """An upper-level guest table at ``gfn_t gfn`` is shadowed: True."""
    return any(sp.level > PG_LEVEL_4K for sp in vcpu.indirect.get(gfn, ()))
