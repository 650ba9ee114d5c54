"""What each erratum changes in a walk, and that it changes nothing else."""

from __future__ import annotations

from itertools import product

from kvmodel.cpu import Cpu
from kvmodel.sdm import ept, errata
from kvmodel.sdm.access import Use

from .test_ept import LETTERS, USES, table


def differing(name: str) -> list[tuple[str, Use, bool, bool, int, ept.Walked, ept.Walked]]:
    sound, sick = Cpu(), Cpu(errata=frozenset({name}))
    found = []
    for leaf, use, mbec, ad, level, extra in product(
        LETTERS, USES, (False, True), (False, True), (1, 2, 3), (0, 1 << 12, 1 << 13)
    ):
        entries = table(leaf, level=level, extra=extra)
        good = ept.walk(sound, entries, use, mbec=mbec, ad=ad)
        bad = ept.walk(sick, entries, use, mbec=mbec, ad=ad)
        if good != bad:
            found.append((leaf, use, mbec, ad, extra, good, bad))
    assert found, f"{name} changes nothing"
    return found


def test_names_are_described() -> None:
    names = {errata.BIT6_DATA, errata.LARGE_BIT12, errata.WALK_AD_BIT0, errata.UPDATE_UNCHECKED}
    assert names == set(errata.ERRATA)


def test_user_execute_shown_as_bit_13() -> None:
    for leaf, use, mbec, _, _, good, bad in differing(errata.BIT6_DATA):
        assert mbec and use is not Use.FETCH and "u" in leaf
        assert isinstance(good, ept.Violation) and isinstance(bad, ept.Violation)
        assert good.qualification ^ bad.qualification == 0x2040 and bad.qualification & 0x2000
        assert good.defined == bad.defined


def test_bit_12_of_a_large_page_passes() -> None:
    for _, _, _, _, extra, good, bad in differing(errata.LARGE_BIT12):
        assert extra == 1 << 12
        assert isinstance(good, ept.Misconfig) and good.rule == "ept-reserved" and good.level > 1
        assert not isinstance(bad, ept.Misconfig)


def test_a_walks_violation_loses_bit_0() -> None:
    for _, use, _, ad, _, good, bad in differing(errata.WALK_AD_BIT0):
        assert use in (Use.WALK, Use.UPDATE) and ad
        assert isinstance(good, ept.Violation) and isinstance(bad, ept.Violation)
        assert good.qualification & 3 == 3 and bad.qualification == good.qualification & ~1


def test_an_update_is_not_checked() -> None:
    for _, use, _, ad, _, good, bad in differing(errata.UPDATE_UNCHECKED):
        assert use is Use.UPDATE and not ad
        assert isinstance(good, ept.Violation) and good.rule == "ept-permission"
        assert isinstance(bad, ept.Translated)
