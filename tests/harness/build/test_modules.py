"""Levels, built in a tree of a few lines that looks like a kernel's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.build import modules
from harness.build.cache import Cache
from harness.build.kernel import BaseKernel
from harness.errors import CompileError
from harness.process.progress import Progress

MAKEFILE = """\
KO := virt/lib/irqbypass.ko arch/x86/kvm/kvm.ko arch/x86/kvm/kvm-intel.ko
modules: $(addprefix $(O)/,$(KO))
$(O)/%.ko: %.c h.h
	@mkdir -p $(dir $@)
	@echo "  CC [M]  $@"
	@$(CC) -Wall -I. -c $< -o $@
"""
HEADER = b"#define NUMBER 1\n"
HEADER_COMMENT = b"/* a comment */\n\n#define NUMBER 1\n"
HEADER_OTHER = b"#define NUMBER 2\n"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", Progress())


@pytest.fixture
def base(cache: Cache, tmp_path: Path) -> BaseKernel:
    pristine = tmp_path / "pristine"
    for name in ("virt/lib/irqbypass", "arch/x86/kvm/kvm", "arch/x86/kvm/kvm-intel", "init/image"):
        (pristine / name).parent.mkdir(parents=True, exist_ok=True)
        (pristine / f"{name}.c").write_text('#include "h.h"\nint f(void) { return NUMBER; }\n')
    (pristine / "h.h").write_bytes(HEADER)
    (pristine / "Makefile").write_text(MAKEFILE)
    tree = cache.root / "trees" / "linux-k"
    shutil.copytree(pristine, tree / "src")
    (tree / "build" / "init").mkdir(parents=True)
    (tree / "build" / "modules.order").write_text("arch/x86/kvm/kvm.o\nvirt/lib/irqbypass.o\n")
    src = tree / "src"
    (tree / "build" / "init" / ".image.o.cmd").write_text(
        f"savedcmd_init/image.o := gcc -Wp,-MMD,init/.image.o.d -I{src} -c -o init/image.o {src}/init/image.c "
        "; ./tools/objtool/objtool init/image.o\n\n"
        f"source_init/image.o := {src}/init/image.c\n\ndeps_init/image.o := \\\n  {src}/h.h \\\n"
    )
    nothing = tmp_path / "nothing"
    return BaseKernel(nothing, nothing, nothing, pristine, src, tree / "build", "6.12.8", "k")


def test_a_level_is_built_once(cache: Cache, base: BaseKernel) -> None:
    first = modules.of_state(cache, base, {"h.h": HEADER}, name="level 0", level=0)
    again = modules.of_state(cache, base, {}, name="the base", level=None)
    assert first.folder == again.folder  # what decides is the contents, not the name
    assert first.kvm.name == "kvm.ko"
    assert first.image_objects == ()
    assert first.compiled == 3
    assert first.log.read_text().count("CC [M]") == 3


def test_a_header_that_matters_makes_other_modules_and_another_image(cache: Cache, base: BaseKernel) -> None:
    before = modules.of_state(cache, base, {}, name="level 0")
    after = modules.of_state(cache, base, {"h.h": HEADER_OTHER}, name="level 1")
    assert before.kvm.read_bytes() != after.kvm.read_bytes()
    assert after.image_objects == ("init/image.o",)
    assert after.image_differs == ("init/image.o",)


def test_a_comment_changes_neither(cache: Cache, base: BaseKernel) -> None:
    before = modules.of_state(cache, base, {}, name="level 0")
    after = modules.of_state(cache, base, {"h.h": HEADER_COMMENT}, name="level 1")
    assert after.image_objects == ("init/image.o",)
    assert after.image_differs == ()
    assert before.kvm.read_bytes() == after.kvm.read_bytes()


def test_the_compilers_lines_are_in_the_error_and_the_tree_goes_on(cache: Cache, base: BaseKernel) -> None:
    with pytest.raises(CompileError, match=r"level 3 does not compile:\n.*error:.*NUMBER|error: expected") as caught:
        modules.of_state(cache, base, {"h.h": b"#define NUMBER (\n"}, name="level 3")
    assert caught.value.exit_code == 2
    assert modules.of_state(cache, base, {}, name="level 0").kvm.is_file()


def test_warnings_are_kept_without_lines(cache: Cache, base: BaseKernel) -> None:
    text = b'#include "h.h"\n\nint f(void) { int unused; return NUMBER; }\n'
    made = modules.of_state(cache, base, {"arch/x86/kvm/kvm.c": text}, name="level 1")
    assert made.warnings == ("arch/x86/kvm/kvm.c: unused variable \u2018unused\u2019 [-Wunused-variable]",)


def test_new_and_deleted_files_come_and_go(cache: Cache, base: BaseKernel) -> None:
    assert modules.into_source(base, {"new/x.h": b"1\n", "virt/lib/irqbypass.c": None}) == [
        "new/x.h",
        "virt/lib/irqbypass.c",
    ]
    assert not (base.source_dir / "virt/lib/irqbypass.c").exists()
    assert sorted(modules.into_source(base, {})) == ["new/x.h", "virt/lib/irqbypass.c"]
    assert not (base.source_dir / "new/x.h").exists()
    assert (base.source_dir / "virt/lib/irqbypass.c").is_file()


def test_only_what_differs_gets_a_new_time_stamp(base: BaseKernel) -> None:
    before = (base.source_dir / "h.h").stat().st_mtime_ns
    assert modules.into_source(base, {"h.h": HEADER}) == []
    assert (base.source_dir / "h.h").stat().st_mtime_ns == before


def test_a_run_that_died_is_put_right(base: BaseKernel) -> None:
    note = base.source_dir.parent / modules.NOTE
    note.write_text(json.dumps(["h.h"]))  # written before the files, as by a run that died after the first of them
    (base.source_dir / "h.h").write_bytes(b"half")
    assert modules.into_source(base, {}) == ["h.h"]
    assert (base.source_dir / "h.h").read_bytes() == HEADER
    assert json.loads(note.read_text()) == []


def test_what_a_log_says() -> None:
    log = (
        "  CC [M]  a.o\n/x/a.c:3:7: warning: unused variable \u2018u\u2019 [-Wunused]\n/x/a.c:9:1: error: bad\n"
        '    9 | bad line\nERROR: modpost: "f" undefined!\nWARNING: modpost: missing MODULE_LICENSE()\n'
    )
    assert modules.warnings(log) == {
        "/x/a.c: unused variable \u2018u\u2019 [-Wunused]",
        "modpost: missing MODULE_LICENSE()",
    }
    assert modules.compiler_lines(log) == [
        "/x/a.c:9:1: error: bad",
        "    9 | bad line",
        'ERROR: modpost: "f" undefined!',
    ]
