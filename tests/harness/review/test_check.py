"""The rows of series check, and the subcommands that need no kernel."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.build import kernel
from harness.build.cache import Cache
from harness.cli.main import series
from harness.errors import BuildError, SeriesError
from harness.posted import bring
from harness.process.progress import Progress
from harness.review import check
from harness.review import check as series_check
from harness.review.check import CheckedPatch
from harness.review.identity import CodeChange, Difference
from harness.series import folder
from tests.harness.posted import mail_factory as make

NOTHING = Difference((), (), 0, 0, (), ())
CODE = replace(
    NOTHING, functions=(CodeChange("kvm.ko", "f", "code", ("-a", "+b")), CodeChange("kvm.ko", "g", "layout"))
)


def row(number: int, difference: Difference, warnings: Sequence[str] = ()) -> CheckedPatch:
    patch = folder.read().patches[number - 1]
    return CheckedPatch(patch, (), 1.0, tuple(warnings), ("3: WARNING: long",), difference, ())


def test_a_claim_holds_where_nothing_differs() -> None:
    assert row(1, NOTHING).verdict == "stated: holds"
    assert not row(1, NOTHING).finding
    assert row(8, NOTHING).verdict == "implied: holds"
    assert row(1, replace(NOTHING, moved_lines=3)).verdict == "stated: holds"  # lines of WARNs are no code


@pytest.mark.parametrize(
    "difference", [replace(CODE, formats=("t",)), replace(NOTHING, formats=("t",)), replace(NOTHING, parameters=("p",))]
)
def test_a_claim_does_not_hold_where_user_space_reads_something_else(difference: Difference) -> None:
    assert row(2, difference).verdict == "stated: does NOT hold"
    assert row(2, difference).finding


@pytest.mark.parametrize("difference", [CODE, replace(NOTHING, data=("d",)), replace(NOTHING, warns=1)])
def test_other_code_alone_breaks_no_claim(difference: Difference) -> None:
    """A function that is written anew may do what it did: the vectors tell."""
    assert row(2, difference).verdict == "stated: other code, ask vectors"
    assert not row(2, difference).finding


def test_a_patch_that_means_an_effect_and_shows_none_is_said() -> None:
    assert row(4, NOTHING).verdict == "no effect alone"
    assert not row(4, NOTHING).finding
    assert row(6, CODE).verdict == ""


def test_a_new_warning_is_a_finding() -> None:
    assert row(6, CODE, ["x.c: unused"]).finding


def test_tables_name_what_changed() -> None:
    rows = [row(1, NOTHING), row(6, replace(CODE, data=("d",), moved_lines=2))]
    text = check.text(rows, verbose=True)
    assert [line.split()[0] for line in text.splitlines() if not line.startswith(" ")] == ["patch", "1", "6"]
    assert "functions: f, g (layout)" in text
    assert "lines of WARNs moved: 2" in text
    assert "+b" in text
    table = check.markdown(rows).splitlines()
    assert len(table) == 4
    assert "functions: f, g (layout); data: d" in table[3]
    assert check.as_json(rows)[1]["functions"][1] == {
        "module": "kvm.ko",
        "name": "g",
        "why": "layout",
        "excerpt": [],
    }


def test_code_that_comes_back_is_said() -> None:
    undone = replace(row(11, CODE), back=9)
    assert "the machine code of level 9 again" in check.text([undone])
    assert check.as_json([undone, row(6, CODE)])[0]["same_code_as_level"] == 9
    assert "same_code_as_level" not in check.as_json([row(6, CODE)])[0]


def test_checkpatch_is_the_trees_own(tmp_path: Path) -> None:
    patch = folder.read().patches[0]
    cache = Cache(tmp_path / "cache", Progress())
    tree = tmp_path / "tree"
    (tree / "scripts").mkdir(parents=True)
    with pytest.raises(BuildError, match="checkpatch"):
        check.checkpatch(cache, tree, patch)
    script = tree / "scripts" / "checkpatch.pl"
    script.write_text('print "$ARGV[-1]:12: WARNING: too long\\n"; exit 1;')
    assert check.checkpatch(cache, tree, patch) == ("12: WARNING: too long",)
    script.write_text("exit 0;")
    assert check.checkpatch(cache, tree, patch) == ("12: WARNING: too long",)  # kept


def test_a_check_without_a_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make.tree(tmp_path / "tree")
    (tree / "scripts").mkdir()
    (tree / "scripts" / "checkpatch.pl").write_text('print "$ARGV[-1]:9: WARNING: \\e[2Jodd\\n"; exit 1;')
    monkeypatch.setattr(kernel, "source", lambda cache, linux=None: tree)
    cache = Cache(tmp_path / "cache", Progress())
    bodies = [
        make.mail(f"[PATCH {n}/2] KVM: change {n}", make.body(n, message="No functional change.")) for n in (1, 2)
    ]
    for n, data in enumerate(bodies):
        (tmp_path / f"{n}.eml").write_bytes(data)
    made = bring.bring_in(str(tmp_path), tmp_path / "s").series
    rows = series_check.glance(cache, made, [1, 2])
    text = series_check.glanced(rows)
    assert [line.split()[:3] for line in text.splitlines() if line[:1].isdigit()] == [
        ["1", "exact", "0"],
        ["2", "exact", "0"],
    ]
    assert "9: WARNING: \\x1b[2Jodd" in text
    assert "stated: not built" in text
    assert [row["number"] for row in series_check.glanced_json(rows)] == [1, 2]


def test_a_patch_out_of_order_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make.tree(tmp_path / "tree")
    monkeypatch.setattr(kernel, "source", lambda cache, linux=None: tree)
    path = make.FILES[0]
    needed = (
        f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -1,3 +1,3 @@\n alpha\n-beta\n+BETA\n gamma\n"
    )
    needs = needed.replace("-beta\n+BETA", "-BETA\n+BETTER")
    for n, change in enumerate((needs, needed), 1):
        (tmp_path / f"{n}.eml").write_bytes(make.mail(f"[PATCH {n}/2] KVM: change {n}", make.body(change=change)))
    made = bring.bring_in(str(tmp_path), tmp_path / "s").series
    with pytest.raises(SeriesError, match=r"patch 1 .*does not apply.*patch 2 belongs before it"):
        series_check.glance(Cache(tmp_path / "cache", Progress()), made, [1, 2])


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    series.add_parser(parser.add_subparsers())
    args = parser.parse_args(["series", *words])
    code: int = args.run(args)
    return code


def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show") == 0
    assert "18 patches on Linux 6.12.8, 16 files" in capsys.readouterr().out
    assert run("show", "--json") == 0
    assert [p["number"] for p in json.loads(capsys.readouterr().out)["patches"]] == list(range(1, 19))


def test_import_and_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("import", str(folder.FOLDER), str(tmp_path / "s")) == 0
    assert "the mirror applies" in capsys.readouterr().out
    assert run("show", "--series", str(tmp_path / "s")) == 0
    with pytest.raises(SeriesError):
        run("show", "--series", str(tmp_path))
