"""What doctor holds lab machines against: the kernel that is asked for, never another that lies in the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.build import cache, kernel
from harness.build.cache import Cache
from harness.cli.main import main
from harness.series import pinned
from tests.harness.build.test_kernel import BUILDING, tree

NOBODY = ("--host", "ssh://root@127.0.0.1:9")


def compared(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The line of doctor about the modules' kernel."""
    assert main(["doctor", *NOBODY, *words]) == 4  # nobody is there
    (line,) = (text for text in capsys.readouterr().out.splitlines() if "kernel of the modules" in text)
    return line


def test_the_kernel_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path / "cache"))
    linux = tree(tmp_path / "linux")
    makefile = (linux / "Makefile").read_text().replace("PATCHLEVEL = 12", "PATCHLEVEL = 77") + BUILDING
    (linux / "Makefile").write_text(makefile.replace("@echo 6.12.8", "@echo 6.77.8"))
    assert "is not built: compared with nothing" in compared(capsys, "--linux", str(linux))
    assert not (tmp_path / "cache").exists()
    kernel.base(Cache(), linux)
    assert "Linux 6.77.8" in compared(capsys, "--linux", str(linux))
    assert f"Linux {pinned.VERSION} is not built: compared with nothing" in compared(capsys)
