"""What is run where: vectors sorted into module loads and QEMU starts, and the rules by which runs collapse.

A **load** is kvm.ko and kvm-intel.ko of one level with their parameters; a **batch** is what one QEMU start
asks. A collapse rule leaves out what would be the same experiment again; it is decided from what was observed
on the running host, has a name, and what it leaves out is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from harness.questions.parameters import OWN, Setting, open_switches
from harness.series import Parameter
from kvmodel.question.program import ProgramVector
from kvmodel.question.sequence import SequenceVector
from kvmodel.question.vector import (
    AccessVector,
    EntryVector,
    Environment,
    LogVector,
    Machine,
    Mbec,
    MsrVector,
    OnHost,
    Vector,
)

PARAM_FROM = OWN.first_level  # of the mirrored series' levels

PLAIN = "std"  # the environment without special settings
SPREAD = 8  # of a level whose machine code is a lower level's, one vector of so many is asked

SAME_CODE = "same-code"
ASKED_BEFORE = "asked-before"
RULES = {
    SAME_CODE: "the level's modules are a lower level's, machine code and data: a spread of the plain machine's "
    "vectors is asked, the others have that level's answer",
    ASKED_BEFORE: "an earlier run asked it where all that the answer rests on was the same: the answer is that run's, "
    "judged anew; a sample is asked again",
    "same-value": "the parameter left unset has the value that another run of this level gives it by name",
    "never-offered": "KVM does not offer L1 the control: setting it is one refused entry, asked once",
    "not-advertised": "KVM does not offer L1 the control: QEMU without vmx-mbec makes the same virtual CPU",
}


@dataclass(frozen=True, slots=True)
class Load:
    """The load is one of the modules: a level, what its parameters are set to, and the vectors' environment."""

    level: int
    setting: Setting
    env: Environment

    @property
    def param(self) -> bool | None:
        """The value is enable_pt_guest_exec_control as the mirror takes it; None where it is left unset."""
        return self.setting.own

    def __str__(self) -> str:
        return f"level {self.level}, parameter {self.setting}, {self.env.name}"


@dataclass(slots=True)
class Work:
    """The work is a load with what it is to be asked."""

    load: Load
    host: list[OnHost] = field(default_factory=list)
    batches: dict[Machine, list[Vector]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """The work has this many vectors."""
        return len(self.host) + sum(map(len, self.batches.values()))


def plan(
    vectors: Iterable[Vector],
    levels: Iterable[int],
    settings: Iterable[Setting],
    known: Collection[Parameter] = (OWN,),
) -> Iterator[Work]:
    """The function gives every load with its vectors: by host CPU, then level by level.

    ``known`` are the parameters that the series adds (those of the mirrored one): a level is loaded once for each
    setting that its own parameters make of ``settings``.
    """
    by_env: dict[Environment, _OfEnvironment] = {}
    for vector in vectors:
        machine = vector.machine
        asked = by_env.setdefault(machine.env.host, _OfEnvironment())
        if isinstance(vector, OnHost):
            asked.host.append(vector)
        else:
            asked.batches.setdefault(machine, []).append(vector)
    for asked in by_env.values():
        for batch in asked.batches.values():
            batch.sort(key=_setting)
    levels, settings = list(levels), list(settings)
    for cpu_mbec in (True, False):
        for level in levels:
            for setting in dict.fromkeys(setting.at(level, known) for setting in settings):
                for env, asked in by_env.items():
                    if env.cpu_mbec is cpu_mbec:
                        yield asked.of(Load(level, setting, env))


@dataclass(slots=True)
class _OfEnvironment:
    """What every load of one environment is asked."""

    host: list[OnHost] = field(default_factory=list)
    batches: dict[Machine, list[Vector]] = field(default_factory=dict)

    def of(self, load: Load) -> Work:
        """A work of its own: what is taken from one load's lists stays in the others'."""
        return Work(load, list(self.host), {machine: list(batch) for machine, batch in self.batches.items()})


def twins(levels: Iterable[int], code: Callable[[int], Hashable]) -> dict[int, int]:
    """The function gives the levels that are the machine code of a lower one of ``levels``, each with the
    lowest such.

    ``code`` is equal for two levels of the same machine code: one that a later patch brings back is known again.
    """
    first: dict[Hashable, int] = {}
    found: dict[int, int] = {}
    for level in sorted(set(levels)):
        lowest = first.setdefault(code(level), level)
        if lowest != level:
            found[level] = lowest
    return found


def paired(twins: Mapping[int, int], works: Iterable[Work]) -> dict[int, int]:
    """Those of ``twins`` whose every load the lower level has as well: what has none has no answers to take."""
    loads = {work.load for work in works}
    alone = {load.level for load in loads if replace(load, level=twins.get(load.level, load.level)) not in loads}
    return {level: twin for level, twin in twins.items() if level not in alone}


def given_otherwise(load: Load, named: Collection[tuple[int, Setting]]) -> bool:
    """Whether other loads give by name both values of a parameter that ``load`` leaves unset: it is one of them.

    ``named``: level and setting of the loads that give parameters which are 0 or 1.
    """
    return bool(open_switches(load.setting, {setting for level, setting in named if level == load.level}))


def settled(
    work: Work, named: Collection[tuple[int, Setting]], twins: Mapping[int, int]
) -> tuple[Work, dict[str, int]]:
    """The function gives what is left to ask of ``work`` by the rules that need no host, and how many vectors each left
    out.

    ``named``: as ``given_otherwise`` has it. ``twins``: as ``twins()`` has them.
    """
    load = work.load
    plain = load.env.name == PLAIN
    if not plain and given_otherwise(load, named):
        return Work(load), {"same-value": work.size}
    if load.level not in twins:
        return work, {}
    left = Work(load, list(work.host)) if plain else Work(load)
    for machine, asked in work.batches.items() if plain else ():
        if machine.mbec_offered and machine.execonly_offered and not machine.evmcs_offered and machine.env is load.env:
            left.batches[machine] = asked[load.level % SPREAD :: SPREAD]
    return left, {SAME_CODE: work.size - left.size}


def _wants(vector: Vector) -> set[Mbec]:
    """What L1 does with the control in the accesses of L2 that ``vector`` asks for; empty where it asks for none.

    L1's own reading of MSRs and its entries without the control advertised are asked on the plain machine all the
    same: that the two virtual CPUs are one is seen there, and need not be seen again in each environment.
    """
    if isinstance(vector, LogVector):
        return _wants(vector.asked)
    if isinstance(vector, SequenceVector):
        return {turn.access.mbec for turn in vector.turns}
    if isinstance(vector, ProgramVector):
        return {Mbec.ON if vector.wants_mbec else Mbec.OFF}
    if isinstance(vector, AccessVector):
        return {vector.mbec}
    again = isinstance(vector, MsrVector | EntryVector) and vector.mbec is Mbec.NA and vector.env != PLAIN
    return {Mbec.NA} if again else set()


def left_out_by(vector: Vector) -> str | None:
    """The function gives the rule by which ``vector`` is not asked where KVM does not offer L1 the control."""
    wants = _wants(vector)
    return "never-offered" if Mbec.ON in wants else "not-advertised" if Mbec.NA in wants else None


def _setting(vector: Vector) -> tuple[object, ...]:
    """What vectors that follow each other had better share: each change is a VMWRITE, a nested VM exit of its own."""
    if not isinstance(vector, AccessVector):
        return (1,)
    v = vector
    return (0, v.mbec.value, v.ad, v.paging.value, v.cpl, v.wp, v.smep, v.smap, v.nxe)


def collapse(work: Work, *, same_value: bool, offered: bool) -> dict[str, int]:
    """The rules drop from ``work`` what they leave out; the function says how many vectors each left out.

    ``same_value``: another run of this level names the value that the parameter has here.
    ``offered``: KVM's own MSR 0x48B on this host allows L1 bit 22.
    """
    left_out = dict.fromkeys(RULES, 0)
    if same_value:
        left_out["same-value"] = sum(map(len, work.batches.values()))
        work.batches.clear()
        return {rule: n for rule, n in left_out.items() if n}
    if not offered:
        for machine, asked in list(work.batches.items()):
            kept = []
            for vector in asked:
                if (rule := left_out_by(vector)) is None:
                    kept.append(vector)
                else:
                    left_out[rule] += 1
            if kept:
                work.batches[machine] = kept
            else:
                del work.batches[machine]
    return {rule: n for rule, n in left_out.items() if n}
