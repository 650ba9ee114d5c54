"""The CPU under KVM: as a lab machine or the emulator told it, and as a run wrote it down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any, Final

from harness.hosts import Model, models
from harness.jsonable import Json
from kvmodel.cpu import Cpu

PROVENANCE: Final = "lab_cpu"  # where the provenance of a run on lab machines keeps it
EMULATED: Final = "emulated_cpus"  # where that of a run on emulated hosts keeps both, by WITH and WITHOUT
UNDER: Final = "cpu_under"  # where that of a recording keeps it: by WITH and WITHOUT, as far as it was asked
WITH: Final = "mbec"
WITHOUT: Final = "no mbec"

Under = Callable[[bool], Cpu]  # the CPU under KVM, with or without MBEC where the host can be started both ways


def emulated(mbec: bool = True) -> Cpu:
    """The function gives what the mirror takes the emulated host's CPU for where no host is asked."""
    return Cpu(mbec=mbec)


def as_json(cpu: Cpu) -> dict[str, Json]:
    """What a machine tells of its CPU; what only a probe measures, errata and MSRs that it read, is left out."""
    return {name: value for name, value in asdict(cpu).items() if name not in ("errata", "msrs")}


def as_read(cpu: Cpu) -> dict[str, Json]:
    """The function gives what L1 read of its virtual CPU: ``as_json`` and MSRs 0x480 to 0x491."""
    return as_json(cpu) | {"as_read": list(cpu.msrs)}


def from_json(body: Mapping[str, Any]) -> Cpu:
    """The inverse of ``as_json`` and ``as_read``; a feature that an older run did not write down is as in the emulated
    host."""
    known = as_json(Cpu())
    cpu = Cpu(**{name: value for name, value in body.items() if name in known})
    return replace(cpu, msrs=tuple(body.get("as_read", ())))


def of_run(provenance: Mapping[str, Any]) -> Under:
    """The function gives the CPU under a run, from the journal's word on what the run was made of."""
    if (recorded := provenance.get(UNDER)) is not None:
        known = {name: from_json(body) for name, body in recorded.items()}
        return lambda mbec: known.get(WITH if mbec else WITHOUT) or emulated(mbec)
    if (told := provenance.get(PROVENANCE)) is not None:
        cpu = from_json(told)
        return lambda _: cpu
    if (both := provenance.get(EMULATED)) is not None:
        found = {True: from_json(both[WITH]), False: from_json(both[WITHOUT])}
        return found.__getitem__
    return emulated


def told(provenance: Mapping[str, Any]) -> str:
    """The text names the emulated CPU with MBEC and its errata; it is empty where a run did not write them down."""
    if (both := provenance.get(EMULATED)) is None:
        return ""
    body = both[WITH]
    errata = list(body["errata"]) + (["errata not known yet"] if body["unexplained"] else [])
    return str(body["model"]) + (f" with {', '.join(errata)}" if errata else "")


def model_of(provenance: Mapping[str, Any]) -> Model:
    """This is the emulated CPU with MBEC; it is the usual one where a run did not write it down, or is of a lab."""
    both = provenance.get(EMULATED)
    return models.USUAL if both is None else models.named(both[WITH]["model"])[0]
