"""The packages that only the tests need: who asks for them, and what is said where they are missing."""

import os
import subprocess
from pathlib import Path

import pytest

from harness.build import packages
from harness.errors import BuildError
from tests import programs

ROOT = Path(__file__).resolve().parents[1]


def test_a_package_is_in_one_list() -> None:
    ours = [p.name for p in packages.packages(programs.LIST.read_text())]
    assert "chromium-driver" in ours
    assert len(set(ours)) == len(ours)
    assert not set(ours) & {p.name for p in packages.packages()}


@pytest.mark.parametrize(("target", "asks"), [("setup", False), ("validate", False), ("lint", False), ("test", True)])
def test_only_make_test_asks_for_them(target: str, asks: bool) -> None:
    argv = ["make", "--dry-run", target]
    done = subprocess.run(argv, cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True)
    assert "cat harness/packages.txt" in done.stdout
    assert ("cat harness/packages.txt tests/packages.txt" in done.stdout) == asks


def test_a_missing_program_is_no_skip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "LIST", tmp_path / "packages.txt")
    programs.LIST.write_text("bash bash\n")
    assert Path(programs.program("bash")).is_file()
    programs.LIST.write_text("bash bash\nno-such-package no-such-program\n")
    with pytest.raises(BuildError, match=r"1 system packages are missing: run `make test-packages`.*no-such-package"):
        programs.program("bash")
