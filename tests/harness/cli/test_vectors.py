"""``kvmirror vectors``: the parts and their counts, a part's ids, an id's fields."""

from __future__ import annotations

import json

import pytest

from harness.cli.main import main
from harness.questions import core, selection


def test_every_part_has_its_count_and_its_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vectors", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == list(core.NAMES)
    assert rows["permissions_4k"]["vectors"] == len(list(core.permissions_4k()))
    assert all(row["vectors"] and row["what"] for row in rows.values())
    assert main(["vectors"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 120
    assert all(name in out for name in core.NAMES)


def test_a_part_s_ids_are_such_as_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vectors", "thin"]) == 0
    asked = capsys.readouterr().out.split()
    assert selection.vector_list(asked) == core.thin()
    assert main(["vectors", "--full-ids", "thin"]) == 0
    assert capsys.readouterr().out.split() == [vector.id for vector in core.thin()]


def test_an_id_is_told_field_by_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vectors", "e4k.fetch.l1=r--u"]) == 0
    full, short, *fields = capsys.readouterr().out.splitlines()
    assert full.startswith("e4k.l1=r--u.l2=rwxu.mt6.") and short.split() == ["short", "e4k.l1=r--u.fetch.mbec=on"]
    assert ["CR4.SMEP", "smep0"] in [line.split() for line in fields]
    assert main(["vectors", "e4k.frob"]) == 2
