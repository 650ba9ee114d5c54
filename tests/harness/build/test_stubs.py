"""A stub lets a program start that never calls the library, and ends one that does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from harness.build import stubs
from harness.errors import BuildError
from harness.process import programs

LIBRARY = "int first(void) { return 1; } int second(void) { return 2; } int unused(void) { return 3; } int data = 4;"
PROGRAM = "int first(void), second(void); int main(int n, char **v) { return n > 1 ? first() + second() : 0; }"


def build(folder: Path, program: str, script: str = "") -> tuple[Path, Path]:
    """A program and the library that it was linked with."""
    (folder / "l.c").write_text(LIBRARY)
    (folder / "p.c").write_text(program)
    library, binary = folder / "libreal.so", folder / "program"
    (folder / "l.map").write_text(script or "{ global: *; };")
    options = ("-shared", "-fPIC", "-Wl,-soname,libreal.so.1", "-Wl,--version-script=l.map")
    programs.run(["gcc", *options, "-o", library, "l.c"], cwd=folder)
    programs.run(["gcc", "-Wl,-z,now", "-o", binary, "p.c", library], cwd=folder)
    return binary, library


@pytest.mark.parametrize("script", ["", "REAL_1.0 { global: *; };"])
def test_a_program_starts_with_the_stub_and_is_ended_when_it_calls_one(tmp_path: Path, script: str) -> None:
    binary, library = build(tmp_path, PROGRAM, script)
    out = tmp_path / "stubs"
    out.mkdir()
    stub = stubs.make(binary, library, "libreal.so.1", out)
    assert set(stubs._symbols(stub, defined=True)) - {"REAL_1.0"} == {"first", "second"}
    env = os.environ | {"LD_LIBRARY_PATH": str(out)}
    idle = subprocess.run([binary], env=env, capture_output=True, text=True, check=False)
    assert (idle.returncode, idle.stderr) == (0, "")  # no warning of a missing version either
    assert subprocess.run([binary, "x"], env=env, capture_output=True, check=False).returncode < 0


def test_what_may_answer_says_0(tmp_path: Path) -> None:
    binary, library = build(tmp_path, "int first(void); int main(void) { return first() + 5; }")
    out = tmp_path / "stubs"
    out.mkdir()
    stubs.make(binary, library, "libreal.so.1", out, ("first",))
    assert subprocess.run([binary], env=os.environ | {"LD_LIBRARY_PATH": str(out)}, check=False).returncode == 5


def test_data_is_not_stubbed(tmp_path: Path) -> None:
    binary, library = build(tmp_path, "extern int data; int main(void) { return data; }")
    with pytest.raises(BuildError, match=r"data of libreal.so.1 \(data\)"):
        stubs.make(binary, library, "libreal.so.1", tmp_path)


def test_what_is_no_program_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no ELF")
    with pytest.raises(BuildError, match="text is not an ELF file"):
        stubs.make(tmp_path / "text", tmp_path / "text", "libx.so", tmp_path)
