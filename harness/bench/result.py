"""What was measured: exits a thousand system calls, by variant and kernel, with their spread and the mirror's word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from harness.bench.count import HOSTS_OWN
from harness.bench.variants import COVER_RATIO, VARIANTS, ExitVariant, Kernel
from harness.jsonable import Json
from kvmodel.machine.exits import Exit, Mix

Exits = Mapping[Exit, int]


def difference(counted: Exits, frame: Exits) -> Counter[Exit]:
    """The exits of a window less those of its frame; interrupts of the host's own, which no frame foretells, stay.

    Fewer than none are kept: they say that something is wrong.
    """
    off = caused(frame)
    kinds = set(counted) | set(off)
    return Counter({exit: n for exit in kinds if (n := counted.get(exit, 0) - off[exit])})


def caused(exits: Exits) -> Counter[Exit]:
    """Those that L1 and L2 cause; an interrupt of the host's own comes as often as time goes by."""
    return Counter({exit: n for exit, n in exits.items() if exit.reason != HOSTS_OWN})


@dataclass(slots=True)
class Measured:
    """This is one variant on one kernel. ``runs``: exits of each run for ``calls`` system calls; empty where
    ``missing``.
    """

    variant: ExitVariant
    calls: int
    runs: list[Counter[Exit]] = field(default_factory=list)
    totals: list[tuple[int, int | None]] = field(default_factory=list)  # a run: by tracepoint, by KVM's own counter
    missing: str = ""  # why it did not run, in a sentence
    finding: str = ""  # what of the kernel's keeps this L1 from running as it is
    avoided: bool = False  # the counts are of an L1 that avoids it
    predicted: Counter[Exit] | None = None  # the mirror's, None where it has not this kernel
    call: list[Exit] | None = None  # one system call's exits by the mirror
    traced: list[Exit] = field(default_factory=list)  # a short window's exits in KVM's trace
    foreseen: list[Exit] | None = None  # the same by the mirror

    @property
    def counted(self) -> Counter[Exit]:
        """The function gives the first run's exits that L1 and L2 cause."""
        return caused(self.runs[0]) if self.runs else Counter()

    def per_thousand(self, exits: Exits) -> float:
        """The function gives exits as exits a thousand system calls."""
        return sum(exits.values()) * 1000 / self.calls

    @property
    def rate(self) -> float:
        """This is the first run's rate, of L1's and L2's own causing."""
        return self.per_thousand(self.counted)

    @property
    def spread(self) -> dict[Exit, int]:
        """By kind it is the most of any run less the fewest, where they differ; the host's own interrupts are among
        them.
        """
        kinds = {exit for run in self.runs for exit in run}
        spans = {exit: max(r[exit] for r in self.runs) - min(r[exit] for r in self.runs) for exit in kinds}
        return {exit: n for exit, n in spans.items() if n}

    @property
    def steady(self) -> bool:
        """Each run has the same counts, the host's own interrupts apart: True."""
        return not caused(self.spread)

    @property
    def apart(self) -> int:
        """KVM's own counter of exits and the tracepoint differ by this much at most, in a window."""
        return max((abs(own - seen) for seen, own in self.totals if own is not None), default=0)

    @property
    def drift(self) -> dict[Exit, tuple[int, int]]:
        """By kind it is what the mirror says and what was counted, where they differ."""
        if self.predicted is None or not self.runs:
            return {}
        counted = self.counted
        kinds = set(counted) | set(self.predicted)
        return {e: (self.predicted[e], counted[e]) for e in kinds if self.predicted[e] != counted[e]}

    @property
    def trace_differs(self) -> str:
        """This is the first event in which the mirror's short window and KVM's trace of it differ; empty where none
        does.
        """
        if self.foreseen is None:
            return ""
        for i, (ours, theirs) in enumerate(zip(self.foreseen, self.traced, strict=False), 1):
            if ours != theirs:
                return f"exit {i}: mirror {ours}, KVM {theirs}"
        if len(self.foreseen) != len(self.traced):
            return f"the mirror has {len(self.foreseen)} exits, KVM {len(self.traced)}"
        return ""


@dataclass(frozen=True, slots=True)
class Point:
    """This is one mix of the curve: exits a thousand system calls by variant's name."""

    axis: str
    value: float  # the share, a system call
    rates: Mapping[str, float]
    predicted: Mapping[str, float]

    @property
    def drifts(self) -> bool:
        """The mirror says another number of some variant: True."""
        return any(self.rates[name] != told for name, told in self.predicted.items())

    def left(self, name: str, first: str = VARIANTS[0].name) -> float | None:
        """This is the share of the first variant's exits that is left; None where one of the two was not counted."""
        return self.rates[name] / self.rates[first] if name in self.rates and self.rates.get(first) else None

    def ratio(self, name: str) -> float | None:
        """How many times fewer than the first variant; None where it has none at all, or one was not counted."""
        left = self.left(name)
        return 1 / left if left else None


@dataclass(slots=True)
class Result:
    """The result has a kernel's variants, and its curve where there is one."""

    kernel: Kernel
    rows: list[Measured]
    curve: list[Point] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def row(self, name: str) -> Measured | None:
        """The function gives a variant's row; None where it was not counted."""
        return next((row for row in self.rows if row.variant.name == name and row.runs), None)

    def ratio(self, row: Measured, first: str = VARIANTS[0].name) -> float | None:
        """The function says how many times fewer exits a variant has than the first variant."""
        base = self.row(first)
        return base.rate / row.rate if base is not None and row.runs and row.rate else None


def crossing(points: list[Point], name: str, goal: float = COVER_RATIO) -> float | None:
    """The function gives the place on an axis where the ratio comes to ``goal``; None where it does not.

    Between the two points around it the share of exits that is left, the ratio's inverse, is taken as linear: both of
    its terms are. ``points`` are of one axis, in the order of their values.
    """
    told = [(p.value, left) for p in points if (left := p.left(name)) is not None]
    for (x1, left1), (x2, left2) in pairwise(told):
        if min(left1, left2) <= 1 / goal <= max(left1, left2) and left1 != left2:
            return x1 + (x2 - x1) * (1 / goal - left1) / (left2 - left1)
    return None


def _texts(exits: Exits, calls: int) -> dict[str, float]:
    return {str(exit): round(n * 1000 / calls, 3) for exit, n in sorted(exits.items())}


def _row_json(result: Result, row: Measured) -> dict[str, Json]:
    ratio = result.ratio(row)
    return {
        "variant": row.variant.name,
        "title": row.variant.title,
        "missing": row.missing or None,
        "finding": row.finding or None,
        "avoided": row.avoided,
        "runs": [_texts(run, row.calls) for run in row.runs],
        "exits_per_thousand_calls": round(row.rate, 3) if row.runs else None,
        "ratio": round(ratio, 3) if ratio else None,
        "cover_exits_per_second": row.variant.cover,
        "spread": {str(e): n for e, n in row.spread.items()},
        "predicted": _texts(row.predicted, row.calls) if row.predicted is not None else None,
        "drift": {str(e): {"mirror": a, "counted": b} for e, (a, b) in row.drift.items()},
        "totals": [{"tracepoint": a, "kvm_exits": b} for a, b in row.totals],
        "system_call": [str(e) for e in row.call] if row.call is not None else None,
        "traced": [str(e) for e in row.traced],
        "trace_differs": row.trace_differs or None,
    }


def as_json(mix: Mix, results: list[Result]) -> dict[str, Json]:
    """The function gives everything as plain values, for scripts."""
    return {
        "mix": asdict(mix),
        "kernels": [
            {
                "kernel": result.kernel.name,
                "level": result.kernel.level,
                "parameter": result.kernel.param,
                "facts": result.facts,
                "variants": [_row_json(result, row) for row in result.rows],
                "curve": [
                    {"axis": p.axis, "value": p.value, "exits": dict(p.rates), "predicted": dict(p.predicted)}
                    for p in result.curve
                ],
            }
            for result in results
        ],
    }
