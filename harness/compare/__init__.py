"""Two runs beside one another: findings gone, stayed and new, and every answer that is another one."""

from harness.compare import html, mail, plain
from harness.compare.comparison import Comparison, as_json, gather
from harness.compare.naming import FORMS, Name, parse
from harness.compare.reading import Side, opened

__all__ = [
    "FORMS",
    "Comparison",
    "Name",
    "Side",
    "as_json",
    "gather",
    "html",
    "mail",
    "opened",
    "parse",
    "plain",
]
