"""Module parameters: found in diffs by the kernel's macros, and read back from series.toml as they were written."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import SeriesError
from harness.series import Parameter, folder, parse_diff
from harness.series.parameter import found
from tests.harness.series.mail_samples import mail
from tests.harness.series.test_folder import folder as make_folder

VMX = "arch/x86/kvm/vmx/vmx.c"


def diff(path: str, *rows: str) -> str:
    """A diff of one hunk with these rows."""
    old, new = (sum(row[0] in (" ", side) for row in rows) for side in "-+")
    head = f"diff --git a/{path} b/{path}\nindex 1111111..2222222 100644\n--- a/{path}\n+++ b/{path}\n"
    return f"{head}@@ -1,{old} +1,{new} @@\n" + "\n".join(rows) + "\n"


def of(*diffs: str) -> list[Parameter]:
    return found([parse_diff(text, "a patch") for text in diffs])


@pytest.mark.parametrize(
    ("path", "row", "module", "name", "kind"),
    [
        (VMX, "+module_param(mbec, bool, 0444);", "kvm_intel", "mbec", "bool"),
        (VMX, "+module_param_named(mbec, enable_mbec, bool, S_IRUGO);", "kvm_intel", "mbec", "bool"),
        (VMX, "+module_param_named_unsafe(mbec, enable_mbec, int, 0444);", "kvm_intel", "mbec", "int"),
        ("arch/x86/kvm/x86.c", "+module_param(mode, charp, 0444);", "kvm", "mode", "charp"),
        ("virt/kvm/kvm_main.c", "+module_param_cb(poll, &param_ops_bool, &poll, 0644);", "kvm", "poll", "bool"),
        ("arch/x86/kvm/mmu/mmu.c", "+module_param_cb(nx, &nx_ops, &nx, 0644);", "kvm", "nx", ""),
        ("arch/x86/kvm/mmu/mmu.c", "+module_param_string(how, how, sizeof(how), 0);", "kvm", "how", "charp"),
    ],
)
def test_each_macro_tells_name_and_type(path: str, row: str, module: str, name: str, kind: str) -> None:
    values = ("0", "1") if kind == "bool" else ()
    assert of(diff(path, " one", row)) == [Parameter(module, name, values, 1, None, kind)]


def test_a_macro_over_two_lines_is_one() -> None:
    assert of(diff(VMX, "+module_param_named(mbec,", "+\t\t   enable_mbec, bool, 0444);"))[0].type == "bool"


def test_what_is_only_written_anew_or_of_another_module_is_none_of_the_series() -> None:
    assert of(diff(VMX, "-module_param(pt_mode, int, S_IRUGO);", "+module_param(pt_mode, int, 0444);")) == []
    assert of(diff(VMX, " module_param(pt_mode, int, 0444);", "+int x;")) == []
    assert of(diff("arch/x86/kvm/svm/svm.c", "+module_param(avic, bool, 0444);")) == []
    assert of(diff("drivers/x.c", "+module_param(x, bool, 0444);")) == []
    assert of(diff(VMX, "+/* module_param_call_me(x, bool) */")) == []


def test_one_that_a_later_patch_takes_out_or_renames_ends_there() -> None:
    add = diff(VMX, " one", "+module_param(mbec, bool, 0444);")
    rename = diff(VMX, "-module_param(mbec, bool, 0444);", "+module_param(enable_mbec, bool, 0444);")
    other = diff(VMX, "+int x;")
    first, second = of(other, add, other, rename)
    assert (first.name, first.first_level, first.last_level) == ("mbec", 2, 3)
    assert (second.name, second.first_level, second.last_level) == ("enable_mbec", 4, None)
    assert [first.at(level) for level in range(5)] == [False, False, True, True, False]


def test_written_and_read_back(tmp_path: Path) -> None:
    known = (
        Parameter("kvm_intel", "mbec", ("0", "1"), 1, None, "bool"),
        Parameter("kvm", "mode", ("fast",), 1, 2, "charp"),
    )
    made = make_folder(tmp_path / "s", mail(1, 2), mail(2, 2))
    rows = [{"number": p.number, "file": p.path.name, "subject": p.subject, "author": p.author, "files": list(p.files)}
            for p in folder.read(made).patches]  # fmt: skip
    base = {"version": "1.2.3", "base_commit": "a" * 40, "prerequisite_patch_ids": ["b" * 40]}
    folder.write(made, name="other", title="t", base=base, rows=rows, parameters=known)
    series = folder.read(made)
    assert series.parameters == known
    assert series.told_base == "Linux 1.2.3, base-commit aaaaaaaaaaaa, 1 prerequisite patch"


def test_a_folder_without_the_tables_has_those_of_its_diffs(tmp_path: Path) -> None:
    made = make_folder(tmp_path / "s", mail(diff=diff(VMX, " one", "+module_param(mbec, bool, 0444);")))
    assert [str(p) for p in folder.read(made).parameters] == ["kvm_intel.mbec"]


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ('module = "kvm_amd"\nname = "x"\nvalues = []\nfirst_level = 1', "its module is 'kvm_amd'"),
        ('module = "kvm"\nname = "x y"\nvalues = []\nfirst_level = 1', "'x y' is no name"),
        ('module = "kvm"\nname = "x"\nvalues = [0]\nfirst_level = 1', "0 is no value; write values as text"),
        ('module = "kvm"\nname = "x"\nvalues = []\nfirst_level = 2', "levels 2 to 1 are not among 1 to 1"),
        ('module = "kvm"\nname = "x"\nvalues = []', "the key 'first_level' is missing"),
        ('module = "kvm"\nname = "x"\nvalues = []\nfirst_level = 1\nlevel = 3', "no key 'level' of a parameter"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(tmp_path: Path, table: str, why: str) -> None:
    made = make_folder(tmp_path / "s", mail())
    index = made / "series.toml"
    index.write_text(f"{index.read_text()}\n[[parameter]]\n{table}\n")
    with pytest.raises(SeriesError) as refused:
        folder.read(made)
    assert why in str(refused.value)
