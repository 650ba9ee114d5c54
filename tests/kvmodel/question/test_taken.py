"""Capabilities taken from L1: their names, their environments, and the machine that has each."""

import pytest

from harness.observe.qemu import cpu_option
from harness.questions.loads import plan
from harness.questions.parameters import Setting
from kvmodel.cpu import Cpu
from kvmodel.machine import predict, virtual_cpu
from kvmodel.question.outcome import Kind
from kvmodel.question.reading import parse
from kvmodel.question.taken import TAKEN
from kvmodel.question.vector import ENVIRONMENTS, AccessVector, VectorError
from kvmodel.series import Level


def test_each_has_an_environment_of_its_own_and_the_plain_host() -> None:
    assert len({taken.env for taken in TAKEN}) == len({(t.msr, t.bit) for t in TAKEN}) == len(TAKEN)
    for taken in TAKEN:
        env = ENVIRONMENTS[taken.env]
        assert env.taken is taken and env.host is ENVIRONMENTS["std"] and not env.common
        assert parse(f"caps.basic.env={taken.env}").machine.env is env
    assert all(env.host is env for env in ENVIRONMENTS.values() if env.taken is None)


def test_qemu_is_told_to_take_it() -> None:
    words = cpu_option(parse("e4k.env=no_ept_1gb").machine).split(",")
    assert words[-1] == "vmx-ept-1gb=off"
    assert not any("ept-1gb" in word for word in cpu_option(AccessVector().machine).split(","))


def test_all_of_them_are_one_load_of_the_modules_and_a_start_of_qemu_each() -> None:
    vectors = [AccessVector(), AccessVector(env="no_eptad"), AccessVector(env="no_ept_1gb"), AccessVector(env="ug0")]
    works = list(plan(vectors, [0], [Setting()]))
    assert [(w.load.env.name, len(w.batches)) for w in works] == [("std", 3), ("ug0", 1)]


def test_the_mirrors_l1_reads_the_msrs_without_it() -> None:
    def virtual(env: str) -> Cpu:
        return virtual_cpu(Level.of(18), True, Cpu(), parse(f"e4k.env={env}").machine)

    assert virtual("std").ept_1g and not virtual("no_ept_1gb").ept_1g
    assert virtual("std").ept_ad and not virtual("no_eptad").ept_ad
    assert virtual("std").unrestricted and not virtual("no_unrestricted_guest").unrestricted


def test_without_1_gib_pages_such_a_leaf_is_a_misconfiguration() -> None:
    def seen(text: str) -> Kind:
        return predict(0, None, Cpu(), parse(text)).outcome.kind

    assert seen("e1g.read.mbec=off.env=no_ept_1gb") is Kind.MISCONFIG
    assert seen("e1g.read.mbec=off") is Kind.DONE
    assert seen("e4k.read.ad1.mbec=off.env=no_eptad") is Kind.ENTRY_FAIL
    assert seen("e4k.read.mbec=off.env=no_page_walk_4") is Kind.ENTRY_FAIL


def test_a_name_that_is_none_gets_the_nearest() -> None:
    with pytest.raises(VectorError, match=r"'no_ept_1gig' is not known: use one of std, .*, as in no_ept_1gb"):
        parse("e4k.env=no_ept_1gig")
