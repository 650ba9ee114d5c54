"""A recording judged again: the run's answers, findings, reports and exit codes, on a machine with nothing."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.cli.main import main
from harness.errors import InputError
from harness.findings import Run
from harness.observe import Traced, cut
from harness.observe.reports import Reported
from harness.process import programs
from harness.questions import Load, Setting
from harness.recording import content, making, replayed
from harness.results import KVM_HOST, Answer, CellKey, Journal, Mark, Verdict, cpus, judge
from harness.run.judge import Voices
from kvmodel import machine, sdm
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vector import Access, AccessVector, Mbec
from tests.golden import stored
from tests.harness.recording import made


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stored run as a journal and as a recording."""
    folder = tmp_path_factory.mktemp("stored")
    made.recording(folder)
    return folder


@pytest.fixture
def nothing_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine on which no program can be started, no connection made, and no cache or journal is."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a replay starts nothing and asks nobody")

    monkeypatch.setattr(programs, "run", refuse)
    monkeypatch.setattr(programs, "spawn", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("KVMIRROR_CACHE", str(tmp_path / "no-cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "no-home"))
    yield
    assert not (tmp_path / "no-cache").exists() and not (tmp_path / "no-home").exists()


def test_every_answer_is_judged_as_it_was(there: Path) -> None:
    with Journal(there / "stored.sqlite") as journal, replayed(there / "stored.kvm") as again:
        was = {(key, a.vector.id): a for key, a in journal.answers(journal.latest())}
        now = {(key, a.vector.id): a for key, a in again.journal.answers(again.number)}
        assert len(was) > 500 and now == was
        assert again.totals == Run.open(journal).totals


def test_what_the_kernel_s_log_said_is_replayed_with_the_answers_it_came_beside(there: Path, tmp_path: Path) -> None:
    path = made.journal(tmp_path / "logged.sqlite")
    voices = Voices(cpus.emulated)
    with Journal(path) as journal:
        number = journal.latest()
        for key, answer in list(journal.answers(number)):
            if isinstance(answer.vector, AccessVector) and answer.vector.env == "std":
                load = Load(key.level, Setting.parse(key.param), answer.vector.machine.env)
                said = [Reported(answer.vector, "WARN in make_spte"), Reported(None, "KASAN: use-after-free in f")]
                log = replace(key, machine=f"{key.machine}:log")
                journal.record(number, log, voices.logged(load, said), 0.0, {})
                break
        run = Run.open(journal)
        making.write(making.of_run(run), tmp_path / "logged.kvm")
        was = {(key, a.vector.id): a for key, a in journal.answers(number)}
        with replayed(tmp_path / "logged.kvm") as again:
            now = {(key, a.vector.id): a for key, a in again.journal.answers(again.number)}
            assert now == was and sum(key.machine.endswith(":log") for key, _ in now) == 2
            assert [f.cause for f in again.findings] == [f.cause for f in run.findings]

    def moved(body: made.Lines) -> None:
        for line in body:
            if str(line.get("cell", {}).get("machine", "")).endswith(":log"):
                line["cell"]["machine"] = "cpu0:log"

    forged = made.forged(tmp_path / "logged.kvm", moved)
    with pytest.raises(InputError, match="its cell 'cpu0:log' has a vector of another machine: "), replayed(forged):
        pass


def written(folder: Path, what: str, *command: str) -> dict[str, str]:
    """What a command writes in every format."""
    files = {name: folder / f"{what}.{name}" for name in ("html", "junit", "ktap", "json", "markdown")}
    main([*command, *(word for name, path in files.items() for word in (f"--{name}", str(path)))])
    return {name: path.read_text(encoding="utf-8") for name, path in files.items()}


def test_the_reports_are_those_of_the_run(there: Path, tmp_path: Path, nothing_there: None) -> None:
    was = written(tmp_path, "was", "report", "--journal", str(there / "stored.sqlite"))
    now = written(tmp_path, "now", "replay", str(there / "stored.kvm"))
    for name in ("junit", "ktap", "markdown"):
        assert now[name] == was[name]
    first, second = json.loads(was["json"]), json.loads(now["json"])
    origin = second["provenance"].pop("replayed"), second["provenance"].pop("cpu_under")
    assert re.fullmatch("[0-9a-f]{64}", origin[0]) and origin[1]["mbec"]["mbec"]
    first["provenance"]["bochs"].pop("path", None)
    assert second == first
    # Vectors, and so the texts of the page's matrix, are numbered in another order.
    facts = re.compile(r"<dt>(?:cpu_under|replayed|bochs\.path).*\n|^.*\"texts\":.*$", re.MULTILINE)
    assert facts.sub("", now["html"]) == facts.sub("", was["html"])


def test_the_text_and_the_exit_code_are_those_of_the_run(
    there: Path, capsys: pytest.CaptureFixture[str], nothing_there: None
) -> None:
    assert main(["replay", str(there / "stored.kvm")]) == 1
    out = capsys.readouterr().out
    main(["findings", "--journal", str(there / "stored.sqlite")])
    listed = capsys.readouterr().out
    assert listed.count("\n") > 20 and listed in out
    assert "0 drift" in out and "replayed from" in out


def test_the_reply_to_the_list(there: Path, capsys: pytest.CaptureFixture[str], nothing_there: None) -> None:
    who = ("--reply", "--tester", "A <a@example.org>")
    main(["report", "--journal", str(there / "stored.sqlite"), *who])
    was = capsys.readouterr().out
    main(["replay", str(there / "stored.kvm"), *who])
    assert capsys.readouterr().out == re.sub(r" *- bochs\.path: .*\n", "", was)


def test_what_a_baseline_holds_is_no_new_finding(there: Path, tmp_path: Path) -> None:
    known = tmp_path / "known.json"
    assert main(["replay", str(there / "stored.kvm"), "--write-baseline", str(known)]) == 1
    assert main(["replay", str(there / "stored.kvm"), "--baseline", str(known)]) == 0
    body = json.loads(known.read_text())
    body["known"].pop()
    known.write_text(json.dumps(body))
    assert main(["replay", str(there / "stored.kvm"), "--baseline", str(known)]) == 1


def test_a_kept_run_is_one_for_the_other_commands(
    there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = ("--journal", str(tmp_path / "kept.sqlite"))
    main(["replay", str(there / "stored.kvm"), *kept])
    capsys.readouterr()
    assert main(["explain", "F1", *kept]) == 0
    was = capsys.readouterr().out
    main(["explain", "F1", "--journal", str(there / "stored.sqlite")])
    assert capsys.readouterr().out == was
    assert main(["validate", "--resume", "--vectors", "thin", *kept]) == 2
    assert "it was replayed from a recording" in capsys.readouterr().err


def test_a_recording_of_a_replayed_run_is_the_recording(there: Path, tmp_path: Path) -> None:
    with replayed(there / "stored.kvm") as again:
        making.write(making.of_run(again), tmp_path / "again.kvm")
    first, second = made.lines(there / "stored.kvm"), made.lines(tmp_path / "again.kvm")
    made.about(second)["provenance"].pop("replayed")
    assert second == first


def test_recordings_are_compared(there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording, journal = str(there / "stored.kvm"), str(there / "stored.sqlite")
    assert main(["compare", recording, journal]) == 0
    out = capsys.readouterr().out
    assert "no answer differs" in out and f"of {recording}" in out and "kvmirror-replay" not in out
    other = tmp_path / "other.kvm"
    other.write_bytes(Path(recording).read_bytes())

    def turn(body: made.Lines) -> None:
        """One vector that ran is blocked, and one answer is another one's."""
        seen = made.cell(body)["seen"]
        seen[0] = (seen[0] + 1) % 5

    made.forged(other, turn)
    assert main(["compare", "--json", recording, str(other)]) == 1
    assert not json.loads(capsys.readouterr().out)["equal"]
    assert main(["compare", f"{recording}:2", journal]) == 2
    assert "has one run, and no run 2" in capsys.readouterr().err


def test_without_times_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    """Another day, another host, other counts, another order of the vectors: the same answers."""
    run = stored.load()
    made.doors.write_run(tmp_path / "a.sqlite", run)
    run["begun"], run["ended"], run["argv"] = run["begun"] + 5e5, run["ended"] + 5.5e5, ["kvmirror", "validate"]
    made_of = run["provenance"]
    made_of.pop("bochs"), made_of.pop("qemu")
    made_of |= {"lab": ["root@lab1:22"], "host": "Linux-9", "cpus": {"root@lab1:22": {"model name": "x"}}}
    for cell in run["cells"]:
        cell["seconds"] += 1
        cell["answers"].reverse()
        cell["facts"] |= {"start_seconds": 9.9, "counters": {"exits": 5}} if "qemu" in cell["facts"] else {}
    made.doors.write_run(tmp_path / "b.sqlite", run)
    for name in "ab":
        command = ["record", "--journal", str(tmp_path / f"{name}.sqlite")]
        assert main([*command, "--no-times", str(tmp_path / f"{name}.kvm")]) == 0
        assert main([*command, str(tmp_path / f"{name}-times.kvm")]) == 0
    assert (tmp_path / "a.kvm").read_bytes() == (tmp_path / "b.kvm").read_bytes()
    assert (tmp_path / "a-times.kvm").read_bytes() != (tmp_path / "b-times.kvm").read_bytes()
    run["cells"][0]["answers"][0][1] = {"kind": "blocked", "code": 0, "number": 0}
    with replayed(tmp_path / "a.kvm") as found:
        assert found.totals.vectors > 500 and found.totals.drift == 0


def test_an_answer_more_is_another_recording(there: Path, tmp_path: Path) -> None:
    """What --no-times leaves out is no answer: one other answer, and the bytes differ."""
    first, second = made.recording(tmp_path, times=False), tmp_path / "second.kvm"
    second.write_bytes(first.read_bytes())
    made.forged(second, lambda body: None)
    assert second.read_bytes() == first.read_bytes()
    made.forged(second, lambda body: made.cell(body)["seen"].__setitem__(0, 1))
    assert second.read_bytes() != first.read_bytes()


# tracepoints

PLAIN = AccessVector(mbec=Mbec.OFF)
FETCH = AccessVector(mbec=Mbec.OFF, access=Access.FETCH)


def traced_run(path: Path, wrong: bool = False) -> None:
    """A journal with two traced vectors at level 0, whose events are the mirror's, or one of them is not."""
    with Journal(path) as journal:
        run = journal.begin(["validate"], {})
        answers, traces = [], []
        for vector in (PLAIN, FETCH):
            outcome = machine.predict(0, None, Cpu(), vector).outcome
            contract = sdm.allowed(machine.virtual_cpu(0, None, Cpu(), vector.machine), vector)
            answers.append(Answer(vector, outcome, outcome, contract, judge(outcome, contract, outcome)))
            exits = cut.predicted(machine.events(0, None, Cpu(), vector))
            if wrong and vector is FETCH:
                exits[-1] = tuple((name, text.replace("error_code", "error_c0de")) for name, text in exits[-1][:-1])
            traces.append(cut.as_json(Traced(vector, tuple(exits))))
        journal.record(run, CellKey(0, "unset", KVM_HOST, "std+mbec"), answers[:1], 1.0, {}, traces=traces[:1])
        journal.record(run, CellKey(0, "unset", KVM_HOST, "std+mbec"), answers, 1.0, {}, traces=traces)
        journal.end(run, "complete")


@pytest.mark.parametrize(("wrong", "code"), [(False, 0), (True, 3)])
def test_traces_are_held_against_the_mirror_again(
    wrong: bool, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    traced_run(tmp_path / "j.sqlite", wrong)
    assert main(["record", "--journal", str(tmp_path / "j.sqlite"), str(tmp_path / "a.kvm")]) == 0
    assert main(["replay", str(tmp_path / "a.kvm")]) == code
    out = capsys.readouterr().out
    assert f"2 answers traced event by event: {int(wrong)} differ from the mirror" in out
    assert (FETCH.id in out) is wrong


def test_a_cell_that_is_recorded_anew_has_its_own_traces_alone(tmp_path: Path) -> None:
    traced_run(tmp_path / "j.sqlite")
    with Journal(tmp_path / "j.sqlite") as journal:
        (traces,) = journal.traces(1).values()
        assert [one["vector"] for one in traces] == [PLAIN.id, FETCH.id]
        journal.record(1, CellKey(0, "unset", KVM_HOST, "std+mbec"), [], 1.0, {})
        assert journal.traces(1) == {}


def test_the_hosts_own_addresses_are_not_recorded(tmp_path: Path) -> None:
    traced_run(tmp_path / "j.sqlite")
    with Journal(tmp_path / "j.sqlite") as journal:
        run = Run.open(journal)
        (cell,) = making.of_run(run).cells
        (own,) = journal.traces(1).values()
    texts = [text for trace in cell.traces for one in trace.exits for _, text in one]
    (pfn,) = {match[1] for text in map(str, own) for match in re.finditer(r"pfn (\w+)", text)} - {"1"}
    assert not any(f"pfn {pfn} " in text for text in texts)
    assert any("pfn 1 " in text for text in texts) and any(re.search(r"spte \w*1\w\w\w ", text) for text in texts)


# runs that are none of KVM's


def test_a_foreseen_run_is_not_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = ("--journal", str(tmp_path / "j.sqlite"))
    main(["foresee", "--levels", "0", "--vectors", "thin", *journal])
    assert main(["record", "--run", "1", *journal, str(tmp_path / "a.kvm")]) == 2
    assert "nothing was observed" in capsys.readouterr().err and not (tmp_path / "a.kvm").exists()


def test_a_bare_cpu_is_judged_by_the_manual_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = Outcome(Kind.LIVELOCK)
    contract = sdm.allowed(Cpu(), PLAIN)
    with Journal(tmp_path / "j.sqlite") as journal:
        run = journal.begin(["validate", "--bare"], {})
        answer = Answer(PLAIN, seen, None, contract, judge(None, contract, seen))
        facts = {"cpu": {"mbec": True, "maxphyaddr": 40}}
        journal.record(run, CellKey(0, "unset", "bare", "bare"), [answer], 1.0, facts)
        journal.end(run, "complete")
    assert main(["record", "--bare", "--journal", str(tmp_path / "j.sqlite"), str(tmp_path / "a.kvm")]) == 0
    assert main(["replay", str(tmp_path / "a.kvm")]) == 0
    assert "1 answers of a bare CPU: 1 departures from the manual" in capsys.readouterr().out
    made.forged(tmp_path / "a.kvm", lambda body: made.cell(body)["facts"].pop("cpu"))
    with pytest.raises(InputError, match="does not say what that CPU is"), replayed(tmp_path / "a.kvm"):
        pass


def test_a_run_without_a_mirror_is_judged_without_one(tmp_path: Path) -> None:
    run = stored.load()
    run["provenance"]["series"] = {"patches": 40, "mirrored": False, "options": " --series ../v2", "prerequisites": 0}
    made.doors.write_run(tmp_path / "j.sqlite", run)
    with Journal(tmp_path / "j.sqlite") as journal:
        making.write(making.of_run(Run.open(journal)), tmp_path / "a.kvm")
    with replayed(tmp_path / "a.kvm") as found:
        answers = [answer for _, answer in found.journal.answers(found.number)]
    assert len(answers) > 500 and all(answer.predicted is None for answer in answers)


def test_older_journals_say_of_the_cpu_what_l1_read(there: Path) -> None:
    """Their cells have the MSRs alone, and those whose answers are a lower level's have not even these."""
    recording = content.read(there / "stored.kvm")
    of_l1 = [cell for cell in recording.cells if cell.answers and ":" not in cell.key.machine]
    taken = [cell for cell in of_l1 if all(Mark.TAKEN in one.given for one in cell.answers)]
    assert taken and all("virtual_cpu" in cell.facts for cell in taken)
    assert not any("msrs" in cell.facts for cell in taken)
    assert all(
        "virtual_cpu" in cell.facts for cell in of_l1 if any(int(text, 16) for text in cell.facts.get("msrs", ()))
    )


def test_a_mark_that_no_judge_gives_is_kept(tmp_path: Path) -> None:
    traced_run(tmp_path / "j.sqlite")
    with Journal(tmp_path / "j.sqlite") as journal:
        ((key, answer), *_) = journal.answers(1)
        taken = Answer(answer.vector, answer.seen, answer.predicted, answer.contract, Verdict(Mark.AGREE | Mark.TAKEN))
        journal.record(1, key, [taken], 1.0, {})
        making.write(making.of_run(Run.open(journal)), tmp_path / "a.kvm")
    with replayed(tmp_path / "a.kvm") as found:
        ((_, again),) = found.journal.answers(found.number)
        assert again.verdict.marks == Mark.AGREE | Mark.TAKEN and found.totals.taken == 1
