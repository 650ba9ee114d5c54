"""The emulator: its patches apply exactly or not at all, a user's own is looked at, builds stop together."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

import pytest

from harness.build import bochs, packages
from harness.build.cache import Cache
from harness.errors import BuildError, InputError
from harness.process import parallel, programs

ROOT = Path(__file__).parents[3]
OLD = "".join(f"line {n}\n" for n in range(1, 11))
PATCH = """\
A mend.

--- a/cpu/vmx.cc
+++ b/cpu/vmx.cc
@@ -2,7 +2,7 @@
 line 2
 line 3
 line 4
-line 5
+mended 5
 line 6
 line 7
 line 8
"""


def source(tmp_path: Path, text: str = OLD) -> Path:
    """A source tree of one file."""
    file = tmp_path / "src" / "cpu" / "vmx.cc"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return tmp_path / "src"


def patch(tmp_path: Path, text: str = PATCH) -> Path:
    """The patch as a file."""
    file = tmp_path / "0001-mend.patch"
    file.write_text(text)
    return file


def test_patch_applies_and_leaves_no_backup(tmp_path: Path) -> None:
    src = source(tmp_path, "moved\n" + OLD)
    bochs.apply(patch(tmp_path), src)
    assert "mended 5" in (src / "cpu" / "vmx.cc").read_text()
    assert [p.name for p in (src / "cpu").iterdir()] == ["vmx.cc"]


def test_patch_is_never_applied_with_fuzz(tmp_path: Path) -> None:
    src = source(tmp_path, OLD.replace("line 2", "other 2"))
    with pytest.raises(BuildError, match=r"0001-mend\.patch does not apply to Bochs 3\.0: .*Hunk #1 FAILED"):
        bochs.apply(patch(tmp_path), src)


def test_patch_applied_twice_is_refused(tmp_path: Path) -> None:
    src = source(tmp_path)
    bochs.apply(patch(tmp_path), src)
    with pytest.raises(BuildError, match="does not apply"):
        bochs.apply(patch(tmp_path), src)


def test_mends_are_in_order() -> None:
    names = [p.name for p in bochs.mends()]
    assert names == sorted(names)


def test_mends_apply_to_the_source(tmp_path: Path) -> None:
    subprocess.run(["tar", "-xf", bochs.tarball(Cache()), "-C", tmp_path, "--strip-components=1"], check=True)
    before = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    for mend in bochs.mends():
        bochs.apply(mend, tmp_path)
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*")} == before  # no backup, no reject


def emulator(tmp_path: Path, banner: str) -> Path:
    """A program that prints a banner."""
    file = tmp_path / "bochs"
    file.write_text(f"#!/bin/sh\necho '{banner}'\n")
    file.chmod(0o755)
    return file


def test_users_emulator(tmp_path: Path) -> None:
    file = emulator(tmp_path, "     Bochs x86 Emulator 2.8")
    assert bochs.users(file) == bochs.users(tmp_path) == file


@pytest.mark.parametrize(
    ("banner", "why"), [("Bochs x86 Emulator 2.7", r"2\.7.*2\.8 or newer"), ("hello", "does not say that it is Bochs")]
)
def test_users_emulator_that_will_not_do(tmp_path: Path, banner: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        bochs.users(emulator(tmp_path, banner))


def test_users_emulator_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such program"):
        bochs.users(tmp_path / "none")


def test_side_by_side_runs_at_once_and_returns_by_name() -> None:
    meet = threading.Barrier(2)
    assert parallel.side_by_side({"a": lambda: (meet.wait(5) and 1) or 1, "b": lambda: (meet.wait(5) and 2) or 2}) == {
        "a": 1,
        "b": 2,
    }


def test_side_by_side_first_failure_ends_the_other() -> None:
    def fail() -> None:
        time.sleep(0.3)
        raise BuildError("broken")

    began = time.monotonic()
    with pytest.raises(BuildError, match="broken"):
        parallel.side_by_side({"long": lambda: programs.run(["sleep", "60"]), "short": fail})
    assert time.monotonic() - began < 10


def test_side_by_side_interrupt_ends_both() -> None:
    timer = threading.Timer(0.5, lambda: __import__("_thread").interrupt_main())
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        parallel.side_by_side({"a": lambda: programs.run(["sleep", "61"]), "b": lambda: programs.run(["sleep", "62"])})
    assert time.monotonic() - began < 10


def test_side_by_side_interrupt_while_waiting_for_a_lock(tmp_path: Path) -> None:
    def fail() -> None:
        time.sleep(0.3)
        raise BuildError("broken")

    def wait() -> None:
        with Cache(tmp_path).tree("x"):
            pass

    with Cache(tmp_path).tree("x"), pytest.raises(BuildError, match="broken"):
        parallel.side_by_side({"a": wait, "b": fail})


def test_missing_packages_are_named() -> None:
    wanted = packages.packages("# c\n\nhere  sh\nthere /nowhere/*/x.h  # why\ngone no-such-program-here\n")
    assert [p.name for p in wanted] == ["here", "there", "gone"]
    with pytest.raises(BuildError, match=r"2 system packages.*install there gone|install .*there gone"):
        packages.require(wanted)


def test_package_list_is_well_formed() -> None:
    names = [p.name for p in packages.packages()]
    assert len(names) == len(set(names)) > 10


def test_makefile_says_what_is_missing_without_root_or_sudo(tmp_path: Path) -> None:
    (tmp_path / "packages").write_text("# words\nhere sh\nno-such-package /nowhere/*/file\nother no-such-program\n")
    for name, text in (("id", "echo 1000"), ("sudo", "exit 1")):
        file = tmp_path / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
    done = programs.run(
        ["make", "-s", "packages", f"PACKAGES={tmp_path}/packages"],
        cwd=ROOT,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        check=False,
    )
    assert done.returncode
    assert "Neither root nor sudo" in done.stderr
    assert "As root: apt-get install -y --no-install-recommends no-such-package other" in done.stderr
