"""QEMU's command line, the meaning of its events, and the real thing on an emulated host."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from harness import protocol
from harness.build.cache import Cache
from harness.errors import HostError
from harness.hosts.kvm_modules import Parameters
from harness.observe import qemu
from harness.observe.qmp import QmpEvent
from harness.process import programs
from harness.run.setup import Bench
from kvmodel.question.vector import ENVIRONMENTS, Environment, Machine


def machine(mbec: bool = True, xo: bool = True, ev: bool = False, env: str = "std") -> Machine:
    return Machine(mbec, xo, ev, ENVIRONMENTS[env])


def test_cpu_option_says_each_feature() -> None:
    assert qemu.cpu_option(machine()) == "host,vmx=on,vmx-mbec=on,vmx-ept-execonly=on"
    assert qemu.cpu_option(machine(mbec=False, xo=False)) == "host,vmx=on,vmx-mbec=off,vmx-ept-execonly=off"
    assert "host-phys-bits=on" in qemu.cpu_option(machine(), "Skylake-Server").split(",")


def test_evmcs_brings_what_it_needs() -> None:
    words = qemu.cpu_option(machine(ev=True)).split(",")
    assert {"hv-evmcs=on", "hv-vapic=on"} <= set(words)
    assert not any(word.startswith("hv-") for word in qemu.cpu_option(machine()).split(","))


def test_memory_is_a_shared_file_of_the_backing() -> None:
    for env, folder in (("std", "/dev/shm/"), ("huge", qemu.HUGE)):
        argv = qemu.arguments(machine(env=env), kernel="/p.elf", memory=1 << 30)
        backend = argv[argv.index("-object") + 1]
        assert "share=on" in backend and f"mem-path={folder}" in backend and f"size={1 << 30}" in backend
        assert argv[argv.index("-m") + 1] == "1024"
        assert "-S" in argv and argv[argv.index("-accel") + 1] == "kvm"
        assert argv[argv.index("-qmp") + 1] == "stdio"


def test_unknown_backing_is_refused() -> None:
    odd = Machine(True, True, False, Environment("odd", backing="1g"))
    with pytest.raises(HostError, match="1g"):
        qemu.arguments(odd, kernel="/p.elf", memory=1 << 30)


def test_offsets_are_the_header_s() -> None:
    header = protocol.HEADER.pack(current=0x11223344, state=0x55667788)
    at = protocol.HEADER.offset("current")
    assert header[at : at + 8] == bytes.fromhex("4433221188776655")
    with pytest.raises(KeyError):
        protocol.HEADER.offset("no such field")


@pytest.mark.parametrize(
    ("reason", "end"),
    [
        ("guest-shutdown", qemu.End.POWEROFF),
        ("guest-reset", qemu.End.RESET),
        ("guest-panic", qemu.End.PANICKED),
        ("host-signal", qemu.End.DIED),
    ],
)
def test_shutdown_reasons(reason: str, end: qemu.End) -> None:
    found = qemu.Qemu._meaning(object(), QmpEvent("SHUTDOWN", {"reason": reason}))  # type: ignore[arg-type]
    assert found == (end, reason)


def test_refused_features_are_read_from_qemu_s_words() -> None:
    words = "qemu-system-x86_64: warning: host doesn't support requested feature: MSR(48Bh).vmx-mbec [bit 22]\n"
    assert qemu._UNSUPPORTED.findall(words) == ["MSR(48Bh).vmx-mbec [bit 22]"]


# A multiboot kernel without a name of its own: counts at BATCH_BASE + 64, says "done" in the header's state, then
# powers off; with 8 at BATCH_BASE + 68 it ends in a triple fault instead, with 7 it stands still, interrupts off.
KERNEL = """
.globl _start
.align 4
.long 0x1BADB002, 0, -(0x1BADB002)
_start: mov $0x2000000, %ebx
        incl 64(%ebx)
        movl $2, 24(%ebx)
        cmpl $7, 68(%ebx)
        je hang
        cmpl $8, 68(%ebx)
        je triple
        mov $0x505, %dx
        mov $4, %al
        outb %al, %dx
hang:   jmp hang
triple: lidt none
        int3
none:   .long 0, 0
"""


@pytest.mark.live
def test_real_qemu_on_the_emulated_host(tmp_path: Path) -> None:
    (tmp_path / "k.S").write_text(KERNEL)
    programs.run(["gcc", "-m32", "-c", "k.S", "-o", "k.o"], cwd=tmp_path)
    programs.run(
        ["ld", "-m", "elf_i386", "-Ttext", "0x100000", "-N", "-e", "_start", "-o", "k.elf", "k.o"], cwd=tmp_path
    )
    bench = Bench(Cache(), emulator=None, mended=True, linux=None, series=None)
    bench.build([0])
    with bench.open_host(True, "test host") as host:
        modules = bench._modules[0]
        host.load(modules, Parameters())
        with qemu.Qemu(host, machine(), tmp_path / "k.elf") as l1:
            assert l1.provenance.kvm and not l1.mbec  # level 0 offers no MBEC, whatever was asked for
            assert any("vmx-mbec" in refused for refused in l1.provenance.refused)
            for what, end in (
                (0, qemu.End.POWEROFF),
                (8, qemu.End.RESET),
                (7, qemu.End.HANG),
                (0, qemu.End.POWEROFF),
            ):
                batch = bytearray(4096)
                struct.pack_into("<II", batch, 64, 41, what)
                run = l1.run(bytes(batch), stall=8)
                assert (run.end, run.state, struct.unpack_from("<I", run.memory, 64)) == (end, 2, (42,))
            assert l1.counters()["exits"] > 0
        host.unload()
        assert "kvm" not in host.run("cat /proc/modules", check=True).stdout
        assert not host.warnings()
