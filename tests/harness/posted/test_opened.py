"""A series on prerequisites: they make level 0, and stay out of the series; a base that is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import InputError, SeriesError
from harness.posted import bring, opened
from harness.series import How, base_state, folder, leaving_out, states
from tests.harness.series.mail_samples import BASE, DIFF, adding, mail
from tests.harness.series.test_folder import SECOND, pristine
from tests.harness.series.test_folder import folder as make_folder

__all__ = ["pristine"]


def test_prerequisites_are_applied_below_level_0(tmp_path: Path, pristine: Path) -> None:
    below = make_folder(tmp_path / "below", mail())
    above = make_folder(tmp_path / "above", mail(diff=SECOND))
    series = opened(above, str(below))
    assert (series.last, len(series.on)) == (1, 1)
    assert base_state(series, pristine) == {"dir/a.c": b"one\ntwo\nthree\nfour\n"}
    (applied,) = states(series, pristine)
    assert applied.state["dir/a.c"] == b"one\nTWO\nthree\nfour\n"
    tree = tmp_path / "tree"
    folder.apply_tree(series, pristine, tree, 1)
    assert (tree / "dir" / "a.c").read_bytes() == b"one\nTWO\nthree\nfour\n"


def test_mails_are_prerequisites_too(tmp_path: Path, pristine: Path) -> None:
    box = tmp_path / "below.mbox"
    box.write_bytes(mail())
    above = make_folder(tmp_path / "above", mail(diff=SECOND))
    assert base_state(opened(above, str(box)), pristine) == {"dir/a.c": b"one\ntwo\nthree\nfour\n"}
    with pytest.raises(InputError, match="no such file or folder"):
        opened(above, str(tmp_path / "nothing"))


def test_the_base_that_was_tried_is_named_with_the_mend(tmp_path: Path, pristine: Path) -> None:
    (pristine / "Makefile").write_text("VERSION = 7\nPATCHLEVEL = 2\nSUBLEVEL = 13\n")
    (pristine / "Kconfig").touch()
    series = folder.read(make_folder(tmp_path / "s", mail(1, 2, diff=SECOND), mail(2, 2)))
    with pytest.raises(SeriesError) as refused:
        states(series, pristine)
    assert str(refused.value).splitlines() == [
        "patch 1 (0001-x.patch) does not apply at level 1: hunk 1 of 1 of dir/a.c (line 1) finds no such context; "
        "rebase it, fuzz is never allowed",
        "tried on Linux 7.2.13, where 0 of 2 patches applied; series.toml names Linux 1.2.3: name the kernel that it "
        "is for with --linux, or what it stands on with --on",
    ]


def test_a_prerequisite_that_does_not_apply_is_told_from_a_patch(tmp_path: Path, pristine: Path) -> None:
    below = make_folder(tmp_path / "below", mail(diff=SECOND))
    with pytest.raises(SeriesError, match=r"level 0 \(prerequisites\)") as refused:
        base_state(opened(make_folder(tmp_path / "above", mail()), str(below)), pristine)
    assert "with 0 of 1 prerequisites" not in str(refused.value)


def test_a_patch_that_the_base_has_is_said_to_be_there(tmp_path: Path, pristine: Path) -> None:
    (pristine / "dir" / "a.c").write_bytes(b"one\ntwo\nthree\nfour\n")
    series = folder.read(make_folder(tmp_path / "s", mail(diff=DIFF.replace("+two\n", "+two\n").replace("a/x", "b/x"))))
    (pristine / "dir" / "a.c").write_bytes(BASE.replace(b"one\n", b"one\ntwo\n"))
    with pytest.raises(SeriesError, match="what it does is there already"):
        states(series, pristine)


def test_what_git_says_of_the_base_is_kept(tmp_path: Path) -> None:
    trailers = f"base-commit: {'a' * 40}\nprerequisite-patch-id: {'b' * 40}\nprerequisite-patch-id: {'c' * 40}\n"
    box = tmp_path / "s.mbox"
    box.write_bytes(mail().replace(b"-- \n2.39.5", f"\n{trailers}-- \n2.39.5".encode()))
    series = bring.bring_in(str(box), tmp_path / "s").series
    assert (series.base_commit, series.prerequisite_patch_ids) == ("a" * 40, ("b" * 40, "c" * 40))


def test_a_patch_is_left_out_above_the_prerequisites(tmp_path: Path, pristine: Path) -> None:
    """Also where it is taken back from the whole level, since the patch behind it wants its line for context."""
    head = DIFF[: DIFF.index("@@")]
    first = mail(1, 2, diff=f"{head}@@ -1,2 +1,3 @@\n one\n+two\n three\n")
    second = mail(2, 2, diff=f"{head}@@ -2,3 +2,3 @@\n two\n three\n-four\n+FOUR\n")
    below = make_folder(tmp_path / "below", mail(diff=adding("dir/b.c", "below")))
    series = opened(make_folder(tmp_path / "above", first, second), str(below))
    for patch, how, text in ((1, How.TAKEN_BACK, b"one\nthree\nFOUR\n"), (2, How.LEFT_OUT, b"one\ntwo\nthree\nfour\n")):
        variant = leaving_out.leave_out(series, pristine, 2, [patch])
        assert (variant.how, variant.state) == (how, {"dir/a.c": text, "dir/b.c": b"below\n"})
