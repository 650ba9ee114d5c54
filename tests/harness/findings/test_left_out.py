"""Causes from what kernels without a patch each answered."""

from __future__ import annotations

import json

from harness.findings.left_out import Became, LeavingOut, LeftOut, LeftOutPart, from_json


def without(
    *left_out: int, became: Became = Became.GONE, part: LeftOutPart = LeftOutPart.RULE, patch: int | None = None
) -> LeftOut:
    return LeftOut(left_out[0] if patch is None else patch, left_out, "left out", "", became, part)


def told(*rows: LeftOut) -> LeavingOut:
    return LeavingOut("mmio", 5, "1", "6.12.8", 3, rows)


def test_the_last_patch_brought_it_and_needs_the_others() -> None:
    found = told(without(1), without(2, became=Became.SHOWS), without(4))
    assert (found.patches, found.needs) == ((4,), (1,))
    text = "caused by patch 4: leaving it out takes it away, as does leaving out patch 1"
    assert str(found.cause) == text


def test_a_rule_goes_before_an_offer_and_an_offer_before_a_switch() -> None:
    switch, offer = without(4, part=LeftOutPart.SWITCH), without(3, part=LeftOutPart.OFFER)
    whole = told(without(2), offer, switch)
    assert (whole.patches, whole.needs) == ((2,), (3,))
    assert (told(offer, switch).patches, told(offer, switch).needs) == ((3,), ())
    assert told(switch).patches == (4,)


def test_a_tree_that_says_nothing_is_no_cause() -> None:
    found = told(without(1), without(3, became=Became.SILENT), without(4, became=Became.UNASKED))
    assert (found.patches, found.needs, found.silent) == ((1,), (), (3, 4))


def test_a_group_is_explained_by_its_member() -> None:
    found = told(without(1, 4), without(3), without(4))
    assert (found.patches, found.needs, found.builds_on) == ((4,), (3,), (1,))


def test_who_goes_out_alone_in_vain_is_no_part_of_a_group() -> None:
    found = told(without(2, 4), without(4, became=Became.SHOWS))
    assert (found.patches, found.needs) == ((2,), ())


def test_a_group_of_which_nothing_more_is_known_is_the_cause_together() -> None:
    found = told(without(2, 4), without(2, 4, patch=4))
    assert found.patches == (2, 4)
    assert str(found.cause) == "caused by patch 2 and 4: leaving them out together takes it away"


def test_nothing_that_takes_it_away() -> None:
    assert "no single patch" in str(told(without(1, became=Became.SHOWS)).cause)


def test_the_bases() -> None:
    assert str(LeavingOut("mmio", 5, "1", "6.12.8", 0).cause) == "the base has it"


def test_the_provenance_keeps_it() -> None:
    found = told(without(1, 4), without(3, part=LeftOutPart.OFFER))
    assert from_json(json.loads(json.dumps(found.as_json()))) == found
