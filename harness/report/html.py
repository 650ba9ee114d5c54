"""The page a reviewer reads: one file, nothing fetched, everything foreign escaped."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from harness.findings import PROVENANCE as CONFIRMED
from harness.report import pictures
from harness.report.facts import Report
from harness.report.grid import Grid
from harness.report.text import NAME_MAX, duration, plain
from harness.results import LEFT_OUT, stands
from kvmodel.question.outcome import Kind

ROW_TITLES: Final = (
    ("vectors", "vectors"),
    ("agree", "agree"),
    ("drift", "drift"),
    ("findings", "findings"),
    ("changes", "changes"),
    ("not applicable", "not_applicable"),
    ("blocked", "blocked"),
    ("entry refused", "entry_failures"),
    ("not asked again", "collapsed"),
    ("of a lower level", "taken"),
    ("not mirrored", "not_mirrored"),
    ("of an earlier run", "earlier"),
    ("not reproducible", "not_reproduced"),
    ("seconds", "seconds"),
)

ELSEWHERE: Final = (
    "patches",
    "modules",
    LEFT_OUT,
    CONFIRMED,
)  # of the provenance: patches have tables, findings say the last


def _final(value: object) -> object:
    """What Jinja prints: our own markup as it is, everything else plain and cut."""
    return value if isinstance(value, Markup | int | float) else plain(value, NAME_MAX)


def environment(package: str = "harness.report") -> Environment:
    """What renders a package's templates: everything that is not our own markup comes out escaped and plain."""
    made = Environment(loader=PackageLoader(package), autoescape=True, undefined=StrictUndefined, finalize=_final)
    made.filters["stands"] = stands
    return made


def style() -> Markup:
    """The function gives the style sheet that every page carries."""
    return Markup(environment().get_template("report.css").render(kinds=[k.value for k in Kind]))


def flat(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """A provenance's leaves with dotted names; lists of plain values on one line."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(v, dict | list) for v in value):
        for n, inner in enumerate(value):
            yield from flat(inner, f"{name}[{n}]")
    else:
        yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def provenance_rows(report: Report) -> list[tuple[str, str]]:
    """The function gives the run's own facts, then what it wrote down."""
    took = "still running" if report.seconds is None else duration(report.seconds)
    begun = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(report.begun))
    rows = [
        ("run", str(report.number)),
        ("status", report.status),
        ("begun", begun),
        ("duration", took),
        ("command", " ".join([Path(report.argv[0]).name, *report.argv[1:]]) if report.argv else ""),
    ]
    rest = {key: value for key, value in report.provenance.items() if key not in ELSEWHERE}
    rows += [(f"patch {p.number}", p.sha256) for p in report.patches if p.sha256]
    return [*rows, *flat(rest), *((f"guests: {name}", "; ".join(values)) for name, values in report.machines)]


def _safe_script(source: str) -> Markup:
    if "</" in source or "<!--" in source:
        raise ValueError("the page's script would end its own element")
    return Markup(source)


def render(report: Report, grid: Grid) -> str:
    """The function gives the report as a page."""
    env = environment()
    source = resources.files("harness.report").joinpath("templates/report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    used = {name for kinds in grid.kinds.values() for name in kinds}
    unsure = report.totals.drift or report.unsteady
    bad = unsure or report.new_findings or report.broken_claims or report.status != "complete"
    tone, symbol = ("bad", "✗") if bad else ("warn", "!") if report.findings else ("good", "✓")
    took = "running" if report.seconds is None else duration(report.seconds)
    totals = report.totals
    return env.get_template("report.html.j2").render(
        r=report,
        word="foreseen" if report.foreseen else "seen",
        observation="foreseen" if report.foreseen else "observation",
        tone=tone,
        symbol=symbol,
        style=style(),
        script=_safe_script(source),
        script_hash=Markup(digest),
        data=Markup(htmlsafe_json_dumps(grid.body, separators=(",", ":"))),
        letters={k.value: letter for k, letter in pictures.LETTERS.items()},
        legend=[(k.value, pictures.LETTERS[k], pictures.MEANINGS[k]) for k in Kind if k.value in used],
        tiles=[
            ("vectors asked", f"{totals.vectors:,}"),
            ("all three agree" if report.mirror_asked else "kernel and manual agree", f"{totals.agree:,}"),
            ("drift", f"{totals.drift:,}" if report.mirror_asked else "no mirror asked"),
            ("findings", str(len(report.findings))),
            ("behaviour changes", f"{totals.changes:,}"),
            ("not applicable", f"{totals.not_applicable:,}"),
            ("blocked", f"{totals.blocked:,}"),
            ("duration", took),
        ],
        row_titles=ROW_TITLES,
        provenance=provenance_rows(report),
        lattices=pictures.lattices(report, grid),
        outcomes=pictures.outcomes(report, grid),
        times=pictures.times(report),
        counted=pictures.counted(report),
    )
