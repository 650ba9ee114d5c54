"""What came of a load that was asked, whole or in shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from harness.errors import HostError
from harness.observe import Reported, Seen, cut
from harness.questions import Load, Work, parameters
from harness.results import Judged, outcome_json, outcome_of
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Outcome
from kvmodel.question.vector import AccessVector, Machine, Vector

HOST_CELL: Final = "host"  # the cell of what is asked of the host itself
LOG: Final = "log"  # the cell of what the kernel's log said beside the answers of another
SEAL: Final = "load"  # the cell that is written when all others of a load are
FACTS: Final = "load"  # in that cell's facts: what the host said of the load
SUMMED: Final = ("counters", "l1_seconds")  # facts that are amounts: those of the shards are added
LISTED: Final = ("warnings", "deaths")  # facts that are lists: the shards' follow each other


def machine_name(m: Machine) -> str:
    """The function gives a machine as the journal names it."""
    words = [m.env.name]
    words += ["mbec"] if m.mbec_offered else []
    words += [] if m.execonly_offered else ["noxo"]
    words += ["evmcs"] if m.evmcs_offered else []
    return "+".join(words)


def log_of(cell: str) -> str:
    """The function gives the name of the cell for what the kernel's log said beside the answers of ``cell``."""
    return f"{cell}:{LOG}"


def beside(cell: str) -> str | None:
    """The function gives the cell beside whose answers ``cell`` has what the kernel's log said; None where it is no
    such cell.
    """
    name, _, last = cell.rpartition(":")
    return name if last == LOG else None


def seal(load: Load) -> str:
    """The function gives the name of a load's last cell."""
    return f"{load.env.name}:{SEAL}"


@dataclass(slots=True)
class Part:
    """One machine's part of a load: asked and seen; ``told`` is what the mirror says of the traces.

    ``guest`` is None for what is asked of the host itself. ``earlier``: of the vectors that were not asked, the run
    whose answer stands here. ``again``: of vectors that were, an earlier run with its answer. ``reported_before``: what
    the kernel's log said in earlier runs of what was not asked, beside what ``seen`` has of the others.
    """

    vectors: list[Vector]
    seen: Seen
    seconds: float = 0.0
    told: list[Judged] = field(default_factory=list)
    guest: Machine | None = None
    earlier: dict[str, int] = field(default_factory=dict)
    again: dict[str, tuple[int, Outcome]] = field(default_factory=dict)
    reported_before: list[Reported] = field(default_factory=list)

    @property
    def traced_now(self) -> set[AccessVector]:
        """The value is the accesses of which a trace is this run's own; another trace is an earlier run's."""
        asked = (cut.access_of(vector) for vector in self.vectors if vector.id not in self.earlier)
        return {access for access in asked if access is not None}


@dataclass(frozen=True, slots=True)
class LoadFacts:
    """The facts are what a host said of a load, by which it is settled what is asked there.

    ``values``: of parameters that the load leaves unset. ``started``: whether it was seen how an L1 starts;
    ``blocked`` is then what blocks all of L1's vectors, None where it gets past its first fetch.
    """

    parameter: str | None
    mbec_offered: bool
    values: Mapping[parameters.Key, str | None] = field(default_factory=dict)
    started: bool = False
    blocked: Outcome | None = None

    def as_json(self) -> dict[str, Any]:
        """The function is the inverse of ``from_json``, for a cell's facts."""
        return {
            "parameter": self.parameter,
            "mbec_offered": self.mbec_offered,
            "values": [[*key, value] for key, value in self.values.items()],
            "started": self.started,
            "blocked": None if self.blocked is None else outcome_json(self.blocked),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> LoadFacts:
        """The function is the inverse of ``as_json``."""
        values = {(module, name): value for module, name, value in body["values"]}
        blocked = None if body["blocked"] is None else outcome_of(body["blocked"])
        return cls(body["parameter"], body["mbec_offered"], values, body["started"], blocked)


@dataclass(slots=True)
class Done:
    """The record is of a load that was asked: parts by cell name (HOST_CELL for the host's own), and what collapsed by
    rule.

    ``facts``: what its host said of it; None where nobody asked.
    """

    load: Load
    batches: dict[str, Part] = field(default_factory=dict)
    collapsed: dict[str, int] = field(default_factory=dict)
    facts: LoadFacts | None = None


def questions(work: Work) -> dict[str, list[Vector]]:
    """The function gives a load's vectors by the name of their cell."""
    named: dict[str, list[Vector]] = {HOST_CELL: list(work.host)} if work.host else {}
    return named | {machine_name(machine): list(asked) for machine, asked in work.batches.items()}


def merged(whole: Work, shards: Sequence[Done]) -> Done:
    """The function gives the shards of one load as if one host had been asked: the vectors are in the load's
    own order.

    Raises RuntimeError when a vector is answered twice, or is neither answered nor counted as left out: that is a
    defect of ours.
    Raises HostError when the shards' hosts show L1 different CPUs: such answers are not of one run.
    """
    done = Done(whole.load, collapsed=dict(sum((Counter(shard.collapsed) for shard in shards), Counter())))
    done.facts = joined_facts(shard.facts for shard in shards)
    for name, vectors in questions(whole).items():
        parts = [shard.batches[name] for shard in shards if name in shard.batches]
        if parts:
            done.batches[name] = _one_part(whole.load, vectors, parts)
    answered = sum(len(part.vectors) for part in done.batches.values())
    if answered + sum(done.collapsed.values()) != whole.size:
        raise RuntimeError(
            f"{whole.load}: {answered} vectors were answered and {sum(done.collapsed.values())} left out by rule, "
            f"of {whole.size}"
        )
    return done


def joined_facts(several: Iterable[LoadFacts | None]) -> LoadFacts | None:
    """The function gives what hosts said of one load, together: of those that say it, one that saw how an L1 starts,
    with the values of all.
    """
    told = [facts for facts in several if facts is not None]
    if not told:
        return None
    values = {key: value for facts in reversed(told) for key, value in facts.values.items()}
    return replace(next((facts for facts in told if facts.started), told[0]), values=values)


def _one_part(load: Load, vectors: Sequence[Vector], parts: Sequence[Part]) -> Part:
    answers: dict[str, Outcome] = {}
    for part in parts:
        for vector, outcome in zip(part.vectors, part.seen.outcomes, strict=True):
            if vector.id in answers:
                raise RuntimeError(f"{load}: {vector.id} was answered twice")
            answers[vector.id] = outcome
    there = [vector for vector in vectors if vector.id in answers]
    if len(there) != len(answers):
        raise RuntimeError(f"{load}: {len(answers) - len(there)} vectors were answered that were not asked")
    seen = Seen([answers[vector.id] for vector in there], _one_cpu(load, parts), _facts(p.seen.facts for p in parts))
    seen.traced = [one for part in parts for one in part.seen.traced]
    seen.reported = [one for part in parts for one in part.seen.reported]
    joined = Part(there, seen, sum(p.seconds for p in parts), guest=parts[0].guest)
    for part in parts:
        joined.told += part.told
        joined.earlier |= part.earlier
        joined.again |= part.again
        joined.reported_before += part.reported_before
    return joined


def _one_cpu(load: Load, parts: Iterable[Part]) -> Cpu | None:
    """The CPU that L1 read; None where no shard came so far."""
    found = {part.seen.cpu for part in parts if part.seen.cpu is not None}
    if len(found) > 1:
        raise HostError(
            f"{load}: the hosts show L1 different CPUs ({'; '.join(sorted(map(str, found)))}): one run is of one kind "
            "of CPU and one QEMU; leave one of the hosts out"
        )
    return next(iter(found), None)


def _facts(shards: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The facts of all; of what is neither an amount nor a list, the first that says it."""
    found: dict[str, Any] = {}
    for facts in shards:
        for name, value in facts.items():
            if name not in found:
                found[name] = value
            elif name == "counters":
                found[name] = dict(Counter(found[name]) + Counter(value))
            elif name in SUMMED or name in LISTED:
                found[name] = found[name] + value
            elif name == "livelocks":
                found[name] = found[name] | value
    return found
