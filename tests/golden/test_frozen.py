"""What was frozen before the house was rebuilt is as it was: ids, predictions, help, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golden import doors, freeze

KNOWN = json.loads(freeze.IDS.read_text(encoding="utf-8"))
ASKED = freeze.ASKED.read_text(encoding="utf-8").split()
FROZEN = freeze.frozen_cells()


def test_the_parts_are_those_that_were_frozen() -> None:
    assert list(doors.parts()) == list(KNOWN), freeze.ANEW.format("ids")


@pytest.mark.parametrize("name", KNOWN)
def test_a_part_has_the_ids_it_had(name: str) -> None:
    now = freeze.part_ids(name)
    assert now == KNOWN[name], (
        f"part {name}: {KNOWN[name]['count']:,} ids are frozen, {now['count']:,} are there now, and they or their order"
        f" differ; {freeze.ANEW.format('ids')}"
    )


@pytest.mark.parametrize(("level", "param"), freeze.CELLS)
def test_mirror_and_contract_say_what_they_said(level: int, param: str) -> None:
    for name, was in zip(ASKED, FROZEN[level, param], strict=True):
        answer = freeze.full_answer(level, param, name)
        now = freeze.line(answer)
        if now != was:
            pytest.fail(_differs(level, param, name, was, now, answer), pytrace=False)


def _differs(level: int, param: str, name: str, was: str, now: str, answer: dict[str, str]) -> str:
    """The first vector that differs, with what of it does, as it was frozen and as it is now."""
    lines = [f"level {level}, parameter {param}: {name}"]
    for column, old, new in zip(freeze.COLUMNS, was.split("\t"), now.split("\t"), strict=True):
        if old != new:
            lines += [f"  {column}: frozen {old}, now {new}:", *(f"    {one}" for one in answer[column].splitlines())]
    return "\n".join([*lines, freeze.ANEW.format("predictions")])


def test_the_spread_is_of_the_whole_space() -> None:
    """Not of what was frozen alone: a new part has to be frozen as well."""
    kinds = {doors.kind(doors.vector(name)) for name in ASKED}
    missing = [name for name in doors.parts() if not set(ASKED) & set(freeze.part_ids(name)["some"])]
    assert len(kinds) >= 10 and not missing, freeze.ANEW.format("predictions")


@pytest.mark.parametrize("path", sorted(freeze.HELP.glob("*.txt")), ids=lambda path: path.stem)
def test_help_says_what_it_said(path: Path, tmp_path: Path) -> None:
    commands = {freeze.help_file(command): command for command in doors.commands()}
    assert path in commands, f"there is no command for {path.name} any more; {freeze.ANEW.format('help')}"
    was = path.read_text(encoding="utf-8")
    assert freeze.help_of(commands[path], tmp_path) == was, freeze.ANEW.format("help")


def test_bad_input_is_refused_as_it_was() -> None:
    was = freeze.REFUSALS.read_text(encoding="utf-8")
    assert "\n".join(freeze.refusals()) + "\n" == was, freeze.ANEW.format("refusals")
