"""The main job on a small selection: real KVM, real QEMU, the emulated CPU, from the command line to the journal."""

import json
from pathlib import Path

import pytest

from harness.cli import main
from harness.findings import Run
from harness.results.journal import Journal
from harness.results.verdict import Mark
from kvmodel.question.outcome import Kind
from kvmodel.question.vector import Access, AccessVector, Mbec, Perm

pytestmark = pytest.mark.live

# Legal for any kernel; a user page that L1 made executable the way it always did, bit 10 clear.
PLAIN_FETCH = AccessVector(Mbec.OFF, leaf=Perm(True, True, True, False), access=Access.FETCH, cpl=3)
DENIED_WRITE = AccessVector(Mbec.OFF, leaf=Perm(True, False, False, False), access=Access.WRITE)
MBEC_FETCH = AccessVector(Mbec.ON, access=Access.FETCH, cpl=3)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run over three levels, kept in a journal of its own."""
    path = tmp_path_factory.mktemp("run") / "journal.sqlite"
    ids = [v.id for v in (PLAIN_FETCH, DENIED_WRITE, MBEC_FETCH)]
    code = main.main(["validate", "--levels", "0,12,18", "--journal", str(path), "--vectors", "thin", *ids])
    assert code in (0, 1)
    return path


def seen(path: Path, vector: str, level: int, param: str) -> tuple[Kind, Mark]:
    with Journal(path) as journal:
        for key, answer in journal.answers(journal.latest(), level=level):
            if (answer.vector.id, key.param) == (vector, param):
                return answer.seen.kind, answer.verdict.marks
    raise AssertionError(f"{vector} was not asked at level {level}, parameter {param}")


def test_the_mirror_agrees_everywhere(journal: Path) -> None:
    with Journal(journal) as j:
        table = Run.open(j).rows
    assert {(r.level, r.param) for r in table} == {(0, "unset")} | {
        (k, p) for k in (12, 18) for p in ("unset", "0", "1")
    }
    assert all(r.drift == 0 for r in table), [r for r in table if r.drift]
    assert all(r.agree for r in table)


def test_the_outcomes_are_not_all_one(journal: Path) -> None:
    assert seen(journal, PLAIN_FETCH.id, 0, "unset") == (Kind.DONE, Mark.AGREE)
    assert seen(journal, DENIED_WRITE.id, 0, "unset") == (Kind.VIOLATION, Mark.AGREE)


def test_an_l1_that_cannot_run_blocks_its_vectors_and_is_a_finding_of_its_own(journal: Path) -> None:
    assert seen(journal, PLAIN_FETCH.id, 12, "1") == (Kind.BLOCKED, Mark.BLOCKED)
    kind, marks = seen(journal, "cli.real.fetch.pgu.env=std", 12, "1")
    assert kind is Kind.LIVELOCK
    assert marks == Mark.FINDING


def test_the_last_level_shows_what_level_0_does_not(journal: Path) -> None:
    kind, marks = seen(journal, PLAIN_FETCH.id, 18, "1")
    assert kind is Kind.LIVELOCK
    assert marks == Mark.FINDING
    assert seen(journal, MBEC_FETCH.id, 18, "1") == (Kind.DONE, Mark.AGREE)


def test_json_is_one_object_and_findings_name_their_patch(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["findings", "--journal", str(journal), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {f["severity"] for f in found} >= {"L1 livelock or death", "L2 livelock"}
    assert main.main(["findings", "--journal", str(journal)]) == 0
    assert "caused by patch" in capsys.readouterr().out
    assert main.main(["explain", "F1", "--journal", str(journal)]) == 0
    assert "reproduce" in capsys.readouterr().out


def test_the_run_says_what_it_was_made_of(journal: Path) -> None:
    with Journal(journal) as j:
        told = j.provenance(j.latest())
    (cpu,) = told["cpus"].values()
    assert cpu["vendor_id"] == "GenuineIntel" and int(cpu["stepping"]) >= 0
    assert [row["number"] for row in told["patches"]] == list(range(1, 19))
    assert all(row["applies"] == "yes, exactly" for row in told["patches"])
    assert told["patches"][11]["builds"].startswith("yes, ")
    assert set(told["config"]) == {"fragment", "config"} and "gcc" in told["compiler"]
