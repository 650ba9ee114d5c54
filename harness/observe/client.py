"""The small KVM client on a host: vectors to requests, its lines to outcomes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Final

from harness.errors import HostError
from harness.hosts import CommandResult, Host
from harness.observe.livelock import LIVELOCK_EXITS
from kvmodel.question import tally
from kvmodel.question.outcome import Kind, Outcome, warning
from kvmodel.question.relations import FIRST, LAST
from kvmodel.question.vector import ClientSequence, ClientVector, UserCapsVector, UserMsrVector
from kvmodel.sdm.relations import judged

PATH: Final = "/tmp/kvmclient"
BAD_USAGE: Final = 2  # its exit status for a request that it does not know
NOT_BACK: Final = "the vCPU did not come back, and KVM counts no spurious faults"
REFUSED: Final = 64  # the bit of a UserMsrVector's answer where its refused writes begin

ClientQuestion = ClientVector | ClientSequence | UserMsrVector | UserCapsVector


def request(vector: ClientQuestion) -> str:
    """The function gives the client's words for ``vector``."""
    match vector:
        case ClientVector():
            return f"seq {vector.mode} {vector.page} 4k {vector.access.value}"
        case ClientSequence():
            return f"seq {vector.mode} {vector.page} {vector.memory} {'+'.join(vector.steps)}"
        case UserMsrVector():
            return f"msr {vector.msr:x} {'+'.join(vector.steps)}"
        case UserCapsVector():
            return f"caps {vector.reader}"


def outcome(vector: ClientQuestion, line: dict[str, Any]) -> Outcome:
    """The function gives what one line of the client answers to ``vector``."""
    if isinstance(vector, UserCapsVector):
        return judged(vector.relation, {msr: line["msrs"].get(f"{msr:x}") for msr in range(FIRST, LAST + 1)})
    if isinstance(vector, UserMsrVector):
        return Outcome(Kind.VALUE, line["value"] | line["refused"] << REFUSED, defined=(1 << 2 * REFUSED) - 1)
    step = line["step"] if isinstance(vector, ClientSequence) else 0
    if line["result"] != "done":
        return _stopped(line, step)
    if isinstance(vector, ClientVector):
        return Outcome(Kind.DONE)
    word = tally.pack(line["stats"] | {"dirty": line["dirty"]})
    return Outcome(Kind.DONE, word, defined=tally.ALL, note=tally.text(word))


def _stopped(line: dict[str, Any], step: int) -> Outcome:
    """A vCPU that never came back, what KVM_RUN said, or a warning of the kernel's.

    A vCPU that ran out of its time is a livelock only if KVM kept resolving faults that resolved nothing: in this
    step ``pf_spurious`` grew past the definition's 16 exits.
    """
    match line["result"]:
        case "timeout":
            if line["spurious"] >= LIVELOCK_EXITS:
                return Outcome(Kind.LIVELOCK, number=step)
            note = NOT_BACK
        case "errno":
            note = f"KVM_RUN failed with errno {line['errno']}"
        case "warning":
            return warning(line["warning"], step)
        case other:
            note = f"{other}: KVM exit reason {line['exit_reason']}, detail {line['detail']}"
    return Outcome(Kind.HOST, number=step, note=note)


def ask(host: Host, vectors: Iterable[ClientQuestion], reload: Callable[[], None]) -> list[Outcome]:
    """The function gives the client's answers, in order, by as few starts of it as can be.

    It stops behind a vector that made the kernel warn, since a WARN_ONCE speaks once a load: ``reload`` loads the
    modules again, and the rest is asked then. Where KVM or the host refuses a request that vector is blocked with the
    reason, and the rest is asked.

    Raises HostError when the client does not know a request.
    """
    todo = list(vectors)
    found: list[Outcome] = []
    while todo:
        words = "".join(f"{request(vector)}\n" for vector in todo)
        said = host.run(f"{PATH} run", input=words.encode(), timeout=30 + 2.0 * len(todo))
        lines = said.stdout.splitlines()[: len(todo)]
        found += [outcome(vector, json.loads(line)) for vector, line in zip(todo, lines, strict=False)]
        todo = todo[len(lines) :]
        if todo and (said.status or not lines):
            found.append(_refused(host, request(todo.pop(0)), said))
        if todo:
            reload()
    return found


def _refused(host: Host, words: str, said: CommandResult) -> Outcome:
    """A request that the client could not make: why, by its last line. HostError where it does not know the words."""
    why = (said.stderr.strip().splitlines() or [f"no word, exit status {said.status}"])[-1]
    if said.status == BAD_USAGE:
        raise HostError(f"{host.name}: the KVM client does not know {words!r}: {why}")
    return Outcome(Kind.BLOCKED, note=f"the KVM client could not ask it: {why.removeprefix('kvmclient: ')}")
