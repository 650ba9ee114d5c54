"""What is asked of other environments."""

from harness.questions import environments
from harness.questions.parameters import TAKEN
from kvmodel.question.program import ProgramVector
from kvmodel.question.reading import parse
from kvmodel.question.vector import ENVIRONMENTS, PARAMETERS, AccessVector, CapsVector, ClientVector
from kvmodel.question.vm_entry import VmEntryVector


def test_every_parameter_is_asked_of_every_kind_and_not_by_the_thousand() -> None:
    asked = list(environments.module_parameters())
    assert len({v.id for v in asked}) == len(asked)
    for env in PARAMETERS:
        mine = [v for v in asked if v.machine.env is env]
        assert {AccessVector, ClientVector, CapsVector, ProgramVector, VmEntryVector} <= set(map(type, mine))
        assert 200 < len(mine) < 500


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
