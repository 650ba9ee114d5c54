"""``kvmirror where``: twenty functions picked at random, every one, lines of C, of the mirror and of patches."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from harness.cli import where
from harness.cli.main import main
from harness.errors import InputError
from harness.oracle.check import places
from kvmodel import mirrors

REGISTRY = list(mirrors.registry().values())
PICKED = random.Random(14).sample(REGISTRY, 20)
TREE = {
    "arch/x86/kvm/mmu/spte.c": "int a;\n\nbool make_spte(struct kvm_vcpu *vcpu,\n\t       int b)\n{\n\tx();\n}\n"
    "\nvoid not_mirrored(void)\n{\n}\n"
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("mirror", PICKED, ids=lambda m: m.name)
def test_a_function_is_found_where_it_is(mirror: mirrors.Mirror, capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()
    assert main(["where", "--json", mirror.function]) == 0
    assert time.monotonic() - begun < 10
    found = json.loads(capsys.readouterr().out)["places"]
    (own,) = [
        p for p in found if p["mirror"] == places.python_file(mirror) and p["mirror_line"] == places.python_line(mirror)
    ]
    assert own["function"] == mirror.function and tuple(own["patches"]) == mirror.patches
    line = Path(own["mirror"]).read_text().splitlines()[own["mirror_line"] - 1]
    assert line.startswith(f"def {mirror.name}(")


def test_every_function_is_found_by_both_its_names() -> None:
    for mirror in REGISTRY:
        for name in (mirror.name, mirror.function):
            lines = [place.mirror_line for place in where.places_of(name, None)]
            assert places.python_line(mirror) in lines, name


def test_make_spte(tree: Path) -> None:
    (place,) = where.places_of("make_spte", tree)
    line = places.python_line(places.of_function("make_spte")[0])
    assert str(place) == f"kvmodel/mmu/spte.py:{line}  arch/x86/kvm/mmu/spte.c:3 make_spte  patches 15"
    assert where.places_of("mmu/spte.c:6", tree) == [place]
    assert where.places_of("arch/x86/kvm/mmu/spte.c:4", tree) == [place]
    assert where.places_of(f"kvmodel/mmu/spte.py:{line + 20}", tree) == [place]
    (without,) = where.places_of("make_spte", None)
    assert without.c_line is None and "spte.c make_spte" in str(without)


def test_a_line_of_c_without_a_mirror(tree: Path) -> None:
    (place,) = where.places_of("mmu/spte.c:10", tree)
    assert str(place) == "not mirrored  arch/x86/kvm/mmu/spte.c:9 not_mirrored"
    (place,) = where.places_of("mmu/spte.c:1", tree)
    assert "(outside any function)" in str(place)


def test_without_the_source_a_file_has_all_its_functions() -> None:
    found = where.places_of("mmu/tdp_iter.h:1", None)
    assert [place.function for place in found] == ["for_each_tdp_pte_min_level"]


def test_a_line_of_a_patch() -> None:
    (patch,) = Path("patches").glob("0015-*.patch")
    lines = patch.read_text().splitlines()
    row = next(n for n, line in enumerate(lines, 1) if line.startswith("+") and "shadow_ux_mask" in line)
    (place,) = where.places_of(f"{patch}:{row}", None)
    assert (place.function, place.patches) == ("make_spte", (15,))


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("make_spt", "did you mean make_spte, make_spte_executable"),
        ("make_sqte", "did you mean make_spte"),
        ("xyzzy", "check --list"),
        ("mmu/spte.c:none", "must be the number of a line"),
        ("mmu/spte.c:0", "must be the number of a line"),
        ("mmu/spte.c:999", "has 11 lines"),
        ("mmu/spte.d:1", "did you mean mmu/spte.h"),
        ("zzz:1", "such as"),
        ("kvmodel/mmu/sptes.py:1", "there is no kvmodel/mmu/sptes.py"),
        ("kvmodel/mmu/spte.py:1", "is in no function"),
        ("0099-none.patch:3", "no patch file 0099-none.patch"),
    ],
)
def test_bad_input_is_named(what: str, why: str, tree: Path) -> None:
    with pytest.raises(InputError, match=why) as told:
        where.places_of(what, tree)
    assert what in str(told.value)


def test_a_line_above_the_diff_is_refused() -> None:
    (patch,) = Path("patches").glob("0015-*.patch")
    with pytest.raises(InputError, match="part of no hunk"):
        where.places_of(f"{patch}:1", None)


def test_that_the_source_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KVMIRROR_CACHE", str(tmp_path))
    assert main(["where", "make_spte"]) == 0
    assert where.NO_SOURCE in capsys.readouterr().out
