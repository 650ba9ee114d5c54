"""What is compared: how L1 guards L2's kernel code, how it reaches its vmcs12, and on which kernel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from harness.errors import InputError
from kvmodel.machine.exits import Hypervisor, Vmcs


@dataclass(frozen=True, slots=True)
class ExitVariant:
    """This is one kind of L1. ``cover``: the exits a second that the series' cover letter gives for its like."""

    name: str
    title: str
    l1: Hypervisor
    cover: int | None = None

    def avoiding(self) -> ExitVariant:
        """This is the same L1, which sets bit 10 beside X although it has no MBEC."""
        return replace(self, l1=replace(self.l1, bit10=True))


VARIANTS: Final = (
    ExitVariant("software", "two views, no VMCS shadowing", Hypervisor(False, Vmcs.PLAIN), 1_200_000),
    ExitVariant("software-shadow", "two views, VMCS shadowing", Hypervisor(False, Vmcs.SHADOW)),
    ExitVariant("software-evmcs", "two views, enlightened VMCS", Hypervisor(False, Vmcs.EVMCS), 200_000),
    ExitVariant("mbec", "MBEC, no VMCS shadowing", Hypervisor(True, Vmcs.PLAIN)),
    ExitVariant("mbec-shadow", "MBEC, VMCS shadowing", Hypervisor(True, Vmcs.SHADOW)),
    ExitVariant("mbec-evmcs", "MBEC, enlightened VMCS", Hypervisor(True, Vmcs.EVMCS), 50_000),
)
"""The first is what the others are compared with; the cover's 1.2 million is of an L1 without eVMCS and MBEC."""

COVER_RATIO: Final = 24


def named(names: Iterable[str]) -> tuple[ExitVariant, ...]:
    """The function gives the variants of these names, in the table's order.

    Raises InputError for a name that is none.
    """
    wanted = list(names)
    known = {variant.name for variant in VARIANTS}
    for name in wanted:
        if name not in known:
            raise InputError(f"variant {name!r} is unknown: name some of {', '.join(v.name for v in VARIANTS)}")
    return tuple(v for v in VARIANTS if v.name in wanted)


@dataclass(frozen=True, slots=True)
class Kernel:
    """This is a kernel under L1: a level of the series and its parameter, or, ``foreign``, a kernel of the
    user's own.
    """

    level: int
    param: bool | None
    release: str = ""
    foreign: bool = False

    @property
    def name(self) -> str:
        """The tables give it this name."""
        if self.foreign:
            return f"Linux {self.release}"
        if self.level == 0:
            return f"base {self.release}".rstrip()
        return f"level {self.level}, parameter {'unset' if self.param is None else int(self.param)}"
