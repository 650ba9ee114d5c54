"""A series and a run whose every foreign text tries to be more than text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.results.journal import Journal
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vector import Vector
from tests.harness.report import synthetic

SCRIPT = "</script><script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
CONTROL = "\x1b[2J\x07\r\nBcc: all@example.org\n\u202egnirts\ud800"
MARKS = "`|* _[link](javascript:alert(1))_ # SKIP ]]> --> {{ 7*7 }} {% raw %} &amp; ' \""
LONG = "n" * 5000
NASTY = [SCRIPT, CONTROL, MARKS, LONG]

PROVENANCE: dict[str, Any] = {
    "kernel": SCRIPT,
    "qemu": CONTROL,
    LONG: MARKS,
    SCRIPT: {"inner": [SCRIPT, CONTROL]},
    "patches": [
        {
            "number": n,
            "subject": f"KVM: {NASTY[n % 4]}",
            "author": f"{NASTY[(n + 1) % 4]} <a@example.org>",
            "message_id": f"<{n}@example.org>",
            "sha256": MARKS,
            "applies": SCRIPT,
            "builds": CONTROL,
            "identity": LONG,
        }
        for n in range(1, 9)
    ],
}


def plant(level: int, param: str, vector: Vector, right: Outcome) -> tuple[Outcome, Outcome]:
    """Notes that a guest or a console could have written."""
    pick = sum(vector.id.encode()) % 5
    if pick < 4:
        seen = Outcome(Kind.HOST if pick % 2 else Kind.BLOCKED, note=NASTY[pick])
        return (right if level % 2 else seen), seen
    return right, right


def make(path: Path) -> Path:
    """A journal of it."""
    with Journal(path) as journal:
        cells = [(level, "unset") for level in range(9)]
        synthetic.record(journal, synthetic.sample(211), cells, plant, PROVENANCE, "interrupted")
    return path
