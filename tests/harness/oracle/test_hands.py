"""Hands: work is shared out, every request is answered once, and what goes wrong in a child is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import InfraError, InputError
from harness.oracle.hands import shared
from harness.oracle.mutate import hand, kept
from harness.oracle.mutate.kept import Kept

ECHO = "tests.harness.oracle.echo_hand"


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_request_is_answered_once(tmp_path: Path, jobs: int) -> None:
    requests = list(range(1, 8))
    answers = sorted(shared(ECHO, 5, requests, jobs, lambda n: tmp_path / f"{n}.log"))
    assert answers == [(n, 2 * request + 5) for n, request in enumerate(requests)]
    assert len(list(tmp_path.iterdir())) == jobs


def test_an_error_of_a_child_is_ours(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match="0 is refused"):
        list(shared(ECHO, 0, [1, 0, 2], 1, lambda n: tmp_path / f"{n}.log"))


def test_a_child_that_ends_is_told_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match=r"echo_hand ended at 13; it said:\ndied of 13"):
        list(shared(ECHO, 0, [13], 1, lambda n: tmp_path / f"{n}.log"))


def test_a_mutant_that_fills_the_memory_fails_and_ends_no_hand(tmp_path: Path) -> None:
    told = hand.setting({}, 10, 1, ["mmu_h"], ())
    asked = [("mmu_h:0", ""), ("mmu_h:1", "")]
    answers = sorted(shared("tests.harness.oracle.greedy_hand", told, asked, 1, lambda n: tmp_path / f"{n}.log"))
    assert answers == [(n, ["failure", "out of memory"]) for n in range(2)]


def test_verdicts_are_kept_but_for_survivors(tmp_path: Path) -> None:
    file = tmp_path / "verdicts"
    Kept(file).keep("spte:3", "", "")
    assert Kept(file).known("spte:3") is None
    Kept(file).keep("spte:3", "check", "make_spte(0x1)")
    assert Kept(file).known("spte:3") == ("check", "make_spte(0x1)")


def test_half_a_line_is_no_verdict(tmp_path: Path) -> None:
    file = tmp_path / "verdicts"
    Kept(file)
    with file.open("a") as lines:
        lines.write('["spte:3", "che')
    kept_now = Kept(file)
    assert kept_now.known("spte:3") is None
    kept_now.keep("spte:3", "check", "x")
    assert Kept(file).known("spte:3") == ("check", "x")


def test_verdicts_of_another_mirror_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "verdicts"
    Kept(file)
    monkeypatch.setattr(kept, "_digest", lambda: "other")
    with pytest.raises(InputError, match="verdicts of another mirror"):
        Kept(file)
    assert json.loads(file.read_text())["mirror"] != "other"


def test_without_a_file_nothing_is_kept() -> None:
    Kept(None).keep("spte:3", "check", "x")
    assert Kept(None).known("spte:3") is None
