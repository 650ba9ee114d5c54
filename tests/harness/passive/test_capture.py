"""What is done on the host of somebody else's guest: only what tracing takes, and nothing of it stays."""

from __future__ import annotations

import gzip
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from harness.cli import trace
from harness.cli.main import main
from harness.errors import HostError, InputError
from harness.hosts.channel import CommandResult
from harness.passive import judging, saving
from harness.passive.capture import Limits, capture
from harness.recording import container
from tests.harness.passive import made

CAPTURE = made.recorded()
LIMITS = Limits(0.01, 64)


class Traced:
    """A host of which every answer is known; ``breaks`` raises at the command that has this text."""

    name = "lab1"

    def __init__(self, breaks: tuple[str, BaseException] | None = None, **answers: str) -> None:
        self.commands: list[str] = []
        self.breaks = breaks
        self.data = b"".join(page for _, page in CAPTURE.pages[:2])
        self.answers = {
            "id -u": "0\n",
            "ls -l /proc/77/fd": "lrwx 1 root root 12 -> anon_inode:kvm-vm\n",
            "/comm": "qemu-system-x86\n",
            "ls -d kvm/": "\n".join(CAPTURE.facts["events"]),
            "uname -r": "6.12.8\n",
            "cpuinfo": "model name : An Intel\n",
            "for p in kvm": "kvm_intel/ept Y\nkvm/nx_huge_pages N\n",
            "echo $!": "4242\n",
            "ls /sys": "cpu0\n",
            "stats": "entries: 30\noverrun: 4\ncommit overrun: 0\ndropped events: 1\n",
        } | answers  # fmt: skip
        self.exits = 0

    def run(self, command: str, **_: Any) -> CommandResult:
        self.commands.append(command)
        if self.breaks and self.breaks[0] in command:
            raise self.breaks[1]
        if "trace_pipe_raw" in command:
            return CommandResult(0, gzip.compress(self.data), "")
        if "uptime" in command:
            self.exits += 1
            return CommandResult(0, f"{self.exits}.00\n{self.exits * 500}\n".encode(), "")
        for name, text in CAPTURE.texts.items():
            if command.endswith((f"events/{name}/format", f"events/{name}")):
                return CommandResult(0, text.encode(), "")
        for part, text in self.answers.items():
            if part in command:
                return CommandResult(1 if text == "MISSING" else 0, text.encode(), "")
        return CommandResult(0, b"", "")


def traced(host: Traced) -> Any:
    return capture(host, 77, LIMITS)  # type: ignore[arg-type]


def instance(host: Traced) -> str:
    (made_,) = {m for c in host.commands for m in re.findall(r"mkdir (\S+)", c)}
    return str(made_)


def test_a_guest_is_captured() -> None:
    host = Traced()
    found = traced(host)
    assert len(found.pages) == 2 and judging.judged(found).events > 30
    assert found.lost == {"overrun": 4, "commit overrun": 0, "dropped events": 1}
    assert found.exits == {"before": 500.0, "while": 500.0, "after": 500.0}
    assert found.facts["process"] == "qemu-system-x86" and found.facts["parameters"]["kvm_intel/ept"] == "Y"
    assert "for t in /proc/77/task/*" in " ".join(host.commands)


def test_only_an_instance_of_its_own_is_written() -> None:
    """No module, no parameter, no signal for the guest, not even the host's own trace buffer."""
    host = Traced()
    traced(host)
    there = instance(host)
    assert there.startswith("/sys/kernel/tracing/instances/kvmirror-")
    for command in host.commands:
        assert not re.search(r"insmod|rmmod|modprobe|SIGSTOP|kill -|mount ", command)
        for target in re.findall(r">\s*'?(/[^\s;)']+)", command):
            assert target.startswith((there, "/dev/null")), command


def removed(host: Traced) -> bool:
    there = instance(host)
    last = [c for c in host.commands if "4242" in c]
    return len(last) == 1 and f"rmdir {there}" in last[0] and f"echo 0 >{there}/tracing_on" in last[0]


@pytest.mark.parametrize("error", [HostError("broke"), KeyboardInterrupt(), RuntimeError("a defect")])
@pytest.mark.parametrize(
    "where", ["header_page", "tracing_on", "/events/kvm/kvm_exit/enable", "stats", "uptime", "mkdir"]
)
def test_the_instance_goes_whatever_happens(where: str, error: BaseException) -> None:
    host = Traced((where, error))
    with pytest.raises(type(error)):
        # The last command names tracing_on as well: it must not be the one that breaks.
        host.breaks = ("1 >" if where == "tracing_on" else where, error)
        traced(host)
    assert removed(host)


def test_a_host_that_is_left_alone_removes_it_itself() -> None:
    host = Traced()
    traced(host)
    (late,) = [c for c in host.commands if "sleep 1" in c and "echo $!" in c]
    assert f"rmdir {instance(host)}" in late and "trap '' HUP" in late


def test_what_waits_to_remove_it_goes_with_the_instance(tmp_path: Path) -> None:
    host = Traced()
    traced(host)
    (late,) = [c for c in host.commands if "sleep 1" in c and "echo $!" in c]
    longer = re.sub(r"sleep \d+", f"sleep 4711.{os.getpid()}", late).replace(instance(host), str(tmp_path / "none"))
    pid = int(subprocess.run(["sh", "-c", longer], capture_output=True, text=True, check=True, timeout=10).stdout)
    ours = ["pgrep", "-f", f"^sleep 4711[.]{os.getpid()}$"]
    for _ in range(100):
        if subprocess.run(ours, capture_output=True, check=False).returncode == 0:
            break
        time.sleep(0.05)
    os.kill(pid, signal.SIGTERM)
    for _ in range(100):
        if subprocess.run(ours, capture_output=True, check=False).returncode:
            return
        time.sleep(0.05)
    pytest.fail("its sleep is left")


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"id -u": "1000\n"}, "tracefs is root's: log in as root"),
        ({"[ -d /proc/77 ]": "MISSING"}, "--pid 77: lab1 has no such process"),
        ({"ls -l /proc/77/fd": "lrwx 1 -> /dev/null\n"}, "holds no virtual machine of KVM"),
        ({"/instances ]": "MISSING"}, "mount -t tracefs"),
        ({"header_page": "x"}, "header_page is none"),
    ],
)
def test_what_cannot_be_traced_is_said(answers: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Traced(**answers)
    if "header_page" in answers:
        monkeypatch.setitem(CAPTURE.texts, "header_page", "x")
    with pytest.raises((InputError, HostError), match=reason):
        traced(host)


def test_pages_that_did_not_come_are_told() -> None:
    found = traced(Traced(stats="entries: 100000\n"))
    assert len(found.pages) == 2 and judging.judged(found).unread > 90_000


def test_half_a_page_is_none() -> None:
    host = Traced()
    host.data = host.data[:-100]
    assert len(traced(host).pages) == 1


# files


def test_a_capture_is_kept_and_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.trace"
    saving.write(CAPTURE, path)
    assert saving.read(path) == CAPTURE
    assert main(["trace", "--read", str(path)]) == 0
    assert "EPT_VIOLATION" in capsys.readouterr().out
    saving.write(made.captured([made.exit_of(0x186)]), path)
    assert main(["trace", "--json", "--read", str(path)]) == 1
    assert '"rule": "cpu-fetch-and-data"' in capsys.readouterr().out


GOOD: list[Any] = [
    {"facts": CAPTURE.facts, "lost": {}, "exits": {}},
    *({"format": [n, t]} for n, t in CAPTURE.texts.items()),
]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "formats of its events are missing"),
        (GOOD[1:], "formats of its events are missing"),
        (GOOD[:3], "formats of its events are missing"),
        ([*GOOD, {"page": [0, "no base64!"]}], "a page of it is none"),
        ([*GOOD, {"page": [-1, ""]}], "a line of it is none"),
        ([*GOOD, {"run": "reboot"}], "a line of it is none"),
        ([{**GOOD[0], "lost": {"overrun": "many"}}, *GOOD[1:]], "counts are none"),
        ([{**GOOD[0], "facts": {**CAPTURE.facts, "process": "\x1b[2J"}}, *GOOD[1:]], "control characters"),
        ([{**GOOD[0], "facts": {**CAPTURE.facts, "events": ["../../etc/passwd"]}}, *GOOD[1:]], "not complete"),
        ([{**GOOD[0], "facts": {**CAPTURE.facts, "pid": "x"}}, *GOOD[1:]], "'pid' is not what it has to be"),
    ],
)
def test_a_hostile_capture_is_refused_by_name(lines: list[Any], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    path.write_bytes(container.packed(lines, saving.KIND))
    with pytest.raises(InputError, match=reason) as refused:
        saving.read(path)
    assert str(path) in str(refused.value) and str(refused.value).isprintable()


def test_a_page_of_another_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    path.write_bytes(container.packed([*GOOD, {"page": [0, "AAAA"]}], saving.KIND))
    with pytest.raises(InputError, match="has 3 bytes"):
        judging.judged(saving.read(path))


def test_a_recording_is_no_capture(tmp_path: Path) -> None:
    path = tmp_path / "a.kvm"
    path.write_bytes(container.packed([]))
    with pytest.raises(InputError, match="it is an xz file, but not a capture"):
        saving.read(path)


# the command


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "which host?"),
        (["--host", "ssh://root@lab1"], "which guest? --pid"),
        (["--host", "emulated", "--pid", "5"], "leave it out"),
        (["--host", "ssh://a,ssh://b", "--pid", "5"], "one machine is watched at a time"),
        (["--host", "ssh://a", "--pid", "5", "--for", "1h"], "--for 1h: write a time up to 10 minutes"),
        (["--host", "ssh://a", "--pid", "5", "--for", "0s"], "--for 0s"),
        (["--host", "ssh://a", "--pid", "5", "--for", "11m"], "--for 11m"),
        (["--host", "ssh://a", "--pid", "5", "--size", "0"], "--size 0: write 1 to 1024"),
        (["--read", "x", "--pid", "5"], "leave out --host, --pid and --save"),
        (["--read", "gone.trace"], "gone.trace: cannot be read"),
    ],
)
def test_what_cannot_be_asked_is_refused(words: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", *words]) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(("text", "value"), [("10s", 10.0), ("2m", 120.0), ("0.5", 0.5)])
def test_times(text: str, value: float) -> None:
    assert trace.seconds(text) == value
