"""One lab machine and what a run does to it: an emulated Intel host reached by SSH, real KVM and QEMU.

The command runs as a process of its own, as a user types it.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.build import kernel, rootfs
from harness.build import modules as levels
from harness.build.cache import Cache
from harness.hosts import boot
from harness.hosts.emulated import EmulatedHost, free_port
from harness.posted import opened
from harness.questions import core
from harness.results.journal import Journal
from harness.results.verdict import Mark
from harness.run import emulator
from kvmodel.question.outcome import Kind
from tests.test_lab_run import Answers, answers, ended, said, until

pytestmark = pytest.mark.live

CALLS_ITS_HOST = "prog+read.a3,write.b4+host.remap.p3+read.a3+read.b3+write.a3+read.b4"
GONE = 20.0  # seconds
# What a lab machine is asked as an emulated host is: nothing of a CPU without the control.
ASKED = ["thin", CALLS_ITS_HOST, *(vector.id for vector in core.host_itself() if vector.id.endswith("env=std"))]
# As a distribution builds it that leaves out what L1 runs on; {without} is taken from what it has.
OTHER_QEMU = """\
#!/bin/sh
real=/bin/qemu-system-x86_64
case "$*" in
"-machine help") $real -machine help | grep -v microvm ;;
"-device help") $real -device help | grep -v {without} ;;
*microvm* | *"-device {without}"*) echo "it has none of that" >&2; exit 1 ;;
*) exec $real "$@" ;;
esac
"""


# What the lab's command is in truth: it has the kernel booted, and waits for that.
BOOT = """\
#!{python}
import sys, urllib.parse, urllib.request
urllib.request.urlopen("http://127.0.0.1:{port}/?" + urllib.parse.urlencode({{"words": sys.argv[1:]}}, doseq=True))
"""


class LabMachine:
    """The emulated host as a lab machine, and the options by which kvmirror logs in."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.cache = Cache()
        self.host = self.with_kernel(kernel.base(self.cache).bzimage)
        known = folder / "known_hosts"
        known.write_text(f"[127.0.0.1]:{self.port} {rootfs.keys(self.cache).host_public}\n")
        key = rootfs.keys(self.cache).client_private
        self.options = ["--host", f"ssh://root@127.0.0.1:{self.port}"]
        self.options += ["--host-key", str(key), "--known-hosts", str(known)]

    def with_kernel(self, image: Path) -> EmulatedHost:
        """The machine with another kernel, switched off."""
        return EmulatedHost(
            self.cache,
            bochs=emulator.build(self.cache),
            boot=boot.boot(self.cache, image),
            name="lab1",
            port=self.port,
            boot_timeout=300,
        )

    def reboot(self, image: Path) -> None:
        """The machine is switched off, and on with another kernel."""
        self.host.stop()
        self.host = self.with_kernel(image)
        self.host.start()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabMachine]:
    made = LabMachine(tmp_path_factory.mktemp("machine"))
    made.host.start()
    try:
        yield made
    finally:
        made.host.stop()


def kvmirror(journal: Path, *words: str) -> subprocess.Popen[str]:
    """A command of its own process; what it says is beside ``journal``."""
    return subprocess.Popen(
        [sys.executable, "-m", "harness.cli", *words, "--journal", str(journal)],
        env={**os.environ},
        stdout=subprocess.DEVNULL,
        stderr=journal.with_suffix(".said").open("w"),
        text=True,
    )


def asked(journal: Path, *words: str) -> Answers:
    """A run over levels 0 and 18 to its end, and every answer of it."""
    ended(
        kvmirror(journal, "validate", "--levels", "0,18", "--param", "unset,1", "--vectors", *ASKED, *words),
        journal,
        0,
        1,
    )
    return answers(journal)


def boards(journal: Path) -> set[str]:
    with Journal(journal) as kept:
        told = [cell.facts for cell in kept.cells(kept.latest()).values()]
    return {str(facts["board"]) for facts in told if "board" in facts}


@pytest.fixture(scope="module")
def plain_journal(machine: LabMachine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the machine as it is."""
    journal = tmp_path_factory.mktemp("plain") / "journal.sqlite"
    assert len(asked(journal, *machine.options)) > 100
    assert boards(journal) == {"microvm"}
    return journal


@pytest.fixture(scope="module")
def plain(plain_journal: Path) -> Answers:
    """What the machine answers as it is."""
    return answers(plain_journal)


def other_qemu(machine: LabMachine, without: str) -> list[str]:
    """The options for a QEMU on the machine that has no microvm, nor the device ``without``."""
    path = f"/root/qemu-{without}"
    machine.host.put(OTHER_QEMU.format(without=without).encode(), path, mode=0o755)
    return [*machine.options, "--host-qemu", path]


def test_an_emulated_host_answers_by_pc_as_by_microvm(plain: Answers, tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    assert asked(journal, "--jobs", "1", "--l1-machine", "pc") == plain
    assert boards(journal) == {"pc"}


def test_a_qemu_without_microvm_answers_the_same_and_it_is_said(
    machine: LabMachine, plain: Answers, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.sqlite"
    assert asked(journal, *other_qemu(machine, "megasas")) == plain
    assert boards(journal) == {"pc"}
    said = journal.with_suffix(".said").read_text()
    assert "L1 by QEMU's machine pc, which starts more slowly than microvm" in said


def test_a_qemu_without_pvpanic_answers_all_but_what_calls_its_host(
    machine: LabMachine, plain: Answers, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.sqlite"
    found = asked(journal, *other_qemu(machine, "pvpanic"))
    assert boards(journal) == {"pc without pvpanic"}
    differ = {key for key in found if found[key] != plain[key]}
    assert differ and all(str(key[3]).startswith("prog") for key in differ)
    with Journal(journal) as kept:
        deaf = [
            a for key, a in kept.answers(kept.latest()) if (key.level, key.param, key.machine, a.vector.id) in differ
        ]
    assert all(a.seen.kind is Kind.SCAFFOLD and Mark.BLOCKED in a.verdict.marks for a in deaf)
    assert all("pvpanic device is needed" in a.seen.note for a in deaf)


def test_an_emulated_host_and_a_lab_machine_give_the_same_recording_byte_for_byte(
    machine: LabMachine, plain: Answers, plain_journal: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.sqlite"
    assert asked(journal, "--jobs", "1") == plain
    for made in (journal, plain_journal):
        words = ["record", "--no-times", "--journal", str(made), str(tmp_path / f"{made.parent.name}.kvm")]
        subprocess.run([sys.executable, "-m", "harness.cli", *words], check=True)
    one, two = (made.read_bytes() for made in sorted(tmp_path.glob("*.kvm")))
    assert len(one) > 1000 and one == two


@contextlib.contextmanager
def booting(machine: LabMachine, folder: Path) -> Iterator[tuple[Path, list[list[str]]]]:
    """The lab's command, and the words of each time that it was called: the kernel's image comes first."""
    called: list[list[str]] = []

    class Booting(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            words = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)["words"]
            called.append(words)
            machine.reboot(Path(words[0]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    command = folder / "boot"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Booting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command.write_text(BOOT.format(python=sys.executable, port=server.server_address[1]))
        command.chmod(0o755)
        yield command, called
        server.shutdown()


def test_each_level_is_booted_by_the_labs_command_and_what_ran_before_at_the_end(
    machine: LabMachine, plain: Answers, tmp_path: Path
) -> None:
    journal, image = tmp_path / "journal.sqlite", kernel.base(machine.cache).bzimage
    boot_id = "cat /proc/sys/kernel/random/boot_id"
    before = machine.host.run(boot_id).stdout
    with booting(machine, tmp_path) as (command, called):
        words = ["--boot-command", f"{command} {{kernel}} {{modules}} {{release}}"]
        words += ["--boot-restore-command", f"{command} {image} before"]
        assert asked(journal, *machine.options, *words) == plain
    *booted, restored = called
    assert {tuple(words) for words in booted} == {
        (str(image), str(made.kvm.parent), kernel.base(machine.cache).release)
        for made in levels.build(machine.cache, opened(None, None, None), [0, 18]).values()
    }
    assert restored == [str(image), "before"]
    assert machine.host.run(boot_id).stdout != before
    assert machine.host.run("ls /tmp").stdout == ""


def test_a_command_that_fails_ends_the_run_with_its_words(machine: LabMachine, tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    words = ["--boot-command", ": {kernel} {modules}; echo the power strip is off >&2; exit 3"]
    ended(kvmirror(journal, "validate", "--levels", "0", "--vectors", "thin", *machine.options, *words), journal, 4)
    assert "failed with status 3:\nthe power strip is off" in said(journal)
    assert machine.host.run("ls /tmp").stdout == ""


def looked_at(machine: LabMachine) -> str:
    """All that a run changes on a machine, as it is now."""
    return machine.host.run(
        "grep -H . /sys/module/kvm*/parameters/*; cut -d' ' -f1,3 /proc/modules | sort; "
        "cat /proc/sys/vm/nr_hugepages /proc/mounts /sys/kernel/tracing/tracing_on; "
        "ls -A /tmp /dev/shm /mnt; pidof qemu-system-x86_64 kvmclient; true"
    ).stdout


def as_it_was(machine: LabMachine, used: str) -> None:
    """The machine is what it was, or is in a few seconds: a process that was killed may take these to go."""
    deadline = time.monotonic() + GONE
    while (found := looked_at(machine)) != used:
        assert time.monotonic() < deadline, (found, used)


@pytest.fixture(scope="module")
def used(machine: LabMachine) -> str:
    """The machine as its owner has it: KVM loaded with parameters of the owner's own, three huge pages."""
    host, made = machine.host, levels.build(machine.cache, opened(None, None, None), [0])[0]
    host.run("mkdir -p /lib/modules/$(uname -r)", check=True)
    for path in filter(None, (made.irqbypass, made.kvm, made.kvm_intel)):
        host.put(path.read_bytes(), f"/lib/modules/{kernel.base(machine.cache).release}/{path.name}")
    host.run(
        "depmod && modprobe kvm halt_poll_ns=4711 mmio_caching=0 && modprobe kvm_intel nested=0 pml=0 ple_gap=0 && "
        "echo 3 >/proc/sys/vm/nr_hugepages",
        check=True,
    )
    found = looked_at(machine)
    assert "halt_poll_ns:4711" in found and "pml:N" in found and "\n3\n" in found
    return found


def test_after_a_run_the_machine_is_what_it_was(machine: LabMachine, used: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    vectors = ["--vectors", "thin", "e4k.read.env=huge"]  # the latter takes 2 MiB pages
    ended(kvmirror(journal, "validate", "--levels", "0", *vectors, *machine.options), journal, 0)
    as_it_was(machine, used)


def test_after_a_run_that_fails_the_machine_is_what_it_was(machine: LabMachine, used: str, tmp_path: Path) -> None:
    """The client is taken away as often as it is brought: modules are loaded then, and nothing can be asked."""
    journal, host = tmp_path / "journal.sqlite", machine.host
    taking = "cd /tmp; while :; do rm -f kvmclien?; done"
    thief = host.run(f"setsid sh -c '{taking}' >/dev/null 2>&1 </dev/null & echo $!", check=True).stdout.strip()
    try:
        ended(kvmirror(journal, "validate", "--levels", "0", "--vectors", "thin", *machine.options), journal, 3, 4)
    finally:
        host.run(f"kill -9 {thief}", check=True)
    with Journal(journal) as kept:
        assert all("kvmclient info" in answer.seen.note for _, answer in kept.answers(kept.latest()))
    as_it_was(machine, used)


def test_after_ctrl_c_the_machine_is_what_it_was(machine: LabMachine, used: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    run = kvmirror(journal, "validate", "--levels", "0", "--vectors", "thin", *machine.options)
    until(lambda: machine.host.run("pidof qemu-system-x86_64").status == 0, run)
    run.send_signal(signal.SIGINT)
    ended(run, journal, 130)
    as_it_was(machine, used)


def test_after_a_run_that_was_killed_the_machine_puts_itself_back(
    machine: LabMachine, used: str, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.sqlite"
    run = kvmirror(journal, "validate", "--levels", "0", "--vectors", "thin", *machine.options)
    until(lambda: machine.host.run("pidof qemu-system-x86_64").status == 0, run)
    run.kill()
    run.wait()
    assert looked_at(machine) != used
    until(lambda: looked_at(machine) == used)
