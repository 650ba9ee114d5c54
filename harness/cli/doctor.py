"""``kvmirror doctor``: what this machine has, each line with its mend."""

from __future__ import annotations

import argparse
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.build import cache, kernel, packages
from harness.cli import settings
from harness.cli.commands import Commands
from harness.cli.common import add_cpu, add_emulator, add_host, add_linux, chosen_cpus
from harness.errors import HostError
from harness.hosts import Lab
from harness.process import programs
from harness.results import cpus
from harness.run import Bench
from harness.series import pinned
from kvmodel.question import msr

EXAMPLES = """\
examples:
  kvmirror doctor
  kvmirror doctor --cpu all
  kvmirror doctor --host ssh://root@lab1 --host-key ~/.ssh/lab
  kvmirror doctor --host labgrid:cpu=skylake,mbec=yes
"""


@dataclass(frozen=True, slots=True)
class Examined:
    """This is one thing looked at: ``ok`` is None where it does not matter for the emulated host."""

    what: str
    ok: bool | None
    found: str
    mend: str = ""


def add_parser(commands: Commands) -> None:
    """The function adds the command."""
    parser = commands.add_parser(
        "doctor",
        help="what this machine has, each line with its mend",
        description="Looks at this machine, and at lab machines where they are named (--host); changes nothing.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_cpu(parser, several="each is asked what it is, by the emulator, which is built if it is not there")
    add_host(parser)
    add_emulator(parser)
    add_linux(parser)
    parser.set_defaults(run=run)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _cpu() -> Iterator[Examined]:
    flags = _read("/proc/cpuinfo")
    vmx = " vmx " in flags.replace("\n", " ")
    yield Examined(
        "Intel VMX", None, "present" if vmx else "absent", "" if vmx else "not needed: the emulated host brings its own"
    )
    if not vmx:
        return
    try:
        with Path("/dev/cpu/0/msr").open("rb") as file:
            file.seek(msr.PROCBASED_CTLS2)
            (value,) = struct.unpack("<Q", file.read(8))
        mbec = bool(msr.allowed(value) & msr.MBEC)
        yield Examined(
            "MBEC", None, "present" if mbec else "absent", "" if mbec else "a lab host for the series needs it"
        )
    except OSError as error:
        yield Examined("MBEC", None, f"unknown ({error.strerror})", "modprobe msr, and run as root")
    nested = _read("/sys/module/kvm_intel/parameters/nested") in ("Y", "1")
    yield Examined("kvm_intel.nested", None, "on" if nested else "off", "" if nested else "modprobe kvm_intel nested=1")


def _qemu() -> Examined:
    """Whether this machine's own QEMU could be used on it as a lab machine."""
    if (program := shutil.which("qemu-system-x86_64")) is None:
        return Examined("QEMU", None, "not installed", "not needed: the emulated host brings its own")
    told = programs.run([program, "-cpu", "help"], check=False).stdout
    version = programs.run([program, "--version"], check=False).stdout.split("\n", 1)[0]
    mend = "" if "vmx-mbec" in told else "a lab machine for the series needs a newer one"
    return Examined("QEMU", None, f"{version}, {'knows' if 'vmx-mbec' in told else 'lacks'} vmx-mbec", mend)


def _lab(lab: Lab, release: str | None) -> Iterator[Examined]:
    """What each lab machine has, as far as it lets us look."""
    lab.want(None)
    for host in lab.open(release):
        try:
            host.connect_only()
        except HostError as error:
            yield Examined(host.name, False, "no connection", str(error))
            continue
        try:
            for found in host.examine():
                yield Examined(f"{host.name}: {found.what}", found.ok, found.found, "" if found.ok else found.mend)
        except HostError as error:
            yield Examined(host.name, False, "stopped answering", str(error))
        finally:
            host.disconnect()


def _release(root: Path, linux: kernel.Linux | None) -> str | None:
    """The release of the base kernel that is asked for, None before it was built; the cache is not made for it."""
    base = kernel.built(cache.Cache(root), linux) if root.is_dir() else None
    return base.release if base else None


def _compared(root: Path, lab: Lab, linux: kernel.Linux | None) -> Iterator[Examined]:
    """The lab machines, and what their kernel is compared with."""
    release = _release(root, linux)
    yield Examined(
        "kernel of the modules",
        None,
        f"Linux {release}" if release else f"{linux or f'Linux {pinned.VERSION}'} is not built: compared with nothing",
        "" if release else "kvmirror build",
    )
    yield from _lab(lab, release)


def lines() -> Iterator[Examined]:
    """The function gives everything that is looked at."""
    yield from _cpu()
    yield _qemu()
    missing = [p.name for p in packages.packages() if not p.present]
    yield Examined(
        "system packages",
        not missing,
        "all there" if not missing else f"missing: {' '.join(missing)}",
        "" if not missing else "make setup (as root or with sudo)",
    )
    root = cache.default_root()
    at = next(p for p in (root, *root.parents) if p.exists())
    free = shutil.disk_usage(at).free
    yield Examined(
        "disk for the cache",
        free >= kernel.BUILD_ROOM,
        f"{free / 1e9:.1f} GB free at {root}, {kernel.BUILD_ROOM / 1e9:.0f} GB needed when empty",
        "" if free >= kernel.BUILD_ROOM else "free some, or set KVMIRROR_CACHE to a larger disk",
    )
    built = sorted(p.name for p in root.iterdir()) if root.is_dir() else []
    yield Examined("cache", None, f"{root}: {', '.join(built) or 'empty'}", "" if built else "kvmirror build fills it")
    for path in settings.files(None):
        yield Examined("settings", None, str(path), "'kvmirror config' shows what is in effect")


def _emulated(args: argparse.Namespace) -> Iterator[Examined]:
    """What CPUs the emulator has: asked of the bare CPU, once for each emulator and model."""
    for model in chosen_cpus(args):
        bench = Bench.of(args, model)
        bench.build_bare()
        found = bench.processor()
        cpu = cpus.as_json(found.capabilities.cpu())
        has = ", ".join(name for name, value in cpu.items() if value is True)
        lacks = ", ".join(name for name, value in cpu.items() if value is False)
        errata = ", ".join((*found.errata, *([f"{found.unexplained} not known yet"] if found.unexplained else [])))
        yield Examined(
            f"CPU {model}",
            found.capabilities.cpu().mbec,
            f"{has}; lacks {lacks or 'nothing of these'}; {found.capabilities.maxphyaddr} address bits; "
            f"errata: {errata or 'none'}",
        )


def run(args: argparse.Namespace) -> int:
    """The command prints a line each; the exit code is 4 where something needed is missing."""
    found = list(lines())
    if args.cpu:
        programs.interruptible()
        found += _emulated(args)
    if (lab := Lab.chosen(args)) is not None:
        found += _compared(cache.default_root(), lab, args.linux)
    for line in found:
        sign = {True: "ok ", False: "BAD", None: "   "}[line.ok]
        print(f"{sign} {line.what:20} {line.found}" + (f" - {line.mend}" if line.mend else ""))
    return 4 if any(line.ok is False for line in found) else 0
