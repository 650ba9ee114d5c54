"""A series folder: reading, checking, applying."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from harness.errors import SeriesError
from harness.series import folder as series_io
from kvmodel.series import PATCHES
from tests.harness.series.mail_samples import BASE, DIFF, adding, mail

SECOND = DIFF.replace("@@ -1,3 +1,4 @@", "@@ -1,4 +1,4 @@").replace(" one\n+two\n three", " one\n-two\n+TWO\n three")


def folder(path: Path, *texts: bytes, **changes: object) -> Path:
    """A series folder of these mails."""
    path.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, data in enumerate(texts, 1):
        (path / f"{number:04}-x.patch").write_bytes(data)
        from harness.series import mail as mails

        read = mails.parse(data, "m")
        row = {"number": number, "file": f"{number:04}-x.patch", "subject": read.subject, "author": read.author}
        rows.append({**row, "files": [f.path for f in read.files], "claim": "none", **changes})
    series_io.write(path, name="other", title='A "title"', base={"version": "1.2.3"}, rows=rows)
    return path


@pytest.fixture
def pristine(tmp_path: Path) -> Path:
    base = tmp_path / "pristine"
    (base / "dir").mkdir(parents=True)
    (base / "dir" / "a.c").write_bytes(BASE)
    return base


def test_our_own_series_is_what_the_mirror_was_made_for() -> None:
    series = series_io.read()
    assert series.mirrored
    assert [p.subject for p in series.patches] == [p.subject for p in PATCHES]
    assert [p.number for p in series.patches if p.claim.value == "stated"] == [1, 2, 10]
    assert [p.number for p in series.patches if p.claim.value == "implied"] == [8]
    assert len(series.touched) == 16
    assert all(p.visible and all(v.level >= p.number for v in p.visible) for p in series.patches)
    assert all(p.message_id in p.mail.message for p in series.patches)
    assert not any(b"Signed-off-by" in p.path.read_bytes() for p in series.patches)


def test_states_level_by_level(tmp_path: Path, pristine: Path) -> None:
    series = series_io.read(folder(tmp_path / "s", mail(1, 2), mail(2, 2, diff=SECOND)))
    assert series.title == 'A "title"'
    applied = series_io.states(series, pristine)
    assert [a.state["dir/a.c"] for a in applied] == [b"one\ntwo\nthree\nfour\n", b"one\nTWO\nthree\nfour\n"]
    assert series_io.level_state(series, pristine, 0) == {"dir/a.c": BASE}
    assert (pristine / "dir" / "a.c").read_bytes() == BASE


def test_offsets_are_told(tmp_path: Path, pristine: Path) -> None:
    (pristine / "dir" / "a.c").write_bytes(b"zero\nzero\n" + BASE)
    series = series_io.read(folder(tmp_path / "s", mail(diff=DIFF.replace("@@ -1,3 +1,4", "@@ -1,3 +1,4"))))
    # A hunk that says it begins the file must begin it; one that says line 2 may land on line 3.
    moved = DIFF.replace("@@ -1,3 +1,4 @@", "@@ -2,3 +2,4 @@")
    series = series_io.read(folder(tmp_path / "t", mail(diff=moved)))
    (applied,) = series_io.states(series, pristine)
    assert applied.offsets == (series_io.Offset("dir/a.c", 1, 1),)


def test_no_fuzz(tmp_path: Path, pristine: Path) -> None:
    (pristine / "dir" / "a.c").write_bytes(b"one\nthree\nFOUR\n")  # patch(1) would take this with fuzz
    series = series_io.read(folder(tmp_path / "s", mail()))
    with pytest.raises(SeriesError, match=r"patch 1 .*level 1: hunk 1 of 1 of dir/a\.c \(line 1\)"):
        series_io.states(series, pristine)


def test_a_patch_left_out(tmp_path: Path, pristine: Path) -> None:
    both = folder(tmp_path / "s", mail(1, 2), mail(2, 2, diff=adding("n", "x")))
    series = series_io.read(both)
    assert series_io.level_state(series, pristine, [2]) == {"dir/a.c": BASE, "n": b"x\n"}
    with pytest.raises(SeriesError, match="patch 3 is unknown"):
        series.numbers([3])
    with pytest.raises(SeriesError, match="levels 0 to 2"):
        series.numbers(3)


def test_a_file_that_is_there_already_is_not_overwritten(tmp_path: Path, pristine: Path) -> None:
    (pristine / "n").write_text("old\n")
    series = series_io.read(folder(tmp_path / "s", mail(diff=adding("n", "x"))))
    with pytest.raises(SeriesError, match="already exists"):
        series_io.states(series, pristine)


def test_a_symbolic_link_on_the_way_is_refused(tmp_path: Path) -> None:
    patch = series_io.read(folder(tmp_path / "s", mail())).patches[0]
    work = tmp_path / "work"
    work.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.c").write_bytes(BASE)
    (work / "dir").symlink_to(outside)
    with pytest.raises(SeriesError, match="symbolic link"):
        series_io.apply_patch(work, patch, "1")
    assert (outside / "a.c").read_bytes() == BASE


def test_a_git_tree_with_one_commit_a_patch(tmp_path: Path, pristine: Path) -> None:
    series = series_io.read(folder(tmp_path / "s", mail(1, 2), mail(2, 2, subject="second", diff=SECOND)))
    head = series_io.apply_tree(series, pristine, tmp_path / "out", 2)
    log = subprocess.run(
        ["git", "-C", str(tmp_path / "out"), "log", "--format=%an %s"], capture_output=True, text=True, check=True
    )
    assert log.stdout.splitlines() == ["A U Thor second", "A U Thor fix: a thing", "kvmirror Linux 1.2.3"]
    assert len(head) == 40
    assert (tmp_path / "out" / "dir" / "a.c").read_bytes() == b"one\nTWO\nthree\nfour\n"
    with pytest.raises(SeriesError, match="there already"):
        series_io.apply_tree(series, pristine, tmp_path / "out", 2)


def test_a_tree_that_cannot_be_made_leaves_nothing(tmp_path: Path, pristine: Path) -> None:
    (pristine / "dir" / "a.c").write_bytes(b"other\n")
    series = series_io.read(folder(tmp_path / "s", mail()))
    with pytest.raises(SeriesError):
        series_io.apply_tree(series, pristine, tmp_path / "new" / "out", 1)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"subject": "another"}, "subject"),
        ({"author": "B <b@c>"}, "author"),
        ({"files": ["x"]}, "files"),
        ({"file": "../x"}, "plain file name"),
        ({"file": "missing.patch"}, "no file"),
        ({"number": 2}, "patch 2 stands where patch 1 belongs"),
        ({"claim": "perhaps"}, "perhaps"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    with pytest.raises(SeriesError, match=reason):
        series_io.read(folder(tmp_path / "s", mail(), **change))


def test_a_folder_without_an_index(tmp_path: Path) -> None:
    with pytest.raises(SeriesError, match="no series folder"):
        series_io.read(tmp_path)
    (tmp_path / "series.toml").write_text("schema = ")
    with pytest.raises(SeriesError, match="cannot be read"):
        series_io.read(tmp_path)
    (tmp_path / "series.toml").write_text("schema = 9")
    with pytest.raises(SeriesError, match="schema 9"):
        series_io.read(tmp_path)


def test_a_changed_copy_of_our_series_may_not_keep_its_name(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(series_io.FOLDER, copy)
    index = copy / "series.toml"
    index.write_text(index.read_text().replace('claim = "implied"', 'claim = "none"'))
    with pytest.raises(SeriesError, match="patch 8: claim"):
        series_io.read(copy)


def test_index_says_again_what_was_written(tmp_path: Path) -> None:
    rows = [
        {"number": 1, "subject": 'A "b" \\ \x01\x7f \u00e9', "files": ["a b", "c"],
         "visible": [{"where": "code", "what": "x, 'y' = [1]", "level": 2}]},
        {"number": 2, "subject": "", "files": []},
    ]  # fmt: skip
    series_io.write(tmp_path, name="n", title="[t]\n# no comment", base={"version": "1.2"}, rows=rows)
    read = tomllib.loads((tmp_path / series_io.INDEX).read_text(encoding="utf-8"))
    title = "[t]\n# no comment"
    assert read == {"schema": 1, "name": "n", "title": title, "base": {"version": "1.2"}, "patch": rows}
