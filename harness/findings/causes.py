"""Which patch causes a departure: asked of the mirror by leaving patches out, one at a time.

A departure goes away without a patch when what the mirror then shows no longer looks the same beside what the
manual allows: another wrong bit of the same answer is the same departure's no more, another address of it still is.
Three kinds of patches take a departure away. A **switch** only decides whether the module parameter is there and
what it is; an **offer** changes the virtual CPU that L1 reads, so that the question cannot be asked without it;
every other one puts a rule on the way. The cause is sought among the last, then the second, then the first.

It is sought where the fewest patches take part, step by step as far as the departure still shows: of a sequence's
turn with the access alone, without an enlightened VMCS, with L2 paging at CPL 0 (else the probe's own code in L2 is
user-mode), with an L1 that leaves the control off, with the parameter off, and at the lowest level of the unbroken
row of levels that show it. So the levels and the histories of a run do not change what it finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from harness.findings.departures import STALE, Departure, Symptom, departures, symptom, symptom_of
from harness.questions import Setting
from harness.results import Answer, CellKey, Under, cpus
from kvmodel import machine, sdm
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, NotApplicable, Outcome, Step
from kvmodel.question.sequence import SequenceVector
from kvmodel.question.vector import AccessVector, Evmcs, Mbec, Paging, Vector
from kvmodel.series import LAST, Level

# The mirrored functions that decide what an entry or a set of controls means; the others carry it out.
DECIDES: Final = (
    "is_present_gpte",
    "is_rsvd_bits_set",
    "permission_fault",
    "handle_mmio_page_fault",
    "nested_check_vm_execution_controls",
    "nested_vmx_check_apicv_controls",
    "nested_vmx_check_mode_based_ept_exec_controls",
    "nested_vmx_check_eptp",
    "nested_evmcs_check_controls",
)
# The mirrored function by which KVM's emulator comes to L1's entries: what is wrong of such an exit is of its making.
EMULATES: Final = "translate_nested_gpa"


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause is what is behind a departure.

    ``patches`` put the rule there, or offer L1 what the code does not do; without ``needs`` it goes away as well,
    since they bring the other half. ``place`` is the C function that decided last what EPT12 or the controls mean.
    """

    patches: tuple[int, ...] = ()
    needs: tuple[int, ...] = ()
    place: str = ""
    in_base: bool = False
    predicted: bool = True  # whether the mirror shows the departure
    asked: bool = True  # whether a mirror was asked
    mirrored: bool = True  # whether it follows the code behind the departure
    observed: bool = False  # told by real kernels that do without a patch each
    together: bool = False  # the patches only go out together
    errata: tuple[str, ...] | None = None  # of a bare CPU: the known ones that explain it, empty where none does

    def __str__(self) -> str:
        if self.errata is not None:
            return f"erratum {' and '.join(self.errata)}" if self.errata else "an erratum not known yet"
        if not self.asked and not self.observed:
            return f"{'no mirror was asked' if self.mirrored else 'the mirror does not follow it'}: cause unknown"
        if not self.predicted:
            return "the mirror does not show it: cause unknown"
        if self.in_base:
            return "the base has it"
        if not self.patches:
            return "no single patch causes it: leaving any one out changes nothing"
        out = "them out together" if self.together else "one out" if self.patches[1:] else "it out"
        text = f"caused by patch {_and(self.patches)}: leaving {out} takes it away"
        return f"{text}, as does leaving out patch {_or(self.needs)}" if self.needs else text

    @property
    def known(self) -> bool:
        """The mirror shows the departure, so that the rest says something: True."""
        return self.asked and self.predicted


NOT_ASKED: Final = Cause(asked=False)
NOT_FOLLOWED: Final = Cause(asked=False, mirrored=False)
NOT_SHOWN: Final = Cause(predicted=False)


def _and(numbers: tuple[int, ...]) -> str:
    return " and ".join(map(str, numbers))


def _or(numbers: tuple[int, ...]) -> str:
    return " or ".join(map(str, numbers))


def find_cause(d: Departure, under: Under = cpus.emulated) -> Cause:
    """The function gives the cause of a departure on the CPU ``under`` KVM.

    NOT_ASKED where the run asked no mirror, or the mirror has not its level; NOT_FOLLOWED where it does not follow
    the code behind the turn that departs.
    """
    level, param_name = d.cell
    if d.predicted is None or level > LAST:
        return NOT_ASKED
    if not d.predicted.mirrors(d.turn):
        return NOT_FOLLOWED
    asked = _Asked(under(d.vector.machine.env.cpu_mbec), d.vector, symptom(d), d.legal, d.turn)
    return _find(asked, level, Setting.parse(param_name).own)


def without_history(d: Departure, under: Under = cpus.emulated) -> Departure:
    """The function gives ``d`` as no matter of history where the mirror shows the same answer to the access that
    departs alone.

    A run of sequences need not have asked that access alone.
    """
    level, param_name = d.cell
    if not d.stale or d.predicted is None or level > LAST or not d.predicted.mirrors(d.turn):
        return d
    under_kvm = under(d.access.machine.env.cpu_mbec)
    seen = machine.predict(level, Setting.parse(param_name).own, under_kvm, d.access).outcome
    return replace(d, stale=not seen.matches(d.seen))


def find_errata(d: Departure, cpu: Cpu) -> Cause:
    """The function gives the known errata by which a bare ``cpu`` answers as it did."""
    return Cause(asked=False, errata=tuple(sorted(sdm.explaining(cpu, d.access, d.seen) or ())))


def errata_of(answers: Iterable[tuple[CellKey, Answer]], cpu: Cpu) -> tuple[set[str], int]:
    """The function gives the known errata by which a bare ``cpu`` answered.

    The number is of the departures that none of them explains.
    """
    told = [find_errata(departure, cpu).errata for departure in departures(answers)]
    return {name for names in told for name in names or ()}, sum(not names for names in told)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked of the mirror again and again: this vector on this CPU, beside what the manual allows."""

    cpu: Cpu
    vector: Vector
    what: Symptom
    legal: tuple[Outcome, ...]
    turn: int

    def looks_so(self, outcome: Outcome) -> bool:
        """Whether ``outcome`` is the same departure, of a sequence in the same turn."""
        there = outcome.turn(self.turn)
        stale = self.what.severity == STALE
        return there is not None and symptom_of(self.vector, there, self.legal, stale=stale) == self.what


@lru_cache(maxsize=1 << 17)
def _shows(asked: _Asked, level: int, param: bool | None) -> bool:
    return asked.looks_so(machine.predict(level, param, asked.cpu, asked.vector).outcome)


# What brings further patches, or the probe's own code, into an access without a part in the departure.
_PLAINER: Final[tuple[Callable[[AccessVector], AccessVector], ...]] = (
    lambda vector: replace(vector, ev=Evmcs.ABSENT),
    lambda vector: replace(vector, cpl=0, paging=Paging.LONG),
    lambda vector: replace(vector, mbec=Mbec.OFF) if vector.mbec is Mbec.ON else vector,
)


def _with(asked: _Asked, vector: AccessVector, level: int, param: bool | None) -> _Asked:
    """The same question of another vector, beside what the manual allows that one."""
    answers = sdm.allowed(machine.virtual_cpu(level, param, asked.cpu, vector.machine), vector)
    legal = asked.legal if isinstance(answers, NotApplicable) else tuple(a.outcome for a in answers)
    return replace(asked, vector=vector, legal=legal)


def _find(asked: _Asked, level: int, param: bool | None) -> Cause:
    if not _shows(asked, level, param):
        return NOT_SHOWN
    if isinstance(asked.vector, SequenceVector):
        alone = replace(asked, vector=asked.vector.turns[asked.turn].access, turn=0)
        if _shows(alone, level, param):
            asked = alone
    for plainer in _PLAINER:
        if isinstance(asked.vector, AccessVector) and (vector := plainer(asked.vector)) != asked.vector:
            plain = _with(asked, vector, level, param)
            if _shows(plain, level, param):
                asked = plain
    if param is not False and _shows(asked, level, False):
        param = False
    if _shows(asked, 0, None):
        return _cause(asked, 0, None)
    while _shows(asked, level - 1, param):
        level -= 1
    return _cause(asked, level, param)


@lru_cache(maxsize=1 << 14)
def _cause(asked: _Asked, level: int, param: bool | None) -> Cause:
    """The cause of a departure that shows at this level with this parameter."""
    cpu, vector = asked.cpu, asked.vector
    prediction = machine.predict(level, param, cpu, vector, steps=True)
    place = _place(prediction.steps, asked.what)
    if level == 0:
        return Cause(place=place, in_base=True)
    needed = []
    for left_out in range(1, level + 1):
        without = machine.predict(Level.without(level, left_out), param, cpu, vector)
        # Where L1, or the probe's own part of L2, cannot run without the patch, that says nothing of the departure.
        silent = without.outcome.last.kind is Kind.BLOCKED or not without.reached
        if not silent and not asked.looks_so(without.outcome):
            needed.append(left_out)
    switches = [n for n in needed if _is_switch(level, param, n)]
    offers = [n for n in needed if n not in switches and _is_offer(level, param, cpu, vector, n)]
    others = [n for n in needed if n not in switches and n not in offers]
    on_the_way = [n for n in others if any(step.patch == n for step in prediction.steps)]
    patches = on_the_way or others or offers or switches
    needs = [n for n in needed if n not in patches and n not in switches]
    return Cause(tuple(patches), tuple(needs), place)


def _is_switch(level: int, param: bool | None, patch: int) -> bool:
    """Whether leaving the patch out is the same as giving the parameter another value."""
    whole, without = Level.of(level), Level.without(level, patch)
    if whole.has_parameter is not without.has_parameter:
        return True
    return param is None and whole.default_parameter is not without.default_parameter


def _is_offer(level: int, param: bool | None, cpu: Cpu, vector: Vector, patch: int) -> bool:
    """Whether L1 reads another virtual CPU without the patch."""
    without = Level.without(level, patch)
    return machine.virtual_cpu(level, param, cpu, vector.machine) != machine.virtual_cpu(
        without, param, cpu, vector.machine
    )


def _place(steps: tuple[Step, ...], what: Symptom) -> str:
    functions = [step.where.rpartition(" ")[2] for step in reversed(steps)]
    if what.wrong and EMULATES in functions:
        return EMULATES
    return next((function for function in functions if function in DECIDES), "")
