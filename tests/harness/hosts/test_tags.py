"""Tags of places: how they are written, what matches, and which one is named where nothing does."""

from __future__ import annotations

import pytest

from harness.errors import InputError
from harness.hosts import address
from harness.hosts.tags import parse_tags

PLACES = {
    "lab1": {"cpu": "skylake", "mbec": "yes"},
    "lab2": {"cpu": "icelake", "mbec": "yes"},
    "lab3": {"cpu": "haswell", "mbec": "no", "site": "b"},
}


def matching(text: str) -> list[str]:
    tags = parse_tags(text)
    return [name for name, own in PLACES.items() if tags.match(name, own)]


def test_a_place_has_all_the_tags() -> None:
    assert matching("labgrid:mbec=yes") == ["lab1", "lab2"]
    assert matching("labgrid:cpu=skylake, mbec=yes") == ["lab1"]
    assert matching("labgrid:name=lab2") == ["lab2"]
    assert matching("labgrid:cpu=skylake,mbec=no") == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("labgrid:", "'' is no tag: write KEY=VALUE,..., as in labgrid:cpu=skylake,mbec=yes"),
        ("labgrid:skylake", "'skylake' is no tag"),
        ("labgrid:cpu=skylake,ssh://root@lab1", "'ssh://root@lab1' is no tag"),
        ("labgrid:cpu=skylake,cpu=icelake", "names the tag cpu twice"),
        ("labgrid:cpu=a b", "'cpu=a b' is no tag"),
    ],
)
def test_what_is_no_tag_is_refused_by_name(text: str, why: str) -> None:
    with pytest.raises(InputError) as caught:
        address.check(text)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("labgrid:cpu=sapphire,mbec=yes",
         "no place has cpu=sapphire (there is cpu=haswell, cpu=icelake, cpu=skylake)"),
        ("labgrid:socket=lga4677,mbec=yes", "no place has socket=lga4677 (no place has a tag socket)"),
        ("labgrid:cpu=skylake,mbec=no",
         "no place has all of cpu=skylake mbec=no: lab1 lacks mbec=no; lab2 lacks cpu=skylake mbec=no; "
         "lab3 lacks cpu=skylake"),
        ("labgrid:name=lab9", "no place has name=lab9 (there is name=lab1, name=lab2, name=lab3)"),
    ],
)  # fmt: skip
def test_the_tag_that_cannot_be_had_is_named(text: str, why: str) -> None:
    assert parse_tags(text).refused(PLACES) == why


def test_a_coordinator_without_places_is_said() -> None:
    assert "knows no place" in parse_tags("labgrid:cpu=skylake").refused({})
