"""Levels without a patch: what goes out alone, what goes with it, and what cannot be built."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from harness.build import kernel, variants
from harness.build.cache import Cache
from harness.build.kernel import BaseKernel
from harness.series import How, Series, leaving_out
from harness.series import folder as series_io
from tests.harness.build.test_modules import base, cache
from tests.harness.series.mail_samples import mail
from tests.harness.series.test_folder import folder

__all__ = ["base", "cache"]  # fixtures

KVM, INTEL = "arch/x86/kvm/kvm.c", "arch/x86/kvm/kvm-intel.c"
ASSERTED = '_Static_assert(NUMBER == 1, "NUMBER");\n'
HEAD = "#define NUMBER 1\n" + "".join(f"#define SPACE{n} 0\n" for n in range(8)) + ASSERTED
Files = dict[str, str]


def series(path: Path, pristine: Path, *changes: tuple[Files, int]) -> Series:
    """Patches that each give some files other texts, with so many lines of context."""
    now = {name: (pristine / name).read_text() for name in ("h.h", KVM, INTEL)}
    mails = []
    for number, (files, context) in enumerate(changes, 1):
        diff = ""
        for name, text in files.items():
            rows = difflib.unified_diff(
                now[name].splitlines(True), text.splitlines(True), f"a/{name}", f"b/{name}", n=context
            )
            diff += f"diff --git a/{name} b/{name}\n" + "".join(rows)
            now[name] = text
        mails.append(mail(number, len(changes), diff=diff))
    return series_io.read(folder(path, *mails))


@pytest.fixture
def pristine(base: BaseKernel) -> Path:
    for root in (base.pristine, base.source_dir):
        (root / "h.h").write_text(HEAD)
    return base.pristine


def calling(name: str) -> str:
    return f'#include "h.h"\nint f(void) {{ return {name}; }}\n'


def test_what_others_use_goes_out_with_them(cache: Cache, base: BaseKernel, pristine: Path, tmp_path: Path) -> None:
    asked = series(
        tmp_path / "s",
        pristine,
        ({"h.h": HEAD + "#define OTHER 2\n"}, 3),
        ({KVM: calling("OTHER")}, 3),
        ({INTEL: calling("NUMBER + 1")}, 3),
    )
    first = variants.build(cache, base, asked, 3, 1)
    assert (first.left_out, first.how) == ((1, 2), How.LEFT_OUT)
    assert first.why == "patch 2 does not compile without patch 1"
    assert first.modules is not None
    second, third = (variants.build(cache, base, asked, 3, n) for n in (2, 3))
    assert (second.left_out, second.why, third.left_out) == ((2,), "", (3,))
    assert len({one.modules.kvm.read_bytes() for one in (first, second) if one.modules}) == 1
    assert len({one.modules.kvm.read_bytes() for one in (first, third) if one.modules}) == 2


def test_an_assertion_of_the_base_leads_to_who_changed_what_it_asserts(
    cache: Cache, base: BaseKernel, pristine: Path, tmp_path: Path
) -> None:
    loose = HEAD.replace(ASSERTED, "")
    asked = series(tmp_path / "s", pristine, ({"h.h": loose}, 1), ({"h.h": loose.replace("NUMBER 1", "NUMBER 2")}, 1))
    found = variants.build(cache, base, asked, 2, 1)
    assert found.left_out == (1, 2) and found.modules is not None


def test_what_does_not_compile_at_all_is_told(cache: Cache, base: BaseKernel, pristine: Path, tmp_path: Path) -> None:
    broken = HEAD + '#error "nothing compiles"\n'
    for root in (base.pristine, base.source_dir):
        (root / "h.h").write_text(broken)
    found = variants.build(cache, base, series(tmp_path / "s", pristine, ({"h.h": HEAD}, 3)), 1, 1)
    assert found.modules is None
    assert "nothing compiles" in found.why


def test_what_was_found_out_is_not_found_out_again(
    cache: Cache, base: BaseKernel, pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = series(tmp_path / "s", pristine, ({"h.h": HEAD + "#define OTHER 2\n"}, 3), ({KVM: calling("OTHER")}, 3))
    first = variants.build(cache, base, asked, 2, 1)
    monkeypatch.setattr(kernel, "working", None)  # who builds takes the tree
    assert variants.build(cache, base, asked, 2, 1) == first


def test_a_patch_is_taken_back_where_the_rest_does_not_apply(pristine: Path, tmp_path: Path) -> None:
    """The second patch's context shows the first's line; the first's shows nothing of the second's."""
    first = HEAD.replace("SPACE1 0", "SPACE1 1")
    second = first.replace("SPACE4 0", "SPACE4 1")
    found = leaving_out.leave_out(
        series(tmp_path / "s", pristine, ({"h.h": first}, 1), ({"h.h": second}, 3)), pristine, 2, [1]
    )
    assert (found.how, found.left_out) == (How.TAKEN_BACK, (1,))
    assert found.state["h.h"] == HEAD.replace("SPACE4 0", "SPACE4 1").encode()


def test_what_neither_applies_nor_goes_back_alone_goes_out_with_the_others(pristine: Path, tmp_path: Path) -> None:
    first = HEAD.replace("SPACE1 0", "SPACE1 1")
    second = first.replace("SPACE1 1", "SPACE1 2")
    third = second.replace("SPACE7 0", "SPACE7 1")
    asked = series(tmp_path / "s", pristine, *(({"h.h": text}, 3) for text in (first, second, third)))
    found = leaving_out.leave_out(asked, pristine, 3, [1])
    assert (found.how, found.left_out) == (How.LEFT_OUT, (1, 2))
    assert found.state["h.h"] == HEAD.replace("SPACE7 0", "SPACE7 1").encode()
