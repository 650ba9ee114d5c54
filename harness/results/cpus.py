"""The CPU under KVM: the emulated host's, or a lab machine's as its run wrote it down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from kvmodel.cpu import Cpu

PROVENANCE: Final = "lab_cpu"  # where the provenance of a run on lab machines keeps it
UNDER: Final = "cpu_under"  # where that of a recording keeps it: by WITH and WITHOUT, as far as it was asked
WITH: Final = "mbec"
WITHOUT: Final = "no mbec"

Under = Callable[[bool], Cpu]  # the CPU under KVM, with or without MBEC where the host can be started both ways


def emulated(mbec: bool = True) -> Cpu:
    """The function gives the emulated host's CPU as the mirror needs to know it, with or without MBEC."""
    return Cpu(mbec=mbec)


def as_json(cpu: Cpu) -> dict[str, Any]:
    """What a machine tells of its CPU; errata, which only a bare run measures, are left out."""
    return {name: value for name, value in asdict(cpu).items() if name != "errata"}


def from_json(body: Mapping[str, Any]) -> Cpu:
    """The inverse of ``as_json``; a feature that an older run did not write down is as in the emulated host."""
    known = asdict(Cpu())
    return Cpu(**{name: value for name, value in body.items() if name in known})


def of_run(provenance: Mapping[str, Any]) -> Under:
    """The function gives the CPU under a run, from the journal's word on what the run was made of."""
    if (recorded := provenance.get(UNDER)) is not None:
        known = {name: from_json(body) for name, body in recorded.items()}
        return lambda mbec: known.get(WITH if mbec else WITHOUT) or emulated(mbec)
    told = provenance.get(PROVENANCE)
    if told is None:
        return emulated
    cpu = from_json(told)
    return lambda _: cpu
