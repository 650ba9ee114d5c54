"""From a vector to the mirror's prediction: the KVM of one level, on one CPU, with one guest.

The way in: ``predict``, ``events``, ``warns`` and ``virtual_cpu``. The vCPU and its loop are in ``machine_vcpu``, L2 in
``machine_l2``, the small client's sequences in ``machine_client``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Final

from kvmodel.bits import BIT, GENMASK
from kvmodel.cpu import Cpu
from kvmodel.include.asm.kvm_host import Vcpu
from kvmodel.include.asm.vmx import (
    SECONDARY_EXEC_ENABLE_EPT,
    SECONDARY_EXEC_MODE_BASED_EPT_EXEC,
    SECONDARY_EXEC_UNRESTRICTED_GUEST,
    VMX_EPT_1GB_PAGE_BIT,
    VMX_EPT_2MB_PAGE_BIT,
    VMX_EPT_AD_BIT,
    VMX_EPT_EXECUTE_ONLY_BIT,
)
from kvmodel.machine import client, l2, program
from kvmodel.machine.vcpu import DONE, GPT, L1_GPA, TARGET, l1_run, l1_trouble, loaded
from kvmodel.mmu import mmutrace
from kvmodel.question.outcome import (
    Kind,
    Outcome,
    Prediction,
    Step,
    not_mirrored,
    parameter,
    parameter_lost,
    text_value,
)
from kvmodel.question.program import ProgramVector
from kvmodel.question.sequence import SequenceVector
from kvmodel.question.vector import (
    AccessVector,
    CapsVector,
    ClientSequence,
    ClientVector,
    EntryVector,
    HostVector,
    LogVector,
    Machine,
    MmioVector,
    MsrVector,
    NxVector,
    UserCapsVector,
    UserMsrVector,
    Vector,
)
from kvmodel.question.vm_entry import VmEntryVector
from kvmodel.question.vm_exit import VmExitVector
from kvmodel.sdm.access import PAGING_OFF, Linear, Use
from kvmodel.sdm.contract import FINAL_USE
from kvmodel.sdm.host import left_behind
from kvmodel.sdm.relations import judged
from kvmodel.series import Level
from kvmodel.vmx.hyperv import nested_evmcs_filter_control_msr
from kvmodel.vmx.nested import vmx_get_vmx_msr
from kvmodel.vmx.nested_ctls import LEAST, MOST, nested_vmx_setup_ctls_msrs
from kvmodel.vmx.vmx import vcpu_create, vmx_get_msr

MSR_PROCBASED_CTLS2: Final = 0x48B
MSR_EPT_VPID_CAP: Final = 0x48C
MSR_VMFUNC: Final = 0x491

# Bits of an MSR that the mirror vouches for, where the CPU's share and QEMU's are not all known.
DEFINED: Final = {
    MSR_PROCBASED_CTLS2: GENMASK(31, 0) | BIT(33) | BIT(39) | BIT(54),
    MSR_EPT_VPID_CAP: BIT(0) | BIT(6) | BIT(14) | BIT(16) | BIT(17) | BIT(20) | BIT(21) | BIT(22),
    MSR_VMFUNC: GENMASK(63, 1),
}
MIRRORED_RELATIONS: Final = ("mbec-needs-ept", "unrestricted-needs-ept")  # of bits that DEFINED has
TAKEN_WITH: Final = not_mirrored("what QEMU takes from L1 with a capability")
_MMIO_GPA: Final = 0xFEB0_0000


def _l1_msrs(level: Level, param: bool | None, cpu: Cpu, machine: Machine) -> Vcpu:
    vcpu = vcpu_create(loaded(level, param, cpu, machine.env.name))
    l2.mask_by_user_space(vcpu, machine)
    return vcpu


def _reading(vcpu: Vcpu, msr: int) -> Outcome:
    """``msr`` as L1 reads it, with the bits that the mirror vouches for.

    Of the controls other than secondary the CPU's share is not known: a bit counts where it is the same with the
    least and with the most that KVM takes from a CPU. What the eVMCS filter clears counts whatever was there.
    """
    values = []
    for conf in (LEAST, MOST):
        nested_vmx_setup_ctls_msrs(vcpu.kvm, conf, vcpu.nested_msrs)
        value = vmx_get_msr(vcpu, msr)
        if value is None:
            raise ValueError(f"MSR {msr:#x} is not modelled: use 0x481 to 0x484 or 0x48b to 0x491")
        values.append(value)
    least, most = values
    defined = DEFINED.get(msr, GENMASK(63, 0) & ~(least ^ most))
    if vcpu.guest_cpuid_has_evmcs:
        defined |= GENMASK(63, 0) & ~nested_evmcs_filter_control_msr(vcpu, msr, GENMASK(63, 0))
    return Outcome(Kind.VALUE, least, defined=defined)


def _msr(level: Level, param: bool | None, cpu: Cpu, v: MsrVector, want_steps: bool) -> Prediction:
    if trouble := l1_trouble(level, param, cpu, v.machine.env.name):
        return Prediction(trouble)
    if v.machine.env.taken is not None:
        return Prediction(TAKEN_WITH)
    vcpu = _l1_msrs(level, param, cpu, v.machine)
    outcome = _reading(vcpu, v.msr)
    steps = (Step("vmx/nested.c vmx_get_vmx_msr", str(outcome), 0),) if want_steps else ()
    return Prediction(outcome, steps)


def _caps(level: Level, param: bool | None, cpu: Cpu, v: CapsVector | UserCapsVector, want_steps: bool) -> Prediction:
    """Relations of the MSRs whose every bit the mirror knows; of the others KVM sets up more than is followed."""
    if isinstance(v, CapsVector) and (trouble := l1_trouble(level, param, cpu, v.machine.env.name)):
        return Prediction(trouble)
    if v.machine.env.taken is not None:
        return Prediction(TAKEN_WITH)
    if v.relation not in MIRRORED_RELATIONS:
        return Prediction(not_mirrored("vmx/nested.c nested_vmx_setup_ctls_msrs"))
    if isinstance(v, CapsVector):
        value = _reading(_l1_msrs(level, param, cpu, v.machine), MSR_PROCBASED_CTLS2).code
    else:
        told = vmx_get_vmx_msr(loaded(level, param, cpu, v.env).vmcs_config.nested, MSR_PROCBASED_CTLS2)
        assert told is not None
        value = told
    outcome = replace(judged(v.relation, {MSR_PROCBASED_CTLS2: value}), note="")
    steps = (Step("vmx/nested.c nested_vmx_setup_ctls_msrs", f"MSR 0x48b: {value:#x}", 0),) if want_steps else ()
    return Prediction(outcome, steps)


def _mmio(level: Level, param: bool | None, cpu: Cpu, v: MmioVector, want_steps: bool) -> Prediction:
    env = v.machine.env.name
    if trouble := l1_trouble(level, param, cpu, env):
        return Prediction(trouble)
    if not loaded(level, param, cpu, env).enable_ept:
        return Prediction(DONE)
    run = l1_run(level, param, cpu, env)
    run.vcpu.ram_gfns = _MMIO_GPA >> 12
    run.vcpu.steps = [] if want_steps else None
    outcome = run.access(_MMIO_GPA, FINAL_USE[v.access], Linear(user=False), TARGET) or DONE
    return Prediction(outcome, tuple(run.vcpu.steps or ()), run.exits)


def _client(level: Level, param: bool | None, cpu: Cpu, v: ClientVector, want_steps: bool) -> Prediction:
    if not loaded(level, param, cpu, v.env).enable_ept:
        return Prediction(DONE)
    run = l1_run(level, param, cpu, v.env)
    run.vcpu.steps = [] if want_steps else None
    paging = v.mode == "long"
    code = Linear(user=False) if paging else PAGING_OFF
    page = Linear(user=v.page == "u") if paging else PAGING_OFF
    outcome = run.access(L1_GPA, Use.FETCH, code, TARGET)
    if outcome is None and paging:
        outcome = run.access(L1_GPA + 0x10000, Use.WALK, page, GPT)
    if outcome is None:
        outcome = run.access(L1_GPA + 0x20000, FINAL_USE[v.access], page, TARGET)
    return Prediction(outcome or DONE, tuple(run.vcpu.steps or ()), run.exits)


def _client_sequence(level: Level, param: bool | None, cpu: Cpu, v: ClientSequence, want_steps: bool) -> Prediction:
    if not loaded(level, param, cpu, v.env).enable_ept:
        return Prediction(replace(DONE, defined=0))  # shadow paging is not followed, nor what it counts
    run = l1_run(level, param, cpu, v.env)
    run.vcpu.steps = [] if want_steps else None
    outcome = client.sequence(run.vcpu, run.access, v)
    return Prediction(outcome, tuple(run.vcpu.steps or ()), run.exits)


def _user_msr(level: Level, param: bool | None, cpu: Cpu, v: UserMsrVector, want_steps: bool) -> Prediction:
    vcpu = vcpu_create(loaded(level, param, cpu, v.env))
    vcpu.steps = [] if want_steps else None
    value, refused = client.user_msr(vcpu, v)
    known = DEFINED[v.msr] | GENMASK(63, 0) << 64
    return Prediction(Outcome(Kind.VALUE, value | refused << 64, defined=known), tuple(vcpu.steps or ()))


def _host(level: Level, param: bool | None, cpu: Cpu, v: HostVector) -> Prediction:
    kvm = loaded(level, param, cpu, v.env)
    if v.what == "param":
        if not level.has(3):
            return Prediction(parameter(None))
        return Prediction(parameter(kvm.enable_pt_guest_exec_control))
    if v.what in ("taccess", "tspte"):
        return Prediction(
            text_value(
                mmutrace.access_strings(kvm) if v.what == "taccess" else (mmutrace.kvm_mmu_set_spte_format(kvm),)
            )
        )
    msr = MSR_PROCBASED_CTLS2 if v.what == "m48b" else MSR_EPT_VPID_CAP
    value = vmx_get_vmx_msr(kvm.vmcs_config.nested, msr)
    assert value is not None
    return Prediction(Outcome(Kind.VALUE, value, defined=DEFINED[msr]))


def _removed(level: Level, param: bool | None, cpu: Cpu, v: HostVector, want_steps: bool) -> Prediction:
    """What is left in the tables of small pages that a huge page replaces, as the CPU would read it."""
    if not loaded(level, param, cpu, v.env).enable_ept:
        return Prediction(DONE)  # no TDP MMU, which alone leaves a mark in what it takes down
    run = l1_run(level, param, cpu, v.env)
    found = client.removed(run.vcpu, run.access)
    outcome = left_behind(found, mbec=run.mbec)
    if not want_steps:
        return Prediction(outcome)
    by = 6 if run.mbec else 0
    return Prediction(
        outcome,
        (
            Step("vmx/vmx.c vmx_secondary_exec_control", f"the guest runs with MBEC {'on' if run.mbec else 'off'}", by),
            Step("mmu/tdp_mmu.c handle_removed_pt", f"{len(found)} entries become {found[0][1]:#x}", 0),
        ),
    )


def _reload(level: Level, param: bool | None, cpu: Cpu, v: HostVector, want_steps: bool) -> Prediction:
    """kvm.ko's parameter while kvm-intel.ko is loaded with ept=0, taken out and loaded again."""
    if not level.has(3):
        return Prediction(DONE)
    before = loaded(level, param, cpu, v.env).enable_pt_guest_exec_control
    left = loaded(level, param, cpu, "ept0").enable_pt_guest_exec_control
    after = loaded(level, left, cpu, v.env).enable_pt_guest_exec_control
    outcome = DONE if after == before else parameter_lost(before, after)
    step = Step("vmx/vmx.c vmx_hardware_setup", f"with ept=0 it leaves the parameter {'NY'[left]} in kvm.ko", 6)
    return Prediction(outcome, (step,) if want_steps and left != before else ())


def predict(level: Level | int, param: bool | None, cpu: Cpu, vector: Vector, *, steps: bool = False) -> Prediction:
    """The mirror's answer to ``vector`` at ``level`` with the parameter unset, 0 or 1, on the CPU under KVM.

    ``cpu`` is the hardware (its errata included); the vector's environment may take features from it.
    ``steps=True`` asks for the rules used on the way. A HostVector's parameter is VALUE 'Y', 'N' or 0 (absent).
    """
    lv = Level.of(level) if isinstance(level, int) else level
    match vector:
        case AccessVector():
            return l2.access(l2.context_of(lv, param, cpu), vector, steps)
        case ProgramVector():
            return program.predicted(l2.context_of(lv, param, cpu), vector, steps)
        case SequenceVector():
            return l2.sequence(l2.context_of(lv, param, cpu), vector, steps)
        case NxVector():
            return l2.nx(l2.context_of(lv, param, cpu), vector, steps)
        case EntryVector():
            return l2.entry(l2.context_of(lv, param, cpu), vector, steps)
        case VmEntryVector() | VmExitVector():
            trouble = l2.context_of(lv, param, cpu).blocked(vector.env)
            return Prediction(trouble or not_mirrored("vmx/nested.c nested_vmx_run"))
        case MsrVector():
            return _msr(lv, param, cpu, vector, steps)
        case CapsVector() | UserCapsVector():
            return _caps(lv, param, cpu, vector, steps)
        case MmioVector():
            return _mmio(lv, param, cpu, vector, steps)
        case ClientVector():
            return _client(lv, param, cpu, vector, steps)
        case ClientSequence():
            return _client_sequence(lv, param, cpu, vector, steps)
        case UserMsrVector():
            return _user_msr(lv, param, cpu, vector, steps)
        case HostVector(what="removed"):
            return _removed(lv, param, cpu, vector, steps)
        case HostVector(what="log"):
            return Prediction(DONE)
        case LogVector():
            return Prediction(not_mirrored("the kernel's log"))
        case HostVector(what="reload"):
            return _reload(lv, param, cpu, vector, steps)
        case _:
            return _host(lv, param, cpu, vector)


def events(level: Level | int, param: bool | None, cpu: Cpu, vector: AccessVector) -> tuple[tuple[str, str], ...]:
    """(tracepoint, its text) that KVM emits for ``vector``'s access, in order; empty where L2 never gets so far.

    From the entry's root table on, of L2's exits at the address under test. Texts are those of mmutrace.h and trace.h;
    addresses of tables and pages are this model's own: compare with them normalised.
    """
    lv = Level.of(level) if isinstance(level, int) else level
    context = l2.context_of(lv, param, cpu)
    if context.blocked(vector.env) or context.guest(vector, ad=vector.ad, ept=True).error:
        return ()
    vcpu = context.guest(vector, ad=vector.ad, ept=True).vcpu
    return tuple((name, mmutrace.text(vcpu, name, args)) for name, args in l2.traced(context, vector))


def warns(level: Level | int, param: bool | None, cpu: Cpu, vector: AccessVector) -> tuple[str, ...]:
    """The WARNs that KVM hits for ``vector``'s access, each by its C file and function, once."""
    lv = Level.of(level) if isinstance(level, int) else level
    context = l2.context_of(lv, param, cpu)
    if context.blocked(vector.env) or context.guest(vector, ad=vector.ad, ept=True).error:
        return ()
    l2.access(context, vector, False)
    return tuple(dict.fromkeys(context.guest(vector, ad=vector.ad, ept=True).vcpu.warns))


def virtual_cpu(level: Level | int, param: bool | None, cpu: Cpu, machine: Machine) -> Cpu:
    """The CPU as L1 reads it on this level, parameter and machine: what the contract is held against.

    KVM offers L1 no errata: those of the hardware reach L1 only by what KVM makes of them.
    """
    return _virtual_cpu(Level.of(level) if isinstance(level, int) else level, param, cpu, machine)


@lru_cache(maxsize=1 << 10)
def _virtual_cpu(level: Level, param: bool | None, cpu: Cpu, machine: Machine) -> Cpu:
    vcpu = _l1_msrs(level, param, cpu, machine)
    secondary = (vmx_get_msr(vcpu, MSR_PROCBASED_CTLS2) or 0) >> 32
    caps = vmx_get_msr(vcpu, MSR_EPT_VPID_CAP) or 0
    return Cpu(
        vmx=True,
        ept=secondary & SECONDARY_EXEC_ENABLE_EPT != 0,
        mbec=secondary & SECONDARY_EXEC_MODE_BASED_EPT_EXEC != 0,
        execonly=caps & VMX_EPT_EXECUTE_ONLY_BIT != 0,
        ept_2m=caps & VMX_EPT_2MB_PAGE_BIT != 0,
        ept_1g=caps & VMX_EPT_1GB_PAGE_BIT != 0,
        ept_ad=caps & VMX_EPT_AD_BIT != 0,
        advanced_info=caps & BIT(22) != 0,
        unrestricted=secondary & SECONDARY_EXEC_UNRESTRICTED_GUEST != 0,
        maxphyaddr=cpu.maxphyaddr,
    )
