"""The series of a run, from the journal's word on what the run was made of."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kvmodel import series as model

PROVENANCE: Final = "series"  # where a run's provenance keeps it
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

    def as_json(self) -> dict[str, Any]:
        """The function gives the record as a run's provenance has it."""
        return {
            "patches": self.last,
            "mirrored": self.mirrored,
            "options": self.options,
            "prerequisites": self.prerequisites,
        }


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
