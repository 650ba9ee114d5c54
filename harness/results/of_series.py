"""The series of a run, from the journal's word on what the run was made of."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from harness.errors import InputError
from harness.jsonable import Json
from harness.series import Patch, harmless
from kvmodel import series as model

PROVENANCE: Final = "series"  # where a run's provenance keeps it
BELOW: Final = "below"  # in a run's provenance: hashes of the diffs that its level 0 has above the base, in order
ASKED: Final = "asked"  # in a run's provenance: what it selected, so that --resume needs no second telling


@dataclass(frozen=True, slots=True)
class RunSeries:
    """The record has a run's series: its last level, whether it is the one that is mirrored, and the options that name
    it again.

    ``prerequisites`` are the patches that its level 0 has above the base. ``options`` go behind a command's name, with
    a blank before them; empty for the series that comes with the tool.
    """

    last: int = model.LAST
    mirrored: bool = True
    options: str = ""
    prerequisites: int = 0

    def as_json(self) -> dict[str, Json]:
        """The function gives the record as a run's provenance has it."""
        return {
            "patches": self.last,
            "mirrored": self.mirrored,
            "options": self.options,
            "prerequisites": self.prerequisites,
        }


def diff_hash(patch: Patch) -> str:
    """The function gives the SHA-256 of a patch's diff, which is the same for a mail and for the file made of it."""
    return hashlib.sha256(patch.mail.diff.encode("utf-8", "surrogateescape")).hexdigest()


def same_below(run: int, provenance: Mapping[str, Any], on: Sequence[Patch]) -> None:
    """The function raises InputError where ``on`` are not the prerequisites of run ``run``, with the mend."""
    asked = of_run(provenance)
    again = f"name the same: '--on' as in{asked.options}" if asked.prerequisites else "leave out --on"
    if asked.prerequisites != len(on):
        raise InputError(f"run {run} stood on {asked.prerequisites} prerequisites, not on {len(on)}: {again}")
    for number, (patch, known) in enumerate(zip(on, provenance.get(BELOW, ()), strict=False), 1):
        if diff_hash(patch) != known:
            raise InputError(f"prerequisite {number} ({harmless(patch.subject)}) is not the one of run {run}: {again}")


def mirror_asked(provenance: Mapping[str, Any]) -> bool:
    """Whether a run asked the mirror: it is of one series, and a run may leave it out."""
    return of_run(provenance).mirrored and not provenance.get(ASKED, {}).get("no_mirror", False)


def options(folder: str | None, on: str | None) -> str:
    """The function gives ``--series`` and ``--on`` as they are typed again."""
    words = [("--series", folder), ("--on", on)]
    return "".join(f" {name} {shlex.quote(value)}" for name, value in words if value)


def of_run(provenance: Mapping[str, Any]) -> RunSeries:
    """The series of a run; one that did not write it down is taken for a run of the mirrored series."""
    told = provenance.get(PROVENANCE)
    if told is None:
        return RunSeries(len(provenance.get("patches") or ()) or model.LAST)
    return RunSeries(told["patches"], told["mirrored"], told["options"], told["prerequisites"])
