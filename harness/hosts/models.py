"""The emulator's CPU models, by the names that people know the CPUs by. What each can do is read from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from harness.errors import InputError

ALL: Final = "all"


@dataclass(frozen=True, slots=True)
class Model:
    """This is a CPU that can be emulated: its name on the command line, and in the emulator's own list.

    ``without`` names what is taken from it.
    """

    name: str
    emulated_as: str
    without: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


WITH_MBEC: Final = (
    Model("skylake-x", "corei7_skylake_x"),
    Model("cannon-lake", "corei3_cnl"),
    Model("icelake", "corei7_icelake_u"),
    Model("tiger-lake", "tigerlake"),
    Model("sapphire-rapids", "sapphire_rapids"),
    Model("arrow-lake", "arrow_lake"),
)
"""Those that have mode-based execute control, by age."""
USUAL: Final = WITH_MBEC[2]
"""What is emulated where nobody asks for another."""
WITHOUT_MBEC: Final = Model("haswell", "corei7_haswell_4770")
"""The host of the vectors that want a CPU without the control."""

LEFT_OUT: Final = ("advanced-info",)
"""What can be taken from each: of advanced information on EPT violations the manual has that a CPU may lack it."""
LACKS: Final = ":no-"  # between a CPU's name and what is taken from it
TAKING: Final = " or ".join(LACKS + what for what in LEFT_OUT)

_NAMES: Final = {model.name: model for model in WITH_MBEC} | {
    f"{model}{LACKS}{what}": replace(model, name=f"{model}{LACKS}{what}", without=(what,))
    for model in WITH_MBEC
    for what in LEFT_OUT
}


def option(model: Model) -> str:
    """A command names the CPU again so, with a blank before it; the text is empty where it is the usual one."""
    return "" if model == USUAL else f" --cpu {model}"


def named(text: str) -> list[Model]:
    """The function gives the models of a list with commas between, ``all`` for each.

    Raises InputError for a name that is none; it lists what there is.
    """
    if text == ALL:
        return list(WITH_MBEC)
    found = []
    for name in (part.strip() for part in text.split(",")):
        if name not in _NAMES:
            raise InputError(
                f"--cpu {text}: {name!r} is no CPU that is emulated with mode-based execute control; there are "
                f"{', '.join(map(str, WITH_MBEC))}, and {ALL} for all of them; {TAKING} behind a name takes that from "
                "the CPU"
            )
        if _NAMES[name] in found:
            raise InputError(f"--cpu {text}: {name} is named twice; name each CPU once")
        found.append(_NAMES[name])
    return found
