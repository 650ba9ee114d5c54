"""The enlightened VMCS in use: which vmcs12 an entry goes by, what it takes, what it is refused for."""

import pytest

from kvmodel.include.asm.hyperv_tlfs import hv_enlightened_vmcs, hv_vp_assist_page
from kvmodel.include.asm.kvm_host import Vcpu
from kvmodel.machine import predict
from kvmodel.question.outcome import Kind
from kvmodel.question.reading import parse
from kvmodel.question.vector import AccessVector, EntryVector, Evmcs, Mbec, MsrVector, Perm
from kvmodel.vmx import nested, vmx
from kvmodel.vmx import nested_evmcs as e
from kvmodel.vmx.nested_ctls import LEAST, MOST, nested_vmx_setup_ctls_msrs
from tests.kvmodel.mirror import CPU, PML4, l1_at

EPT, MBEC = 1 << 1, 1 << 22
A, B = 0x5000, 0x6000


def enlightened(k: int, control: int = EPT, **more: int) -> Vcpu:
    """An L1 that has one enlightened VMCS and names it."""
    vcpu = l1_at(k, True)
    vcpu.guest_cpuid_has_evmcs = True
    vcpu.hv.vp_assist_page = hv_vp_assist_page(True, A)
    eptp = nested.vmcs12_eptp(PML4, ad=False)
    vcpu.hv.pages[A] = hv_enlightened_vmcs(secondary_vm_exec_control=control, ept_pointer=eptp, **more)
    return vcpu


def test_without_a_name_in_the_assist_page_the_plain_vmcs12_counts() -> None:
    vcpu = enlightened(0)
    for change in ("guest_cpuid_has_evmcs", "enlighten_vmentry", "vp_assist_page"):
        vcpu = enlightened(0)
        match change:
            case "guest_cpuid_has_evmcs":
                vcpu.guest_cpuid_has_evmcs = False
            case "enlighten_vmentry":
                vcpu.hv.vp_assist_page = hv_vp_assist_page(False, A)
            case _:
                vcpu.hv.vp_assist_page = None
        assert nested.nested_vmx_run(vcpu) == 0
        assert vcpu.hv.hv_evmcs is None and vcpu.vmcs12.secondary_vm_exec_control == 0


def test_the_entry_takes_controls_and_pointer_and_calls_all_clean() -> None:
    vcpu = enlightened(0, EPT, virtual_processor_id=3, vm_exit_controls=0x36DFF, vm_entry_controls=0x11FF)
    vcpu.vmcs12.guest_pml_index = 5
    assert nested.nested_vmx_run(vcpu) == 0
    v12 = vcpu.vmcs12
    assert (v12.secondary_vm_exec_control, v12.ept_pointer) == (EPT, nested.vmcs12_eptp(PML4, ad=False))
    assert (v12.virtual_processor_id, v12.vm_exit_controls, v12.vm_entry_controls) == (3, 0x36DFF, 0x11FF)
    assert v12.cpu_based_vm_exec_control == 1 << 31
    assert v12.guest_pml_index == 0  # no field of an enlightened VMCS: nothing of the vmcs12 before is left
    assert vcpu.hv.pages[A].hv_clean_fields == e.HV_VMX_ENLIGHTENED_CLEAN_FIELD_ALL


@pytest.mark.parametrize(
    ("group", "field"),
    [
        (e.HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_GRP1, "pin_based_vm_exec_control"),
        (e.HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_GRP1, "vm_exit_controls"),
        (e.HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_GRP1, "secondary_vm_exec_control"),
        (e.HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_PROC, "cpu_based_vm_exec_control"),
        (e.HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_ENTRY, "vm_entry_controls"),
        (e.HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_XLAT, "ept_pointer"),
        (e.HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_XLAT, "virtual_processor_id"),
    ],
)
def test_what_l1_calls_clean_stays_as_it_was_on_resume(group: int, field: str) -> None:
    vcpu = enlightened(0)
    assert nested.nested_vmx_run(vcpu) == 0
    page = vcpu.hv.pages[A]
    before = getattr(vcpu.vmcs12, field)
    setattr(page, field, 0x77)
    page.hv_clean_fields = group
    assert e.nested_vmx_handle_enlightened_vmptrld(vcpu, False) is e.EvmptrldStatus.EVMPTRLD_SUCCEEDED
    e.copy_enlightened_to_vmcs12(vcpu, page)
    assert getattr(vcpu.vmcs12, field) == before != 0x77
    page.hv_clean_fields = group
    assert e.nested_vmx_handle_enlightened_vmptrld(vcpu, True) is e.EvmptrldStatus.EVMPTRLD_SUCCEEDED
    e.copy_enlightened_to_vmcs12(vcpu, page)  # VMLAUNCH believes no clean field
    assert getattr(vcpu.vmcs12, field) == 0x77


def test_another_page_is_read_whole() -> None:
    vcpu = enlightened(0)
    assert nested.nested_vmx_run(vcpu) == 0
    vcpu.hv.pages[B] = hv_enlightened_vmcs(hv_clean_fields=0xFFFF)
    vcpu.hv.vp_assist_page = hv_vp_assist_page(True, B)
    assert nested.nested_vmx_run(vcpu, launch=False) == 0
    assert vcpu.hv.hv_evmcs_vmptr == B and vcpu.vmcs12.secondary_vm_exec_control == 0


def test_version_or_vmcs12s_revision() -> None:
    assert nested.nested_vmx_run(enlightened(0, revision_id=e.VMCS12_REVISION)) == 0
    vcpu = enlightened(0, revision_id=2)
    assert nested.nested_vmx_run(vcpu) == nested.VM_FAIL_INVALID
    assert vcpu.hv.hv_evmcs is None


@pytest.mark.parametrize(("k", "error"), [(15, 7), (16, 7), (17, 0), (18, 0)])
def test_bit_22_in_an_enlightened_vmcs(k: int, error: int) -> None:
    assert nested.nested_vmx_run(enlightened(k, EPT | MBEC)) == error
    assert nested.nested_vmx_run(enlightened(k, MBEC)) == 7


@pytest.mark.parametrize("ev", [Evmcs.OFFERED, Evmcs.USED])
@pytest.mark.parametrize("k", [0, 16, 17, 18])
def test_entries_by_either_vmcs_are_refused_alike(k: int, ev: Evmcs) -> None:
    on = predict(k, True, CPU, EntryVector(Mbec.ON, ev=ev)).outcome
    assert (on.kind, on.code) == ((Kind.DONE, 0) if k >= 17 else (Kind.ENTRY_FAIL, 7))
    assert predict(k, True, CPU, EntryVector(Mbec.ON, ev=ev, ept=False)).outcome.code == 7
    assert predict(k, True, CPU, EntryVector(Mbec.OFF, ev=ev)).outcome.kind is Kind.DONE


def test_a_prediction_tells_the_enlightened_entry() -> None:
    vector = AccessVector(Mbec.OFF, ev=Evmcs.USED, leaf=Perm.parse("----"))
    told = predict(0, None, CPU, vector, steps=True)
    assert told.outcome == predict(0, None, CPU, AccessVector(Mbec.OFF, leaf=Perm.parse("----"))).outcome
    assert "enlightened VMCS" in told.steps[0].what


def test_turns_of_a_sequence_on_enlightened_and_plain_vmcs12s() -> None:
    first = AccessVector(Mbec.OFF, leaf=Perm.parse("r---"), cpl=3).id
    text = f"seq.{first}+l1=rwxu.fetch.mbec=on.b+l1=----.mbec=off.a.noinv"
    answers = {}
    for ev in ("ev2", "ev1", "ev0"):  # in this order on one model: the plain entries come after the enlightened
        vector = parse(text.replace("ev0", ev))
        answers[ev] = predict(17, True, CPU, vector).outcome
        told = predict(17, True, CPU, vector, steps=True).steps
        assert any("enlightened" in step.what for step in told) == (ev == "ev2")
    assert answers["ev2"].kind is answers["ev0"].kind
    assert answers["ev1"] == answers["ev0"]


def test_control_msrs_as_offered_to_l1() -> None:
    vcpu = l1_at(0)
    read = {}
    for name, conf in (("least", LEAST), ("most", MOST)):
        nested_vmx_setup_ctls_msrs(vcpu.kvm, conf, vcpu.nested_msrs)
        for msr in (*range(0x481, 0x485), *range(0x48D, 0x491)):
            value = vmx.vmx_get_msr(vcpu, msr)
            assert value is not None
            assert value & 0xFFFFFFFF & ~(value >> 32) == 0  # what must be 1 may be 1
            read[name, msr] = value
    assert read["least", 0x481] == 0x5F << 32 | 0x16 and read["most", 0x481] == 0x7F << 32 | 0x16
    assert read["most", 0x482] ^ read["most", 0x48E] == 3 << 15  # TRUE: exits on CR3 accesses are L1's choice
    assert read["most", 0x483] ^ read["most", 0x48F] == read["most", 0x484] ^ read["most", 0x490] == 1 << 2
    vcpu.kvm.enable_apicv = True
    nested_vmx_setup_ctls_msrs(vcpu.kvm, MOST, vcpu.nested_msrs)
    assert vmx.vmx_get_msr(vcpu, 0x48D) == 0xFF << 32 | 0x16


def test_what_the_mirror_vouches_for_of_an_msr() -> None:
    plain = predict(0, None, CPU, MsrVector(msr=0x481)).outcome
    assert (plain.defined >> 37 & 1, plain.code >> 38 & 1) == (0, 1)  # the CPU's virtual NMIs; KVM's own timer
    for ev in (Evmcs.OFFERED, Evmcs.USED):
        pin = predict(0, None, CPU, MsrVector(msr=0x481, ev=ev)).outcome
        assert pin.defined >> 38 & 1 and not pin.code >> 38 & 1  # no preemption timer in an enlightened VMCS
        second = predict(0, None, CPU, MsrVector(msr=0x48B, ev=ev)).outcome
        assert second.defined >> 32 & 1 << 17 and not second.code >> 32 & 1 << 17  # no page-modification log either
        vmfunc = predict(0, None, CPU, MsrVector(msr=0x491, ev=ev)).outcome
        assert (vmfunc.code, vmfunc.defined) == (0, (1 << 64) - 1)
    assert predict(0, None, CPU, MsrVector(msr=0x491)).outcome.defined & 1 == 0
    with pytest.raises(ValueError, match="MSR 0x480 is not modelled: use 0x481"):
        predict(0, None, CPU, MsrVector(msr=0x480))
