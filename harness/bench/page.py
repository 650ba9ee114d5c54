"""The results as a page: one file, nothing fetched, everything foreign escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from harness.bench import pictures, table
from harness.bench.result import Result
from kvmodel.machine.exits import Mix


def render(mix: Mix, results: list[Result], runs: int, provenance: Mapping[str, Any]) -> str:
    """The function gives the results as a page."""
    env = Environment(loader=PackageLoader("harness.bench"), autoescape=True, undefined=StrictUndefined)
    points = next((r.curve for r in results if r.curve), [])
    axes = list(dict.fromkeys(p.axis for p in points))
    return env.get_template("exits.html.j2").render(
        mix=table.mix_text(mix),
        runs=runs,
        bars=pictures.bars(results),
        curves=[pictures.curve(points, axis) for axis in axes],
        text="\n".join(table.lines(mix, results)),
        provenance=json.dumps({**provenance, "guests": {r.kernel.name: r.facts for r in results}}, indent=1),
    )
