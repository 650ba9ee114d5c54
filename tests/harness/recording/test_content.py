"""What a recording may hold: whatever it says is held against what a run can say, before anything is judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import InputError
from harness.findings import Run
from harness.recording import content, making, replayed, shapes
from harness.results import Journal
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, Outcome, Place
from tests.harness.recording import made
from tests.harness.recording.made import Lines, about, cell

Change = Callable[[Lines], object]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    with Journal(made.journal(tmp_path / "j.sqlite")) as journal:
        recording = making.of_run(Run.open(journal))
    making.write(recording, tmp_path / "a.kvm")
    read = content.read(tmp_path / "a.kvm")
    assert (read.vectors, read.outcomes, read.cells) == (recording.vectors, recording.outcomes, recording.cells)
    assert read.about == recording.about and read.sha256 and read.answers > 500


@pytest.mark.parametrize(("values", "row"), [([], []), ([5, 5, 7, 5], [5, 2, 7, 1, 5, 1])])
def test_runs(values: list[int], row: list[int]) -> None:
    assert content.runs(values) == row


@pytest.mark.parametrize(("values", "row"), [([], []), ([3, 4, 5, 9, 8], [3, 3, 9, 1, 8, 1])])
def test_stretches(values: list[int], row: list[int]) -> None:
    assert content.stretches(values) == row


def to(how: Callable[[Lines], Any], name: str, value: Any) -> Change:
    """The change that gives one thing another value."""
    return lambda body: how(body).__setitem__(name, value)


def facts(body: Lines) -> dict[str, Any]:
    found: dict[str, Any] = cell(body)["facts"]
    return found


def with_cpu(body: Lines) -> dict[str, Any]:
    cells = (line["cell"]["facts"] for line in body if "cell" in line)
    return next(facts["virtual_cpu"] for facts in cells if "virtual_cpu" in facts)


def vectors(body: Lines) -> list[Any]:
    return next(line["vectors"] for line in body if "vectors" in line)


def outcomes(body: Lines) -> list[Any]:
    return next(line["outcomes"] for line in body if "outcomes" in line)


def made_of(body: Lines) -> dict[str, Any]:
    found: dict[str, Any] = about(body)["provenance"]
    return found


TRACE = {"vector": "e4k", "exits": [[["kvm_exit", "x"]]], "warns": []}
OTHER_TRACE = {**TRACE, "vector": "e4k.l1=rwxu.l2=rwxu.mt6.xb0.ub0.read.gpuwx.guuwx.pg64.cpl0.wp1.smep0.smap0.nxe1.ad0"
               ".mbec=on.xo1.ev0.env=cpu0"}  # fmt: skip
HOSTILE: dict[str, tuple[Change, str]] = {
    "an id that is no vector": (lambda b: vectors(b).__setitem__(0, "e4k.rm -rf"), "vector 0: "),
    "a short id": (lambda b: vectors(b).__setitem__(0, "e4k.l1=--xu.read"), "is not its full id"),
    "an id that steers the terminal": (
        lambda b: vectors(b).__setitem__(0,
        "\x1b[2J"), r"control characters: '\\x1b\[2J'",
    ),
    "vectors that are none": (lambda b: vectors(b).__setitem__(0, 5), "its vectors are no list of ids"),
    "an unknown kind": (
        lambda b: outcomes(b)[0].__setitem__("kind", "fine"),
        "outcome 0 is none that this kvmirror knows",
    ),
    "an unknown field": (lambda b: outcomes(b)[0].__setitem__("sure", 1), "outcome 0 is none that this kvmirror knows"),
    "a code that is a text": (lambda b: outcomes(b)[0].__setitem__("code", "1"), "not what an outcome is made of"),
    "a code that is absurd": (lambda b: outcomes(b)[0].__setitem__("code", 1 << 200), "a number of 201 bits"),
    "a place that is none": (lambda b: outcomes(b)[0].__setitem__("gpa", [1, "x"]), "not what an outcome is made of"),
    "turns in turns": (
        lambda b: outcomes(b)[0].__setitem__("turns", [{"kind": "done", "turns": [{"kind": "done"}]}]),
        "outcome 0 is none|not what an outcome is made of",
    ),
    "turns without end": (
        lambda b: outcomes(b)[0].__setitem__("turns", [{"kind": "done"}] * 3000),
        "outcome 0 has 3,000 turns, and none has more than 2,048",
    ),
    "turns that are a number": (lambda b: outcomes(b)[0].__setitem__("turns", 5), "outcome 0 is none"),
    "an outcome twice": (lambda b: outcomes(b).append(outcomes(b)[0]), "an outcome is told twice"),
    "a vector's id twice": (lambda b: vectors(b).append(vectors(b)[0]), "a vector is told twice"),
    "a note that steers the terminal": (
        lambda b: outcomes(b)[0].__setitem__("note", "\x1b]0;x\x07"),
        "control characters",
    ),
    "a note that turns around": (lambda b: outcomes(b)[0].__setitem__("note", "\u202eevil"), "control characters"),
    "a note without end": (lambda b: outcomes(b)[0].__setitem__("note", "x" * 30_000), "a text of 30,000 characters"),
    "a vector that is not there": (lambda b: cell(b).__setitem__("asked", [0, 999_999]), "refers to what is not there"),
    "a vector before the first": (lambda b: cell(b).__setitem__("asked", [-1, 2]), "refers to what is not there"),
    "an answer to nothing": (lambda b: cell(b)["seen"].__setitem__(1, 100), "vectors and .* answers"),
    "answers without number": (lambda b: cell(b).__setitem__("seen", [0, 1 << 60]), "more than 20,000,000 answers"),
    "a vector twice": (lambda b: cell(b).update(asked=[0, 1, 0, 1], seen=[0, 2]), "a vector twice"),
    "a row that breaks off": (lambda b: cell(b)["asked"].append(1), "breaks off"),
    "a mark of tomorrow": (to(cell, "given", {"GUESSED": [0, 1]}), "'GUESSED', which this kvmirror does not know"),
    "a mark that the judge gives": (to(cell, "given", {"AGREE": [0, 1]}), "'AGREE', which this kvmirror does not know"),
    "a mark for nothing": (to(cell, "given", {"TAKEN": [999_999, 1]}), "refers to what is not there"),
    "a level that is none": (to(cell, "level", 1 << 40), "of no level or no host"),
    "a level above the series": (to(cell, "level", 19), "has a level 19"),
    "a host that is none": (to(cell, "host", "foreseen"), "of no level or no host"),
    "a parameter that is none": (to(cell, "param", "$(reboot)"), "cell 0: "),
    "a machine that is another": (to(cell, "machine", "huge+mbec"), "has a vector of another machine"),
    "no answers' list": (lambda b: cell(b).pop("seen"), "a cell is not complete"),
    "a cell twice": (lambda b: b.append(b[-1]), "a cell is there twice"),
    "a line of another kind": (lambda b: b.append({"code": "import os"}), "a line of it is none that a recording has"),
    "a list for a line": (lambda b: b.append([1]), "a line of it is none that a recording has"),  # type: ignore[arg-type]
    "no run": (lambda b: b.remove({"run": about(b)}), "does not say of which run"),
    "two runs": (lambda b: b.append({"run": about(b)}), "says twice"),
    "a status that is none": (to(about, "status", "superb"), "is not complete"),
    "times that are none": (to(about, "begun", -5.0), "times are none"),
    "a time for ever": (to(about, "begun", 1e30), "absurdly large"),
    "a command line that steers": (to(about, "argv", ["kvmirror\x1b[1m"]), "control characters"),
    "provenance that is none": (to(about, "provenance", []), "its provenance is not an object"),
    "patches that are none": (to(made_of, "patches", 5), "'patches' is not what it has to be"),
    "a patch that is none": (to(made_of, "patches", [{"sha256": ["x"]}]), "'patches' is not what it has to be"),
    "a series that is none": (to(made_of, "series", {"patches": 3}), "its series is not as a run has it"),
    "a series of absurd length": (
        to(made_of, "series", {"patches": 1 << 60, "mirrored": True, "options": "", "prerequisites": 0}),
        "its series is none",
    ),
    "options that run something": (
        to(made_of, "series", {"patches": 18, "mirrored": True, "options": " --series x; reboot", "prerequisites": 0}),
        "its series is none",
    ),
    "a CPU under KVM that is none": (
        to(made_of, "cpu_under", {"mbec": {"maxphyaddr": 1 << 60}}),
        "CPU under KVM is none",
    ),
    "a CPU under KVM that is no object": (to(made_of, "cpu_under", {"mbec": 5}), "its CPU is not as a run has it"),
    "what was confirmed is none": (to(made_of, "confirmed", {"0": {"departure": 1}}), "what was confirmed is not"),
    "an L1's CPU that is none": (
        lambda b: with_cpu(b).__setitem__("mbec", "yes"),
        "a cell's CPU is none that there is",
    ),
    "an L1's CPU of absurd width": (lambda b: with_cpu(b).__setitem__("maxphyaddr", 1 << 70), "none that there is"),
    "facts that are none": (to(facts, "counters", {"exits": "many"}), "'counters' is not what it has to be"),
    "what was not reproduced is none": (to(facts, "not_reproduced", [{"vector": 5}]), "not reproduced is not as"),
    "facts in facts": (to(facts, "x", [[[[[[[[[[[[[[1]]]]]]]]]]]]]]), "lists in lists"),
    "MSRs that are none": (to(facts, "msrs", ["0x" + "f" * 40]), "MSRs are none"),
    "a fact that steers": (to(facts, "qemu", "11\n0 findings"), "control characters"),
    "a trace of no vector": (to(cell, "traces", [TRACE]), "a trace is none"),
    "a trace of another vector": (to(cell, "traces", [OTHER_TRACE]), "trace of a vector that it did not ask"),
    "a trace of no events": (to(cell, "traces", [{**OTHER_TRACE, "exits": [[["kvm_exit", 5]]]}]), "a trace is none"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_recording_is_refused_by_name(
    name: str, tmp_path: Path, hostile_source: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its checksum is right: whoever made it knew how."""
    change, reason = HOSTILE[name]
    path = tmp_path / "hostile.kvm"
    path.write_bytes(hostile_source)
    made.forged(path, change)
    kept = tmp_path / "kept.sqlite"
    with pytest.raises(InputError, match=reason) as refused, replayed(path, kept):
        pass
    text = str(refused.value)
    assert text.startswith(f"recording {path}: ") and "; " in text and text.isprintable()
    with Journal(kept) as journal:
        assert journal.runs() == [], "a recording that was refused left a run behind"


@pytest.fixture(scope="module")
def hostile_source(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return made.recording(tmp_path_factory.mktemp("source")).read_bytes()


def test_what_a_host_said_is_written_down_as_its_escapes(tmp_path: Path) -> None:
    """A run may hold what a host's kernel printed: its recording can be read all the same, and steers nothing."""
    run = made.stored.load()
    run["cells"][0]["facts"]["warnings"] = ["WARNING: \x1b[31m at mmu.c:1\nmore"]
    made.doors.write_run(tmp_path / "j.sqlite", run)
    with Journal(tmp_path / "j.sqlite") as journal:
        making.write(making.of_run(Run.open(journal)), tmp_path / "a.kvm")
    told = [one.facts.get("warnings") for one in content.read(tmp_path / "a.kvm").cells]
    assert [r"WARNING: \x1b[31m at mmu.c:1\nmore"] in told


@pytest.mark.parametrize(
    ("value", "hint", "is_one"),
    [
        (5, int, True),
        (True, int, False),
        ("5", int, False),
        (1 << 128, int, False),
        (Outcome(Kind.DONE), Outcome, True),
        (Outcome(Kind.DONE, gpa=Place("target")), Outcome, True),
        (Outcome(Kind.DONE, gpa=Place(5)), Outcome, False),  # type: ignore[arg-type]
        (Outcome("done"), Outcome, False),  # type: ignore[arg-type]
        (Outcome(Kind.SEQUENCE, turns=(Outcome(Kind.DONE, note=5),)), Outcome, False),  # type: ignore[arg-type]
        (Cpu(errata=frozenset({"x"})), Cpu, True),
        (Cpu(errata=["x"]), Cpu, False),  # type: ignore[arg-type]
        ({"a": [1]}, dict[str, list[int]], True),
        ({"a": [True]}, dict[str, list[int]], False),
    ],
)
def test_types_are_held_all_the_way_down(value: Any, hint: Any, is_one: bool) -> None:
    assert shapes.fits(value, hint) is is_one
