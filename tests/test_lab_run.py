"""Runs on a lab: a real labgrid coordinator and exporter, two places that are emulated Intel hosts, real KVM and QEMU.

The command runs as a process of its own, as a CI job would start it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.results.coding import contract_json, outcome_json
from harness.results.journal import Journal
from tests.emulated_lab import EmulatedLab, emulated_lab

pytestmark = pytest.mark.live

ASKED = ["--levels", "0,12,18", "--param", "all", "--vectors", "thin", "host_itself"]
PLACES = ["--host", "labgrid:cpu=icelake,mbec=yes"]
PATIENCE = 900.0  # seconds
Answers = dict[tuple[object, ...], tuple[object, ...]]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedLab]:
    with emulated_lab(tmp_path_factory.mktemp("lab")) as made:
        yield made


def validate(lab: EmulatedLab, journal: Path, *words: str) -> subprocess.Popen[str]:
    """A run of its own process; what it says is in ``journal``'s folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "harness.cli", "validate", *ASKED, *words, "--journal", str(journal)],
        env={**os.environ, "LG_COORDINATOR": lab.coordinator},
        stdout=subprocess.DEVNULL,
        stderr=journal.with_suffix(".said").open("w"),
        text=True,
    )


def said(journal: Path) -> str:
    return journal.with_suffix(".said").read_text()


def ended(run: subprocess.Popen[str], journal: Path, *codes: int) -> None:
    assert run.wait(PATIENCE) in codes, said(journal)


def answers(journal: Path) -> Answers:
    """Every answer of the run but for times: what each voice said, byte for byte, and how it was judged."""
    with Journal(journal) as kept:
        assert kept.run_info(kept.latest()).status == "complete"
        rows = [
            (
                (key.level, key.param, key.machine, answer.vector.id),
                (
                    outcome_json(answer.seen),
                    answer.predicted and outcome_json(answer.predicted),
                    answer.contract and contract_json(answer.contract),
                    answer.verdict,
                ),
            )
            for key, answer in kept.answers(kept.latest())
        ]
    found: Answers = dict(rows)
    assert len(found) == len(rows), "a vector is counted twice"
    return found


def until(true: Callable[[], bool], run: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert run is None or run.poll() is None, "the run ended before"
        assert time.monotonic() < deadline
        time.sleep(0.2)


def asking(lab: EmulatedLab, name: str) -> bool:
    """Whether KVM of a level is loaded on the place's machine: a load is being asked."""
    return lab.sockets[name].host.run("grep -q ^kvm_intel /proc/modules").status == 0


def all_free(lab: EmulatedLab) -> bool:
    return "acquired: None" in (places := lab.client("-v", "places")) and places.count("acquired: None") == 2


@pytest.fixture(scope="module")
def alone(lab: EmulatedLab, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """The same vectors asked of one emulated host, as the tool starts it itself."""
    journal = tmp_path_factory.mktemp("alone") / "journal.sqlite"
    ended(validate(lab, journal, "--jobs", "1"), journal, 1)
    found = answers(journal)
    assert len(found) > 200
    return found


def comparable(found: Answers) -> Answers:
    """Without what a lab machine is not asked: a CPU without the control."""
    return {key: answer for key, answer in found.items() if not str(key[2]).startswith("cpu0")}


def test_a_host_by_its_address_answers_as_the_emulated_one(lab: EmulatedLab, alone: Answers, tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    ended(validate(lab, journal, "--host", lab.ssh("lab1"), *lab.login), journal, 1)
    assert answers(journal) == comparable(alone)


def test_a_place_that_loses_its_power_loses_no_vector(lab: EmulatedLab, alone: Answers, tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    before = lab.sockets["lab2"].cycles
    run = validate(lab, journal, *PLACES, *lab.login)
    until(lambda: asking(lab, "lab2"), run)
    lab.sockets["lab2"].pull()
    ended(run, journal, 1)
    assert answers(journal) == comparable(alone)
    assert "acquired lab1 (root@" in said(journal)
    assert lab.sockets["lab2"].cycles == before + 1, said(journal)
    assert "lab2: the last run on it failed: its power was cycled" in said(journal)
    assert "is given up" not in said(journal)
    until(lambda: all_free(lab))


def test_a_place_that_is_lost_for_good_is_replaced_by_a_free_one(
    lab: EmulatedLab, alone: Answers, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.sqlite"
    run = validate(lab, journal, *PLACES, *lab.login, "--jobs", "1")
    until(lambda: "acquired lab" in said(journal), run)
    lost, other = ("lab1", "lab2") if "acquired lab1" in said(journal) else ("lab2", "lab1")
    until(lambda: asking(lab, lost), run)
    lab.sockets[lost].dead = True
    try:
        lab.sockets[lost].pull()
        ended(run, journal, 1)
    finally:
        lab.sockets[lost].dead = False
        lab.sockets[lost].switch(False)
        lab.sockets[lost].switch(True)
    assert answers(journal) == comparable(alone)
    assert f"{lost} is given back, and {other} (root@" in said(journal)
    with Journal(journal) as kept:
        (machine,) = kept.provenance(kept.latest())["lab"]
    assert machine.startswith(other)
    until(lambda: all_free(lab))


def test_ctrl_c_gives_the_places_back_and_leaves_nothing(lab: EmulatedLab, tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    run = validate(lab, journal, *PLACES, *lab.login)
    until(lambda: asking(lab, "lab1") and asking(lab, "lab2"), run)
    run.send_signal(signal.SIGINT)
    ended(run, journal, 130)
    assert all_free(lab), said(journal)
    for name in lab.sockets:
        host = lab.sockets[name].host
        assert host.run("ls /tmp/kvmirror").status != 0
        assert host.run("pidof qemu-system-x86_64").status != 0
        assert host.run("grep kvm /proc/modules").stdout == ""
