"""``check --on``: a prerequisite that leaves KVM's functions as they are, and one that does not."""

from __future__ import annotations

from difflib import unified_diff
from pathlib import Path

import pytest

from harness.build import Cache, kernel
from harness.cli import main
from tests.harness.series.mail_samples import mail

FILE = "arch/x86/kvm/mmu/spte.c"
LINE = "\treturn spte;\n}\n\nu64 mark_spte_for_access_track("  # far from what patch 12 writes


def prerequisite(tmp_path: Path, line: str) -> str:
    """A mail that puts ``line`` into make_nonleaf_spte(), written against the pinned kernel."""
    now = (kernel.source(Cache(), None) / FILE).read_text()
    assert now.count(LINE) == 1
    then = now.replace(LINE, f"\t{line}\n{LINE}")
    parts = (text.splitlines(keepends=True) for text in (now, then))
    diff = "".join(unified_diff(*parts, f"a/{FILE}", f"b/{FILE}"))
    box = tmp_path / "below.mbox"
    box.write_bytes(mail(diff=f"diff --git a/{FILE} b/{FILE}\nindex 1111111..2222222 100644\n{diff}"))
    return str(box)


@pytest.mark.live
@pytest.mark.parametrize(("line", "code"), [("/* as it was */", 0), ("spte |= BIT_ULL(60);", 3)])
def test_the_mirror_is_held_against_what_the_series_stands_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, code: int
) -> None:
    words = ["--levels", "12", "--functions", "make_nonleaf_spte", "--cases", "2000"]
    assert main.main(["check", "--on", prerequisite(tmp_path, line), *words]) == code
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("make_nonleaf_spte"))
    cases, differ = map(int, row.split()[1:3])
    assert (cases > 2000, differ) == (True, cases if code else 0)
