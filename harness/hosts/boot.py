"""What the emulated host is switched on with: a CD with the kernel, and files that are in its memory already.

The firmware reads a CD through a port, a word at a time: each megabyte takes a fifth of a second. The emulator
itself can put files into the memory before the first instruction, up to four, none longer than a block of that memory.
So the initramfs is there from the start, in pieces behind each other, and the kernel is told where (``initrdmem``).
With it come the modules of the run's levels, which the emulated network would take seconds for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.build import Cache, rootfs, sha256
from harness.errors import BuildError
from harness.hosts.transport import FILES, place

ADDRESS: Final = 1 << 30  # bytes; nothing of firmware, loader or kernel is that far up
BLOCK: Final = 8 << 20  # bytes of one block of the emulator's memory, the most it takes
BLOCKS: Final = 4  # files that the emulator takes


@dataclass(frozen=True, slots=True)
class Carried:
    """The host finds this file: where, and the archive that holds it."""

    there: str
    archive: Path


def carried(cache: Cache, path: Path) -> Carried:
    """The function gives ``path`` for a host that looks for it where it would have been delivered to."""
    there = place(path)

    def build(folder: Path) -> None:
        plain = folder / "archive"
        with rootfs.Cpio(plain) as archive:
            archive.folder(FILES.lstrip("/"))
            archive.file(there.lstrip("/"), path.read_bytes(), 0o755)
        rootfs.pack(plain, folder / "archive.lz4")

    return Carried(there, cache.entry("carried", {"there": there, "sha256": sha256(path)}, build) / "archive.lz4")


@dataclass(frozen=True, slots=True)
class Medium:
    """The medium is what was made for one start: the CD, and each file of the memory with its address."""

    iso: Path
    memory: tuple[tuple[Path, int], ...]


@dataclass(frozen=True, slots=True)
class Boot:
    """Kernel, initramfs, and as many of the ``files`` as there is room for; the others are delivered when asked for."""

    bzimage: Path
    initramfs: Path
    files: tuple[Carried, ...] = ()
    words: str = ""  # more of them for the kernel's command line

    @property
    def fitting(self) -> tuple[Carried, ...]:
        """The function gives those of the files that the host finds."""
        found, room = [], BLOCKS * BLOCK - self.initramfs.stat().st_size
        for file in self.files:
            room -= file.archive.stat().st_size
            if room < 0:
                break
            found.append(file)
        return tuple(found)

    def make(self, folder: Path) -> Medium:
        """CD and memory are made under ``folder``.

        Raises BuildError when the initramfs does not fit, or the CD cannot be made.
        """
        memory = b"".join(path.read_bytes() for path in (self.initramfs, *(file.archive for file in self.fitting)))
        if len(memory) > BLOCKS * BLOCK:
            raise BuildError(
                f"the initramfs has {len(memory)} bytes, the emulator takes {BLOCKS * BLOCK}: make it smaller "
                "(rootfs.STUBS names libraries that it can do without)"
            )
        pieces = []
        for number, at in enumerate(range(0, len(memory), BLOCK)):
            path = folder / f"memory{number}"
            path.write_bytes(memory[at : at + BLOCK])
            pieces.append((path, ADDRESS + at))
        # Linux reserves this memory for itself only when it has read that it is there: too late. Told that it is none
        # of its own it copies the initramfs away, and uses (and frees) the copy.
        taken = f"memmap={len(pieces) * BLOCK >> 20}M${ADDRESS:#x}"
        command_line = f"{rootfs.COMMAND_LINE} {self.words} {taken} initrdmem={ADDRESS:#x},{len(memory)}"
        menu = rootfs.render("isolinux.cfg.j2", multiboot=(), command_line=command_line)
        rootfs.make_iso(folder, {"bzimage": self.bzimage}, menu, ("ldlinux.c32",))
        return Medium(folder / "image.iso", tuple(pieces))


def boot(cache: Cache, bzimage: Path, files: Sequence[Path] = (), words: str = "") -> Boot:
    """The function gives ``bzimage`` with our initramfs, and ``files``, each once."""
    found = {one.there: one for one in (carried(cache, path) for path in files)}
    return Boot(bzimage, rootfs.initramfs(cache), tuple(found.values()), words)
