"""The last lines of a run in which something was skipped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PASSES = "def test_done(): pass\n"
SKIPS = """
import pytest

@pytest.mark.skipif(True, reason="no compiler")
def test_marked(): pass

def test_calls(): pytest.skip("no network")
"""
WHOLE = "import pytest\npytest.skip('no browser', allow_module_level=True)\n"


def run(folder: Path, ci: str, *options: str) -> tuple[int, list[str]]:
    """The exit status and the lines of a run of the files in ``folder``."""
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "tests.skips", "-p", "no:cacheprovider", *options]
    done = subprocess.run(
        [*argv, "-c", os.devnull, f"--rootdir={folder}", str(folder)],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | {"CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_each_skip_is_told_at_the_end_and_fails_in_ci(tmp_path: Path, workers: tuple[str, ...]) -> None:
    for name, text in (("passes", PASSES), ("skips", SKIPS), ("whole", WHOLE)):
        (tmp_path / f"test_{name}.py").write_text(text)
    for ci, status, end in (
        ("", 0, "3 skipped"),
        ("true", 1, "3 skipped: with CI=true nothing may be skipped, so this run has failed"),
    ):
        code, lines = run(tmp_path, ci, *workers)
        assert code == status
        assert lines[-1] == end
        assert sorted(lines[-4:-1]) == [
            "skipped: test_skips.py::test_calls: no network",
            "skipped: test_skips.py::test_marked: no compiler",
            "skipped: test_whole.py: no browser",
        ]


def test_a_run_without_skips_ends_as_pytest_ends_it(tmp_path: Path) -> None:
    (tmp_path / "test_passes.py").write_text(PASSES)
    code, lines = run(tmp_path, "true")
    assert code == 0
    assert lines[-1].startswith("1 passed in ")
