"""The silicon voice: vectors on the bare CPU, and what the contract says of the answers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from harness.hosts import IPS
from harness.observe import bare, virtual_cpu
from harness.observe import batch as guest
from harness.results import BARE_HOST, Answer, CellKey, cpus, judge
from harness.run.setup import Bench
from kvmodel import sdm
from kvmodel.cpu import Cpu
from kvmodel.question.vector import Vector

KEY: Final = CellKey(0, "unset", BARE_HOST, "bare")


@dataclass(frozen=True, slots=True)
class BareCell:
    """The cell has the answers, wall time in seconds, vectors a second of the probe's own loop, facts for the
    provenance.
    """

    answers: list[Answer]
    seconds: float
    rate: float
    facts: dict[str, Any]
    cpu: Cpu


def ask(bench: Bench, vectors: Iterable[Vector]) -> BareCell:
    """The vectors are run on the bench's emulator without KVM.

    Raises HostError and GuestError as ``bare.run`` does.
    """
    asked = list(vectors)
    began = time.monotonic()
    batch = bare.run(bench.bochs, bench.probe, asked)
    seconds = time.monotonic() - began
    cpu = virtual_cpu(batch.header)
    answers = []
    for vector, seen in zip(asked, guest.outcomes(asked, batch.observations), strict=True):
        contract = sdm.allowed_beside(cpu, vector, seen)
        answers.append(Answer(vector, seen, None, contract, judge(None, contract, seen)))
    inside = batch.header.tsc_ticks / IPS
    facts: dict[str, Any] = {"cpu": cpus.as_json(cpu)}
    facts |= {"msrs": [f"{m:#x}" for m in batch.header.msrs], "emulated_seconds": round(inside, 3)}
    return BareCell(answers, seconds, len(asked) / seconds, facts, cpu)
