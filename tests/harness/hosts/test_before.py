"""A lab machine is put back: the script itself, run here against a folder that stands for the machine's root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.hosts import before
from harness.hosts.before import Before
from harness.hosts.channel import CommandResult

READ_ONLY = "/proc/sys/kernel/osrelease"  # what stands for a parameter that nobody can write, root neither
BOOT = "0b4f"


@dataclass
class MachineRoot:
    """The folder, with a modprobe and an rmmod that do to it what those do to a kernel."""

    root: Path

    def __post_init__(self) -> None:
        for folder in ("tmp/kvmirror", "dev/shm", "proc/sys/vm", "proc/sys/kernel/random", "bin", "sys/module",
                       "sys/kernel/tracing/events"):  # fmt: skip
            (self.root / folder).mkdir(parents=True)
        self.write("proc/sys/vm/nr_hugepages", "0")
        self.write("proc/sys/kernel/random/boot_id", BOOT)
        self.write("proc/mounts", "")
        module = f"{self.root}/sys/module/$name"
        self.program("rmmod", f'name=$1; rm -r {module}; echo "rmmod $*" >>{self.root}/log')
        self.program(
            "modprobe",
            f"""name=$1; shift; echo "modprobe $name $*" >>{self.root}/log
mkdir -p {module}/parameters; echo live >{module}/initstate; echo 0 >{module}/refcnt
[ $name != kvm_intel ] || ln -sf {READ_ONLY} {module}/parameters/ept
[ $name != kvm ] || echo 200 >{module}/parameters/halt_poll_ns
cd {module}/parameters
for word in "$@"; do rm -f ${{word%%=*}}; echo ${{word#*=}} >${{word%%=*}}; done""",
        )

    def program(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def write(self, path: str, text: str) -> None:
        (self.root / path).write_text(f"{text}\n")

    def read(self, path: str) -> str:
        return (self.root / path).read_text().strip()

    def put_back(self, state: Before) -> list[str]:
        path = self.root / "put-back"
        path.write_text(before.script(state, root=str(self.root)))
        env = os.environ | {"PATH": f"{self.root}/bin:{os.environ['PATH']}"}
        done = subprocess.run(["sh", path], env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> MachineRoot:
    return MachineRoot(tmp_path)


def state(**modules: Mapping[str, str]) -> Before:
    return Before(modules, 7, {"tracing_on": "1"}, BOOT)


def test_modules_come_back_with_their_parameters(machine: MachineRoot) -> None:
    machine.program("ours", "")
    for name in ("irqbypass", "kvm", "kvm_intel"):  # ours, of some level
        (machine.root / "sys/module" / name).mkdir()
        machine.write(f"sys/module/{name}/initstate", "live")
    machine.write("dev/shm/kvmirror-l1", "memory")
    wanted = state(irqbypass={}, kvm={"halt_poll_ns": "0", "absent": "(null)"}, kvm_intel={"ept": "N"})
    assert machine.put_back(wanted) == []
    assert machine.read("sys/module/kvm/parameters/halt_poll_ns") == "0"  # written where it was loaded
    assert machine.read("sys/module/kvm_intel/parameters/ept") == "N"  # given when it was loaded again
    log = machine.read("log").splitlines()
    assert log[:6] == ["rmmod kvm_intel", "rmmod kvm", "rmmod irqbypass", "modprobe irqbypass ", "modprobe kvm ",
                       "modprobe kvm_intel "]  # fmt: skip
    assert log[-1] == "modprobe kvm_intel ept=N" and len(log) == 12
    assert machine.read("proc/sys/vm/nr_hugepages") == "7" and machine.read("sys/kernel/tracing/tracing_on") == "1"
    assert not (machine.root / "tmp/kvmirror").exists() and not list((machine.root / "dev/shm").iterdir())


def test_where_nothing_was_loaded_nothing_is(machine: MachineRoot) -> None:
    (machine.root / "sys/module/kvm").mkdir()
    machine.write("sys/module/kvm/initstate", "live")
    assert machine.put_back(state()) == []
    assert machine.read("log").splitlines() == ["rmmod kvm"]


def test_what_cannot_be_put_back_is_told(machine: MachineRoot) -> None:
    machine.program("modprobe", "exit 1")
    told = machine.put_back(state(kvm={"halt_poll_ns": "0"}))
    assert "kvm cannot be loaded" in told
    assert "these parameters are not what they were: kvm.halt_poll_ns" in told


def test_processes_of_ours_end_and_no_others(machine: MachineRoot) -> None:
    with subprocess.Popen(["sleep", "600"]) as ours, subprocess.Popen(["sleep", "600"]) as other:
        for process, words in ((ours, "qemu\0-kernel\0/tmp/kvmirror/probe"), (other, "sleep\0600")):
            (machine.root / f"proc/{process.pid}").mkdir()
            machine.write(f"proc/{process.pid}/cmdline", words)
        machine.put_back(state())
        assert ours.wait(10) == -9 and other.poll() is None
        other.kill()


def test_after_another_boot_there_is_nothing_to_put_back(machine: MachineRoot) -> None:
    machine.write("proc/sys/kernel/random/boot_id", "another")
    assert machine.put_back(state(kvm={})) == []
    assert not (machine.root / "log").exists() and machine.read("proc/sys/vm/nr_hugepages") == "0"
    assert not (machine.root / "tmp/kvmirror").exists()


LOOKED = """\
module kvm
/sys/module/kvm/parameters/halt_poll_ns:200000
/sys/module/kvm/parameters/nx_huge_pages:N
module kvm_intel
/sys/module/kvm_intel/parameters/vmentry_l1d_flush:not required
boot 0b4f
huge 12
tracing_on:1
buffer_size_kb:7 (expanded: 1408)
"""


def test_what_a_machine_says_of_itself() -> None:
    found = Before.of(LOOKED)
    assert found.modules == {
        "kvm": {"halt_poll_ns": "200000", "nx_huge_pages": "N"},
        "kvm_intel": {"vmentry_l1d_flush": "not required"},
    }
    assert (found.huge_pages, found.tracing, found.boot) == (12, {"tracing_on": "1"}, "0b4f")
    answers = {"modules.dep": "kernel/arch/x86/kvm/kvm.ko.zst: kernel/virt/lib/irqbypass.ko.zst\n"}
    assert before.not_to_be_found(answering(answers), found) == ["kvm_intel"]


def answering(answers: Mapping[str, str]) -> before.Run:
    def run(command: str) -> CommandResult:
        return CommandResult(0, next((text for part, text in answers.items() if part in command), "").encode(), "")

    return run


def test_who_uses_kvm_is_named() -> None:
    held = "/proc/1/fd:\n/proc/812/fd:\nlrwx------ 1 root root 64 Nov 30 16:00 9 -> /dev/kvm\n/proc/900/fd:\n"
    told = before.users(
        answering({"/fd": held, "/proc/812/comm": "qemu-kvm\n", "holders": "kvm_intel\nvfio_pci_core\n"})
    )
    assert told == ["process 812 (qemu-kvm)", "module vfio_pci_core"]
    assert before.users(answering({"refcnt": "2\n"})) == ["2 by the kernel's count"]
    assert before.users(answering({"refcnt": "0\n"})) == []
