"""Two runs beside one another: findings gone, stayed and new, and every answer that is another one."""

from harness.compare import html, mail, plain
from harness.compare.comparison import as_json, gather
from harness.compare.naming import parse
from harness.compare.reading import opened

__all__ = [
    "as_json",
    "gather",
    "html",
    "mail",
    "opened",
    "parse",
    "plain",
]
