"""What is asked: the space of vectors, and how they are sorted into module loads and starts of QEMU."""

from harness.questions import core, parameters, selection
from harness.questions.core import SWX
from harness.questions.loads import (
    ASKED_BEFORE,
    PARAM_FROM,
    PLAIN,
    RULES,
    SAME_CODE,
    Load,
    Work,
    collapse,
    given_otherwise,
    left_out_by,
    paired,
    plan,
    settled,
    twins,
)
from harness.questions.parameters import Setting
from harness.questions.selection import PARAM_VALUES

__all__ = [
    "ASKED_BEFORE",
    "PARAM_FROM",
    "PARAM_VALUES",
    "PLAIN",
    "RULES",
    "SAME_CODE",
    "SWX",
    "Load",
    "Setting",
    "Work",
    "collapse",
    "core",
    "given_otherwise",
    "left_out_by",
    "paired",
    "parameters",
    "plan",
    "selection",
    "settled",
    "twins",
]
