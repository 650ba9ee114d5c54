"""What is asked of other environments."""

from harness.questions import environments
from harness.questions.parameters import TAKEN
from kvmodel.cpu import Cpu
from kvmodel.question.ids import short
from kvmodel.question.outcome import NotApplicable
from kvmodel.question.program import ProgramVector
from kvmodel.question.reading import parse
from kvmodel.question.vector import ENVIRONMENTS, PARAMETERS, AccessVector, CapsVector, ClientVector
from kvmodel.question.vm_entry import VmEntryVector
from kvmodel.sdm import allowed


def test_every_parameter_is_asked_of_every_kind_and_not_by_the_thousand() -> None:
    asked = list(environments.module_parameters())
    assert len({v.id for v in asked}) == len(asked)
    for env in PARAMETERS:
        mine = [v for v in asked if v.machine.env is env]
        assert {AccessVector, ClientVector, CapsVector, ProgramVector, VmEntryVector} <= set(map(type, mine))
        assert 200 < len(mine) < 600


def test_the_plain_host_is_asked_the_same_vm_entries() -> None:
    asked = list(environments.module_parameters())
    plain = {str(v.changes) for v in asked if isinstance(v, VmEntryVector) and v.env == "std"}
    assert plain == {str(v.changes) for v in asked if isinstance(v, VmEntryVector) and v.env == "pml0"}


def test_programs_keep_their_steps_and_call_the_host_where_its_logging_is_another() -> None:
    asked = [v for v in environments.module_parameters() if isinstance(v, ProgramVector)]
    assert {p.env for p in asked if p.calls_host} == {"pml0"}
    assert all(parse(p.id) == p for p in asked)


def test_a_parameter_of_an_environment_is_not_given_by_name() -> None:
    assert ("kvm_intel", "unrestricted_guest") in TAKEN
    assert all(("kvm_intel", name) in TAKEN for env in PARAMETERS for name, _ in env.parameters)
    assert ENVIRONMENTS["ug0"].parameters == (("unrestricted_guest", "0"),)


def test_what_rests_on_a_capability_is_asked_with_it_taken() -> None:
    short_ids = {short(v.id) for v in environments.without_capability()}
    assert {
        "e1g.l3=rwxu.read.mbec=off.env=no_ept_1gb",
        "e4k.l1=rwxu.read.ad1.mbec=off.env=no_eptad",
        "vmentry.ept_pointer:s6.mbec=off.env=no_eptad",
        "vmentry.vm_entry_controls:c2.mbec=off.env=no_true_ctls",
        "vmentry.pml_address=101d000+secondary_vm_exec_control:s17.mbec=off.env=no_pml",
        "caps.secondary-exist.mbec=off.env=no_secondary_ctls",
    } <= short_ids
    assert any(name.startswith("prog.env=no_invept+invept1") for name in short_ids)


def test_capabilities_taken_are_judged_by_what_is_kvms_own() -> None:
    for relation in ("misc", "pml-needs-ept", "invept-types"):
        found = allowed(Cpu(msrs=(0,) * 18), CapsVector(env="no_ept", relation=relation))
        assert isinstance(found, NotApplicable) and found.rule == "na-capability-taken"
    assert not isinstance(allowed(Cpu(msrs=(0,) * 18), CapsVector(env="no_ept", relation="true-exist")), NotApplicable)


def test_without_the_msrs_nothing_is_foreseen_of_a_capability_taken() -> None:
    for text in ("e4k.env=no_page_walk_4", "prog.env=no_invept+invept1.r0", "prog.env=vpid0+invvpid1.1.a0"):
        found = allowed(Cpu(), parse(text))
        assert isinstance(found, NotApplicable) and found.rule == "na-msrs-not-read"
