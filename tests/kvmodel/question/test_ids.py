"""The short form of an id: one for each vector, read in any order of its fields, and never another vector's."""

from __future__ import annotations

import random

import pytest

from harness.questions import core
from kvmodel.question.ids import expanded, named_fields, short
from kvmodel.question.reading import parse
from kvmodel.question.vector import (
    Access,
    AccessVector,
    ClientSequence,
    ClientVector,
    EntryVector,
    HostVector,
    Mbec,
    NxVector,
    Perm,
    VectorError,
)

EVERY = [vector.id for vector in core.full()]


def test_every_vector_has_a_short_form_of_its_own() -> None:
    forms = [short(name) for name in EVERY]
    assert len(set(forms)) == len(EVERY)
    assert [expanded(form) for form in forms] == EVERY
    assert all(short(form) == form for form in forms)


def test_fields_are_read_in_any_order() -> None:
    draw = random.Random(7)
    for name in draw.sample([n for n in EVERY if n.startswith("e")], 300):
        first, *rest = short(name).split(".")
        draw.shuffle(rest)
        assert parse(".".join([first, *rest])).id == name


@pytest.mark.parametrize(
    ("text", "vector"),
    [
        ("e4k.l1=r--u.fetch.mbec=on", AccessVector(leaf=Perm.parse("r--u"), access=Access.FETCH)),
        ("e4k.cpl3", AccessVector(cpl=3)),
        ("e4k.l3=r---", AccessVector(upper_level=3, upper=Perm.parse("r---"))),
        ("e2m", AccessVector(leaf_level=2, upper_level=3)),
        ("entry.mbec=na", EntryVector(Mbec.NA)),
        ("host.param", HostVector("param")),
        ("cli.real.fetch", ClientVector("real", Access.FETCH)),
        ("cli.long.m4k.fetch", ClientSequence()),
        ("cli.long.m2m.read+log", ClientSequence(memory="2m", steps=("read", "log"))),
        ("nxhuge.e2m", NxVector()),
    ],
)
def test_a_field_left_out_has_its_plain_value(text: str, vector: object) -> None:
    assert parse(text) == vector


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("e4k.l1=r--u.l1=rwxu", "'l1=rwxu': leaf entry is given twice, first as 'l1=r--u'"),
        ("e4k.frob", r"'frob' is no field of an access of L2; its fields are leaf entry \(l1=rwxu\)"),
        ("e2m.l1=r---", "'l1=r---' is no field"),
        ("msr.mbec=on", "lacks its MSR"),
        ("nxhuge.e2m.env=std", "goes before an access with env=hugenx"),
        ("seq.msr+same", "is not a vector id"),
        ("frob", "one begins with e4k, e2m, e1g, entry, vmentry, vmexit, msr"),
        ("", "is not a vector id"),
        ("e4k..fetch", "'' is no field"),
    ],
)
def test_what_is_no_id_is_told_word_by_word(text: str, reason: str) -> None:
    with pytest.raises(VectorError, match=reason):
        parse(text)


def test_fields_have_names() -> None:
    rows = dict(named_fields("seq.e4k.l1=r--u.fetch+l1=rwxu.noinv"))
    assert (rows["leaf entry"], rows["CPL"], rows["turn"]) == ("l1=r--u", "cpl0", "l1=rwxu.noinv")
