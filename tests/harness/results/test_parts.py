"""What of each part a run asked, and why of some it asked nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.questions import core, left_out_by
from harness.questions.client import CLIENT
from harness.results import (
    BARE_HOST,
    KVM_HOST,
    Answer,
    CellKey,
    Journal,
    Mark,
    PartAsked,
    Verdict,
    parts,
)
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vector import Vector

DONE = Outcome(Kind.DONE)
SPARED = Outcome(Kind.BLOCKED, note="spared: L1 dies of its class (write, MBEC on)")


@pytest.mark.parametrize("name", core.PARTS)
def test_no_part_is_empty_on_a_kernel_without_mbec(name: str) -> None:
    assert any(left_out_by(vector) is None for vector in core.named(name) or ())


def test_a_space_is_its_parts_and_an_id_is_none() -> None:
    found = core.parts_of(["client", "controls", "client", "e4k.l1=r--u.fetch.mbec=on"])
    assert list(found) == [*CLIENT, "controls"]
    assert [v.id for v in found["controls"]] == [v.id for v in core.controls()]
    every = {v.id for vectors in core.parts_of(["full"]).values() for v in vectors}
    assert every == {v.id for v in core.full()}
    assert list(core.parts_of(["thin"])) == ["thin"]


def recorded(tmp_path: Path, seen: dict[Vector, list[Outcome]]) -> dict[str, str | None]:
    """The notes of a journal with a cell for each of a vector's outcomes."""
    with Journal(tmp_path / "j.sqlite") as journal:
        run = journal.begin([], {})
        for level in range(max(map(len, seen.values()))):
            answers = [
                Answer(vector, row[level], None, None, Verdict(
                    Mark.BLOCKED if row[level].kind is Kind.BLOCKED else Mark.AGREE, ""))
                for vector, row in seen.items() if level < len(row)
            ]  # fmt: skip
            journal.record(run, CellKey(level, "unset", KVM_HOST, "std"), answers, 0.0, {})
        assert journal.notes(run, BARE_HOST) == {}
        return journal.notes(run, KVM_HOST)


def test_a_vector_counts_as_asked_where_one_cell_asked_it(tmp_path: Path) -> None:
    first, second, *rest = CLIENT["client_mmio"]()
    notes = recorded(tmp_path, {first: [SPARED, DONE], second: [SPARED, SPARED]})
    assert notes == {first.id: None, second.id: SPARED.note}
    (part,) = parts.of_run(["client_mmio"], notes, KVM_HOST)
    assert part == PartAsked("client_mmio", 18, 1, {parts.NOT_YET: len(rest), SPARED.note: 1})
    assert str(part) == f"client_mmio: 1 of 18 ({len(rest)} {parts.NOT_YET}, 1 spared)"


def test_an_empty_part_is_told_with_its_reason() -> None:
    whole = {v.id: None for v in CLIENT["client_mmio"]()}
    told = parts.lines(parts.of_run(["client_mmio", "emulated", "removed_tables"], whole, KVM_HOST))
    assert told[0] == "1 of 3 parts were asked whole"
    emulated, removed = told[1:]
    assert emulated.startswith("nothing was asked of emulated, 384 vectors (never-offered: KVM does not offer")
    assert removed.startswith("nothing was asked of removed_tables") and parts.CPU0 in removed
    assert parts.lines([]) == []


def test_what_the_bare_cpu_cannot_be_asked_is_told() -> None:
    (part,) = parts.of_run(["client_mmio"], {}, BARE_HOST)
    assert part.empty and part.why == {parts.BARE: 18}
    assert part.as_json()["not_asked"] == [{"reason": parts.BARE, "vectors": 18}]
