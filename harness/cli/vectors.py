"""``kvmirror vectors``: what can be asked, part by part, and what an id says field by field."""

from __future__ import annotations

import argparse
import json
import textwrap

from harness.cli.commands import Commands
from harness.cli.common import add_command
from harness.process import table
from harness.questions import core, selection
from kvmodel.question.ids import named_fields, short

WIDTH = 120


def add_parser(commands: Commands) -> None:
    """The function adds the command."""
    parser = add_command(
        commands,
        "vectors",
        "what can be asked: the parts with their counts, a part's ids, an id's fields",
        "vectors                                    every part, how many it has, what it is for",
        "vectors permissions_4k                     that part's ids, as --vectors takes them",
        "vectors e4k.l1=r--u.fetch.mbec=on          the id in full, field by field",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="parts and ids (none: the list of parts)")
    parser.add_argument("--full-ids", action="store_true", help="ids with every field, as the journal has them")
    parser.add_argument("--json", action="store_true", help="JSON on standard output: an array, an object a row")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command prints the list, the ids or the fields; the exit code is always 0."""
    if not args.names:
        _parts(args.json)
        return 0
    rows: list[object] = []
    for name in args.names:
        ids = [vector.id for vector in selection.vector_list([name])]
        single = core.named(name) is None and not name.startswith("@")
        if args.json:
            rows += [{"id": one, "short": short(one), "fields": dict(named_fields(one))} for one in ids]
        elif single:
            print(f"{ids[0]}\n  short  {short(ids[0])}")
            print(textwrap.indent("\n".join(table.lines(named_fields(ids[0]))), "  "))
        else:
            print("\n".join(ids if args.full_ids else map(short, ids)))
    if args.json:
        print(json.dumps(rows))
    return 0


def _parts(as_json: bool) -> None:
    rows = [(name, len(core.named(name) or ()), _where(name), core.about(name)) for name in core.NAMES]
    if as_json:
        print(json.dumps([{"name": n, "vectors": c, "in": w, "what": a} for n, c, w, a in rows]))
        return
    named = max(len(name) for name, *_ in rows)
    for name, count, where, what in rows:
        head = f"{name:{named}} {count:6}  {where:8}  "
        print(textwrap.fill(what, WIDTH, initial_indent=head, subsequent_indent=" " * len(head)))


def _where(name: str) -> str:
    """By which whole space a part is asked."""
    if name in core.SPACES:
        return "space"
    return "core" if name in core.CORE else "beyond"
