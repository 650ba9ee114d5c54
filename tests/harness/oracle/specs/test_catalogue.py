"""The checks as data: they fit the glue, name what exists, and what they leave out has a reason."""

from __future__ import annotations

import re

import pytest

from harness.cli.check import chosen, ranges
from harness.errors import InputError
from harness.oracle.check import constants as constants_check
from harness.oracle.check import reach
from harness.oracle.image import constants
from harness.oracle.image.build import CUT_TAIL, GLUE
from harness.oracle.specs.catalogue import SPECS
from harness.oracle.specs.spec import Spec
from kvmodel.series import Level

GLUED = [path.read_text() for path in (*GLUE.glob("*.c"), *GLUE.glob("*.h"))]
ENTRIES = {
    name: (int(words_in), int(words_out))
    for text in (*GLUED, CUT_TAIL)
    for name, words_in, words_out in re.findall(r"^ENTRY\((\w+), (\d+), (\d+)\)", text, re.M)
}


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.entry)
def test_a_check_fits_its_entry(spec: Spec) -> None:
    words_in, words_out = ENTRIES[spec.entry]
    assert len(spec.space.columns) == words_in
    assert all(n < words_out for n in spec.outputs)
    for state in spec.states:
        for entry, row in state.calls():
            assert len(row) == ENTRIES[entry][0], entry


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.entry)
def test_a_mirror_function_gives_the_words_compared(spec: Spec) -> None:
    side = spec.states[0].side(Level.of(18))
    row = tuple(c[0] if isinstance(c, tuple) else c.base for c in spec.space.columns)
    assert len(spec.mirror(side)(*row)) == (len(spec.outputs) or ENTRIES[spec.entry][1])


def test_every_checked_function_is_one_the_mirror_has() -> None:
    unknown = reach.reached(SPECS) - set(reach.mirrored())
    assert unknown <= {"include/asm/kvm_host.h union kvm_mmu_page_role"}


def test_what_no_check_names_is_listed() -> None:
    left = reach.unreached(SPECS)
    assert "mmu/spte.c make_spte" not in left
    assert "vmx/nested.c nested_vmx_run" in left


def test_checks_are_chosen_by_entry_or_function() -> None:
    assert {s.entry for s in chosen("make_spte")} == {"make_spte"}
    assert {s.entry for s in chosen("gpte_access")} == {"ept_gpte"}
    assert len(chosen("")) == len(SPECS)
    with pytest.raises(InputError, match="no check is called 'nonesuch'"):
        chosen("nonesuch")


def test_levels_are_printed_as_ranges() -> None:
    assert ranges([0, 2, 3, 4, 7]) == "0,2-4,7"


def test_names_come_from_macros_and_enumerators(tmp_path: object) -> None:
    text = "#define VMX_EPT_FOO 0x1\n#define VMX_EPT_FN(x) (x)\n#define KVM_X86_MMU_SPTE_H\n# define ACC_BAR 2\n"
    assert constants._DEFINE.findall(text) == ["VMX_EPT_FOO", "ACC_BAR"]
    assert constants._ENUMERATOR.findall("enum {\n\tRET_PF_RETRY = 0,\n\tRET_PF_FIXED,\n};\n") == [
        "RET_PF_RETRY",
        "RET_PF_FIXED",
    ]


def test_a_constant_that_differs_is_told() -> None:
    same, wrong = constants_check.compare(Level.of(18), {"ACC_ALL": 0xF, "VMX_EPT_READABLE_MASK": 2, "NOT_MIRRORED": 3})
    assert same == 1
    assert {(d.name, d.c, d.mirror) for d in wrong} == {("VMX_EPT_READABLE_MASK", 2, 1)}
    assert constants_check.compare(Level.of(8), {"ACC_ALL": 0x7})[0] == 1
