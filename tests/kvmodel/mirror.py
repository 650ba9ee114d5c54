"""What the mirror's tests share: a CPU, KVM as loaded at a level, and an L2 on a shadow EPT."""

from __future__ import annotations

from kvmodel.cpu import Cpu
from kvmodel.include.asm.kvm_host import Kvm, Vcpu
from kvmodel.machine.vcpu import host_msrs
from kvmodel.series import Level
from kvmodel.vmx import nested, vmx

CPU = Cpu(maxphyaddr=40)
ALL_LEVELS = tuple(Level.of(k) for k in range(19))
PML4, PDPT, PD, PT = 0x11000, 0x12000, 0x13000, 0x15000
GPA = 1 << 30 | 2 << 21 | 3 << 12


def kvm_at(level: int, param: bool | None = None, cpu: Cpu = CPU, **load: bool) -> Kvm:
    """KVM of ``level`` on ``cpu``."""
    return vmx.load(Level.of(level), param, host_msrs(cpu), **load)


def l1_at(level: int, param: bool | None = None, cpu: Cpu = CPU, **load: bool) -> Vcpu:
    """An L1 vCPU there, with 4 GiB of RAM."""
    vcpu = vmx.vcpu_create(kvm_at(level, param, cpu, **load))
    vcpu.ram_gfns = 1 << 20
    return vcpu


def l2_at(level: int, param: bool | None = None, *, ad: bool = False, control: int = 2, **load: bool) -> Vcpu:
    """An L1 that has entered its L2 with these secondary controls."""
    vcpu = l1_at(level, param, **load)
    vcpu.vmcs12.secondary_vm_exec_control = control
    vcpu.vmcs12.ept_pointer = nested.vmcs12_eptp(PML4, ad=ad)
    assert nested.nested_vmx_run(vcpu) == 0
    return vcpu


def map_gpa(vcpu: Vcpu, leaf: int, *, upper: int = 0x707, level: int = 1) -> None:
    """EPT12 for GPA: ``leaf`` at ``level`` with its address, ``upper`` at the entry above it."""
    tables = {4: PML4, 3: PDPT, 2: PD, 1: PT}
    vcpu.memory = {}
    for n in range(4, level - 1, -1):
        entry = leaf if n == level else (upper if n == level + 1 else 0x707) | tables[n - 1]
        vcpu.memory[tables[n] + (GPA >> 12 + (n - 1) * 9 & 511) * 8] = entry
