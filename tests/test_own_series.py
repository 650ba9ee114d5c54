"""Another maintainer's series of sixty patches, from its mails to the page: real modules, real hosts, no mirror.

One of its patches is wrong (``made.WRONG``), one adds a parameter to kvm-intel: what docs/series.md tells.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli import main
from harness.results import Journal, of_series
from kvmodel.question.vector import Access, AccessVector, Mbec, Perm
from tests.harness.series import made

pytestmark = pytest.mark.live

HARMED = AccessVector(Mbec.OFF, leaf=Perm(False, False, True, False), access=Access.READ)  # bit 5 is to be reported
PLAIN = AccessVector(Mbec.OFF)
LEVEL = str(made.WRONG)
ON = "kvm_intel.report_ept_exits=1"


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory, pinned_source: Path) -> Path:
    """The folder in which the mails were imported and levels 0 and ``made.WRONG`` validated."""
    here = tmp_path_factory.mktemp("own")
    (here / "series.mbox").write_bytes(b"".join(made.mails(made.sixty(), pinned_source)))
    assert main.main(["series", "import", str(here / "series.mbox"), str(here / "own")]) == 0
    words = ["validate", "--series", str(here / "own"), "--levels", f"0,{LEVEL}", "--param", f"unset,{ON}"]
    assert main.main([*words, "--vectors", HARMED.id]) == 2  # the mirror is of another series
    asked = ["--no-mirror", "--vectors", HARMED.id, PLAIN.id, "--journal", str(here / "j.sqlite"), "--jobs", "1"]
    assert main.main([*words, *asked]) == 1
    return here


def test_the_wrong_patch_is_a_finding_first_at_its_level(way: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["findings", "--json", "--journal", str(way / "j.sqlite")]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["first_level"], found["smallest"]) == (made.WRONG, HARMED.id)
    assert found["symptom"] == "wrong exit information: an EPT violation, wrong bits 0x20"
    assert found["cells"] == [[made.WRONG, ON], [made.WRONG, "unset"]]
    assert found["parameter"] == f"with no parameter set or {ON}"
    assert main.main(["explain", "F1", "--journal", str(way / "j.sqlite")]) == 0
    assert f"reproduce   kvmirror run --series {way / 'own'} --level {LEVEL} --param " in capsys.readouterr().out


def test_the_base_is_loaded_once_and_the_parameter_is_set_from_its_patch_on(way: Path) -> None:
    with Journal(way / "j.sqlite") as journal:
        cells = {(k.level, k.param) for k in journal.cells(journal.latest())}
        told = of_series.of_run(journal.provenance(journal.latest()))
    assert cells == {(0, "unset"), (made.WRONG, "unset"), (made.WRONG, ON)}
    assert (told.last, told.mirrored) == (made.COUNT, False)


def test_the_run_knows_how_many_patches_there_are(way: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = ["--journal", str(way / "j.sqlite")]
    assert main.main(["changes", "--patch", LEVEL, *journal]) == 0
    assert "against level 0: 1 answers changed" in capsys.readouterr().out
    assert main.main(["changes", "--patch", str(made.COUNT + 1), *journal]) == 2
    assert f"levels 0 to {made.COUNT}" in capsys.readouterr().err
    assert main.main(["report", "--html", str(way / "page.html"), *journal]) == 0
    assert made.PARTICULAR[made.WRONG].subject.split(":")[1].split("'")[0] in (way / "page.html").read_text()


@pytest.mark.parametrize("named", ["kvm_intel.no_such=1", f"{ON}0"])
def test_a_parameter_that_the_modules_do_not_take_is_refused(
    way: Path, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "--series", str(way / "own"), "--level", LEVEL, "--param", named, PLAIN.id]
    assert main.main(words) == 2
    said = capsys.readouterr().err
    assert "has no parameter kvm_intel.no_such" in said or "is a bool and does not take '10'" in said
