"""Machine-code versions: what makes two functions the same, and what does not."""

from __future__ import annotations

from pathlib import Path

from harness.review.elf import Elf
from harness.review.versions import Versions
from tests.harness.oracle.conftest import compile_c

TEXT = """
extern int outside(const char *);
static const int table[] = {{ 1, 2, {third} }};
int counter = {initial};
{before}
__attribute__((noinline)) int callee(int x) {{ return x * {factor}; }}
int function(int x)
{{
	counter++;
	return callee(x) + table[x] + outside("{text}") {more};
}}
int other(int x) {{ return x + {factor}; }}
"""
SAME = {"third": "3", "initial": "0", "factor": "7", "text": "a", "more": "", "before": ""}


def digest(tmp_path: Path, name: str = "function", **changes: str) -> str:
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    folder.mkdir()
    return Versions([compile_c(TEXT.format(**{**SAME, **changes}), folder / "a.o")]).digest(name)


def test_the_same_code_elsewhere_is_the_same(tmp_path: Path) -> None:
    assert digest(tmp_path) == digest(tmp_path, before="int unrelated(int y) { return y * 3 + 1; }")


def test_its_own_code_counts(tmp_path: Path) -> None:
    assert digest(tmp_path) != digest(tmp_path, more="+ 1")


def test_a_callee_counts(tmp_path: Path) -> None:
    assert digest(tmp_path) != digest(tmp_path, factor="9")


def test_a_constant_table_counts(tmp_path: Path) -> None:
    assert digest(tmp_path) != digest(tmp_path, third="4")


def test_a_string_counts(tmp_path: Path) -> None:
    assert digest(tmp_path) != digest(tmp_path, text="b")


def test_what_it_does_not_reach_is_nothing_to_it(tmp_path: Path) -> None:
    assert digest(tmp_path, "other") == digest(tmp_path, "other", third="4", more="+ 1", text="b")


def test_what_is_reached_is_listed(tmp_path: Path) -> None:
    versions = Versions([compile_c(TEXT.format(**SAME), tmp_path / "a.o")])
    assert {".text.function", ".text.callee"} <= set(versions.functions("function"))
    assert ".text.other" not in versions.functions("function")


def test_a_strong_definition_beats_a_weak_one(tmp_path: Path) -> None:
    weak = compile_c("__attribute__((weak)) int f(void) { return 1; }\nint g(void) { return f(); }", tmp_path / "a.o")
    strong = compile_c("int f(void) { return 2; }", tmp_path / "b.o")
    other = compile_c("int f(void) { return 3; }", tmp_path / "c.o")
    assert Versions([weak, strong]).digest("g") != Versions([weak, other]).digest("g")


def test_undefined_and_defined_symbols(tmp_path: Path) -> None:
    elf = Elf(compile_c(TEXT.format(**SAME), tmp_path / "a.o"))
    assert elf.undefined == {"outside"}
    assert {"function", "callee", "counter", "other"} == elf.defined
