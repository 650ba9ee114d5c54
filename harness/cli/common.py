"""Options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harness.build import archive
from harness.questions import selection
from kvmodel.series import LAST

LAST_LEVEL = LAST  # of the series that is mirrored


def add_command(commands: Any, name: str, what: str, *examples: str) -> argparse.ArgumentParser:
    """A command that explains itself: what it does in a line, and how it is typed."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=what,
        description=what[0].upper() + what[1:] + ("" if what.endswith(".") else "."),
        epilog="\n".join(("examples:", *(f"  kvmirror {example}" for example in examples))),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def add_level(parser: argparse.ArgumentParser) -> None:
    """``--level`` and ``--param`` for a command about one level."""
    parser.add_argument("--level", required=True, metavar="N", help="the base with patches 1..N")
    parser.add_argument("--param", default="unset", help="enable_pt_guest_exec_control: unset, 0 or 1 (default unset)")


def one_level(args: argparse.Namespace) -> tuple[int, bool | None]:
    """What ``add_level`` was given."""
    (level,) = selection.levels(args.level, LAST_LEVEL)
    (param,) = selection.params(args.param)
    return level, param


def add_journal(parser: argparse.ArgumentParser) -> None:
    """``--journal`` and ``--run`` for a command that reads what is known."""
    parser.add_argument("--journal", type=Path, metavar="FILE", help="another journal than the user's own")
    parser.add_argument("--run", type=int, dest="run_number", metavar="N", help="another run than the latest")


def add_new(parser: argparse.ArgumentParser) -> None:
    """``--new`` for a command whose exit code findings decide."""
    parser.add_argument(
        "--new",
        action="store_true",
        help="show and count only the findings that the series brings, not those of the base; exit code 1 for these",
    )


def add_builds(parser: argparse.ArgumentParser) -> None:
    """What is built, or taken from the user instead."""
    emulator = parser.add_mutually_exclusive_group()
    emulator.add_argument("--bochs", type=Path, metavar="PATH", help="your own emulator instead of the one built here")
    emulator.add_argument("--bochs-unmended", action="store_true", help="build the emulator without our mends")
    add_linux(parser)
    parser.add_argument("--series", type=Path, metavar="DIR", help="another series' folder (default: patches/)")


def add_linux(parser: argparse.ArgumentParser) -> None:
    """``--linux``: another kernel than the pinned one."""
    parser.add_argument(
        "--linux",
        type=archive.named,
        metavar="PATH",
        help="another kernel: tarball, source tree, or Debian's as in debian:7.2, debian:6.12.117, debian:trixie "
        "(docs/kernels.md)",
    )


def add_host(parser: argparse.ArgumentParser) -> None:
    """Lab machines instead of emulated hosts."""
    parser.add_argument(
        "--host",
        metavar="URL",
        help="a lab machine instead of the emulated host: ssh://[user@]host[:port] (docs/lab.md)",
    )
    parser.add_argument("--host-key", type=Path, metavar="FILE", help="the private key to log in there with")
    parser.add_argument("--known-hosts", type=Path, metavar="FILE", help="where its host key is known")
    parser.add_argument("--host-qemu", metavar="PATH", help="QEMU there (default: qemu-system-x86_64 on root's PATH)")
