"""A whole core run against the one that was frozen: ``python -m tests.golden.core_run [--journal FILE] [--run N]``.

No test, since a whole run is no part of the repository: exit code 0 where totals, table, findings, causes and counts
are those in core-run.json, 1 where they are not, with the difference. ``--write`` freezes the run instead.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from pathlib import Path
from typing import Final

from tests.golden import doors

FROZEN: Final = Path(__file__).with_name("core-run.json")


def main(argv: list[str]) -> int:
    """Compare or write."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden.core_run", description=__doc__)
    parser.add_argument("--journal", type=Path, help="another journal than the user's own")
    parser.add_argument("--run", type=int, help="another run than the latest")
    parser.add_argument("--write", action="store_true", help="freeze this run")
    args = parser.parse_args(argv)
    found = doors.core_run(args.journal or doors.journal(), args.run)
    now = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    if args.write:
        if found["status"] != "complete":
            print(f"the run is {found['status']}: only a complete one is frozen", file=sys.stderr)
            return 2
        FROZEN.write_text(now, encoding="utf-8")
        print(f"wrote {FROZEN.name} ({len(now.encode()):,} bytes)", file=sys.stderr)
        return 0
    was = FROZEN.read_text(encoding="utf-8")
    sys.stdout.writelines(difflib.unified_diff(was.splitlines(True), now.splitlines(True), "frozen", "now", n=2))
    print("as it was frozen" if now == was else "not as it was frozen", file=sys.stderr)
    return int(now != was)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
