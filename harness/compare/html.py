"""A comparison as one page: nothing fetched, no script, everything foreign escaped."""

from __future__ import annotations

from harness.compare.comparison import COLUMNS, Comparison, table
from harness.report import html


def render(comparison: Comparison) -> str:
    """The function gives the comparison as a page."""
    return (
        html.environment("harness.compare")
        .get_template("compare.html.j2")
        .render(
            c=comparison,
            style=html.style(),
            columns=COLUMNS,
            rows=table(comparison)[1:],
            tone="good" if comparison.equal else "warn",
            symbol="✓" if comparison.equal else "≠",
        )
    )
