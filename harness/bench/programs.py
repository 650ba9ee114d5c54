"""The workload's image and the counter built, as cache entries keyed by their sources and the compiler."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from harness import proc, protocol
from harness.bench import windows
from harness.cache import Cache
from harness.probe import CLIENT_FLAGS, IMAGES, check_multiboot, compiler, sources

COUNTER: Final = "kvmirror-count"


def workload(cache: Cache) -> Path:
    """``exits.elf``: the L1 and the L2 of the workload, for QEMU's ``-kernel``. BuildError with gcc's lines."""
    key = {
        "sources": sources(IMAGES / "exits"),
        "probe": sources(IMAGES / "probe"),
        "protocol": protocol.c_header(),
        "windows": windows.c_header(),
        "compiler": compiler(),
    }

    def make(folder: Path) -> None:
        out = folder / "objects"
        words: list[proc.Arg] = ["make", "-s", "-C", IMAGES / "exits", f"O={out}", f"PYTHON={sys.executable}", "CC=gcc"]
        proc.run([*words, out / "exits.elf"], timeout=120)
        image = (out / "exits.elf").read_bytes()
        check_multiboot(image)
        (folder / "exits.elf").write_bytes(image)

    return cache.entry("exits", key, make, title="the exits workload") / "exits.elf"


def counter(cache: Cache) -> Path:
    """``kvmirror-count``: the static program that counts on the host. BuildError with gcc's lines."""
    source = IMAGES / "count"
    key = {"sources": sources(source), "windows": windows.c_header(), "flags": " ".join(CLIENT_FLAGS),
           "compiler": compiler()}  # fmt: skip

    def make(folder: Path) -> None:
        (folder / "windows.h").write_text(windows.c_header(), encoding="utf-8")
        proc.run(
            ["gcc", *CLIENT_FLAGS, f"-I{folder}", "-o", folder / COUNTER, *sorted(source.glob("*.c"))], timeout=120
        )

    return cache.entry("count", key, make, title="the counter") / COUNTER
