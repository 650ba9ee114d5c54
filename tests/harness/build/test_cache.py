"""The cache: one build an entry whoever asks, nothing half-made whatever dies."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.build.cache import Cache, default_root, digest
from harness.errors import BuildError
from harness.process.progress import Progress

ROOT = Path(__file__).parents[3]

# Builds entry "thing" in cache $1: notes that it began in file $2, takes $3 seconds, writes "whole".
BUILDER = """
import sys, time
from pathlib import Path
from harness.build import Cache
def build(folder):
    (folder / "part").write_text("half")
    with open(sys.argv[2], "a") as file:
        file.write("began\\n")
    time.sleep(float(sys.argv[3]))
    (folder / "part").write_text("whole")
print(Cache(Path(sys.argv[1])).entry("thing", {"a": 1}, build))
"""


def builder(cache: Path, began: Path, seconds: float) -> subprocess.Popen[str]:
    """A process that builds the entry."""
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(cache), str(began), str(seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(file: Path) -> None:
    """Until ``file`` has something in it."""
    deadline = time.monotonic() + 10
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def temporary(cache: Path) -> list[Path]:
    """What is half-made."""
    return list(cache.glob("*/.tmp-*"))


def test_root_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KVMIRROR_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_root() == tmp_path / ".cache" / "kvmirror"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_root() == tmp_path / "xdg" / "kvmirror"
    monkeypatch.setenv("KVMIRROR_CACHE", str(tmp_path / "own"))
    assert default_root() == tmp_path / "own"


def test_root_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match=r"cannot be made.*set KVMIRROR_CACHE"):
        Cache(tmp_path / "file" / "cache")


def test_built_once_and_its_inputs_recorded(tmp_path: Path) -> None:
    cache, built = Cache(tmp_path), []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "out").write_text("x")

    first = cache.entry("thing", {"b": 2, "a": 1}, build)
    assert cache.entry("thing", {"a": 1, "b": 2}, build) == first == cache.lookup("thing", {"a": 1, "b": 2})
    assert len(built) == 1
    assert (first / "out").read_text() == "x"
    assert json.loads((first / "inputs.json").read_text()) == {"kind": "thing", "inputs": {"a": 1, "b": 2}}
    assert cache.entry("thing", {"a": 2, "b": 2}, build) != first
    assert len(built) == 2
    assert not temporary(tmp_path)


def test_digest_depends_on_kind_key_and_value() -> None:
    names = {digest("a", {"k": "1"}), digest("b", {"k": "1"}), digest("a", {"k": "2"}), digest("a", {"l": "1"})}
    assert len(names) == 4


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failed_build_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    cache = Cache(tmp_path)

    def build(folder: Path) -> None:
        (folder / "part").write_text("half")
        raise error

    with pytest.raises(error):
        cache.entry("thing", "key", build)
    assert cache.lookup("thing", "key") is None
    assert not temporary(tmp_path)
    assert cache.entry("thing", "key", lambda folder: None).is_dir()


def test_two_processes_build_once(tmp_path: Path) -> None:
    cache, began = tmp_path / "cache", tmp_path / "began"
    both = [builder(cache, began, 2), builder(cache, began, 2)]
    ends = [process.communicate(timeout=30) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert ends[0][0] == ends[1][0]
    assert (Path(ends[0][0].strip()) / "part").read_text() == "whole"
    assert began.read_text() == "began\n"
    assert any("waiting for process" in err for _, err in ends), ends


def test_killed_build_is_taken_over(tmp_path: Path) -> None:
    cache, began = tmp_path / "cache", tmp_path / "began"
    killed = builder(cache, began, 60)
    wait_for(began)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert Cache(cache).lookup("thing", {"a": 1}) is None
    assert len(temporary(cache)) == 1
    second = builder(cache, began, 0)
    out, err = second.communicate(timeout=30)
    assert second.returncode == 0, err
    assert (Path(out.strip()) / "part").read_text() == "whole"
    assert not temporary(cache)


def test_leftovers_of_another_entry_go_too_but_not_those_at_work(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    dead, live = tmp_path / "thing" / ".tmp-0123-x", tmp_path / "thing" / ".tmp-4567-y"
    dead.mkdir(parents=True)
    live.mkdir()
    with Cache(tmp_path).lock("thing-4567"):
        cache.entry("thing", "key", lambda folder: None)
        assert not dead.exists()
        assert live.exists()


def test_disk_space_is_asked_for_before_the_build(tmp_path: Path) -> None:
    cache, began = Cache(tmp_path), []
    with pytest.raises(BuildError, match=r"the kernel needs 1048576\.0 GiB .* free: .*KVMIRROR_CACHE"):
        cache.entry("kernel", "key", began.append, needs=1 << 50, title="the kernel")
    assert not began
    assert not temporary(tmp_path)


def test_tree_is_kept_and_may_be_taken_twice_by_one_thread(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with cache.tree("linux") as tree, cache.tree("linux") as again:
        assert tree == again
        (tree / "file").write_text("kept")
    with cache.tree("linux") as tree:
        assert (tree / "file").read_text() == "kept"


@pytest.mark.parametrize("same", [True, False])
def test_tree_is_one_threads_at_a_time(tmp_path: Path, same: bool) -> None:
    first = Cache(tmp_path)
    second = first if same else Cache(tmp_path)
    entered = threading.Event()

    def other() -> None:
        with second.tree("linux"):
            entered.set()

    with first.tree("linux"):
        thread = threading.Thread(target=other)
        thread.start()
        assert not entered.wait(0.6)
    assert entered.wait(5)
    thread.join()


def test_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, os\nfrom pathlib import Path\nfrom harness.build import Cache\n"
        "with Cache(Path(sys.argv[1])).tree('x'):\n    os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False).returncode == 9
    with Cache(tmp_path).tree("x"):
        pass


def test_time_and_lines_of_a_build_serve_the_next_estimate(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def build(folder: Path) -> None:
        cache.log("thing").write_text("a\nb\nc\n")

    assert cache.record("thing").lines == 0
    cache.entry("thing", "key", build)
    assert cache.record("thing").lines == 3
    (tmp_path / "records" / "thing.json").write_text("{broken")
    assert cache.record("thing").lines == 0


def test_progress_counts_log_lines_and_estimates(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Progress(io.StringIO()).task("build", log=log, lines=10) as task:
        assert task.fraction() == 0
        log.write_text("1\n2\n")
        assert task.fraction() == pytest.approx(0.2)
        task.started -= 20
        assert task.left() == pytest.approx(80, rel=0.1)
        assert "20%" in task.text()
        assert "left" in task.text()


def test_progress_of_short_work_says_nothing_and_of_long_work_plain_lines() -> None:
    out = io.StringIO()
    progress = Progress(out)
    with progress.task("short"):
        pass
    assert out.getvalue() == ""
    with progress.task("long", total=4) as one, progress.task("beside", total=4) as two:
        one.advance()
        one.started -= 5
        two.started -= 5
        time.sleep(0.7)
    text = out.getvalue()
    assert "long" in text
    assert "beside" in text
    assert " 25%" in text
    assert "\x1b" not in text
    assert text.count("done after") == 2
