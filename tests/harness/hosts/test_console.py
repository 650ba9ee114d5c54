"""The recogniser on lines as a kernel prints them, and the console on a child that prints them."""

from __future__ import annotations

import os
import pty
import threading
import time
import tty
from collections.abc import Iterator

import pytest

from harness.errors import HostError
from harness.hosts.console import READY, Console, Recogniser, Trouble


def fed(*lines: str) -> Recogniser:
    recogniser = Recogniser()
    for line in lines:
        recogniser.feed(line)
    return recogniser


def test_ready_with_control_characters() -> None:
    assert fed(f"\x1b[0m{READY}\r").ready
    assert not fed("kvmirror-host: re", "ady").ready


@pytest.mark.parametrize(
    ("line", "trouble"),
    [
        ("[    1.234567] Kernel panic - not syncing: VFS: Unable to mount root fs", Trouble.PANIC),
        ("[    1.234567] BUG: kernel NULL pointer dereference, address: 0000000000000008", Trouble.BUG),
        ("[    1.234567] kernel BUG at arch/x86/kvm/mmu/mmu.c:812!", Trouble.BUG),
        ("[    1.234567] Oops: Oops: 0002 [#1] NOPTI", Trouble.OOPS),
        ("[    1.234567] general protection fault, probably for non-canonical address", Trouble.OOPS),
        ("[  242.000000] INFO: task qemu:61 blocked for more than 120 seconds.", Trouble.HUNG),
        ("[  242.000000] watchdog: BUG: soft lockup - CPU#0 stuck for 26s!", Trouble.HUNG),
        ("[  242.000000] rcu: INFO: rcu_sched self-detected stall on CPU", Trouble.HUNG),
        ("Could not find kernel image: bzimage", Trouble.BOOT),
    ],
)
def test_trouble(line: str, trouble: Trouble) -> None:
    found = fed("[    0.1] Linux version 6.12.8", line)
    assert found.trouble is trouble
    assert found.cause and "[" not in found.cause[:1]


def test_the_first_word_is_the_cause() -> None:
    found = fed(
        "BUG: kernel NULL pointer dereference", "Oops: 0000 [#1]", "Kernel panic - not syncing: Fatal exception"
    )
    assert found.trouble is Trouble.BUG


def test_innocent_lines() -> None:
    found = fed(
        "[    0.5] e1000: eth0 NIC Link is Up",
        "[    0.5] debug: panic_on_oops=0",
        "[    0.6] Kernel compiled without mitigations, ignoring 'mitigations'",
    )
    assert found.trouble is None
    assert not found.warnings


def test_a_warning_has_its_function_and_place() -> None:
    found = fed(
        "[   12.1] ------------[ cut here ]------------",
        "[   12.1] WARNING: CPU: 0 PID: 66 at arch/x86/kvm/mmu/spte.c:198 make_spte+0x2c1/0x310 [kvm]",
        "[   12.1] WARNING: something without a place",
        "[   12.1] WARNING: CPU: 0 PID: 66 at make_spte+0x2c1/0x310 [kvm]",
        "[   12.1] WARNING: arch/x86/kvm/mmu/spte.c:198 at make_spte+0x2c1/0x310 [kvm], CPU#0: kvmclient/66",
        "[   12.1] WARNING: at make_spte+0x2c1/0x310 [kvm], CPU#0: kvmclient/66",
    )
    assert [(w.function, w.place, w.at) for w in found.warnings] == [
        ("make_spte", "arch/x86/kvm/mmu/spte.c:198", 2),
        ("", "", 3),
        ("make_spte", "", 4),
        ("make_spte", "arch/x86/kvm/mmu/spte.c:198", 5),
        ("make_spte", "", 6),
    ]
    assert found.trouble is None


@pytest.fixture
def line() -> Iterator[tuple[int, int]]:
    """Both ends of a pty: ours to read, the machine's to write."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    yield ours, theirs
    for end in (ours, theirs):
        os.close(end)


def test_boot_byte_by_byte(line: tuple[int, int]) -> None:
    console = Console(line[0])

    def boot() -> None:
        for byte in f"hello\r\n{READY}\r\n".encode():
            os.write(line[1], bytes([byte]))

    threading.Thread(target=boot).start()
    console.wait_ready(10)
    assert console.tail() == f"hello\n{READY}"
    console.close()


def test_panic_says_the_last_lines(line: tuple[int, int]) -> None:
    console = Console(line[0])
    os.write(line[1], b"[ 1.0] before\r\n[ 1.1] Kernel panic - not syncing: no init\r\n[ 1.2] behind\r\n")
    with pytest.raises(HostError, match=r"(?s)panicked.*no init.*before.*behind"):
        console.wait_ready(10)
    with pytest.raises(HostError, match="panicked"):
        console.check()
    console.close()


def test_silence_is_a_hang_long_before_the_deadline(line: tuple[int, int]) -> None:
    console = Console(line[0])
    os.write(line[1], b"last words\r\n")
    began = time.monotonic()
    with pytest.raises(HostError, match=r"(?s)silent for 1 s.*last words"):
        console.wait_ready(60, silence=1)
    assert time.monotonic() - began < 10
    console.close()


def test_deadline(line: tuple[int, int]) -> None:
    console = Console(line[0])
    with pytest.raises(HostError, match="not get ready within 0 s; its console said nothing"):
        console.wait_ready(0.3)
    console.close()
