"""The commands in the documents of this part do what they say."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LINES = re.findall(r"(?m)^ {4}(kvmirror report .*?)(?:  .*)?$", (ROOT / "docs" / "reports.md").read_text())
INLINE = re.findall(r"`(kvmirror report [^`]*)`", (ROOT / "docs" / "schema.md").read_text())


def test_there_are_commands() -> None:
    assert len(LINES) == 8 and len(INLINE) >= 2


@pytest.mark.parametrize("line", [*LINES, *INLINE])
def test_a_command_of_the_documents_runs(line: str, journal_path: Path, tmp_path: Path) -> None:
    words = [w if w != "FILE" else "file" for w in shlex.split(line)]
    (tmp_path / "known.json").write_text('{"schema": "kvmirror-baseline-1", "known": []}')
    argv = [sys.executable, "-m", "harness.cli", *words[1:], "--journal", str(journal_path)]
    done = subprocess.run(
        argv, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == (3 if "--exit-code" in words else 0), done.stderr
    for word in words:
        if re.fullmatch(r"\w+\.\w+|file", word):
            assert (tmp_path / word).stat().st_size > (40 if "--baseline" in words else 100)
