"""What a VM entry and its exit leave in L1 and in the VMCS: the manual's clause for each thing that may be astray."""

from __future__ import annotations

from typing import Final

from kvmodel.question.left import ASTRAY
from kvmodel.sdm.rules import RULES, Rule

_HOST_CR: Final = Rule("28.5.1", "An exit loads CR0, CR3 and CR4 from the host state, but for the bits that stay.")
_HOST_MSR: Final = Rule("28.5.1", "An exit loads the MSRs of the host state that it is told to; DR7 is 400H then.")
_INFORMATION: Final = Rule("28.2", "What an exit's reason does not use says that it is not valid.")
LEFT: Final[dict[str, Rule]] = {
    "ASTRAY_LAUNCH": Rule(
        "31.3", "The launch state becomes launched where the guest is entered; an entry that fails leaves it clear."
    ),
    "ASTRAY_GUEST": Rule("27.8", "A VM entry that fails does not write the guest-state area."),
    "ASTRAY_INFORMATION": Rule(
        "27.8",
        "A VM entry that fails after its controls and host state were found good tells reason and qualification, and "
        "leaves all other exit information; one that fails before tells its error alone.",
    ),
    "ASTRAY_INJECTION": Rule(
        "25.8.3", "An exit clears the valid bit of VM-entry interruption information; an entry that fails does not."
    ),
    "ASTRAY_CONTROL": Rule("28.3", "No VM entry and no exit writes the controls."),
    "ASTRAY_SAVED": Rule("28.3", "An exit saves L2's state as VM entry loaded it and L2 left it."),
    "ASTRAY_INTERRUPTION": _INFORMATION,
    "ASTRAY_VECTORING": _INFORMATION,
    "ASTRAY_LENGTH": Rule("28.2.5", "An exit that an instruction causes has its length, and its RIP."),
    "ASTRAY_DATA": Rule("29.3.2", "An access comes to the page that the entries lead to."),
    "ASTRAY_CR0": _HOST_CR,
    "ASTRAY_CR3": _HOST_CR,
    "ASTRAY_CR4": _HOST_CR,
    "ASTRAY_EFER": _HOST_MSR,
    "ASTRAY_PAT": _HOST_MSR,
    "ASTRAY_DEBUG": _HOST_MSR,
    "ASTRAY_SYSENTER": _HOST_MSR,
    "ASTRAY_BASE": Rule("28.5.2", "An exit loads the bases of FS and GS from the host state."),
    "ASTRAY_SELECTOR": Rule("28.5.2", "An exit loads the selectors of the host state."),
    "ASTRAY_TABLE": Rule("28.5.2", "An exit loads GDTR and IDTR from the host state, with limits of FFFFH."),
    "ASTRAY_RSP": Rule("28.5.3", "An exit loads RIP and RSP from the host state."),
    "ASTRAY_RFLAGS": Rule("28.5.3", "An exit clears RFLAGS but for bit 1."),
}


def _name(what: str) -> str:
    return what.lower().replace("_", "-")


RULES |= {_name(what): rule for what, rule in LEFT.items()}


def rule_left(bits: int) -> tuple[str, str]:
    """The function gives the rule, and its section, that an exit or a failed entry breaks which left ``bits`` astray.

    Raises KeyError where none of the bits is one of ASTRAY.
    """
    for what, rule in LEFT.items():
        if bits & ASTRAY[what]:
            return _name(what), rule.section
    raise KeyError(bits)
