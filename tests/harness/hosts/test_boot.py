"""What the emulated host is switched on with: the initramfs and what comes with it, in pieces, told to the kernel."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from harness.build import rootfs
from harness.build.cache import Cache
from harness.errors import BuildError
from harness.hosts import boot
from harness.hosts.transport import place


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "BLOCK", 1 << 20)


def made(tmp_path: Path, name: str, size: int) -> Path:
    path = tmp_path / name
    path.write_bytes(name.encode() * (size // len(name)))
    return path


def medium(parts: boot.Boot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[boot.Medium, str]:
    menus: list[str] = []
    monkeypatch.setattr(rootfs, "make_iso", lambda folder, files, menu, modules: menus.append(menu))
    folder = tmp_path / "work"
    folder.mkdir(exist_ok=True)
    return parts.make(folder), menus[-1]


@pytest.mark.usefixtures("small")
def test_pieces_lie_behind_each_other_and_the_kernel_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    initramfs, extra = made(tmp_path, "initramfs", 1_500_000), made(tmp_path, "extra", 600_000)
    parts = boot.Boot(made(tmp_path, "bzimage", 10), initramfs, (boot.Carried("/tmp/x", extra),))
    found, menu = medium(parts, tmp_path, monkeypatch)
    whole = initramfs.read_bytes() + extra.read_bytes()
    assert b"".join(path.read_bytes() for path, _ in found.memory) == whole
    assert [at - boot.ADDRESS for _, at in found.memory] == [0, boot.BLOCK, 2 * boot.BLOCK]
    assert all(path.stat().st_size <= boot.BLOCK for path, _ in found.memory)
    told = re.search(r"memmap=(\d+)M\$(0x[0-9a-f]+) initrdmem=(0x[0-9a-f]+),(\d+)", menu)
    assert told is not None
    megabytes, taken, begins, length = told.groups()
    assert (int(taken, 16), int(begins, 16), int(length)) == (boot.ADDRESS, boot.ADDRESS, len(whole))
    assert int(megabytes) << 20 >= len(whole)


@pytest.mark.usefixtures("small")
def test_what_does_not_fit_is_left_for_delivery(tmp_path: Path) -> None:
    sizes = (2_000_000, 2_000_000, 10)
    files = tuple(boot.Carried(f"/tmp/{n}", made(tmp_path, f"part{n}", size)) for n, size in enumerate(sizes))
    parts = boot.Boot(tmp_path, made(tmp_path, "initramfs", 1_000_000), files)
    assert [file.there for file in parts.fitting] == ["/tmp/0"]


@pytest.mark.usefixtures("small")
def test_an_initramfs_that_is_too_large_is_refused(tmp_path: Path) -> None:
    parts = boot.Boot(tmp_path, made(tmp_path, "initramfs", 5_000_000))
    with pytest.raises(BuildError, match=r"the initramfs has \d+ bytes, the emulator takes 4194304"):
        parts.make(tmp_path)


def test_the_emulator_is_told_of_each_piece() -> None:
    text = rootfs.render(
        "bochsrc.j2", memory_mib=64, bios="b", vgabios="v", cpu_model="c", ips=1, slirp_conf=None, iso="i",
        console="/dev/null", log="l", memory=((Path("/w/memory0"), 1 << 30),), block_kib=8192,
    )  # fmt: skip
    assert "memory: guest=64, host=64, block_size=8192\noptramimage1: file=/w/memory0, address=0x40000000\n" in text


def test_a_carried_file_lies_where_it_would_be_delivered(tmp_path: Path) -> None:
    source = made(tmp_path, "kvm.ko", 100)
    found = boot.carried(Cache(tmp_path / "cache"), source)
    assert found.there == place(source)
    plain = subprocess.run(["lz4", "-dc", str(found.archive)], capture_output=True, check=True).stdout
    subprocess.run(["cpio", "-id", "--quiet"], input=plain, cwd=tmp_path, check=True)
    assert (tmp_path / found.there.lstrip("/")).read_bytes() == source.read_bytes()
