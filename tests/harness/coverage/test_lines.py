"""Who wrote a line, and what reached it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.build import kernel
from harness.build.cache import Cache
from harness.cli import coverage as command
from harness.cli import main
from harness.coverage.counters import CountedLine, Lines
from harness.coverage.counting import Counted
from harness.coverage.lines import Covered, Reach, judge
from harness.series import authors
from harness.series import folder as series_io
from tests.harness.series.mail_samples import BASE, DIFF, adding, mail
from tests.harness.series.test_folder import folder

REPLACING = DIFF.replace("@@ -1,3 +1,4 @@", "@@ -1,4 +1,4 @@").replace(" one\n+two\n three", " one\n-two\n+TWO\n three")
TWO_HUNKS = """\
diff --git a/dir/a.c b/dir/a.c
--- a/dir/a.c
+++ b/dir/a.c
@@ -3,3 +3,4 @@
 2
 3
+new
 4
@@ -7,3 +8,3 @@
 6
-7
+seven
 8
"""
NUMBERS = b"".join(b"%d\n" % n for n in range(10))


def written(tmp_path: Path, base: bytes, *mails: bytes) -> dict[str, list[int]]:
    pristine = tmp_path / "pristine" / "dir"
    pristine.mkdir(parents=True)
    (pristine / "a.c").write_bytes(base)
    series = series_io.read(folder(tmp_path / "series", *mails))
    return authors(series_io.base_state(series, pristine.parent), series_io.states(series, pristine.parent))


def test_a_line_is_its_last_writers(tmp_path: Path) -> None:
    assert written(tmp_path, BASE, mail(1, 2), mail(2, 2, diff=REPLACING)) == {"dir/a.c": [0, 2, 0, 0]}


def test_the_context_stays_its_writers(tmp_path: Path) -> None:
    three = DIFF.replace("@@ -1,3 +1,4 @@", "@@ -1,4 +1,5 @@").replace("+two\n three", " two\n+more\n three")
    assert written(tmp_path, BASE, mail(1, 2), mail(2, 2, diff=three)) == {"dir/a.c": [0, 1, 2, 0, 0]}


def test_a_new_file_is_its_patchs(tmp_path: Path) -> None:
    assert written(tmp_path, BASE, mail(diff=adding("dir/b.c", "x")))["dir/b.c"] == [1]


@pytest.mark.parametrize("before", [0, 3])
def test_hunks_lie_where_git_puts_them(tmp_path: Path, before: int) -> None:
    found = written(tmp_path, b"-\n" * before + NUMBERS, mail(diff=TWO_HUNKS))["dir/a.c"]
    assert [n for n, patch in enumerate(found) if patch] == [4 + before, 8 + before]
    assert len(found) == 11 + before


def test_every_line_of_our_series_is_in_the_patch_that_is_said_to_have_written_it() -> None:
    series, pristine = series_io.read(), kernel.source(Cache())
    base, applied = series_io.base_state(series, pristine), series_io.states(series, pristine)
    found = authors(base, applied)
    added = {
        patch.number: {(f.path, row[1:]) for f in patch.mail.files for h in f.hunks for row in h.rows if row[0] == "+"}
        for patch in series.patches
    }
    for path, data in applied[-1].state.items():
        text = (data or b"").decode().splitlines()
        assert len(text) == len(found[path])
        for line, patch in zip(text, found[path], strict=True):
            assert not patch or (path, line) in added[patch]
        ours = [line for line, patch in zip(text, found[path], strict=True) if not patch]
        rest = iter((base[path] or b"").decode().splitlines())
        assert all(line in rest for line in ours)  # what is the base's is there in the base's order
    assert {patch for row in found.values() for patch in row} == {0, *(n for n, rows in added.items() if rows)}


def judged(tmp_path: Path, vectors: Lines, setup: Lines) -> list[Covered]:
    series = series_io.read(folder(tmp_path / "s", mail(1, 2), mail(2, 2, diff=adding("dir/b.c", "\tx = 1;"))))
    state: series_io.State = {"dir/a.c": b"one\ntwo\nthree\nfour\n", "dir/b.c": b"\tx = 1;\n"}
    return judge(series.patches, {"dir/a.c": [0, 1, 0, 0], "dir/b.c": [2]}, state, vectors, setup)


NOT = CountedLine(0)
RAN = CountedLine(7)


@pytest.mark.parametrize(
    ("vectors", "setup", "reach"),
    [
        ([NOT], [NOT], Reach.NEVER),
        ([NOT], [RAN], Reach.SETUP),
        ([RAN], [RAN], Reach.VECTORS),
        ([NOT, RAN], [NOT, NOT], Reach.VECTORS),  # an inline function: one of its copies ran
        ([NOT, NOT], [NOT, NOT], Reach.NEVER),
    ],
)
def test_what_reached_a_line(
    tmp_path: Path, vectors: list[CountedLine], setup: list[CountedLine], reach: Reach
) -> None:
    first, second = judged(tmp_path, {("dir/a.c", 2): vectors}, {("dir/a.c", 2): setup})
    assert [(line.path, line.number, line.text, line.reach) for line in first.lines] == [("dir/a.c", 2, "two", reach)]
    assert not second.lines  # its line has no code


def test_the_bases_lines_are_nobodys(tmp_path: Path) -> None:
    assert not any(one.lines for one in judged(tmp_path, {("dir/a.c", 1): [NOT]}, {}))


@pytest.mark.parametrize(
    ("copies", "ways", "one_sided"),
    [
        ([CountedLine(1)], (0, 0), False),
        ([CountedLine(5, (5, 0))], (1, 2), True),
        ([CountedLine(5, (5, 0)), CountedLine(3, (0, 3))], (2, 2), False),  # one copy went one way, the other the other
        ([CountedLine(5, (5, 0)), CountedLine(3, (1, 1, 1, 3))], (4, 4), False),
        ([CountedLine(0, (0, 0))], (0, 2), False),  # never reached is told as that
    ],
)
def test_ways_out_of_a_condition(
    tmp_path: Path, copies: list[CountedLine], ways: tuple[int, int], one_sided: bool
) -> None:
    (line,) = judged(tmp_path, {("dir/a.c", 2): copies}, {})[0].lines
    assert (line.ways, line.one_sided) == (ways, one_sided)


def test_the_table_and_the_lists(tmp_path: Path) -> None:
    covered = judged(tmp_path, {("dir/a.c", 2): [CountedLine(4, (4, 0))], ("dir/b.c", 1): [NOT]}, {})
    rows = command.text(Counted(loads=1, asked=3, blocked=2, merged=1), covered)
    assert [row.split()[:5] for row in rows[1:4]] == [
        ["1", "1", "1", "0", "0"],
        ["2", "1", "0", "0", "1"],
        ["all", "2", "1", "0", "1"],
    ]
    assert rows[4] == "3 vectors asked in 1 loads, 2 blocked, 1 merged"
    assert rows[6:8] == ["never reached:", "  patch  2  dir/b.c:1: x = 1;"]
    assert rows[-1].endswith("dir/a.c:2: two (1 of 2 ways)")
    assert "loading" not in "".join(rows)


@pytest.mark.parametrize("level", ["0", "17,18"])
def test_a_level_without_lines_is_refused(level: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["coverage", "--level", level]) == 2
    assert "name one level from 1 to 18" in capsys.readouterr().err


def test_the_json_has_every_line(tmp_path: Path) -> None:
    covered = judged(tmp_path, {("dir/a.c", 2): [RAN], ("dir/b.c", 1): [NOT]}, {("dir/b.c", 1): [RAN]})
    data = command.as_json(2, ["unset"], Counted(asked=1), covered)
    assert (data["schema"], data["level"], data["vectors"]["asked"]) == ("kvmirror-coverage-1", 2, 1)
    assert data["patches"][1]["counts"] == {"vectors": 0, "setup": 1, "never": 0}
    (line,) = data["patches"][1]["lines"]
    assert (line["file"], line["line"], line["text"], line["reached"]) == ("dir/b.c", 1, "x = 1;", "setup")
