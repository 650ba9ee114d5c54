"""A run shown to others: pages, files for a CI, mails, and archives that show a finding again."""

from harness.report import baseline, bundle, facts, grid, groups, html, junit, ktap, mail, markdown, text

__all__ = [
    "baseline",
    "bundle",
    "facts",
    "grid",
    "groups",
    "html",
    "junit",
    "ktap",
    "mail",
    "markdown",
    "text",
]
