"""``kvmirror predict``: what the mirror and the contract say of a vector, without running anything."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from harness.cli.commands import Commands
from harness.cli.common import MIRROR_PARAM_HELP, add_level, one_level, want_mirror
from harness.posted import opened
from harness.questions import selection
from harness.results import cpus, stands
from kvmodel import machine, sdm
from kvmodel.question.outcome import NotApplicable

EXAMPLES = """\
example:
  kvmirror predict --level 18 --param 1 --steps \\
      e4k.l1=rwx-.l2=rwxu.mt6.xb0.ub0.fetch.gpuwx.guuwx.pg64.cpl3.wp1.smep0.smap0.nxe1.ad0.mbec=on.xo1.ev0.env=std
"""


def add_parser(commands: Commands) -> None:
    """The function adds the command."""
    parser = commands.add_parser(
        "predict",
        help="what the mirror and the contract say of a vector",
        description="Says what this kernel will show L1 (the mirror) and what the manual allows (the contract).",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_level(parser, MIRROR_PARAM_HELP)
    parser.add_argument("--steps", action="store_true", help="every step with its C function and patch")
    parser.add_argument("--json", action="store_true", help="one JSON object a vector, a line each")
    parser.add_argument("--series", type=Path, metavar="DIR", help="the series' folder: it has to be the mirrored one")
    parser.add_argument("ids", nargs="+", metavar="ID", help="a vector's id")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command prints one block, or one JSON line, a vector."""
    if args.series is not None:
        want_mirror(opened(args.series), "predict", "kvmirror run --series asks its kernel and the manual")
    level, setting = one_level(args)
    param = setting.own
    for name in args.ids:
        vector = selection.vector(name)
        cpu = cpus.emulated(vector.machine.env.cpu_mbec)
        prediction = machine.predict(level, param, cpu, vector, steps=args.steps)
        contract = sdm.allowed(machine.virtual_cpu(level, param, cpu, vector.machine), vector)
        if isinstance(contract, NotApplicable):
            allowed = [f"not applicable: {contract.rule} ({contract.reason})"]
        else:
            allowed = [f"{a.outcome} ({a.rule}, {stands(a.section)})" for a in contract]
        if args.json:
            print(
                json.dumps(
                    {
                        "vector": vector.id,
                        "level": level,
                        "param": str(setting),
                        "mirror": str(prediction.outcome),
                        "exits": prediction.exits,
                        "contract": allowed,
                        "steps": [str(s) for s in prediction.steps],
                    }
                )
            )
            continue
        print(vector.id)
        print(f"  mirror    {prediction.outcome}")
        for line in allowed:
            print(f"  contract  {line}")
        for number, step in enumerate(prediction.steps, 1):
            print(f"  {number:3}. {step}")
    return 0
