"""The mirror against the C at three levels, against totals.toml: ``python -m tests.golden.check_totals``.

No test, since it compiles KVM's code and takes minutes. Exit code 0 where cases, versions and differences are those
that were frozen, 1 where they are not. ``--write`` freezes what is there now.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any, Final

FROZEN: Final = Path(__file__).with_name("totals.toml")
LEVELS: Final = "0,11,18"
COMMAND: Final = (str(Path(sys.executable).with_name("kvmirror")), "check", "--levels", LEVELS, "--json")
HEAD: Final = f"""\
# What `kvmirror check --levels {LEVELS}` says, seed 1. Frozen before the house was rebuilt: the same cases go through
# the same versions of the C, and the mirror gives the same answers. Compare: python -m tests.golden.check_totals
"""


def told(report: dict[str, Any]) -> dict[str, dict[str, int]]:
    """The totals, and of every entry the cases and versions of all its checks."""
    totals = {name: report["totals"][name] for name in ("mismatches", "cases", "versions")}
    constants = {"compared": report["constants"]["compared"], "differences": len(report["constants"]["differences"])}
    cases: Counter[str] = Counter()
    versions: Counter[str] = Counter()
    for row in report["checks"]:
        cases[row["entry"]] += row["cases"]
        versions[row["entry"]] += len(row["versions"])
    return {
        "totals": totals | {"checks": len(cases), "left_to_vectors": len(report["unreached"])},
        "constants": constants,
        "cases": dict(cases),
        "versions": dict(versions),
    }


def main(argv: list[str]) -> int:
    """Compare or write."""
    if argv not in ([], ["--write"]):
        print(__doc__, file=sys.stderr)
        return 2
    done = subprocess.run(COMMAND, stdout=subprocess.PIPE, check=False)
    if done.returncode not in (0, 3):
        return done.returncode
    now = told(json.loads(done.stdout))
    if argv:
        tables = [f"[{name}]\n" + "".join(f"{k} = {v}\n" for k, v in table.items()) for name, table in now.items()]
        FROZEN.write_text(HEAD + "\n" + "\n".join(tables), encoding="utf-8")
        return 0
    was = tomllib.loads(FROZEN.read_text(encoding="utf-8"))
    for table in sorted(was.keys() | now.keys()):
        old, new = was.get(table, {}), now.get(table, {})
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                print(f"{table}.{name}: frozen {old.get(name, 'not at all')}, now {new.get(name, 'not at all')}")
    print("as it was frozen" if was == now else "not as it was frozen", file=sys.stderr)
    return int(was != now)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
