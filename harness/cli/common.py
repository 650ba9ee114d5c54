"""Options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.build import archive
from harness.cli.commands import Commands
from harness.errors import InputError
from harness.hosts import Model, board, models
from harness.questions import Setting, parameters, selection
from harness.series import Series, pinned
from kvmodel import series as model

LAST_LEVEL = model.LAST  # of the mirrored series: of a command that asks the mirror alone
PARAMS_HELP = (
    "enable_pt_guest_exec_control: unset, 0, 1 or all; of another series MODULE.NAME=VALUE,..., several in all "
    "combinations (default all)"
)
PARAM_HELP = "enable_pt_guest_exec_control: unset, 0 or 1; of another series MODULE.NAME=VALUE,... (default unset)"
HOST_KERNELS = ("plain", "debug")
MIRROR_PARAM_HELP = "enable_pt_guest_exec_control: unset, 0 or 1 (default unset)"


def add_command(commands: Commands, name: str, what: str, *examples: str) -> argparse.ArgumentParser:
    """The function adds a command that explains itself: what it does in a line, and how it is typed."""
    return commands.add_parser(
        name,
        help=what,
        description=what[0].upper() + what[1:] + ("" if what.endswith(".") else "."),
        epilog="\n".join(("examples:", *(f"  kvmirror {example}" for example in examples))),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_level(parser: argparse.ArgumentParser, param: str = PARAM_HELP) -> None:
    """``--level`` and ``--param`` for a command about one level; ``param`` is the help of the latter."""
    parser.add_argument("--level", required=True, metavar="N", help="the base with patches 1..N")
    parser.add_argument("--param", default="unset", help=param)


def one_level(args: argparse.Namespace, series: Series | None = None) -> tuple[int, Setting]:
    """The function gives what ``add_level`` was given: a level and a setting of ``series`` (None: of the one that is
    mirrored).

    Raises InputError when it is several, or the series has no such level or parameter.
    """
    last, known = (LAST_LEVEL, (parameters.OWN,)) if series is None else (series.last, series.parameters)
    levels, settings = selection.levels(args.level, last), parameters.chosen(args.param, known)
    if len(levels) > 1:
        raise InputError(f"--level {args.level}: name one level, from 0 to {last}")
    if len(settings) > 1:
        raise InputError(f"--param {args.param}: name one value a parameter, as in {settings[-1]}")
    if series is None and settings[0] != Setting.own_value(settings[0].own):
        raise InputError(f"--param {args.param}: the mirror knows {parameters.OWN.name} alone; write unset, 0 or 1")
    return levels[0], settings[0]


def want_mirror(series: Series, what: str, mend: str, *, on_others: bool = False) -> None:
    """The mirror is of ``series``; with ``on_others`` it may stand on prerequisites all the same.

    Raises InputError when it is not; it tells what needs the mirror, and what to do instead.
    """
    if not series.mirrored or (series.on and not on_others):
        has = "with prerequisites below it" if series.mirrored else f"not {series.name!r}"
        raise InputError(f"{what}: the mirror mirrors the MBEC series on Linux {pinned.VERSION} only, {has}: {mend}")


def add_vectors(parser: argparse.ArgumentParser) -> None:
    """The function adds ``--vectors``, which says what is asked."""
    parser.add_argument(
        "--vectors",
        nargs="+",
        default=["core"],
        metavar="V",
        help="core, full, sequences, thin, a part, an id or @FILE (default core)",
    )


def add_journal(parser: argparse.ArgumentParser) -> None:
    """The function adds ``--journal`` and ``--run`` for a command that reads what is known."""
    parser.add_argument("--journal", type=Path, metavar="FILE", help="another journal than the user's own")
    parser.add_argument("--run", type=int, dest="run_number", metavar="N", help="another run than the latest")


def add_new(parser: argparse.ArgumentParser) -> None:
    """The function adds ``--new`` for a command whose exit code findings decide."""
    parser.add_argument(
        "--new",
        action="store_true",
        help="show and count only the findings that the series brings, not those of the base; exit code 1 for these",
    )


def add_builds(parser: argparse.ArgumentParser) -> None:
    """The function adds the options that say what is built, or taken from the user instead."""
    add_emulator(parser)
    add_linux(parser)
    parser.add_argument(
        "--host-kernel",
        choices=HOST_KERNELS,
        default=HOST_KERNELS[0],
        help="the kernel under KVM: plain, or debug with KASAN, lockdep and DEBUG_VM, which is slower and built apart",
    )
    parser.add_argument("--series", type=Path, metavar="DIR", help="another series' folder (default: patches/)")
    add_on(parser)


def add_emulator(parser: argparse.ArgumentParser) -> None:
    """The function adds ``--bochs`` and ``--bochs-unmended``, which say whose emulator is used."""
    emulator = parser.add_mutually_exclusive_group()
    emulator.add_argument("--bochs", type=Path, metavar="PATH", help="your own emulator instead of the one built here")
    emulator.add_argument("--bochs-unmended", action="store_true", help="build the emulator without our mends")


def add_on(parser: argparse.ArgumentParser) -> None:
    """The function adds ``--on``, which says what the series stands on."""
    parser.add_argument(
        "--on",
        metavar="DIR|RANGE",
        help="what the series stands on: a series' folder, mails, or a range A..B of --linux",
    )


def add_linux(parser: argparse.ArgumentParser) -> None:
    """The function adds ``--linux``, which gives another kernel than the pinned one."""
    parser.add_argument(
        "--linux",
        type=archive.named,
        metavar="PATH",
        help="another kernel: tarball, source tree, or Debian's as in debian:7.2, debian:6.12.117, debian:trixie "
        "(docs/kernels.md)",
    )


def add_cpu(parser: argparse.ArgumentParser, several: str = "") -> None:
    """The function adds ``--cpu``; ``several`` says what becomes of more than one, and is empty where one is taken."""
    rest = f", or {models.ALL}; several with commas between: {several}" if several else ""
    parser.add_argument(
        "--cpu",
        metavar="MODEL",
        help=f"whose CPU the emulated host has: {', '.join(map(str, models.WITH_MBEC))}{rest} (default "
        f"{models.USUAL}); {models.TAKING} behind a name takes that from it (docs/cpus.md)",
    )


def chosen_cpus(args: argparse.Namespace) -> list[Model]:
    """The function gives what the user named by ``--cpu``.

    Raises InputError for a CPU that there is not, and where the host is a lab machine.
    """
    if args.cpu is None:
        return [models.USUAL]
    if getattr(args, "host", None):
        raise InputError(f"--cpu {args.cpu}: a lab machine has the CPU that it has; leave out --cpu, or --host")
    return models.named(args.cpu)


def one_cpu(args: argparse.Namespace) -> Model:
    """The function gives the one CPU of a command that takes one.

    Raises InputError where the user named several, and as ``chosen_cpus``.
    """
    first, *more = chosen_cpus(args)
    if more:
        raise InputError(f"--cpu {args.cpu}: name one CPU, as in {first}")
    return first


def add_host(parser: argparse.ArgumentParser) -> None:
    """The function adds ``--host``, which gives lab machines instead of emulated hosts."""
    parser.add_argument(
        "--host",
        metavar="URL",
        help="lab machines instead of emulated hosts: ssh://[user@]host[:port],... or labgrid:TAG=VALUE,... "
        "(docs/lab.md)",
    )
    parser.add_argument("--host-key", type=Path, metavar="FILE", help="the private key to log in there with")
    parser.add_argument("--known-hosts", type=Path, metavar="FILE", help="where its host key is known")
    parser.add_argument(
        "--coordinator", metavar="HOST:PORT", help="labgrid's coordinator (default: LG_COORDINATOR, 127.0.0.1:20408)"
    )
    parser.add_argument(
        "--place-wait",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="wait so long in labgrid's queue where others have all places (default 0)",
    )
    parser.add_argument("--host-qemu", metavar="PATH", help="QEMU there (default: qemu-system-x86_64 on root's PATH)")
    parser.add_argument(
        "--boot-command",
        metavar="CMD",
        help="boots the machines: a command that runs here, with {kernel}, {release}, {host} filled in, and with "
        "{modules} for each level (docs/lab.md)",
    )
    parser.add_argument(
        "--boot-restore-command", metavar="CMD", help="boots at the end what a machine ran before; {host} is filled in"
    )
    parser.add_argument(
        "--l1-machine",
        choices=board.MACHINES,
        help="QEMU's machine type for L1 (default: the first of these that QEMU has; the others start more slowly)",
    )
