"""Lab machines: addresses, what is asked of them, and (live) an emulated host in the place of one."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest

from harness.build import kernel, probe, rootfs
from harness.build.cache import Cache
from harness.cli import main
from harness.errors import HostError, InputError
from harness.hosts import address, boot, cpuinfo
from harness.hosts.board import Board
from harness.hosts.channel import CommandResult
from harness.hosts.emulated import EmulatedHost
from harness.hosts.lab import Lab
from harness.hosts.ssh import SshHost
from harness.process import programs
from harness.run import emulator

CPUINFO = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 85
model name\t: Intel(R) Xeon(R) Gold 6154 CPU
stepping\t: 4
microcode\t: 0x2007006
flags\t\t: fpu vmx smx
address sizes\t: 46 bits physical, 48 bits virtual

processor\t: 1
stepping\t: 5
"""
SECONDARY = (1 << 22 | 1 << 1 | 1 << 7) << 32
CAPABILITY = 1 | 1 << 16 | 1 << 17 | 1 << 21


class Machine(SshHost):
    """A lab machine of which every answer is known: status and output, by a part of the command."""

    def __init__(self, **answers: tuple[int, str]) -> None:
        super().__init__("lab1", release="6.12.8")
        self.answers = {
            "id -u": (0, "0\n"),
            "cat /proc/cpuinfo": (0, CPUINFO),
            "uname -r": (0, "6.12.8\n"),
            "-cpu help": (0, "x86 host\nRecognized CPUID flags:\n  vmx-ept vmx-mbec\n"),
            "-machine help": (0, "Supported machines are:\nmicrovm              microvm (i386)\n"),
            "-device help": (0, 'name "pvpanic", bus ISA\n'),
            "df -k": (0, "tmpfs 4000000 0 4000000 0% /dev/shm\n"),
            "refcnt": (1, ""),
            "sig_enforce": (0, "N\n"),
        }
        names = {
            "user": "id -u", "cpu": "cat /proc/cpuinfo", "release": "uname -r", "qemu": "-cpu help", "shm": "df -k",
            "used": "refcnt", "enforce": "sig_enforce", "tool": "command -v rmmod", "inside": "initstate",
            "trace": "tracing_on", "board": "-machine help",
        }  # fmt: skip
        self.answers |= {names[name]: answer for name, answer in answers.items()}
        self.msrs = {0x48B: SECONDARY, 0x48C: CAPABILITY}

    def run(
        self, command: str, *, input: bytes | None = None, timeout: float = 60.0, check: bool = False
    ) -> CommandResult:
        if "/dev/cpu/0/msr" in command:
            told = (self.msrs.get(number) for number in cpuinfo.numbers())
            data = b"".join(b"--------N" if v is None else v.to_bytes(8, "little") + b"Y" for v in told)
            return CommandResult(0, data, "")
        for part, (status, text) in self.answers.items():
            if part in command:
                return CommandResult(status, text.encode(), "")
        return CommandResult(0, b"", "")

    def bad(self) -> list[str]:
        return [f"{f.what}: {f.found}; {f.mend}" for f in self.examine() if not f.ok]


def test_a_machine_that_has_all_is_found_fit() -> None:
    machine = Machine()
    assert machine.bad() == []
    found = machine.capabilities()
    assert found.cpu().mbec and found.cpu().ept_ad and found.cpu().maxphyaddr == 46
    assert found.as_json() == {"0x48b": f"{SECONDARY:#x}", "0x48c": f"{CAPABILITY:#x}"}
    assert machine.cpu_info().provenance == {
        "model name": "Intel(R) Xeon(R) Gold 6154 CPU", "vendor_id": "GenuineIntel", "cpu family": "6", "model": "85",
        "stepping": "4", "microcode": "0x2007006",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"user": (0, "1000\n")}, "root: user root has id 1000; log in as root"),
        ({"cpu": (0, CPUINFO.replace("GenuineIntel", "AuthenticAMD"))}, "take an Intel machine"),
        ({"cpu": (0, CPUINFO.replace(" vmx", ""))}, "VMX: absent; enable it in the firmware"),
        ({"release": (0, "6.1.0\n")}, "Linux 6.1.0, and the modules are built for 6.12.8; boot the kernel"),
        ({"inside": (1, "")}, "CONFIG_KVM=m"),
        ({"used": (0, "2\n")}, "KVM's users: 2 by the kernel's count; end the virtual machines"),
        ({"enforce": (0, "Y\n")}, "unsigned modules: refused"),
        ({"tool": (1, "")}, "tools: missing: rmmod"),
        ({"qemu": (0, "x86 host\n")}, "does not know vmx-mbec; install a QEMU"),
        ({"qemu": (127, "not found\n")}, "qemu-system-x86_64 does not run: not found"),
        (
            {"board": (0, "none  empty machine\n")},
            "QEMU's machine: qemu-system-x86_64 lacks the machine microvm, pc or q35;",
        ),
        ({"shm": (0, "tmpfs 4000 0 4000 0% /dev/shm\n")}, "/dev/shm: 3 MiB free; 1024 MiB are needed"),
        ({"trace": (1, "")}, "mount -t tracefs"),
    ],
)
def test_what_a_machine_lacks_is_said_with_its_mend(answer: dict[str, tuple[int, str]], says: str) -> None:
    (found,) = Machine(**answer).bad()
    assert says in found


def test_a_machine_without_microvm_is_fit_and_says_what_l1_runs_on() -> None:
    machine = Machine(board=(0, "pc   Standard PC (alias of pc-i440fx-rhel7.6.0)\n"))
    assert machine.bad() == []
    assert machine.board == Board("pc")
    (told,) = [f.found for f in machine.examine() if f.what == "QEMU's machine"]
    assert told == "L1 by QEMU's machine pc, which starts more slowly than microvm"


def test_a_machine_type_that_is_asked_for_and_not_there() -> None:
    machine = Machine()
    machine.l1_machine = "q35"
    (found,) = machine.bad()
    assert "lacks the machine q35; take another QEMU, or another --l1-machine than q35" in found


def test_a_run_that_is_given_up_lets_go_of_a_machine_once() -> None:
    machine, group = Machine(), programs.Group()
    with group.mine():
        machine.check()
        group.cancel()
        with pytest.raises(programs.Cancelled):
            machine.check()
        machine.check()  # what ends QEMU there and removes our files still runs


def test_a_connection_that_broke_is_seen_by_who_waits() -> None:
    class Transport:
        active = True

        def is_active(self) -> bool:
            return self.active

    class Client:
        transport = Transport()

        def get_transport(self) -> Transport:
            return self.transport

    machine = Machine()
    machine._client = Client()  # type: ignore[assignment]
    machine.check()
    Transport.active = False
    with pytest.raises(HostError, match="lab1:22: the SSH connection broke"):
        machine.check()


def test_a_cpu_without_the_control() -> None:
    machine = Machine()
    machine.msrs[0x48B] = SECONDARY & ~(1 << 54)
    assert any("MBEC: absent" in line for line in machine.bad())


def test_msrs_that_are_cut_short_are_no_reading() -> None:
    with pytest.raises(HostError, match=r"wrote 17 bytes, not 162"):
        cpuinfo.reading(lambda _: b"x" * 17, cpuinfo.CpuInfo.parse(CPUINFO))


def test_the_hosts_own_words_read_each_msr_or_say_that_it_is_not_there(tmp_path: Path) -> None:
    there = {0x480: 1 << 54 | 4, 0x48C: CAPABILITY}
    dd = tmp_path / "dd"
    values = "".join(f"*skip={n}*) printf '{''.join(f'%%{b:02x}' for b in v.to_bytes(8, 'little'))}';; " for n, v in
                     there.items()).replace("%%", "\\x")  # fmt: skip
    dd.write_text(f'#!/bin/bash\ncase "$*" in {values}*) exit 1;; esac\n')
    dd.chmod(0o755)
    run = lambda command: subprocess.run(["sh", "-c", f"PATH={tmp_path}:$PATH; {command}"], capture_output=True).stdout  # noqa: E731
    found = cpuinfo.reading(run, cpuinfo.CpuInfo.parse(CPUINFO))
    assert (found.msrs, found.maxphyaddr, found.vmx) == (there, 46, True)


def test_an_empty_cpuinfo_is_no_cpu() -> None:
    info = cpuinfo.CpuInfo.parse("")
    assert (info.vendor, info.vmx, info.provenance) == ("unknown", False, {})


def test_addresses() -> None:
    assert str(address.parse("ssh://me@lab1:2222/")) == "me@lab1:2222"
    assert str(address.parse("[::1]")) == "root@[::1]:22"
    assert [a.host for a in address.parse_all("lab1, ssh://lab2")] == ["lab1", "lab2"]
    with pytest.raises(InputError, match="names a machine twice"):
        address.parse_all("lab1,root@lab1:22")


def test_each_worker_has_its_own_machine(tmp_path: Path) -> None:
    lab = Lab.of("lab1,lab2", None, None, None)
    seen: list[str] = []
    hold = threading.Barrier(2)

    def worker() -> None:
        first = lab.mine("6.12.8", tmp_path).name
        hold.wait()
        assert lab.mine("6.12.8", tmp_path).name == first
        seen.append(first)

    threads = [threading.Thread(target=worker) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(seen) == ["root@lab1:22", "root@lab2:22"]
    with pytest.raises(HostError, match="2 lab machines for more workers"):
        lab.mine("6.12.8", tmp_path)


def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--host-key .*there is no such file"):
        Lab.of("lab1", tmp_path / "gone", None, None)


def test_nobody_there_is_said_by_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["doctor", "--host", "ssh://root@127.0.0.1:9"]) == 4
    assert "BAD root@127.0.0.1:9" in capsys.readouterr().out


@pytest.mark.live
def test_an_emulated_host_in_the_place_of_a_lab_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = Cache()
    base = kernel.base(cache)
    with EmulatedHost(cache, bochs=emulator.build(cache), boot=boot.boot(cache, base.bzimage)) as emulated:
        known = tmp_path / "known_hosts"
        known.write_text(f"[127.0.0.1]:{emulated.port} {rootfs.keys(cache).host_public}\n")
        url = f"ssh://root@127.0.0.1:{emulated.port}"
        key = rootfs.keys(cache).client_private
        options = ["--host", url, "--host-key", str(key), "--known-hosts", str(known)]
        assert main.main(["doctor", *options]) == 0, capsys.readouterr().out
        assert "MBEC" in capsys.readouterr().out
        lab = Lab.of(url, key, known, None)
        assert lab.capabilities().cpu().mbec
        with pytest.raises(HostError, match=r"the modules are built for 5\.4\.1"):
            lab.mine("5.4.1", probe.memio(cache)).start()
        with lab.mine(base.release, probe.memio(cache)) as host:
            assert host.run("memio", timeout=10).status == 1  # its own usage: it is there and runs
            host.put(b"x", "/tmp/sent-by-a-test")
        assert emulated.run("ls /tmp/sent-by-a-test /tmp/kvmirror").status != 0
