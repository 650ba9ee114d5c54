"""What is run where: vectors sorted into module loads and QEMU starts, and the rules by which runs collapse.

A **load** is kvm.ko and kvm-intel.ko of one level with their parameters; a **batch** is what one QEMU start
asks. A collapse rule leaves out what would be the same experiment again; it is decided from what was observed
on the running host, has a name, and what it leaves out is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from kvmodel.question.sequence import SequenceVector
from kvmodel.question.vector import AccessVector, EntryVector, Environment, Machine, Mbec, MsrVector, OnHost, Vector

PARAM_FROM = 3  # the patch that adds enable_pt_guest_exec_control

PLAIN = "std"  # the environment without special settings
SPREAD = 8  # of a level whose machine code is a lower level's, one vector of so many is asked

SAME_CODE = "same-code"
RULES = {
    SAME_CODE: "the level's modules are a lower level's, machine code and data: a spread of the plain machine's "
    "vectors is asked, the others have that level's answer",
    "same-value": "the parameter left unset has the value that another run of this level gives it by name",
    "never-offered": "KVM does not offer L1 the control: setting it is one refused entry, asked once",
    "not-advertised": "KVM does not offer L1 the control: QEMU without vmx-mbec makes the same virtual CPU",
}


@dataclass(frozen=True, slots=True)
class Load:
    """One load of the modules; ``param`` None leaves enable_pt_guest_exec_control unset."""

    level: int
    param: bool | None
    env: Environment

    def __str__(self) -> str:
        param = "unset" if self.param is None else int(self.param)
        return f"level {self.level}, parameter {param}, {self.env.name}"


@dataclass(slots=True)
class Work:
    """A load with what it is to be asked."""

    load: Load
    host: list[OnHost] = field(default_factory=list)
    batches: dict[Machine, list[Vector]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many vectors."""
        return len(self.host) + sum(map(len, self.batches.values()))


def plan(
    vectors: Iterable[Vector],
    levels: Iterable[int],
    params: Iterable[bool | None],
    param_from: int | None = PARAM_FROM,
) -> Iterator[Work]:
    """Every load with its vectors: by host CPU, then level by level.

    ``param_from`` is the first level that has the parameter (None: no level has it); below it only unset runs.
    """
    by_env: dict[Environment, list[Vector]] = {}
    for vector in vectors:
        by_env.setdefault(vector.machine.env, []).append(vector)
    levels, params = list(levels), list(params)
    for cpu_mbec in (True, False):
        for level in levels:
            has_param = param_from is not None and level >= param_from
            for param in params if has_param else [None]:
                for env, asked in by_env.items():
                    if env.cpu_mbec is cpu_mbec:
                        yield _work(Load(level, param, env), asked)


def _work(load: Load, vectors: list[Vector]) -> Work:
    work = Work(load)
    for vector in vectors:
        if isinstance(vector, OnHost):
            work.host.append(vector)
        else:
            work.batches.setdefault(vector.machine, []).append(vector)
    for batch in work.batches.values():
        batch.sort(key=_setting)
    return work


def twins(levels: Iterable[int], same: Callable[[int, int], bool]) -> dict[int, int]:
    """The levels that are the machine code of a lower one of ``levels``, each with the lowest such.

    ``same`` compares two levels; code that came back after it was gone is not looked for.
    """
    found: dict[int, int] = {}
    ordered = sorted(set(levels))
    for below, level in pairwise(ordered):
        if same(below, level):
            found[level] = found.get(below, below)
    return found


def settled(work: Work, named: Collection[tuple[int, bool]], twins: Mapping[int, int]) -> tuple[Work, dict[str, int]]:
    """What is left to ask of ``work`` by the rules that need no host, and how many vectors each left out.

    ``named``: (level, value) of the parameter that the run gives by name. ``twins``: as ``twins()`` has them.
    """
    load = work.load
    plain = load.env.name == PLAIN
    if load.param is None and not plain and {(load.level, False), (load.level, True)} <= set(named):
        return Work(load), {"same-value": work.size}
    if load.level not in twins:
        return work, {}
    left = Work(load, list(work.host)) if plain else Work(load)
    for machine, asked in work.batches.items() if plain else ():
        if machine.mbec_offered and machine.execonly_offered and not machine.evmcs_offered:
            left.batches[machine] = asked[load.level % SPREAD :: SPREAD]
    return left, {SAME_CODE: work.size - left.size}


def _wants(vector: Vector) -> set[Mbec]:
    """What L1 does with the control in the accesses of L2 that ``vector`` asks for; empty where it asks for none.

    L1's own reading of MSRs and its entries without the control advertised are asked on the plain machine all the
    same: that the two virtual CPUs are one is seen there, and need not be seen again in each environment.
    """
    if isinstance(vector, SequenceVector):
        return {turn.access.mbec for turn in vector.turns}
    if isinstance(vector, AccessVector):
        return {vector.mbec}
    again = isinstance(vector, MsrVector | EntryVector) and vector.mbec is Mbec.NA and vector.env != PLAIN
    return {Mbec.NA} if again else set()


def _setting(vector: Vector) -> tuple[object, ...]:
    """What vectors that follow each other had better share: each change is a VMWRITE, a nested VM exit of its own."""
    if not isinstance(vector, AccessVector):
        return (1,)
    v = vector
    return (0, v.mbec.value, v.ad, v.paging.value, v.cpl, v.wp, v.smep, v.smap, v.nxe)


def collapse(work: Work, *, same_value: bool, offered: bool) -> dict[str, int]:
    """Drop from ``work`` what the rules leave out; how many vectors each left out.

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
                wants = _wants(vector)
                if Mbec.ON in wants:
                    left_out["never-offered"] += 1
                elif Mbec.NA in wants:
                    left_out["not-advertised"] += 1
                else:
                    kept.append(vector)
            if kept:
                work.batches[machine] = kept
            else:
                del work.batches[machine]
    return {rule: n for rule, n in left_out.items() if n}
