"""The workload's image and the counter built, as cache entries keyed by their sources and the compiler."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from harness import places, protocol
from harness.bench import windows
from harness.build import Cache, probe
from harness.process import programs

COUNTER: Final = "kvmirror-count"


def workload(cache: Cache) -> Path:
    """The function gives ``exits.elf``: the L1 and the L2 of the workload, for QEMU's ``-kernel``.

    Raises BuildError, with gcc's lines, when it does not compile.
    """
    key = {
        "sources": probe.sources(places.IMAGES / "exits"),
        "probe": probe.sources(places.IMAGES / "probe"),
        "protocol": protocol.c_header(),
        "windows": windows.c_header(),
        "compiler": probe.compiler(),
    }

    def make(folder: Path) -> None:
        out = folder / "objects"
        values = (f"O={out}", f"ROOT={places.PACKAGES}", f"PYTHON={sys.executable}", "CC=gcc")
        programs.run(["make", "-s", "-C", places.IMAGES / "exits", *values, out / "exits.elf"], timeout=120)
        image = (out / "exits.elf").read_bytes()
        probe.check_multiboot(image)
        (folder / "exits.elf").write_bytes(image)

    return cache.entry("exits", key, make, title="the exits workload") / "exits.elf"


def counter(cache: Cache) -> Path:
    """The function gives ``kvmirror-count``: the static program that counts on the host.

    Raises BuildError, with gcc's lines, when it does not compile.
    """
    source = places.IMAGES / "count"
    key = {"sources": probe.sources(source), "windows": windows.c_header(), "flags": " ".join(probe.CLIENT_FLAGS),
           "compiler": probe.compiler()}  # fmt: skip

    def make(folder: Path) -> None:
        (folder / "windows.h").write_text(windows.c_header(), encoding="utf-8")
        programs.run(
            ["gcc", *probe.CLIENT_FLAGS, f"-I{folder}", "-o", folder / COUNTER, *sorted(source.glob("*.c"))],
            timeout=120,
        )

    return cache.entry("count", key, make, title="the counter") / COUNTER
