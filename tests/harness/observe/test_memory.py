"""L1's memory: what memio packs, and the memio that stays, driven as on a host."""

from __future__ import annotations

import ctypes
import mmap
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from harness import protocol
from harness.build import rootfs
from harness.errors import GuestError
from harness.observe import memory

SIZE = 8192  # bytes behind BATCH_BASE


@pytest.fixture(scope="module")
def memio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rootfs._memio(tmp_path_factory.mktemp("memio"))


def frame(at: mmap.mmap) -> int:
    """The page frame behind the first page of a mapping; 0 where only root may know."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(at))
    with Path("/proc/self/pagemap").open("rb") as pagemap:
        pagemap.seek(address // mmap.PAGESIZE * 8)
        return int.from_bytes(pagemap.read(8), "little") & (1 << 55) - 1


def test_a_page_that_is_given_back_does_not_come_again(memio: Path) -> None:
    """Else a hypervisor that keeps the old page mapped would be none the worse for it, and nobody would see."""
    data = Random(1).randbytes(2 * mmap.PAGESIZE)
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(data)
        file.flush()
        for _ in range(8):
            with mmap.mmap(file.fileno(), mmap.PAGESIZE) as page:
                before = frame(page) if page[0] == data[0] else 0
            if not before:
                pytest.skip("only root is told page frames")
            subprocess.run([memio, "remap", file.name, "0", str(mmap.PAGESIZE)], check=True)
            with mmap.mmap(file.fileno(), mmap.PAGESIZE) as page:
                assert page[:] == data[: mmap.PAGESIZE]
                assert frame(page) != before
        file.seek(0)
        assert file.read() == data


@pytest.mark.parametrize("size", [1, 119, 120, 5000, 200_000])
def test_memory_is_unpacked_as_memio_packed_it(memio: Path, tmp_path: Path, size: int) -> None:
    random = Random(size)
    records = bytearray(120)
    data = bytearray()
    while len(data) < size:  # records of which some bytes change, and now and then all, and rows of none
        for _ in range(random.choice((0, 1, 3, 8, 120))):
            records[random.randrange(120)] = random.randrange(256)
        data += records * random.choice((1, 1, 700))
    data = data[:size]
    (tmp_path / "m").write_bytes(bytes(100) + data)
    packed = subprocess.run([memio, "pack", tmp_path / "m", "100", str(size), "120"], capture_output=True, check=True)
    assert memory.unpacked(packed.stdout, 120) == data
    assert size < 5000 or len(packed.stdout) < size / 2
    assert len(memory.unpacked(packed.stdout[:-1], 120)) < size


class Here:
    """This machine in a host's place, as far as Memory asks it."""

    def __init__(self, memio: Path) -> None:
        self.memio = memio
        self.started: list[subprocess.Popen[bytes]] = []

    def spawn(self, command: str) -> Here:
        verb, path = command.split()[1:]
        ours, theirs = socket.socketpair()
        with theirs:
            self.started.append(
                subprocess.Popen([self.memio, verb, path], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE)
            )
        self._ours = ours
        return self

    def socket(self) -> socket.socket:
        return self._ours

    def errors(self) -> str:
        assert self.started[-1].stderr is not None
        return self.started[-1].stderr.read().decode()

    def check(self) -> None:
        pass

    def stop(self) -> None:
        pass


@pytest.fixture
def host(memio: Path) -> Iterator[Here]:
    here = Here(memio)
    yield here
    for process in here.started:
        process.kill()
        process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with (tmp_path / "l1").open("wb") as file:
        file.truncate(protocol.BATCH_BASE + SIZE)
    return tmp_path / "l1"


def test_little_is_written_and_read_through_one_memio(host: Here, path: Path) -> None:
    l1 = memory.Memory(host, str(path))  # type: ignore[arg-type]
    l1.write(b"batch", 8)
    l1.write(b"B", 8)
    assert l1.read(6, 8) == b"Batch\0" and l1.read(0) == b""
    assert path.read_bytes()[protocol.BATCH_BASE + 8 :].startswith(b"Batch")
    assert len(host.started) == 1
    l1.close()
    assert host.started[0].wait(10) == 0  # it ended with its line


def test_what_lies_outside_is_refused_in_its_words_and_the_next_may_be_asked(host: Here, path: Path) -> None:
    l1 = memory.Memory(host, str(path))  # type: ignore[arg-type]
    with pytest.raises(GuestError, match="memio: a request: Numerical result out of range"):
        l1.read(2, SIZE - 1)
    assert l1.read(1, SIZE - 1) == b"\0"
    l1.close()


def test_a_file_that_is_not_there_is_named(host: Here, path: Path) -> None:
    with pytest.raises(GuestError, match="nowhere: No such file"):
        memory.Memory(host, str(path.with_name("nowhere"))).write(b"x")  # type: ignore[arg-type]
