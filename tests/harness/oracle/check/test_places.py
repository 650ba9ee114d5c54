"""Places: C as it is read by its columns, patches by their hunks, and what the mirror declares against them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.oracle.check import places
from harness.series import folder
from kvmodel import mirrors

C = """\
static inline int helper(int a);
#define WIDE(x) \\
\t((x) << 3)

int helper(int a)
{
\treturn other(a);
}

TRACE_EVENT(
\tkvm_event,
\tTP_PROTO(int a)
);
static bool FNAME(walk)(struct walker *w,
\t\t\tint a)
{
}
""".splitlines()


def test_a_line_is_in_the_function_that_was_begun() -> None:
    inside = list(places.names(C))
    assert inside[:4] == ["", "WIDE", "WIDE", ""]
    assert inside[4:8] == ["helper"] * 4
    assert inside[8] == ""
    assert inside[10:12] == ["kvm_event"] * 2
    assert inside[13:] == ["walk"] * 4
    assert next(places.names(["\tx = 1;"], "static int handle_ept_violation(struct kvm_vcpu *vcpu)")) == (
        "handle_ept_violation"
    )


def test_definitions_are_found(tmp_path: Path) -> None:
    (tmp_path / "f.c").write_text("\n".join(C))
    assert places.c_line(tmp_path, "f.c", "helper") == 5
    assert places.c_line(tmp_path, "f.c", "kvm_event") == 10
    assert places.c_line(tmp_path, "f.c", "walk") == 14
    assert places.c_line(tmp_path, "f.c", "other") == 7  # nowhere defined: where it is named
    assert places.c_line(tmp_path, "f.c", "nowhere") is None
    assert places.c_line(tmp_path, "g.c", "helper") is None
    assert places.c_function(tmp_path, "f.c", 7) == "helper"
    assert places.c_function(tmp_path, "f.c", 99) == ""


TOUCHED = places.touched(places.changes(folder.read()))
MIRRORED = {
    c: {patch for other in mirrors.registry().values() if c in other.origins for patch in other.patches}
    for mirror in mirrors.registry().values()
    for c in mirror.origins
}


def told(c: str) -> set[int]:
    file, _, function = c.partition(" ")
    return TOUCHED.get((mirrors.kernel_path(file), function), set())


def test_the_patches_tell_enough() -> None:
    assert told("mmu/spte.c make_spte") == {15}
    assert told("vmx/vmx.c handle_ept_violation") == {2, 11}
    assert told("mmu/mmutrace.h kvm_mmu_set_spte") == {14}
    assert sum(bool(told(c)) for c in MIRRORED) >= 20


@pytest.mark.parametrize("c", MIRRORED)
def test_a_function_declares_the_patches_that_change_it(c: str) -> None:
    assert told(c) <= MIRRORED[c]


@pytest.mark.parametrize("c", [c for c in MIRRORED if MIRRORED[c]])
def test_what_is_declared_is_in_the_patch(c: str) -> None:
    """By its function, or, where the patch changes something around it alone, by its file."""
    path = mirrors.kernel_path(c.partition(" ")[0])
    files = {patch.number: patch.files for patch in folder.read().patches}
    assert not [number for number in MIRRORED[c] if path not in files[number]]
