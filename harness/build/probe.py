"""The probe and the small KVM client built, as cache entries keyed by their sources and the compiler."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from harness import places, protocol
from harness.build.cache import Cache, sha256
from harness.errors import BuildError
from harness.process import programs

IMAGES: Final = places.IMAGES
MULTIBOOT_MAGIC: Final = 0x1BADB002
MULTIBOOT_WITHIN: Final = 8192  # bytes of the file in which loaders look for the header
CLIENT_FLAGS: Final = ("-O2", "-Wall", "-Wextra", "-Werror", "-static")


def compiler() -> str:
    """The function gives the C compiler's version, which is part of the keys."""
    return programs.run(["gcc", "-dumpfullversion", "-dumpmachine"], error=BuildError).stdout.strip()


def sources(folder: Path) -> dict[str, str]:
    """The function gives the program's C sources and headers by their path, which are part of its key."""
    return {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}


def check_multiboot(image: bytes) -> None:
    """The image is an ELF32 with a Multiboot 1 header where loaders look for it.

    Raises BuildError when it is not.
    """
    if image[:5] != b"\x7fELF\x01":
        raise BuildError("the probe is not an ELF32 file: QEMU's Multiboot loader refuses any other")
    for at in range(0, min(len(image), MULTIBOOT_WITHIN) - 12, 4):
        magic, flags, total = (int.from_bytes(image[at + i : at + i + 4], "little") for i in (0, 4, 8))
        if magic == MULTIBOOT_MAGIC and (magic + flags + total) & 0xFFFF_FFFF == 0:
            return
    raise BuildError("the probe has no Multiboot header in its first 8 KiB: see images/probe/probe.ld")


def build(cache: Cache) -> Path:
    """The function builds ``probe.elf``: the L1 hypervisor, for QEMU's ``-kernel`` and for mboot.c32.

    Raises BuildError, with gcc's lines, when it does not compile.
    """
    key = {"sources": sources(IMAGES / "probe"), "protocol": protocol.c_header(), "compiler": compiler()}

    def make(folder: Path) -> None:
        out = folder / "objects"
        values = (f"O={out}", f"ROOT={places.PACKAGES}", f"PYTHON={sys.executable}", "CC=gcc")
        programs.run(["make", "-s", "-C", IMAGES / "probe", *values, out / "probe.elf"], timeout=120)
        image = (out / "probe.elf").read_bytes()
        check_multiboot(image)
        (folder / "probe.elf").write_bytes(image)

    return cache.entry("probe", key, make, title="the probe") / "probe.elf"


def client(cache: Cache) -> Path:
    """The function builds ``kvmclient``: the static user of /dev/kvm that runs on the host.

    Raises BuildError, with gcc's lines, when it does not compile.
    """
    source = IMAGES / "client"
    key = {"sources": sources(source), "flags": " ".join(CLIENT_FLAGS), "compiler": compiler()}

    def make(folder: Path) -> None:
        programs.run(["gcc", *CLIENT_FLAGS, "-o", folder / "kvmclient", *sorted(source.glob("*.c"))], timeout=120)

    return cache.entry("client", key, make, title="the KVM client") / "kvmclient"


def memio(cache: Cache) -> Path:
    """The function builds ``memio``, which shows L1's memory to the host; it is static, for a host that is not our
    image.

    Raises BuildError, with gcc's lines, when it does not compile.
    """
    source = IMAGES / "rootfs" / "memio.c"
    key = {"source": sha256(source), "flags": " ".join(CLIENT_FLAGS), "compiler": compiler()}

    def make(folder: Path) -> None:
        programs.run(["gcc", *CLIENT_FLAGS, "-o", folder / "memio", source], timeout=120)

    return cache.entry("memio", key, make, title="memio") / "memio"
