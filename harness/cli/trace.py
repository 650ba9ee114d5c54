"""``kvmirror trace``: KVM's tracepoints of a guest that somebody else runs, captured for a while and judged."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from harness.cli.commands import Commands
from harness.cli.common import PARAM_HELP, add_builds, add_command, add_host, one_level
from harness.errors import InfraError, InputError
from harness.hosts import Host, Lab
from harness.passive import Capture, Limits, capture, judging, saving
from harness.process import PROGRESS, programs
from harness.questions import plan, selection
from harness.run import Bench

EMULATED: Final = "emulated"
LONGEST: Final = 600.0  # seconds
SIZES: Final = range(1, 1025)  # MiB a CPU
STARTING: Final = 60.0  # seconds in which our own guest has to be there
_TIME: Final = re.compile(r"(\d+(?:\.\d+)?)(s|m|)")


def add_parser(commands: Commands) -> None:
    """The function adds the command."""
    parser = add_command(
        commands,
        "trace",
        "KVM's tracepoints of a running guest, captured for a while and judged; the guest is not touched",
        "trace --host ssh://root@lab1 --pid 4711 --for 10s",
        "trace --host ssh://root@lab1 --pid 4711 --for 10s --save guest.trace",
        "trace --read guest.trace",
        "trace --host emulated --level 18 --param 1 --for 5s",
    )
    add_host(parser)
    parser.add_argument("--pid", type=int, metavar="QEMU", help="the guest's process on the host: QEMU's")
    parser.add_argument("--for", dest="seconds", default="10s", metavar="TIME", help="as in 10s or 2m (default 10s)")
    parser.add_argument(
        "--size", type=int, default=8, metavar="MIB", help="buffer a CPU on the host, in MiB (default 8)"
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the capture, for --read")
    parser.add_argument("--read", type=Path, metavar="FILE", help="judge a capture that --save wrote; no host is asked")
    parser.add_argument("--json", action="store_true", help="one JSON object (docs/trace.md)")
    parser.add_argument("--level", default="18", metavar="N", help="of --host emulated, which boots our own guest")
    parser.add_argument("--param", default="1", help=PARAM_HELP.replace("default unset", "default 1"))
    parser.add_argument(
        "--vectors", nargs="+", default=["permissions_4k"], metavar="V", help="what that guest's L2 does"
    )
    add_builds(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command captures, or reads what was captured, and judges; the exit code is 1 where a rule is broken."""
    if args.read:
        if args.host or args.pid is not None or args.save:
            raise InputError("--read judges a file: leave out --host, --pid and --save")
        found = saving.read(args.read)
    else:
        found = _captured(args)
        if args.save:
            print(f"wrote {args.save} ({saving.write(found, args.save):,} bytes)", file=sys.stderr)
    with PROGRESS.task("judging"):
        verdict = judging.judged(found)
    if args.json:
        print(json.dumps(judging.as_json(found, verdict), indent=1))
    else:
        print("\n".join(judging.lines(found, verdict)))
    return 1 if verdict.problems else 0


def seconds(text: str) -> float:
    """``10s``, ``2m`` or ``10`` becomes seconds.

    Raises InputError when it is none of these, or too long.
    """
    match = _TIME.fullmatch(text)
    value = float(match[1]) * (60 if match[2] == "m" else 1) if match else 0.0
    if not 0 < value <= LONGEST:
        raise InputError(f"--for {text}: write a time up to {LONGEST / 60:.0f} minutes, as in 10s or 2m")
    return value


def _captured(args: argparse.Namespace) -> Capture:
    if args.size not in SIZES:
        raise InputError(f"--size {args.size}: write 1 to {SIZES[-1]}, MiB a CPU")
    limits = Limits(seconds(args.seconds), args.size << 10)
    if args.host is None:
        raise InputError("trace: which host? --host ssh://root@lab1 with --pid, or --host emulated")
    programs.interruptible()
    if args.host == EMULATED:
        if args.pid is not None:
            raise InputError("--pid: the emulated host runs our own guest, which is traced; leave it out")
        args.host = None
        with _own(args) as (host, pid):
            return capture(host, pid, limits)
    if args.pid is None:
        raise InputError("trace: which guest? --pid is its QEMU's on the host ('pidof qemu-system-x86_64' lists them)")
    lab = Lab.chosen(args)
    assert lab is not None
    host = lab.watched()
    host.connect_only()
    try:
        return capture(host, args.pid, limits)
    finally:
        host.disconnect()


@contextmanager
def _own(args: argparse.Namespace) -> Iterator[tuple[Host, int]]:
    """An emulated host on which the probe runs as L1, and its QEMU's process."""
    bench = Bench.of(args)
    level, setting = one_level(args, bench.series)
    (work, *_) = (w for w in plan(selection.vector_list(args.vectors), [level], [setting], bench.series.parameters))
    if not work.batches:
        raise InputError("--vectors: none of these is asked of an L1: name accesses, as permissions_4k")
    machine, vectors = max(work.batches.items(), key=lambda item: len(item[1]))
    bench.build([level])
    with bench.open_host(work.load.env.cpu_mbec, "emulated host") as host:
        session = bench.open_session(host)
        session.load(work.load)
        over = threading.Event()

        def ask() -> None:
            with contextlib.suppress(InfraError):
                while not over.is_set():
                    session.ask_l1(machine, vectors)

        asking = threading.Thread(target=ask, name="guest", daemon=True)
        asking.start()
        try:
            yield host, _guest(host)
        finally:
            over.set()
    asking.join(timeout=10)


def _guest(host: Host) -> int:
    """The process of the QEMU that the host has just started."""
    deadline = time.monotonic() + STARTING
    while time.monotonic() < deadline:
        for pid in host.run("pidof qemu-system-x86_64").stdout.split():
            if "anon_inode:kvm-vm" in host.run(f"ls -l /proc/{pid}/fd 2>/dev/null").stdout:
                return int(pid)
        time.sleep(0.2)
    raise InputError("--host emulated: its guest did not start: does 'kvmirror run' start one at this level?")
