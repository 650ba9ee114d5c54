"""What is asked: the space of vectors, and how they are sorted into module loads and starts of QEMU."""

from harness.questions import core, selection
from harness.questions.core import SWX
from harness.questions.loads import PARAM_FROM, PLAIN, RULES, SAME_CODE, Load, Work, collapse, plan, settled, twins
from harness.questions.selection import PARAM_VALUES

__all__ = [
    "PARAM_FROM",
    "PARAM_VALUES",
    "PLAIN",
    "RULES",
    "SAME_CODE",
    "SWX",
    "Load",
    "Work",
    "collapse",
    "core",
    "plan",
    "selection",
    "settled",
    "twins",
]
