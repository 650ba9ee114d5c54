"""``kvmirror doctor``: what this machine has, each line with its mend."""

from __future__ import annotations

import argparse
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import cache, kernel, toolbox

MSR_PROCBASED_CTLS2 = 0x48B


@dataclass(frozen=True, slots=True)
class Line:
    """One thing looked at: ``ok`` None where it does not matter for the emulated host."""

    what: str
    ok: bool | None
    found: str
    mend: str = ""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("doctor", help="what this machine has, each line with its mend")
    parser.set_defaults(run=run)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _cpu() -> Iterator[Line]:
    flags = _read("/proc/cpuinfo")
    vmx = " vmx " in flags.replace("\n", " ")
    yield Line(
        "Intel VMX", None, "present" if vmx else "absent", "" if vmx else "not needed: the emulated host brings its own"
    )
    if not vmx:
        return
    try:
        with Path("/dev/cpu/0/msr").open("rb") as msr:
            msr.seek(MSR_PROCBASED_CTLS2)
            (value,) = struct.unpack("<Q", msr.read(8))
        mbec = bool(value >> 54 & 1)
        yield Line("MBEC", None, "present" if mbec else "absent", "" if mbec else "a lab host for the series needs it")
    except OSError as error:
        yield Line("MBEC", None, f"unknown ({error.strerror})", "modprobe msr, and run as root")
    nested = _read("/sys/module/kvm_intel/parameters/nested") in ("Y", "1")
    yield Line("kvm_intel.nested", None, "on" if nested else "off", "" if nested else "modprobe kvm_intel nested=1")


def lines() -> Iterator[Line]:
    """Everything that is looked at."""
    yield from _cpu()
    missing = [p.name for p in toolbox.packages() if not p.present]
    yield Line(
        "system packages",
        not missing,
        "all there" if not missing else f"missing: {' '.join(missing)}",
        "" if not missing else "make setup (as root or with sudo)",
    )
    root = cache.default_root()
    at = next(p for p in (root, *root.parents) if p.exists())
    free = shutil.disk_usage(at).free
    yield Line(
        "disk for the cache",
        free >= kernel.BUILD_ROOM,
        f"{free / 1e9:.1f} GB free at {root}, {kernel.BUILD_ROOM / 1e9:.0f} GB needed when empty",
        "" if free >= kernel.BUILD_ROOM else "free some, or set KVMIRROR_CACHE to a larger disk",
    )
    built = sorted(p.name for p in root.iterdir()) if root.is_dir() else []
    yield Line("cache", None, f"{root}: {', '.join(built) or 'empty'}", "" if built else "kvmirror build fills it")


def run(args: argparse.Namespace) -> int:
    """Print a line each; 4 where something needed is missing."""
    found = list(lines())
    for line in found:
        sign = {True: "ok ", False: "BAD", None: "   "}[line.ok]
        print(f"{sign} {line.what:20} {line.found}" + (f" - {line.mend}" if line.mend else ""))
    return 4 if any(line.ok is False for line in found) else 0
