"""QEMU's command line, the meaning of its events, and the real thing on an emulated host."""

from __future__ import annotations

import pytest

from harness import protocol, qemu
from harness.errors import HostError
from harness.qmp import Event
from kvmodel.vector import ENVIRONMENTS, Environment, Machine


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
        argv = qemu.arguments(machine(env=env), kernel="/p.elf", port=4440, memory=1 << 30)
        backend = argv[argv.index("-object") + 1]
        assert "share=on" in backend and f"mem-path={folder}" in backend and f"size={1 << 30}" in backend
        assert argv[argv.index("-m") + 1] == "1024"
        assert "-S" in argv and argv[argv.index("-accel") + 1] == "kvm"
        assert argv[argv.index("-qmp") + 1].startswith("tcp:127.0.0.1:4440")


def test_unknown_backing_is_refused() -> None:
    odd = Machine(True, True, False, Environment("odd", backing="1g"))
    with pytest.raises(HostError, match="1g"):
        qemu.arguments(odd, kernel="/p.elf", port=1, memory=1 << 30)


def test_offsets_are_the_header_s() -> None:
    header = protocol.HEADER.pack(current=0x11223344, state=0x55667788)
    at = qemu._offset("current")
    assert header[at : at + 8] == bytes.fromhex("4433221188776655")
    with pytest.raises(KeyError):
        qemu._offset("no such field")


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
    found = qemu.Qemu._meaning(object(), Event("SHUTDOWN", {"reason": reason}))  # type: ignore[arg-type]
    assert found == (end, reason)


def test_refused_features_are_read_from_qemu_s_words() -> None:
    words = "qemu-system-x86_64: warning: host doesn't support requested feature: MSR(48Bh).vmx-mbec [bit 22]\n"
    assert qemu._UNSUPPORTED.findall(words) == ["MSR(48Bh).vmx-mbec [bit 22]"]
