"""Machines whose kernel is booted whole: the lab's commands, and what is made of what runs afterwards."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.build import kernel
from harness.errors import HostError, InputError
from harness.hosts import booted
from harness.hosts.booted import BootCommands, Booter, BootError, KernelImage, build_id_of, filled
from harness.hosts.channel import CommandResult

OLD, NEW = "6.1.0-42-amd64", "6.12.8"


def notes(build_id: str) -> bytes:
    """What sysfs gives: a note of somebody else, then the build id."""
    other = (5).to_bytes(4, "little") + (2).to_bytes(4, "little") + bytes(4) + b"Xen0\0\0\0\0" + b"ab\0\0"
    data = bytes.fromhex(build_id)
    return other + (4).to_bytes(4, "little") + len(data).to_bytes(4, "little") + b"\3\0\0\0GNU\0" + data


@dataclass
class Files:
    """A level's modules."""

    kvm: Path
    irqbypass: Path | None = None

    @property
    def kvm_intel(self) -> Path:
        return self.kvm.with_name("kvm-intel.ko")


class Machine:
    """A machine that runs what its file ``runs`` says: release, version, boot id and build id."""

    def __init__(self, folder: Path) -> None:
        self.name = self.address = "lab1"
        self.file = folder / "runs"
        self.file.write_text(f"{OLD} debian 1 aa11")
        self.connected = True

    def run(self, command: str) -> CommandResult:
        if not self.connected:
            raise HostError("not connected")
        release, version, boot, build_id = self.file.read_text().split()
        said = notes(build_id) if "/notes" in command else f"{release}\n{version}\n{boot}\n".encode()
        return CommandResult(0, said, "")

    def connect_only(self) -> None:
        self.connected = True

    def disconnect(self) -> None:
        self.connected = False

    def booter(self, boot: str, restore: str | None = None) -> Booter:
        commands = BootCommands.of(boot, restore)
        assert commands is not None
        return Booter(self, commands, KernelImage(Path("/cache/b z"), "bb22"), NEW)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(booted, "TRY", 0.01)
    monkeypatch.setattr(booted, "BOOT", 2.0)
    return Machine(tmp_path)


def test_no_command_is_no_boot_and_a_restoring_one_alone_is_none() -> None:
    assert BootCommands.of(None, None) is None
    with pytest.raises(InputError, match="nothing is booted without --boot-command"):
        BootCommands.of(None, "reboot")


@pytest.mark.parametrize(
    ("boot", "restore", "says"),
    [
        ("./boot.sh", None, "says nowhere which kernel"),
        ("./boot.sh {kernel} {image}", None, r"{image} is nothing that is filled in; there is {kernel}"),
        ("./boot.sh {kernel}", "./boot.sh {kernel}", r"{kernel} is nothing that is filled in; there is {host}"),
    ],
)
def test_a_command_that_cannot_be_filled_in_is_refused(boot: str, restore: str | None, says: str) -> None:
    with pytest.raises(InputError, match=says):
        BootCommands.of(boot, restore)


def test_what_is_filled_in_is_one_word_to_the_shell() -> None:
    command = filled("echo {kernel} ${HOME} {host}", {"kernel": "/a b/$(touch c)", "host": "lab1"})
    assert command == "echo '/a b/$(touch c)' ${HOME} lab1"


def test_the_kernel_that_was_meant_runs_and_what_was_there_runs_again(machine: Machine) -> None:
    boot, restore = f"echo {NEW} v 2 bb22 >{machine.file}", f"echo {OLD} debian 3 aa11 >{machine.file}"
    booter = machine.booter(f"{boot}; : {{kernel}}", restore)
    assert booter.needed()
    booter.boot()
    assert not booter.needed()
    booter.restore()
    assert machine.file.read_text().split() == [OLD, "debian", "3", "aa11"]


def test_a_kernel_of_the_same_release_that_is_another_build_is_booted_over(machine: Machine) -> None:
    machine.file.write_text(f"{NEW} v 1 aa11")
    assert machine.booter("true {kernel}").needed()


def test_each_level_is_booted_where_the_command_takes_its_modules(machine: Machine, tmp_path: Path) -> None:
    told = tmp_path / "told"
    booter = machine.booter(
        f"echo {{modules}} >>{told}; echo {NEW} v $(wc -l <{told})0 bb22 >{machine.file}; : {{kernel}}"
    )
    assert not booter.needed()
    one, two = Files(Path("/cache/one/kvm.ko")), Files(Path("/cache/two/kvm.ko"))
    for files in (one, two):
        assert booter.wants(files)
        booter.boot(files)
        assert not booter.wants(files)
    assert booter.wants(one)
    assert told.read_text() == "/cache/one\n/cache/two\n"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("echo no such entry >&2; exit 3", r"failed with status 3:\nno such entry"),
        ("true", "has not come up within 2 s of .*: it was not booted: what ran before runs"),
        ("echo 6.12.9 v 2 bb22 >{file}", "booted Linux 6.12.9, not 6.12.8"),
        (
            "echo 6.12.8 v 2 cc33 >{file}",
            "booted another Linux 6.12.8 than /cache/b z: its build id is cc33, and not bb22",
        ),
    ],
)
def test_what_goes_wrong_is_said(machine: Machine, command: str, says: str) -> None:
    booter = machine.booter(": {kernel}; " + command.replace("{file}", str(machine.file)))
    with pytest.raises(BootError, match=says):
        booter.boot()


def test_a_machine_that_is_not_restored_says_so(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    booter = machine.booter(f"echo {NEW} v 2 bb22 >{machine.file}; : {{kernel}}", "exit 7")
    booter.boot()
    booter.restore()
    assert f"lab1 does not run Linux {OLD} again: lab1: the command 'exit 7' failed" in capfd.readouterr().err
    machine.connect_only()
    booter = machine.booter(f"echo {NEW} v 3 bb22 >{machine.file}; : {{kernel}}")
    booter.boot()
    booter.restore()
    assert "--boot-restore-command says how that is booted" in capfd.readouterr().err


def test_a_machine_that_was_not_booted_after_all_is_not_restored(machine: Machine) -> None:
    booter = machine.booter(": {kernel}; exit 3", f"echo >{machine.file}")
    with pytest.raises(BootError):
        booter.boot()
    booter.restore()
    assert OLD in machine.file.read_text()


def test_the_build_id_is_read_from_a_file_as_from_sysfs(tmp_path: Path) -> None:
    source, made = tmp_path / "a.c", tmp_path / "a.o"
    source.write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", "-Wl,--build-id=sha1", "-o", made, source], check=True)
    found = kernel.build_id(made)
    section = tmp_path / "note"
    subprocess.run(["objcopy", "-O", "binary", "--only-section=.note.gnu.build-id", made, section], check=True)
    assert len(found) == 40 and build_id_of(section.read_bytes()) == found
    assert build_id_of(notes("aa11")) == "aa11"
    assert build_id_of(b"") == build_id_of(notes("aa11")[:20]) == "" == kernel.build_id(tmp_path / "gone")
