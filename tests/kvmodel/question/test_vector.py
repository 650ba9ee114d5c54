"""Ids and vectors are inverses of each other, and a wrong id is refused with its reason."""

import pytest

from harness.questions.core import core
from kvmodel.question.reading import parse
from kvmodel.question.vector import (
    Access,
    AccessVector,
    ClientVector,
    Evmcs,
    GuestPerm,
    HostVector,
    Mbec,
    MsrVector,
    NxVector,
    Perm,
    VectorError,
    changed_fields,
)


def test_every_core_vector_is_read_back_from_its_id() -> None:
    for vector in core():
        assert parse(vector.id) == vector


def test_ids_are_distinct_and_lower_case() -> None:
    names = [v.id for v in core()]
    assert len(set(names)) == len(names) > 5000
    assert all(name == name.lower() for name in names)


def test_permission_bits_are_where_the_entry_has_them() -> None:
    assert Perm.parse("r--u").bits == 0x401
    assert Perm.parse("-wx-").bits == 0x006
    assert len({p.bits for p in Perm.all()}) == 16


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nonsense", "not a vector id"),
        (AccessVector().id.replace("e4k", "e2m"), "e4k goes with l1"),
        (AccessVector().id.replace(".read.", ".peek."), "access 'peek' is not known"),
        (AccessVector().id.replace("env=std", "env=moon"), "environment 'moon' is not known"),
        (AccessVector().id + ".more", "'more' is no field of an access of L2"),
        ("nxhuge." + AccessVector().id, "before an access with env=hugenx"),
        ("nxhuge.host.param.env=std", "not a vector id"),
    ],
)
def test_a_wrong_id_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(VectorError, match=reason):
        parse(text)


@pytest.mark.parametrize("text", ["rwx", "rwxx", "xwru"])
def test_wrong_permissions_are_refused(text: str) -> None:
    with pytest.raises(VectorError, match="in this order"):
        Perm.parse(text)
    with pytest.raises(VectorError, match="one of u/s"):
        GuestPerm.parse(text)


def test_machine_says_what_l1_is_offered() -> None:
    assert AccessVector(Mbec.OFF).machine.mbec_offered
    assert not AccessVector(Mbec.NA).machine.mbec_offered
    assert MsrVector(ev=Evmcs.OFFERED).machine.evmcs_offered
    assert MsrVector(ev=Evmcs.USED).machine == MsrVector(ev=Evmcs.OFFERED).machine != MsrVector().machine
    assert [MsrVector(ev=ev).id.split(".")[4] for ev in Evmcs] == ["ev0", "ev1", "ev2"]
    assert not ClientVector(env="cpu0").machine.env.cpu_mbec
    assert not HostVector("param", "ept0").machine.env.ept


def test_the_question_about_huge_pages_runs_where_its_access_does() -> None:
    assert NxVector().machine == NxVector().asked.machine
    assert NxVector().machine.env.nx_huge_pages
    assert parse(NxVector().id) == NxVector()


def test_walk_accesses_are_told_apart() -> None:
    assert [a for a in Access if a.is_walk] == [Access.WALK, Access.WALKA, Access.WALKD]
    assert [a for a in Access if a.is_emulated] == [Access.EMUREAD, Access.EMUWRITE, Access.EMUFETCH]


def test_changed_fields_names_what_differs() -> None:
    assert changed_fields(AccessVector(), AccessVector(cpl=3, access=Access.FETCH)) == ["access", "cpl"]
