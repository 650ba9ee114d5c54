"""The emulated host's faults without an emulator, and (live) the real thing with KVM and QEMU in it."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
import threading
import time
from pathlib import Path

import pytest

from harness.build import rootfs
from harness.build.cache import Cache
from harness.errors import HostError, InputError
from harness.hosts.boot import Boot
from harness.hosts.emulated import EmulatedHost, free_port
from harness.hosts.kvm_modules import Parameters
from harness.hosts.login import open_client
from harness.hosts.ssh import SshHost
from harness.process import programs


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What hosts that do not come up leave to be looked at lies here."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def medium(folder: Path) -> Boot:
    """Something to switch on with, for an emulator that is none."""
    for name in ("bzimage", "initramfs"):
        (folder / name).write_bytes(b"0")
    return Boot(folder / "bzimage", folder / "initramfs")


def test_templates_render_and_refuse_gaps() -> None:
    assert rootfs.render("slirp.conf.j2", port=4711).splitlines()[0] == "# slirp config"
    assert "127.0.0.1:4711-10.0.2.15:22" in rootfs.render("slirp.conf.j2", port=4711)
    menu = rootfs.render("isolinux.cfg.j2", multiboot=(), command_line="console=ttyS0")
    assert "KERNEL bzimage" in menu and "APPEND console=ttyS0" in menu
    bare = rootfs.render("isolinux.cfg.j2", multiboot=("probe.elf", "batch.bin"), command_line="")
    assert "APPEND probe.elf --- batch.bin" in bare and "bzimage" not in bare
    with pytest.raises(Exception, match="port"):
        rootfs.render("slirp.conf.j2")


def test_a_missing_emulator_is_named(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"no-such-bochs is missing: .*--bochs"):
        EmulatedHost(cache, bochs=tmp_path / "no-such-bochs", boot=medium(tmp_path)).start()


def test_an_emulator_that_ends_says_why(cache: Cache, tmp_path: Path) -> None:
    fake = script(tmp_path / "bochs", "echo '00000000000p[      ] >>PANIC<< bochsrc:8: cpu: unknown model'; exit 1")
    host = EmulatedHost(cache, bochs=fake, boot=medium(tmp_path))
    with pytest.raises(HostError, match=r"ended with status 1: .*unknown model") as raised:
        host.start()
    folder = Path(str(raised.value).rsplit("kept in ", 1)[1].rstrip(")"))
    assert (folder / "bochsrc").exists()
    assert host._process is None


def test_a_boot_that_never_gets_ready_ends_and_leaves_no_process(cache: Cache, tmp_path: Path) -> None:
    fake = script(tmp_path / "bochs", f"echo $$ >{tmp_path}/pid; exec sleep 1000")
    with pytest.raises(HostError, match="did not get ready within 1 s"):
        EmulatedHost(cache, bochs=fake, boot=medium(tmp_path), boot_timeout=1.2).start()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_panic_on_the_line_is_reported(cache: Cache, tmp_path: Path) -> None:
    # The last argument is the bochsrc, which names the line.
    fake = script(
        tmp_path / "bochs",
        'for rc; do :; done; tty=$(sed -n "s/^com1:.*dev=//p" "$rc")\n'
        'echo "[ 1.0] Kernel panic - not syncing: VFS: no root" >"$tty"; exec sleep 1000',
    )
    with pytest.raises(HostError, match=r"panicked: Kernel panic - not syncing: VFS: no root"):
        EmulatedHost(cache, bochs=fake, boot=medium(tmp_path)).start()


def test_a_boot_that_is_given_up_leaves_no_folder(cache: Cache, tmp_path: Path, temporary: Path) -> None:
    """As on Ctrl-C: the main thread ends the worker's emulator, which is no reason to keep its files."""
    fake = script(tmp_path / "bochs", f"touch {tmp_path}/runs; exec sleep 1000")
    group, raised = programs.Group(), list[BaseException]()

    def work() -> None:
        with group.mine():
            try:
                EmulatedHost(cache, bochs=fake, boot=medium(tmp_path)).start()
            except BaseException as error:
                raised.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    while not (tmp_path / "runs").exists():
        time.sleep(0.05)
    group.cancel()
    worker.join(30)
    assert len(raised) == 1 and not list(temporary.iterdir())


def test_ssh_refused() -> None:
    port = free_port()
    with pytest.raises(HostError, match=rf"no SSH connection to root@127.0.0.1:{port}"):
        open_client("127.0.0.1", port, "root", key=None, host_key=None, timeout=2)


def test_a_server_that_is_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(HostError, match="no SSH connection"):
        open_client("127.0.0.1", server.getsockname()[1], "root", key=None, host_key=None, timeout=1)


@pytest.mark.parametrize("address", ["", "a b", "root@", "lab:99999", "lab:0", "-x@:1"])
def test_bad_addresses(address: str) -> None:
    with pytest.raises(InputError, match="user@"):
        SshHost(address)


def test_addresses() -> None:
    host = SshHost("me@lab1:2222")
    assert (host.user, host.address, host.port) == ("me", "lab1", 2222)
    assert SshHost("[::1]").address == "::1"


def test_parameters() -> None:
    assert "enable_pt_guest_exec_control" not in Parameters().kvm
    assert "enable_pt_guest_exec_control=0" in Parameters((("kvm", "enable_pt_guest_exec_control", "0"),)).kvm
    assert "nx_huge_pages=force" in Parameters(nx_huge_pages=True).kvm
    assert "nested=1" in Parameters().kvm_intel and "enable_apicv=0" in Parameters().kvm_intel
    assert "eptad=0" in Parameters(eptad=False).kvm_intel and "ept=0" in Parameters(ept=False).kvm_intel
