"""``kvmirror``: the command line. Parses, calls a subcommand, turns an error into a sentence and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.cli import (
    bench,
    build,
    bundle,
    causes,
    check,
    compare,
    completion,
    config,
    coverage,
    doctor,
    findings,
    foresee,
    mutate,
    predict,
    record,
    replay,
    report,
    run,
    series,
    settings,
    trace,
    validate,
    vectors,
    where,
)
from harness.errors import KvmirrorError
from harness.hosts import release_all

# In the order of --help; each has add_parser(subparsers).
COMMANDS = (
    foresee,
    validate,
    run,
    predict,
    vectors,
    where,
    findings,
    causes,
    bundle,
    coverage,
    bench,
    report,
    record,
    replay,
    compare,
    trace,
    build,
    doctor,
    config,
    series,
    check,
    mutate,
)

DESCRIPTION = """\
Holds a model of KVM's MBEC series against real KVM, real QEMU and an Intel CPU, patch by patch.

Three voices answer each question (a vector): the mirror says what this kernel does, the contract what
Intel's manual allows, the observation what happened. Drift: mirror and observation differ, our model is
wrong. Finding: the kernel departs from the manual.
"""

EXAMPLES = """\
a first look, nothing is built and nothing runs:
  kvmirror foresee                                     every level in seconds, by the mirror and the manual
on a KVM, emulated hosts are built first:
  kvmirror validate --levels 0,11,18 --vectors thin    three levels, a handful of vectors
  kvmirror validate                                    every level, every parameter value, the core vectors
from a finding to its explanation:
  kvmirror findings
  kvmirror explain F1
  kvmirror bundle F1                                   an archive that shows it on another machine
one vector:
  kvmirror predict --level 18 --param 1 --steps ID
  kvmirror run --level 18 --param 1 ID

your own defaults: 'kvmirror config --example >kvmirror.toml'; your shell: 'kvmirror completion bash'

exit codes: 0 nothing to report, 1 findings, 2 your input, 3 drift, 4 host, build or network, 130 interrupted
"""


def parser(values: Mapping[str, settings.Value] | None = None) -> argparse.ArgumentParser:
    """The whole command line; ``values`` (``settings.load``) are the defaults of its options."""
    top = argparse.ArgumentParser(
        prog="kvmirror",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="defaults from this file instead of ./kvmirror.toml and the user's own",
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    completion.add_parser(commands, parser)
    settings.apply(top, values or {})
    top.set_defaults(settings=dict(values or {}))
    return top


def _named_config(argv: Sequence[str]) -> Path | None:
    """What ``--config`` says, before the rest is parsed: it sets the defaults of the rest."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--config", type=Path)
    try:
        named: Path | None = first.parse_known_args(argv)[0].config
    except argparse.ArgumentError:  # without a value: the real parser says so
        return None
    return named


def main(argv: Sequence[str] | None = None) -> int:
    """One command is run; the function gives the process's exit code."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        # A file that is wrong must not keep --example from printing one that is right.
        values = {} if "--example" in argv else settings.load(_named_config(argv))
        args = parser(values).parse_args(argv)
        with settings.environment(values):
            code: int = args.run(args)
        sys.stdout.flush()
        return code
    except KvmirrorError as error:
        print(f"kvmirror: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("kvmirror: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`kvmirror ... | head`): nothing to say to it any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    finally:
        release_all()
