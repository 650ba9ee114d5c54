"""The silicon voice: vectors on the bare CPU, and what the contract says of the answers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.hosts import IPS, Capabilities, Model
from harness.observe import bare, virtual_cpu
from harness.observe import batch as guest
from harness.results import BARE_HOST, Answer, CellKey, cpus, judge
from kvmodel import sdm
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
    capabilities: Capabilities


def ask(bochs: Path, probe: Path, model: Model, vectors: Iterable[Vector]) -> BareCell:
    """The vectors are run on the emulator without KVM.

    What the model's CPU has not is no erratum: vectors whose guest needs it have no answer.

    Raises HostError and GuestError as ``bare.run`` does.
    """
    asked = list(vectors)
    began = time.monotonic()
    batch = bare.run(bochs, probe, asked, model=model)
    seconds = time.monotonic() - began
    cpu = virtual_cpu(batch.header)
    answers = []
    for vector, seen in zip(asked, guest.outcomes(asked, batch.observations), strict=True):
        if not bare.had(batch.header, vector):
            continue
        contract = sdm.allowed_beside(cpu, vector, seen)
        answers.append(Answer(vector, seen, None, contract, judge(None, contract, seen)))
    inside = batch.header.tsc_ticks / IPS
    facts: dict[str, Any] = {"cpu": cpus.as_json(cpu), "model": model.name}
    facts |= {"msrs": [f"{m:#x}" for m in batch.header.msrs], "emulated_seconds": round(inside, 3)}
    told = Capabilities(batch.header.readable, cpu.maxphyaddr, cpu.vmx)
    return BareCell(answers, seconds, len(asked) / seconds, facts, told)
