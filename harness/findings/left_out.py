"""Which patches are behind a finding, by what real kernels answered that do without one patch each.

A patch without which the finding is gone takes part in it. The **switch** among them only decides whether the module
parameter is there and what it is; an **offer** changes the virtual CPU that L1 reads; every other one is part of the
rule. The cause is sought among the last, then the second, then the first. Of several the cause is the last of the
series, the one that brought the finding; the others are what it needs, as are the offers. A tree in which L1 cannot
run, or on which nothing could be asked, says nothing.

Of a group of patches that only go out together those are no part of the cause that go out alone and leave the finding
where it was. Where what is left holds the cause and more, that says nothing of the others: the cause **builds on**
them, it does not apply or compile without them. A patch that changes no machine code where it stands is not left out:
what needs it goes out by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Any, Final

from harness.findings.causes import Cause
from harness.findings.group import Finding
from harness.jsonable import Json

PROVENANCE: Final = "left_out_on_kvm"  # where a run's provenance keeps it, by the cause's hash


class Became(Enum):
    """The value says what became of the finding."""

    SHOWS = "shows"
    GONE = "gone"
    SILENT = "L1 cannot run"
    UNASKED = "not asked"
    NO_CODE = "not asked: it changes no machine code where it stands"


class LeftOutPart(Enum):
    """This is what the tree without the patch lacks, where it can be seen without the finding."""

    RULE = "rule"
    OFFER = "offer"
    SWITCH = "switch"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The record is of one patch, what stayed out with it (``left_out``, with ``how`` and ``why``), and the answer of
    that tree.

    ``same_as``: the tree of the same machine code whose answer it is; empty where it was asked itself.
    """

    patch: int
    left_out: tuple[int, ...]
    how: str
    why: str
    became: Became
    part: LeftOutPart = LeftOutPart.RULE
    answer: str = ""
    same_as: str = ""


@dataclass(frozen=True, slots=True)
class LeavingOut:
    """The record has all that was asked for one finding: its ``vector`` at ``level`` with the parameter
    ``param``.

    ``first``: the lowest level that shows it, those between that the run did not ask asked as well. ``trouble``: why
    nothing was asked of the patches. ``kernel``: the release. ``seconds`` of wall time on the host.
    """

    vector: str
    level: int
    param: str
    kernel: str
    first: int
    without: tuple[LeftOut, ...] = ()
    trouble: str = ""
    seconds: float = 0.0

    @property
    def _gone(self) -> dict[tuple[int, ...], LeftOutPart]:
        """The smallest sets of patches without which it is gone, with what the tree lacks."""
        innocent = {w.left_out for w in self.without if w.became is Became.SHOWS}
        gone: dict[tuple[int, ...], LeftOutPart] = {}
        for w in self.without:
            if w.became is Became.GONE:
                left = tuple(n for n in w.left_out if (n,) not in innocent) or w.left_out
                gone.setdefault(left, w.part)
        return {patches: part for patches, part in gone.items() if not any(set(other) < set(patches) for other in gone)}

    @property
    def _chosen(self) -> list[tuple[int, ...]]:
        """Those among which the cause is."""
        gone = self._gone
        by_part = [[patches for patches, part in gone.items() if part is wanted] for wanted in LeftOutPart]
        return next((found for found in by_part if found), [])

    @property
    def patches(self) -> tuple[int, ...]:
        """These patches are the cause: one patch, or a group that only goes out together."""
        return max(self._chosen, key=lambda patches: patches[-1], default=())

    @property
    def needs(self) -> tuple[int, ...]:
        """The cause needs these patches so that the finding shows."""
        others = (set(p) for p, part in self._gone.items() if p in self._chosen or part is LeftOutPart.OFFER)
        return tuple(sorted(set().union(*others) - set(self.patches)))

    @property
    def builds_on(self) -> tuple[int, ...]:
        """The patches without which the cause does not apply or compile."""
        cause = set(self.patches)
        found = {w.patch for w in self.without if cause and cause <= set(w.left_out)}
        return tuple(sorted(found - cause - set(self.needs)))

    @property
    def silent(self) -> tuple[int, ...]:
        """The patches without which nothing could be told."""
        return tuple(w.patch for w in self.without if w.became in (Became.SILENT, Became.UNASKED))

    @property
    def told(self) -> bool:
        """Real kernels say what the cause is, or that the base has it: True."""
        return not self.trouble

    @property
    def cause(self) -> Cause:
        """The function gives the cause as every report shows one."""
        together = len(self.patches) > 1
        return Cause(
            self.patches, self.needs, in_base=self.first == 0, asked=False, observed=self.told, together=together
        )

    def as_json(self) -> dict[str, Json]:
        """The function gives the record for a run's provenance."""
        body = asdict(self)
        body["without"] = [
            asdict(w) | {"became": w.became.value, "part": w.part.value, "left_out": list(w.left_out)}
            for w in self.without
        ]
        return body


def from_json(body: dict[str, Any]) -> LeavingOut:
    """The function is the inverse of ``LeavingOut.as_json``."""
    without = tuple(
        LeftOut(**w | {"became": Became(w["became"]), "part": LeftOutPart(w["part"]), "left_out": tuple(w["left_out"])})
        for w in body["without"]
    )
    return LeavingOut(**body | {"without": without})


def attached(found: Iterable[Finding], kept: Mapping[str, Any]) -> list[Finding]:
    """Findings with what a run's provenance keeps of them; one whose cause no mirror knows gets that cause."""
    return [_with(f, from_json(kept[f.cause])) if f.cause in kept else f for f in found]


def _with(finding: Finding, told: LeavingOut) -> Finding:
    known = finding.origin.known or not told.told
    return replace(finding, left_out=told, origin=finding.origin if known else told.cause)
