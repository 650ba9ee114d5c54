"""Object identity: real objects of a few lines, compiled here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.build.cache import Cache
from harness.errors import BuildError
from harness.process.progress import Progress
from harness.review.identity import Module, compare, excerpt, fingerprint, why

SOURCE = """
struct s {{ long a; {field} long b; }};
static int counter;
{data}
extern void out(const char *text, int n);
static __attribute__((noinline)) int helper(int n) {{ return n * {factor}; }}
{between}
int shift(struct s *s) {{ return s->b; }}
int uses(int n) {{ static int seen; if (!seen++) out("{text}", n); return helper(n) + counter++; }}
int table(int n) {{
    switch (n) {{ case 0: return 7; case 1: return 31; case 2: return 3; case 3: return 99; case 4: return {last};
    case 5: out("x", 1); return 4; case 6: out("y", 2); return 12; default: return 0; }}
}}
"""
PLAIN = {"field": "", "data": "int value = 1;", "factor": "3", "between": "", "text": "hello", "last": "5"}


def module(folder: Path, **changes: str) -> Path:
    """An object of SOURCE with changes, compiled without position independence as the kernel is."""
    folder.mkdir()
    (folder / "m.c").write_text(SOURCE.format(**{**PLAIN, **changes}))
    flags = ["-O2", "-fno-pic", "-mcmodel=kernel", "-fcf-protection=none", "-fno-asynchronous-unwind-tables"]
    subprocess.run(["gcc", *flags, "-c", "m.c", "-o", "m.ko"], cwd=folder, check=True)
    return folder / "m.ko"


@pytest.fixture
def differs(tmp_path: Path):  # type: ignore[no-untyped-def]
    """What differs between SOURCE and SOURCE with changes."""
    cache = Cache(tmp_path / "cache", Progress())
    old = module(tmp_path / "old")

    def run(**changes: str):  # type: ignore[no-untyped-def]
        new = module(tmp_path / "new", **changes)
        found = compare(cache, {"m.ko": old}, {"m.ko": new})
        prints = [fingerprint(cache, {"m.ko": path}) for path in (old, new)]
        assert (prints[0] == prints[1]) is found.nothing  # whatever the test is about
        return found

    return run


def test_the_same_source_has_no_difference(differs) -> None:  # type: ignore[no-untyped-def]
    assert differs().nothing


def test_a_function_that_moves_its_neighbours_changes_alone(differs) -> None:  # type: ignore[no-untyped-def]
    between = 'int more(int n) { out("more", n); return n + 1; }'
    found = differs(between=between)
    assert [(c.name, c.why) for c in found.functions] == [("more", "added")]
    assert not found.data


def test_a_changed_callee_is_named_and_its_callers_are_not(differs) -> None:  # type: ignore[no-untyped-def]
    found = differs(factor="7")
    assert [c.name for c in found.functions] == ["helper"]
    assert found.functions[0].excerpt


def test_a_constant(differs) -> None:  # type: ignore[no-untyped-def]
    assert why(("mov $0x7,%eax", "ret"), ("mov $0xf,%eax", "ret")) == "constants"
    found = differs(last="6")
    assert {c.name for c in found.functions} == {"table"}


def test_a_layout(differs) -> None:  # type: ignore[no-untyped-def]
    found = differs(field="long new;")
    assert [(c.name, c.why) for c in found.functions] == [("shift", "layout")]


def test_a_string_is_part_of_the_code(differs) -> None:  # type: ignore[no-untyped-def]
    assert [c.name for c in differs(text="HELLO").functions] == ["uses"]


def test_data_is_told_apart_from_code(differs) -> None:  # type: ignore[no-untyped-def]
    found = differs(data="int value = 2;")
    assert not found.functions
    assert found.data == ("value",)
    assert not found.nothing


def test_a_variable_that_leaves_bss(differs) -> None:  # type: ignore[no-untyped-def]
    found = differs(data="int value = 0;")
    assert not found.functions
    assert found.data == ("value",)


def test_kinds_of_difference() -> None:
    assert why(("mov (%rdi),%rax",), ("mov 0x8(%rdi),%rax",)) == "layout"
    assert why(("mov 0x10(%rdi),%rax",), ("mov 0x8(%rsi),%rax",)) == "code"
    assert why(("mov 0x10(%rsp),%rax",), ("mov 0x8(%rsp),%rax",)) == "code"
    assert why(("ret",), ("nop", "ret")) == "code"
    assert excerpt(("a", "b"), ("a", "c")) == ("-b", "+c")
    assert excerpt(("a",) * 20, ("b",) * 20, 2)[-1] == "(38 more lines)"


def test_warn_lines_are_apart(tmp_path: Path) -> None:
    text = """
int f(int n) {{
    if (n) asm volatile("1: ud2\\n.pushsection __bug_table,\\"aw\\"\\n2: .long 1b - .\\n"
        ".long 3f - .\\n.word {line}, 5\\n"
        ".popsection\\n.pushsection .rodata.str1.1,\\"aMS\\",@progbits,1\\n3: .string \\"m.c\\"\\n.popsection");
    return n;
}}
"""
    paths = []
    for line in (10, 11):
        folder = tmp_path / str(line)
        folder.mkdir()
        (folder / "m.c").write_text(text.format(line=line))
        subprocess.run(["gcc", "-O2", "-fno-pic", "-c", "m.c", "-o", "m.ko"], cwd=folder, check=True)
        paths.append(folder / "m.ko")
    found = compare(Cache(tmp_path / "cache", Progress()), {"m.ko": paths[0]}, {"m.ko": paths[1]})
    assert (found.moved_lines, found.warns, found.functions) == (1, 0, ())
    assert found.nothing


def test_a_file_that_is_no_object(tmp_path: Path) -> None:
    (tmp_path / "x.ko").write_text("nothing")
    with pytest.raises(BuildError, match="ELF"):
        Module(tmp_path / "x.ko")
