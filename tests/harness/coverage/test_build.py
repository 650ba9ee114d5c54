"""Instrumented modules: built beside the levels in a tree of a few lines, and the real ones of the last level."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from harness.build import kernel, modules
from harness.build.cache import Cache
from harness.build.kernel import BaseKernel
from harness.coverage import build, counters
from harness.coverage.build import ADDITION, KVM, MAKEFILE, Instrumented
from harness.coverage.lines import Covered, Reach, judge
from harness.process import programs
from harness.process.progress import Progress
from harness.series import authors, folder

# Makes "modules" of what it is given, and, where the folder's Makefile asks for counters, notes.
TOP = """\
KO := arch/x86/kvm/kvm.ko arch/x86/kvm/kvm-intel.ko virt/lib/irqbypass.ko
-include arch/x86/kvm/Makefile
KO += $(patsubst %.o,arch/x86/kvm/%.ko,$(obj-m))
modules: $(addprefix $(O)/,$(KO))
$(O)/%.ko: FORCE
	@mkdir -p $(dir $@)
	@echo "$(notdir $@) ccache=$$CCACHE_DISABLE $(ccflags-y)" >$@
	@case "$@$(ccflags-y)" in */kvm/*-ftest-coverage*) echo notes >$(basename $@).gcno ;; esac
FORCE:
"""


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", Progress())


@pytest.fixture
def base(cache: Cache, tmp_path: Path) -> BaseKernel:
    pristine = tmp_path / "pristine"
    (pristine / KVM).mkdir(parents=True)
    (pristine / MAKEFILE).write_text("obj-y += a.o\n")
    (pristine / "Makefile").write_text(TOP)
    tree = cache.root / "trees" / "linux-k"
    shutil.copytree(pristine, tree / "src")
    (tree / "build").mkdir()
    (tree / "build" / "modules.order").write_text("")
    nothing = tmp_path / "nothing"
    return BaseKernel(nothing, nothing, nothing, pristine, tree / "src", tree / "build", "6.12.8", "k")


def test_they_are_built_apart_from_the_levels_and_without_ccache(cache: Cache, base: BaseKernel) -> None:
    made = build.of_state(cache, base, {"a.c": b"x"}, "level 1, instrumented")
    assert made.folder.parent.name == build.KIND
    assert made.kvm.read_text() == f"kvm.ko ccache=1 {build.FLAGS}\n"
    assert made.coverage.exists() and made.irqbypass is not None and made.irqbypass.exists()
    assert sorted(made.notes) == [f"{KVM}/kvm", f"{KVM}/kvm-intel", f"{KVM}/{build.MODULE}"]
    assert not list(base.build_dir.rglob("*.gcno"))
    # The next level is built from its own Makefile again.
    plain = modules.of_state(cache, base, {"a.c": b"x"}, name="level 1", level=1)
    assert build.FLAGS not in plain.kvm.read_text()
    assert not (base.source_dir / KVM / f"{build.MODULE}.c").exists()


def test_a_level_of_its_own_is_built_of_its_own(cache: Cache, base: BaseKernel) -> None:
    first = build.of_state(cache, base, {"a.c": b"x"}, "one")
    assert build.of_state(cache, base, {"a.c": b"x"}, "again").folder == first.folder
    assert build.of_state(cache, base, {"a.c": b"y"}, "another").folder != first.folder
    # A series that changes the Makefile keeps its change.
    other = build.of_state(cache, base, {MAKEFILE: b"obj-m += b.o\n"}, "its own")
    assert (base.source_dir / MAKEFILE).read_text() == "obj-m += b.o\n" + ADDITION
    assert other.folder != first.folder


def test_names_are_found_whatever_way_gcc_went_to_them() -> None:
    made = Instrumented(Path("/e"), "/c/src", "/c/build")
    assert made.object("/c/build/arch/x86/kvm/../../../virt/kvm/kvm_main.gcda") == "virt/kvm/kvm_main"
    assert made.source("/c/src/arch/x86/kvm/vmx/../mmu.h") == "arch/x86/kvm/mmu.h"
    assert made.source("./arch/x86/include/generated/asm/a.h") == "arch/x86/include/generated/asm/a.h"


@pytest.fixture(scope="module")
def real() -> Instrumented:
    return build.modules(Cache(), folder.read(), 18)


@pytest.fixture(scope="module")
def nothing_ran(real: Instrumented) -> dict[int, Covered]:
    series, pristine = folder.read(), kernel.source(Cache())
    base, applied = folder.base_state(series, pristine), folder.states(series, pristine)
    found = counters.lines({}, real)
    return {
        one.patch.number: one for one in judge(series.patches, authors(base, applied), applied[-1].state, found, found)
    }


@pytest.mark.live
def test_the_real_ones_link_to_our_module_alone(real: Instrumented) -> None:
    def names(path: Path, kind: str) -> set[str]:
        return set(re.findall(rf" {kind} (__gcov_\w+|_sub_I_\w+)$", programs.run(["nm", path]).stdout, re.M))

    ours = names(real.coverage, "T")
    for path in (real.kvm, real.kvm_intel):
        wanted = names(path, "U")
        assert wanted and wanted <= ours
        assert names(path, "t") == {"_sub_I_00100_0"}  # the constructors that our module looks for
    assert not names(real.coverage, "U")


@pytest.mark.live
def test_patches_that_change_code_have_lines_and_the_others_none(nothing_ran: dict[int, Covered]) -> None:
    # What `kvmirror series check` finds of the machine code; 9 and 13 change constants, 4 a function nobody calls yet.
    assert {n for n, one in nothing_ran.items() if one.lines} == {4, 6, 11, 12, 14, 15, 16, 17}
    assert not any(one.of(Reach.VECTORS) or one.of(Reach.SETUP) for one in nothing_ran.values())


@pytest.mark.live
def test_a_line_is_where_gcov_says_it_is(nothing_ran: dict[int, Covered]) -> None:
    text = [line.text for line in nothing_ran[15].lines if line.path.endswith("mmu/spte.c")]
    assert "pte_access &= ~ACC_USER_EXEC_MASK;" in text and "spte |= shadow_ux_mask;" in text
    everything = [line.text for one in nothing_ran.values() for line in one.lines]
    assert not any(line.startswith(("/*", "*", "#")) or not re.search(r"\w", line) for line in everything)
