"""Three answers to one question, and what their disagreement is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Flag, auto

from kvmodel.question.outcome import THEN, Allowed, Kind, NotApplicable, Outcome

Contract = tuple[Allowed, ...] | NotApplicable


class Mark(Flag):
    """The mark says what one vector's comparison showed. Beside AGREE, all three voices say the same, stand those from
    TRACED on.
    """

    AGREE = auto()
    DRIFT = auto()  # mirror against observation: our model is wrong
    FINDING = auto()  # contract against observation: the kernel (or, bare, the CPU) departs from the manual
    NOT_APPLICABLE = auto()  # the contract cannot decide, by a named rule
    BLOCKED = auto()  # never ran, or the probe's own frame failed: says nothing
    ENTRY_FAILURE = auto()  # the VM entry itself was refused: counted apart
    TRACED = auto()  # KVM's tracepoints and WARNs were held against the mirror's
    EVENT_DRIFT = auto()  # ... and differ
    TAKEN = auto()  # not asked: a lower level's answer, whose machine code this level is
    FORESEEN = auto()  # nobody looked: the mirror's prediction stands where an observation would
    NOT_MIRRORED = auto()  # the mirror does not follow the code behind it: contract and observation alone speak
    EARLIER = auto()  # not asked: an earlier run's answer, where all that it rests on was the same
    AGAIN = auto()  # asked although an earlier run has such an answer
    NOT_REPRODUCED = auto()  # ... which was another one


# Of the marks those that no judge gives: they say how an answer was come by.
GIVEN = Mark.TAKEN | Mark.EARLIER | Mark.AGAIN | Mark.NOT_REPRODUCED
OF_TRACES = Mark.TRACED | Mark.EVENT_DRIFT  # of the marks those that rest on a trace, beside what was seen
UNHEARD = (Kind.BLOCKED, Kind.SCAFFOLD)  # of an observation
UNSEEN = Mark.BLOCKED | Mark.TAKEN | Mark.FORESEEN | Mark.EARLIER  # whoever carries one was not seen where it stands


def stands(section: str) -> str:
    """Where a rule stands, as reports say it: a section of the SDM, one of the kernel's documents, or nowhere."""
    if section == "-":
        return "KVM's own promise"
    return section if section.startswith("Linux ") else f"SDM {section}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict has the marks of one vector at one level; ``rule`` names the contract's rule that was met or
    broken.
    """

    marks: Mark
    rule: str = ""


def _contract_marks(contract: Contract, seen: Outcome) -> tuple[Mark, str]:
    if isinstance(contract, NotApplicable):
        return Mark.NOT_APPLICABLE, contract.rule
    for allowed in contract:
        if allowed.outcome.matches(seen):
            return Mark(0), allowed.rule
    return Mark.FINDING, departing(contract, seen)[1].rule


def departing(contract: Sequence[Allowed], seen: Outcome) -> tuple[int, Allowed]:
    """The function says where ``seen`` departs from every answer that ``contract`` allows: the turn, from 0, and what
    is allowed there.

    Of a sequence that is the turn up to which the row of answers that holds longest holds; what follows it has
    another history than the contract's.
    """

    def held(allowed: Allowed) -> int:
        pairs = zip(allowed.outcome.turns, seen.turns, strict=False)
        return next((i for i, (a, b) in enumerate(pairs) if not a.matches(b)), len(seen.turns))

    best = max(contract, key=held)  # the first of those that hold as long
    if not best.outcome.turns or not seen.turns:
        return 0, best
    turn = min(held(best), len(best.outcome.turns) - 1)
    return turn, Allowed(best.outcome.turns[turn], best.rule.split(THEN)[turn], best.section.split(THEN)[turn])


def judge(predicted: Outcome | None, contract: Contract | None, seen: Outcome) -> Verdict:
    """The verdict on ``seen``; None stands for a voice that was not asked (a series without a mirror).

    A vector that never ran is BLOCKED whatever was predicted, and DRIFT as well where the mirror neither said
    that it would be nor that L1 dies of it (such vectors are sampled, since each costs a restart of L1).
    Where the mirror does not follow the code it is NOT_MIRRORED, and DRIFT for the turns up to there alone. A
    foresight that ends so (``seen`` is what the mirror says) is held against nothing.
    """
    if seen.last.kind is Kind.NOT_MIRRORED:
        return Verdict(Mark.NOT_MIRRORED, seen.last.note)
    silent = predicted is not None and predicted.last.kind is Kind.NOT_MIRRORED
    marks = Mark.NOT_MIRRORED if silent else Mark(0)
    if seen.kind in UNHEARD:
        foretold = {predicted.kind, predicted.last.kind} if predicted is not None else {Kind.HOST}
        surprised = not silent and not foretold & {seen.kind, Kind.HOST}
        return Verdict(marks | Mark.BLOCKED | (Mark.DRIFT if surprised else Mark(0)), seen.note)
    found, rule = (Mark(0), "") if contract is None else _contract_marks(contract, seen)
    marks |= found
    if predicted is not None and not predicted.matches(seen):
        marks |= Mark.DRIFT
    if seen.last.kind in (Kind.ENTRY_FAIL, Kind.ENTRY_EXIT):
        marks |= Mark.ENTRY_FAILURE
    return Verdict(marks or Mark.AGREE, rule)
