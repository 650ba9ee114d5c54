"""One running host and one load of KVM at a time: asks the load's vectors and gives back what was seen.

The host itself first (parameter, KVM's MSRs), then a vCPU under the small client, then L1 under QEMU. Where the
client shows that an L1 cannot run at all, L1's vectors are blocked, and say by what.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from harness.errors import GuestError, HostError
from harness.hosts import Host, ModuleFiles, Parameters
from harness.observe import batch as guest
from harness.observe import client, cut, leftover_entries, reports, tracepoints
from harness.observe.l1 import L1, PATIENCE, SILENCE, Seen, hurried, settled, stood_still
from harness.observe.qemu import Qemu, end_leftovers
from harness.questions import PLAIN, Load, parameters
from kvmodel.question import msr
from kvmodel.question.outcome import Kind, Outcome, logged, parameter, parameter_lost, text_value
from kvmodel.question.vector import Access, ClientVector, Environment, HostVector, LogVector, Machine, OnHost, Vector

PARAM_FILE: Final = f"/sys/module/{parameters.OWN.module}/parameters/{parameters.OWN.name}"  # Y or N, if it is there
TROUBLE: Final = "trouble"  # in the facts of a batch of which nothing was heard: why
SAMPLE: Final = 2  # vectors run of a class that kills L1 on the plain machine; one on every other
# What L1's firmware does first, under the small client instead of QEMU.
FIRST_FETCH: Final = ClientVector("real", Access.FETCH, "u")

Deadly = Callable[[Vector], str | None]


def is_on(text: str | None) -> bool | None:
    """The function gives a module parameter as a value; sysfs prints it as Y or N, and None is one that is not
    there.
    """
    return None if text is None else text == "Y"


def host_outcomes(info: dict[str, Any], vectors: Iterable[HostVector]) -> list[Outcome]:
    """The function gives what the client's ``info`` line answers to each vector: the parameter as text, an MSR as
    KVM_GET_MSRS gave it.
    """
    found = []
    for vector in vectors:
        if vector.what == "param":
            found.append(parameter(is_on(info["parameter"])))
        else:
            value = info["msrs"].get(vector.what[1:])
            found.append(
                Outcome(Kind.HOST, note="KVM_GET_MSRS refused the MSR") if value is None
                else Outcome(Kind.VALUE, code=value)
            )  # fmt: skip
    return found


def module_options(setting: parameters.Setting, env: Environment) -> Parameters:
    """The function gives the module parameters of a load: what it gives by name, and its environment's."""
    words = (*setting.words, *(("kvm_intel", name, value) for name, value in env.parameters))
    return Parameters(words, env.ept, env.eptad, nx_huge_pages=env.nx_huge_pages)


class Session:
    """A session is a started host, asked load by load."""

    def __init__(
        self, host: Host, modules: Callable[[int], ModuleFiles], program: Path, probe: Path, *, marking: bool = False
    ) -> None:
        """``marking``: every vector of an L1 is marked, since what the kernel's log says may be said once a boot."""
        self._host = host
        self._marking = marking
        self._modules = modules
        self._program = program
        self._probe = probe
        self._settle()
        self.info: dict[str, Any] = {}
        self._loaded: Load | None = None
        self._lacking: Outcome | None = None  # what blocks all of a load: a parameter that this kernel does not have
        self._said = False  # whether the kernel's log had something to say of an L1 of this load

    def _settle(self) -> None:
        """The client is brought, and the log read so far: the machine has just come up."""
        self._log = reports.Log(self._host)
        there = self._host.deliver(self._program, mode=0o755)
        self._host.run(f"ln -sf {there} {client.PATH}", check=True)

    def load(self, load: Load) -> None:
        """The level's modules are loaded as ``load`` says, and KVM is asked what it offers."""
        self._loaded, self._said = load, False
        modules = self._modules(load.level)
        if self._host.boot_for(modules):
            self._settle()
        self._host.load(modules, module_options(load.setting, load.env))
        self._lacking = self._lacks(load.env)
        line = self._host.run(f"{client.PATH} info", check=True).stdout
        self.info = json.loads(line)["info"]

    def _lacks(self, env: Environment) -> Outcome | None:
        """What blocks every vector of a load whose environment sets a parameter that these modules do not have."""
        for name, _ in env.parameters:
            if self.value(("kvm_intel", name)) is None:
                return Outcome(Kind.BLOCKED, note=f"not applicable: this kernel's kvm_intel has no parameter {name}")
        return None

    def _reload(self) -> None:
        if self._loaded is not None:
            self.load(self._loaded)

    @property
    def parameter(self) -> str | None:
        """The loaded modules have enable_pt_guest_exec_control so: None, Y or N."""
        value: str | None = self.info["parameter"]
        return value

    def value(self, key: parameters.Key) -> str | None:
        """A parameter as the loaded modules have it: 1 or 0 for Y or N, None where it cannot be read."""
        module, name = key
        if key == parameters.OWN.key:
            text = self.parameter
        else:
            text = self._host.run(f"cat /sys/module/{module}/parameters/{name} 2>/dev/null").stdout.strip() or None
        return {"Y": "1", "N": "0", None: None}.get(text, text)

    @property
    def mbec_offered(self) -> bool:
        """KVM's own MSR 0x48B allows L1 bit 22: True."""
        return bool(msr.allowed(self.info["msrs"].get(f"{msr.PROCBASED_CTLS2:x}", 0)) & msr.MBEC)

    def ask_host(self, vectors: Iterable[OnHost]) -> list[Outcome]:
        """The function gives the host's and the client's answers, in order."""
        asked = list(vectors)
        if self._lacking is not None:
            return [self._lacking] * len(asked)
        questions = [v for v in asked if not isinstance(v, HostVector)]
        answers = client.ask(self._host, questions, self._reload)
        for i, answer in enumerate(answers):
            if hurried(answer):
                answers[i] = settled(client.ask(self._host, [questions[i]], self._reload)[0])
        told = {v.id: outcome for v, outcome in zip(questions, answers, strict=True)}
        told |= {v.id: self._ask_host(v) for v in asked if isinstance(v, HostVector)}
        return [told[v.id] for v in asked]

    def _ask_host(self, vector: HostVector) -> Outcome:
        """The host's answer; blocked, with the reason, where a host that lives cannot be asked this."""
        try:
            if vector.what in tracepoints.FORMATS:
                return text_value(tracepoints.format_texts(self._host, vector.what))
            if vector.what == "removed":
                return leftover_entries.ask(self._host)
            if vector.what == "reload":
                return self._ask_reload()
            if vector.what == "log":
                return Outcome(Kind.DONE)  # what the log says beside the vectors is told with them
        except HostError as error:
            self._host.run("true", check=True)  # one that died takes its load with it: this raises
            self._reload()
            return Outcome(Kind.BLOCKED, note=str(error).splitlines()[0])
        return host_outcomes(self.info, [vector])[0]

    def _ask_reload(self) -> Outcome:
        """Whether kvm.ko keeps its parameter while kvm-intel.ko is loaded with ept=0, taken out and loaded again."""
        assert self._loaded is not None
        load, before = self._loaded, self.parameter
        modules, wanted = self._modules(load.level), module_options(load.setting, load.env)
        self._host.load(modules, replace(wanted, ept=False))
        self._host.reload_intel(modules, wanted)
        after = self._host.run(f"cat {PARAM_FILE} 2>/dev/null").stdout.strip() or None
        self._reload()
        return Outcome(Kind.DONE) if after == before else parameter_lost(before == "Y", after == "Y")

    def l1_can_run(self) -> Outcome | None:
        """It is None where an L1 gets past its first fetch; else the outcome that blocks every vector of an L1."""
        (seen,) = self.ask_host([FIRST_FETCH])
        return self._lacking or cannot_run(seen)

    def start_l1(self, machine: Machine) -> None:
        """An L1 that has nothing to do comes and goes. HostError where the host no longer answers; what QEMU or L1
        lack is no matter here.
        """
        with contextlib.suppress(GuestError), Qemu(self._host, machine, self._probe) as qemu:
            qemu.run(guest.pack([]), stall=SILENCE, deadline=SILENCE)

    def ask_l1(
        self, machine: Machine, vectors: list[Vector], deadly: Deadly | None = None, traced: Iterable[Vector] = ()
    ) -> Seen:
        """One QEMU for ``machine`` is asked the vectors; the function gives the answers, in order.

        Where L1 dies of a vector, that vector's outcome says so and L1 is started again behind it. ``deadly`` names
        the class of a vector that is expected to kill L1: those run last, and only a sample of each class. ``traced``
        are run first, KVM's tracepoints read back; so is the first vector that is expected to kill L1.
        """
        order, spared = sampled(machine, vectors, deadly, {v.id for v in traced})
        asked = [vectors[i] for i in order]
        marks = _marks(asked, deadly, {v.id for v in traced})
        dying = deadly is not None and any(deadly(v) is not None for v in asked)
        listening = not marks or self._marking or self._said or dying or any(isinstance(v, LogVector) for v in vectors)
        run = self._patiently(machine, asked, marks, listening)
        self._unhurried(machine, asked, marks, run)
        outcomes = {i: outcome for i, outcome in zip(order, run.outcomes, strict=True)}
        outcomes |= {i: spared_outcome(name) for i, name in spared.items()}
        run.outcomes = [outcomes[i] for i in range(len(vectors))]
        _put_reports(run, vectors)
        return run

    def _patiently(self, machine: Machine, asked: list[Vector], marks: frozenset[int], listening: bool) -> Seen:
        """The batch, with what the kernel's log said and whose it is. HostError where the host no longer answers.

        With ``listening``, and where the log has something new beforehand, every vector is marked at once, and those at
        ``marks`` are traced first, in a batch of their own. Else the batch is asked again, marked, where the log says
        something of it: what a module says once a load is nobody's then.
        """
        reported = self.unclaimed()
        if listening or reported:
            seen = self._listened(machine, asked, marks)
            reported += seen.reported
        else:
            seen = self._tried(machine, asked, marks)
            if first := self.unclaimed():
                again = self._tried(machine, asked, frozenset(), self._log).reported
                texts = {one.text for one in again}
                reported += again + [one for one in first if one.text not in texts]
        seen.reported = reported
        self._said = self._said or bool(reported)
        return seen

    def _listened(self, machine: Machine, asked: list[Vector], marks: frozenset[int]) -> Seen:
        """Every vector marked, so that each report of the log has its own. Those at ``marks`` are traced first, in a
        batch of their own with one more behind them, at whose mark the last one's trace ends; these answers count.
        """
        places = sorted([*marks, *[i for i in range(len(asked)) if i not in marks][:1]]) if marks else []
        every = frozenset(range(len(places)))
        told = self._tried(machine, [asked[i] for i in places], every, self._log) if marks else None
        seen = self._tried(machine, asked, frozenset(), self._log)
        if told is None:
            return seen
        seen.reported = reports.some([*told.reported, *seen.reported])
        if TROUBLE in told.facts:  # nothing was heard: what only a trace answers stays blocked
            seen.facts[TROUBLE] = told.facts[TROUBLE]
            return seen
        wanted = {cut.access_of(asked[i]) for i in marks}
        seen.traced = [one for one in told.traced if one.vector in wanted]
        for n, i in enumerate(places):
            if i in marks:
                seen.outcomes[i] = told.outcomes[n]
        return seen

    def _unhurried(self, machine: Machine, asked: list[Vector], marks: frozenset[int], seen: Seen) -> None:
        """What wall time had a part in is asked again with more of it: alone, or together where an L1 did not come to
        its first vector. What ran out of time then too is no answer.
        """
        if waiting := [i for i, outcome in enumerate(seen.outcomes) if stood_still(outcome)]:
            vectors = [asked[i] for i in waiting]
            places = frozenset(n for n, i in enumerate(waiting) if i in marks)
            again = self._tried(machine, vectors, places, patience=PATIENCE)
            seen.reported += self.unclaimed()
            seen.cpu, seen.facts = seen.cpu or again.cpu, again.facts if seen.cpu is None else seen.facts
            seen.traced += again.traced
            for i, outcome in zip(waiting, again.outcomes, strict=True):
                seen.outcomes[i] = outcome
        told: dict[str, list[str]] = {}
        for i, outcome in enumerate(seen.outcomes):
            if hurried(outcome):
                place = frozenset((0,) if i in marks else ())
                (alone,) = self._tried(machine, [asked[i]], place, patience=PATIENCE).outcomes
                seen.reported += [reports.Reported(asked[i], one.text) for one in self.unclaimed()]
                told[asked[i].id] = [str(outcome), str(alone)]
                seen.outcomes[i] = settled(alone)
        if told:
            seen.facts["hurried"] = told

    @property
    def spent(self) -> bool:
        """Whether the host had better start anew: lockdep is silent for good behind any report, its own or KASAN's."""
        return self._marking and self._log.spoken

    def unclaimed(self, outcomes: Iterable[Outcome] = ()) -> list[reports.Reported]:
        """What the kernel's log said since the last look and none of ``outcomes`` tells: it belongs to no vector."""
        told = " ".join(outcome.last.note for outcome in outcomes)
        news = dict.fromkeys(str(one) for one in self._log.news() if not one.where or one.where.split()[-1] not in told)
        return [reports.Reported(None, text) for text in news]

    def _tried(
        self,
        machine: Machine,
        asked: list[Vector],
        marks: frozenset[int],
        log: reports.Log | None = None,
        patience: float = 1,
    ) -> Seen:
        """The batch, with a second try where QEMU rather than L1 failed; with ``log`` every vector is marked."""
        mbec = self.parameter == "Y"
        try:
            return L1(self._host, machine, self._probe, asked, marks, mbec, log, patience).run()
        except GuestError:
            end_leftovers(self._host)
        try:
            return L1(self._host, machine, self._probe, asked, marks, mbec, log, patience).run()
        except GuestError as error:
            end_leftovers(self._host)
            return _unheard(len(asked), str(error))


def _put_reports(seen: Seen, vectors: Sequence[Vector]) -> None:
    """The reports of the vectors that ask for them become their outcomes; the others stay beside the answers."""
    asking = {vector: i for i, vector in enumerate(vectors) if isinstance(vector, LogVector)}
    texts: dict[int, list[str]] = {}
    for one in seen.reported:
        if one.vector in asking:
            texts.setdefault(asking[one.vector], []).append(one.text)
    for i, said in texts.items():
        seen.outcomes[i] = logged(dict.fromkeys(said))
    seen.reported = [one for one in seen.reported if one.vector not in asking]


def _plain(machine: Machine) -> bool:
    """Whether this is the machine on which a class of vectors is looked at more than once."""
    return machine.env.name == PLAIN and machine.execonly_offered and not machine.evmcs_offered


def _sample(machine: Machine) -> int:
    """How many vectors of a class that kills L1 are run."""
    return SAMPLE if _plain(machine) else 1


def _unheard(count: int, why: str) -> Seen:
    """A batch of which nothing was heard."""
    first = why.splitlines()[0]
    return Seen([Outcome(Kind.BLOCKED, note=first)] * count, None, {TROUBLE: why})


def _marks(asked: list[Vector], deadly: Deadly | None, traced: set[str]) -> frozenset[int]:
    """Places in the batch that are traced."""
    if not traced:
        return frozenset()
    kills = (i for i, v in enumerate(asked) if deadly is not None and v.id not in traced and deadly(v) is not None)
    return frozenset(
        [i for i, v in enumerate(asked) if v.id in traced] + [i for _, i in zip((0,), kills, strict=False)]
    )


def cannot_run(first_fetch: Outcome) -> Outcome | None:
    """The function gives what blocks every vector of an L1 whose FIRST_FETCH ends so; None where it gets past
    it.

    Where the client could not ask, nothing is known of L1: it is started.
    """
    if first_fetch.kind in (Kind.DONE, Kind.BLOCKED):
        return None
    return Outcome(Kind.BLOCKED, note=f"L1 cannot run: its first fetch ends in {first_fetch.kind.value}")


def spared_outcome(name: str) -> Outcome:
    """The function gives the outcome of a vector that is not run, because others of the class ``name`` kill L1."""
    return Outcome(Kind.BLOCKED, note=f"spared: L1 dies of its class ({name})")


def traced_beside(
    machine: Machine, vectors: list[Vector], deadly: Deadly | None, traced: Iterable[Vector]
) -> list[Vector]:
    """The function gives those of ``vectors`` whose traces ``Session.ask_l1`` would give, in the order in which they
    would run.
    """
    ids = {v.id for v in traced}
    if not ids:
        return []
    asked = [vectors[i] for i in sampled(machine, vectors, deadly, ids)[0]]
    marked = (asked[i] for i in sorted(_marks(asked, deadly, ids)))
    return [vector for vector in marked if cut.access_of(vector) is not None]


def spared_beside(
    machine: Machine, unknown: Iterable[Vector], died: Iterable[Vector], deadly: Deadly | None
) -> dict[str, str]:
    """Of the vectors ``unknown`` those that are not run, with their class: of its sample L1 has ``died`` before."""
    if deadly is None:
        return {}
    met = Counter(filter(None, map(deadly, died)))
    named = ((vector.id, deadly(vector)) for vector in unknown)
    return {name: kind for name, kind in named if kind is not None and met[kind] >= _sample(machine)}


def sampled(
    machine: Machine, vectors: list[Vector], deadly: Deadly | None, traced: Set[str] = frozenset()
) -> tuple[list[int], dict[int, str]]:
    """The function gives indices to run, traced first, then harmless, last a sample of each class; and the indices
    spared with their class.
    """
    sample = _sample(machine)
    classes: dict[str, list[int]] = {}
    order: list[int] = []
    for i, vector in enumerate(vectors):
        name = deadly(vector) if deadly is not None and vector.id not in traced else None
        if name is None:
            order.append(i)
        else:
            classes.setdefault(name, []).append(i)
    order.sort(key=lambda i: vectors[i].id not in traced)
    spared: dict[int, str] = {}
    for name, members in classes.items():
        # Spread over the class, so that different vectors are met at different levels.
        step = max(1, len(members) // sample)
        chosen = set(members[::step][:sample])
        order += sorted(chosen)
        spared |= {i: name for i in members if i not in chosen}
    return order, spared
