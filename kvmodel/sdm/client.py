"""What is promised to a guest under the small client and to its user: accesses complete, and the host's own rules."""

from __future__ import annotations

from kvmodel.bits import BIT
from kvmodel.question import tally
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vector import ENVIRONMENTS, ClientSequence, UserMsrVector


def _since(steps: tuple[str, ...], *marks: str) -> tuple[str, ...]:
    """The steps behind the last one that is among ``marks``; all of them where none is."""
    last = max((i for i, step in enumerate(steps) if step in marks), default=-1)
    return steps[last + 1 :]


def promised(vector: ClientSequence) -> tuple[Outcome, str]:
    """Every access completes; of what KVM counts only what a rule speaks of, and that rule's name.

    Once a fetch was made under the forced mitigation, the 2 MiB region is no large mapping, until the end of dirty
    logging lets the host map it anew. Without A/D bits of EPT there is no page-modification logging: then the
    log is the host's own and is judged; the only page of the slot that the guest touches is the one it writes.
    """
    env = ENVIRONMENTS[vector.env]
    code = defined = 0
    rule = "own-access"
    logging = "log" in _since(vector.steps, "unlog")
    if logging and not env.eptad and {"write", "rmw"} & set(_since(vector.steps, "log", "sync")):
        defined |= tally.MASK["dirty"]
        code |= tally.pack({"dirty": 1})
        rule = "host-dirty-log"
    if env.nx_huge_pages and "fetch" in _since(vector.steps, "unlog"):
        defined |= tally.MASK["pages_2m"]
        rule = "host-nx-huge-pages"
    return Outcome(Kind.DONE, code, defined=defined), rule


def taken(vector: UserMsrVector, reading: Outcome, rule: str) -> tuple[Outcome, str]:
    """The consistent ``reading`` without the bits that user space cleared and did not ask for again."""
    cleared = 0
    for step in vector.steps:
        if step == "kvm":
            cleared = 0
        elif step[0] == "c":
            cleared |= BIT(int(step[1:]))
        else:
            cleared &= ~BIT(int(step[1:]))
    code = reading.code & ~cleared
    return (
        Outcome(Kind.VALUE, code, defined=reading.defined | cleared),
        "host-msr-taken" if cleared else rule,
    )
