"""What was found out from a run's answers, kept in the journal beside what it was found out from.

The causes are what takes time: each is asked of the mirror by leaving patches out. They are kept with a digest of the
answers that depart, of the CPU under KVM, and of the code that finds causes; where one of these is another, all is
found out anew. The departures themselves are always read from the answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import harness
import kvmodel
from harness.findings.causes import Cause, find_cause, without_history
from harness.findings.departures import Departure, fresh, told_stale
from harness.findings.group import Finding, of_causes
from harness.results import Journal, Mark, Under, cpus

# The code that a cause rests on: the mirror and the contract whole, and of the harness what judges and explains.
CODE: Final = (
    Path(kvmodel.__path__[0]),
    *(Path(harness.__path__[0]) / name for name in ("findings", "results", "questions")),
)

Told = tuple[Departure, Cause]


@lru_cache(maxsize=1)
def code_version() -> str:
    """The digest is of the source that finds causes."""
    found = sha256()
    for folder in CODE:
        for path in sorted(folder.rglob("*.py")):
            found.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return found.hexdigest()


def findings(journal: Journal, run: int, host: str, under: Under) -> list[Finding]:
    """The function gives the findings of a run on ``host``, by cause."""
    source = _source(journal, run, host, under)
    departing = fresh(journal.answers(run, having=Mark.FINDING, host=host))
    if (body := journal.kept(run, host, source)) is not None:
        return of_causes(_decoded(body, departing))
    told = [(d, find_cause(d, under)) for d in (without_history(d, under) for d in told_stale(departing))]
    journal.keep(run, host, source, _encoded(told))
    return of_causes(told)


def _source(journal: Journal, run: int, host: str, under: Under) -> str:
    machines = [cpus.as_json(under(mbec)) for mbec in (True, False)]
    return f"{code_version()} {json.dumps(machines, sort_keys=True)} {journal.digest(run, host, Mark.FINDING)}"


def _encoded(told: Iterable[Told]) -> str:
    """The causes, each once, and of every departure which one it is and whether it is stale."""
    causes: dict[Cause, int] = {}
    rows = [(causes.setdefault(why, len(causes)), int(d.stale)) for d, why in told]
    return json.dumps({"causes": [asdict(why) for why in causes], "departures": rows})


def _decoded(body: str, departing: Sequence[Departure]) -> list[Told]:
    found = json.loads(body)
    causes = [_cause(cause) for cause in found["causes"]]
    return [
        (replace(d, stale=True) if stale else d, causes[number])
        for d, (number, stale) in zip(departing, found["departures"], strict=True)
    ]


def _cause(body: Mapping[str, Any]) -> Cause:
    """A cause from JSON, which knows no tuples."""
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in body.items()}
    return Cause(**values)
