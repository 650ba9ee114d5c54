"""Programs and their groups: nothing outlives a timeout, an interrupt, or a killed parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.errors import BuildError, HostError
from harness.process import programs

# Starts a grandchild that ignores SIGTERM, writes its id to the file $1, and waits for it.
FAMILY = ["sh", "-c", '(trap "" TERM; sleep 300) & echo $! > "$1"; wait', "family"]


def alive(pid: int) -> bool:
    """Whether ``pid`` runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_pid(file: Path) -> int:
    """The id that a program writes to ``file``."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if file.exists() and (text := file.read_text()).endswith("\n"):
            return int(text)
        time.sleep(0.02)
    raise AssertionError("the program wrote no id")


def wait_until_dead(pid: int, seconds: float = 8) -> bool:
    """Whether ``pid`` ends within ``seconds``."""
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def test_output_and_status() -> None:
    done = programs.run(["sh", "-c", "cat; echo err >&2; exit 3"], input="hello", check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("hello", "err\n", 3)


def test_output_that_is_no_text_is_kept() -> None:
    done = programs.run(["printf", r"\377\000x"])
    assert done.data == b"\xff\x00x"
    assert done.stdout == "\N{REPLACEMENT CHARACTER}\x00x"


def test_failure_tells_command_status_and_last_lines() -> None:
    with pytest.raises(BuildError, match="exit status 7") as caught:
        programs.run(["sh", "-c", "seq 100; exit 7"])
    text = str(caught.value)
    assert "sh -c 'seq 100; exit 7'" in text
    assert "\n100" in text
    assert "\n85\n" not in text


def test_failure_with_a_log_names_the_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "x.log"
    with pytest.raises(HostError, match=r"(?s)boom.*x\.log"):
        programs.run(["sh", "-c", "echo boom >&2; exit 1"], log=log, error=HostError)
    assert log.read_text() == "boom\n"


def test_missing_program_says_how_to_get_it() -> None:
    for nice in (0, 5):
        with pytest.raises(BuildError, match=r"the program no-such-program-here is missing.*make setup"):
            programs.run(["no-such-program-here"], nice=nice)


def test_missing_folder_is_not_called_a_missing_program(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"the folder .*gone is missing"):
        programs.run(["true"], cwd=tmp_path / "gone")


def test_environment_is_added_to_and_taken_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVMIRROR_TAKEN", "1")
    done = programs.run(["env"], env={"KVMIRROR_TAKEN": None, "KVMIRROR_ADDED": "2"})
    assert "KVMIRROR_ADDED=2" in done.stdout.splitlines()
    assert "KVMIRROR_TAKEN" not in done.stdout


def test_own_process_group() -> None:
    done = programs.run([sys.executable, "-c", "import os; print(os.getpid(), os.getpgid(0))"])
    pid, group = done.stdout.split()
    assert pid == group != str(os.getpgid(0))


def test_timeout_ends_the_whole_group(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with pytest.raises(programs.Timeout, match="did not end within 1 s"):
        programs.run([*FAMILY, str(file)], timeout=1)
    assert wait_until_dead(wait_for_pid(file))


def test_stop_ends_the_whole_group(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with programs.spawn([*FAMILY, str(file)]) as process:
        grandchild = wait_for_pid(file)
        assert process.returncode is None
    assert wait_until_dead(grandchild)
    assert process.returncode is not None


def start_in_python(code: str, *words: str) -> subprocess.Popen[bytes]:
    """A Python of its own that imports programs and runs ``code``."""
    return subprocess.Popen(
        [sys.executable, "-c", "import sys\nfrom harness.process import programs\n" + code, *words],
        cwd=Path(__file__).parents[3],
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


RUN_FAMILY = f"programs.interruptible()\nprograms.run([*{FAMILY!r}, sys.argv[1]])"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_no_process_outlives_a_parent_that_is_signalled(tmp_path: Path, number: signal.Signals) -> None:
    file = tmp_path / "pid"
    with start_in_python(RUN_FAMILY, str(file)) as parent:
        grandchild = wait_for_pid(file)
        assert alive(grandchild)
        time.sleep(0.2)  # it has told the guard by now
        parent.send_signal(number)
        parent.communicate(timeout=20)
    assert wait_until_dead(grandchild)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_folder_outlives_a_parent_that_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    """Whatever a program of its own still writes there; one that is kept stays."""
    code = (
        "import pathlib, tempfile\ntempfile.tempdir = sys.argv[1]\nfolder = programs.scratch('gone-')\n"
        "programs.kept(programs.scratch('kept-'))\nprograms.removed(programs.scratch('removed-'))\n"
        "words = ['sh', '-c', 'trap \"\" TERM; while :; do date >$0/log; done', folder]\n"
        "process = programs.spawn(words)\npathlib.Path(sys.argv[1], 'ready').touch()\nprocess.wait()"
    )
    with start_in_python(code, str(tmp_path)) as parent:
        while not (tmp_path / "ready").exists():
            assert parent.poll() is None
            time.sleep(0.05)
        assert [path.name[:5] for path in sorted(tmp_path.glob("*-*"))] == ["gone-", "kept-"]
        parent.send_signal(number)
        parent.communicate(timeout=20)
    deadline = time.monotonic() + 20
    while list(tmp_path.glob("gone-*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert list(tmp_path.glob("kept-*"))


def test_spawned_programs_end_with_their_parent(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    code = f"import time\nprograms.spawn([*{FAMILY!r}, sys.argv[1]])\ntime.sleep(1)"
    with start_in_python(code, str(file)) as parent:
        grandchild = wait_for_pid(file)
        parent.communicate(timeout=20)
    assert wait_until_dead(grandchild)


def test_cancelled_group_ends_what_runs_and_starts_nothing_more(tmp_path: Path) -> None:
    group, seen, file = programs.Group(), [], tmp_path / "pid"

    def work() -> None:
        with group.mine():
            for words in ([*FAMILY, str(file)], ["touch", str(tmp_path / "second")]):
                try:
                    programs.run(words, check=False)
                except programs.Cancelled as error:
                    seen.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    grandchild = wait_for_pid(file)
    group.cancel()
    thread.join(10)
    assert not thread.is_alive()
    assert len(seen) == 2
    assert not (tmp_path / "second").exists()
    assert wait_until_dead(grandchild)


def test_programs_outside_a_cancelled_group_go_on() -> None:
    group = programs.Group()
    with programs.spawn(["sleep", "300"]) as process:
        group.cancel()
        assert process.returncode is None


def test_wait_says_what_still_runs() -> None:
    with programs.spawn(["sleep", "300"]) as process, pytest.raises(programs.Timeout, match="sleep still runs"):
        process.wait(0.1)


def test_tail_skips_empty_lines() -> None:
    assert programs.tail("a\n\nb\n \nc\n", 2) == "b\nc"
