"""One batch of an L1, from its first vector to its last, over as many starts of L1 and of QEMU as that takes.

An L1 that dies of a vector is started again behind it. What L1's own timer calls a livelock is looked at through KVM's
tracepoints before it counts as one, in a sample of each kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from harness.errors import GuestError
from harness.hosts import Host
from harness.observe import batch as guest
from harness.observe import client, cut, livelock, program, reports, tracepoints, warns
from harness.observe.host_steps import HostSteps
from harness.observe.qemu import SERIAL, BatchRun, End, Qemu
from harness.protocol import MSR_COUNT, MSR_FIRST
from kvmodel.cpu import Cpu
from kvmodel.question import msr
from kvmodel.question.outcome import Kind, Outcome, of_turns
from kvmodel.question.program import ProgramVector
from kvmodel.question.sequence import SequenceVector
from kvmodel.question.vector import AccessVector, Machine, Mbec, NxVector, Vector

SILENCE: Final = 20.0  # seconds of wall time in which L1 has to come one vector further
BATCH_DEADLINE: Final = 600.0  # seconds of wall time for a whole batch
SLOW_DEADLINE: Final = 400  # microseconds of guest time, on a CPU model with slower exits
LONG_DEADLINE: Final = 3000  # microseconds of guest time, where the probe's default may have been too short
NO_LIVELOCK: Final = "L1's timer ran out, and KVM's trace shows no livelock"
L1_DEATHS: Final = 32  # after that many the rest of a batch is blocked
PATIENCE: Final = 3  # times SILENCE and BATCH_DEADLINE for what is asked again alone
STUCK: Final = "L1 does not come as far as its first vector: "
OUT_OF_TIME: Final = "out of time, asked again alone too: "

_HURRIED: Final = frozenset((*(end.value for end in (End.HANG, End.DEADLINE, End.DIED)), NO_LIVELOCK, client.NOT_BACK))


@dataclass(slots=True)
class Seen:
    """The record has what a batch showed: an outcome a vector, the virtual CPU as L1 read it, facts for the
    provenance.
    """

    outcomes: list[Outcome]
    cpu: Cpu | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    traced: list[cut.Traced] = field(default_factory=list)
    reported: list[reports.Reported] = field(default_factory=list)  # of the kernel's log


def hurried(outcome: Outcome) -> bool:
    """Whether wall time had a part in an outcome: on a machine that has less to do it may be another one."""
    turns = outcome.turns or (outcome,)
    return any(turn.kind is Kind.HOST and turn.note in _HURRIED for turn in turns)


def stood_still(outcome: Outcome) -> bool:
    """The function says whether a vector never ran since L1 had not come to its first one in time."""
    return outcome.kind is Kind.BLOCKED and outcome.note in (STUCK + End.HANG.value, STUCK + End.DEADLINE.value)


def settled(alone: Outcome) -> Outcome:
    """The function gives what counts of an answer that was asked again alone: where wall time had a part in it again it
    is none, and says so. A QEMU that ends twice by itself is an answer.
    """
    if not hurried(alone) or alone.last.note == End.DIED.value:
        return alone
    return Outcome(Kind.BLOCKED, note=OUT_OF_TIME + alone.last.note)


def virtual_cpu(header: guest.Header) -> Cpu:
    """The function gives the virtual CPU as L1 reads it: MSRs 0x480 to 0x491, CPUID (SDM appendix A)."""
    secondary, capability = (header.msr(number) or 0 for number in (msr.PROCBASED_CTLS2, msr.EPT_VPID_CAP))
    vmx = bool(header.cpuid1_ecx >> 5 & 1)
    cpu = msr.described(secondary, capability, vmx=vmx, maxphyaddr=header.maxphyaddr)
    return replace(cpu, msrs=tuple(header.msr(MSR_FIRST + i) for i in range(MSR_COUNT)))


class L1:
    """The object takes one batch from its first vector to its last, over as many starts of L1 as it takes."""

    def __init__(
        self,
        host: Host,
        machine: Machine,
        probe: Path,
        vectors: list[Vector],
        marks: frozenset[int] = frozenset(),
        mbec: bool = False,
        log: reports.Log | None = None,
        patience: float = 1,
    ) -> None:
        self._host, self._machine, self._probe, self._vectors = host, machine, probe, vectors
        self._patience = patience
        self._log = log  # where it is given, each vector is marked, and the log's reports go to the one that ran
        self._begins: list[tuple[float, Vector]] = []  # when each vector of a marked batch began
        self._tracing = False  # whether KVM's trace is being filled with marks
        self._reported: list[reports.LogReport] = []
        self._marks = marks  # places in the batch that are traced
        self._mbec = mbec  # KVM runs its guests with mode-based execute control whatever L1 asks for
        self._told: dict[int, cut.Traced] | None = None if marks else {}
        self._died: dict[int, str] = {}
        self._died_at: dict[int, int] = {}  # the turn of a sequence, by vector
        self._runs: list[BatchRun] = []
        self._counters: Counter[str] = Counter()  # KVM's own, of the QEMUs that ended well
        self._stuck = ""
        self._livelocks: dict[str, str] = {}
        self._again: dict[int, Sequence[guest.Observation]] = {}  # answers with more time, by vector
        # The CPU without MBEC is another model, on which an exit takes longer than the probe's default allows for.
        deadline = 0 if machine.env.cpu_mbec else SLOW_DEADLINE
        marked = marks if log is None else range(len(vectors))
        self._data = guest.pack(vectors, marks=marked, deadline=deadline)
        self._spans = guest.spans(vectors)
        self._at = [i for i, span in enumerate(self._spans) for _ in range(span.start, span.stop)]  # record: vector
        self._facts: dict[str, Any] = {}

    def run(self) -> Seen:
        """The whole batch is run."""
        while self._one_qemu():
            pass
        self._listen()
        batch = guest.unpack(self._data)
        seen = Seen([self._outcome(i, batch.observations[span]) for i, span in enumerate(self._spans)])
        seen.traced = list((self._told or {}).values())
        seen.reported = reports.of_vectors(self._reported, self._begins)
        seen.cpu = virtual_cpu(batch.header) if batch.header.maxphyaddr else None
        seen.facts = self._facts | {
            "counters": dict(self._counters),
            "l1_seconds": round(sum(run.seconds for run in self._runs), 3),
            "warnings": [w.text for run in self._runs for w in run.warnings],
            "deaths": [self._vectors[i].id for i in self._died],
            "livelocks": self._livelocks,
            "msrs": [f"{value:#x}" for value in batch.header.msrs],
        }
        return seen

    def _one_qemu(self) -> bool:
        """Run until the end of the batch or of this QEMU; whether another one is needed."""
        with Qemu(self._host, self._machine, self._probe) as qemu:
            self._facts = qemu_facts(qemu)
            more = self._batch(qemu)
            if self._runs[-1].end is not End.DIED:
                self._counters.update(qemu.counters())
            return more

    def _batch(self, qemu: Qemu) -> bool:
        """As much of the batch as this QEMU can do; whether another one is needed."""
        while True:
            run = self._run(qemu)
            self._runs.append(run)
            self._data = run.memory
            header = guest.unpack_header(run.memory)
            if header.done:
                self._confirm(qemu)
                return False
            if not header.running:
                self._stuck = STUCK + run.end.value
                return False
            # Behind a sequence of which L1 died comes the next vector: its turns rest on each other.
            at = self._at[header.current]
            behind: int = self._spans[at].stop
            self._died[at] = run.end.value
            self._died_at[at] = header.current - self._spans[at].start
            if len(self._died) >= L1_DEATHS:
                self._stuck = f"L1 died {len(self._died)} times before this vector"
                return False
            if run.end is End.DIED:
                self._data = guest.restart(run.memory, behind)
                return behind < len(self._at)
            if behind >= len(self._at):
                self._confirm(qemu)
                return False
            self._data = guest.restart(run.memory, behind)

    def _run(self, qemu: Qemu) -> BatchRun:
        """The batch from where it stands; what the first run's trace says of the marked vectors is kept."""
        if self._told is not None:
            return _asked(qemu, self._data, self._patience) if self._log is None else self._run_beside(qemu)
        self._told = {}
        tracepoints.arm(self._host)
        run = _asked(qemu, self._data, self._patience)
        text = tracepoints.disarm(self._host)
        log = warns.warned(self._host.run("dmesg | grep WARNING:").stdout)
        observations = guest.unpack(run.memory).observations
        found = cut.marked(livelock.parse(text))
        self._hear(found)
        ends = [one.begin for one in found[1:]] + [float("inf")]
        for one, end in zip(found, ends, strict=True):
            i = self._at[one.index]
            if (access := cut.access_of(self._vectors[i])) is not None:
                exits = tuple(cut.exits(access, observations[one.index], one.events))
                self._told[i] = cut.Traced(access, exits, warns.of_vector(log, one.begin, end))
        return run

    def _run_beside(self, qemu: Qemu) -> BatchRun:
        """The batch from where it stands; KVM's trace keeps when each vector begins, until ``_listen``."""
        if self._tracing:
            tracepoints.speak_again(self._host)
        else:
            tracepoints.arm_marks(self._host)
            self._tracing = True
        return _asked(qemu, self._data, self._patience)

    def _listen(self) -> None:
        """What trace and log say of the runs so far is kept."""
        if self._tracing:
            self._tracing = False
            self._hear(cut.marked(livelock.parse(livelock.disarm(self._host))))

    def _hear(self, marks: Iterable[cut.Marked]) -> None:
        """The log's news are kept with the times at which vectors began."""
        if self._log is not None:
            self._begins += [(one.begin, self._vectors[self._at[one.index]]) for one in marks]
            self._reported += self._log.news()

    def _confirm(self, qemu: Qemu) -> None:
        """Look at a sample of the livelocks through KVM's tracepoints: L1's timer alone proves no livelock.

        Where the trace shows none, the deadline was too short for this host: all of them are asked again with more.
        """
        self._listen()
        observations = guest.unpack(self._data).observations
        suspects = [i for i, span in enumerate(self._spans) if self._loops(i, observations[span])]
        chosen = self._sample(suspects)
        if self._looping(qemu, chosen) < set(chosen):
            asked = [self._vectors[i] for i in suspects]
            again = guest.pack(asked, deadline=LONG_DEADLINE)
            answers = guest.unpack(_asked(qemu, again, self._patience).memory).observations
            self._again = {i: answers[span] for i, span in zip(suspects, guest.spans(asked), strict=True)}
            chosen = self._sample([i for i in suspects if self._loops(i, self._again[i])])
            for i in set(chosen) - self._looping(qemu, chosen):
                self._died[i] = NO_LIVELOCK

    def _loops(self, i: int, observations: Sequence[guest.Observation]) -> bool:
        outcome = self._outcome(i, observations)
        return any(turn.kind is Kind.LIVELOCK for turn in outcome.turns or (outcome,))

    def _sample(self, suspects: list[int]) -> list[int]:
        """One of each kind of vector, access and MBEC."""
        found: dict[str, int] = {}
        for i in suspects:
            vector = self._vectors[i]
            kind = f"{vector.access} {vector.mbec}" if isinstance(vector, AccessVector) else type(vector).__name__
            found.setdefault(kind, i)
        return list(found.values())

    def _looping(self, qemu: Qemu, chosen: list[int]) -> set[int]:
        """Those of ``chosen`` of which KVM's tracepoints show a livelock.

        All at once and briefly, which is enough for most; then alone and for longer what did not show one.
        """
        brief = livelock.DEADLINE if self._machine.env.cpu_mbec else SLOW_DEADLINE
        found = self._watched(qemu, chosen, brief) if chosen else set()
        for i in chosen:
            found |= set() if i in found else self._watched(qemu, [i], LONG_DEADLINE)
        return found

    def _watched(self, qemu: Qemu, asked: list[int], deadline: int) -> set[int]:
        """``_looping`` of one batch; where it is more than one vector, each is marked."""
        vectors = [self._vectors[i] for i in asked]
        marks = range(len(asked)) if len(asked) > 1 else ()
        batch = guest.pack(vectors, marks=marks, deadline=deadline)
        livelock.arm(self._host, (*livelock.EVENTS, tracepoints.MARKING) if marks else livelock.EVENTS)
        _asked(qemu, batch, self._patience)
        told = list(livelock.parse(livelock.disarm(self._host)))
        first = {span.start: i for i, span in zip(asked, guest.spans(vectors), strict=True)}
        parts = {first[one.index]: one.events for one in cut.marked(told)} if marks else {asked[0]: told}
        found = set()
        for i in asked:
            row = livelock.livelock(parts.get(i, ()))
            self._livelocks[self._vectors[i].id] = str(row)
            found |= {i} if row.confirmed else set()
        return found

    def _outcome(self, i: int, observations: Sequence[guest.Observation]) -> Outcome:
        observations = self._again.get(i, observations)
        vector = self._vectors[i]
        if i in self._died:
            died = Outcome(Kind.HOST, note=self._died[i])
            if isinstance(vector, ProgramVector):
                return program.outcome_of(vector, observations[: self._died_at.get(i, 0)], died)
            if not isinstance(vector, SequenceVector):
                return died
            return of_turns([*(guest.outcome(vector, o) for o in observations[: self._died_at.get(i, 0)]), died])
        if all(o.verdict for o in observations):
            if isinstance(vector, NxVector):
                return self._judged(i, vector, guest.outcome_of(vector.asked, observations))
            return guest.outcome_of(vector, observations)
        return Outcome(Kind.BLOCKED, note=self._stuck or "not run")

    def _judged(self, i: int, vector: NxVector, seen: Outcome) -> Outcome:
        """What KVM installed for an access that L2 got to make."""
        if seen.kind in (Kind.BLOCKED, Kind.SCAFFOLD, Kind.ENTRY_FAIL, Kind.ENTRY_EXIT):
            return seen
        if self._told is None or i not in self._told:
            return Outcome(Kind.BLOCKED, note="its tracepoints were not read")
        return cut.executable_huge(self._told[i].exits, self._mbec or vector.asked.mbec is Mbec.ON)


def _asked(qemu: Qemu, batch: bytes, patience: float = 1) -> BatchRun:
    """One run of a batch. GuestError where the probe refuses it."""
    steps = HostSteps(qemu, qemu.machine.env.nx_huge_pages)
    try:
        run = qemu.run(batch, stall=patience * SILENCE, deadline=patience * BATCH_DEADLINE, called=steps.carry_out)
    finally:
        steps.restore()
    if guest.unpack_header(run.memory).refused:
        raise GuestError(
            "the probe refused its batch: its L1 has no VMX or no PIT, or it is of another build; "
            f"L1's last words are in {SERIAL} on the host"
        )
    return run


def qemu_facts(qemu: Qemu) -> dict[str, Any]:
    """The function gives what QMP says of this QEMU, for the provenance."""
    told = qemu.provenance
    return {
        "qemu": told.version,
        "package": told.package,
        "accelerator": "kvm" if told.kvm else "other",
        "board": str(qemu.host.board),
        "cpu_model": told.cpu_model,
        "properties": dict(told.properties),
        "refused": list(told.refused),
        "start_seconds": round(told.start_seconds, 2),
    }
