"""The findings that are known already: a JSON file of their causes' hashes, for a CI that asks what is new."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import InputError
from harness.findings import Finding
from harness.jsonable import Json

SCHEMA: Final = "kvmirror-baseline-1"


@dataclass(frozen=True, slots=True)
class Known:
    """A baseline says this of a cause: people's remark, and where it began in the run that wrote it."""

    remark: str
    first_level: int | None = None
    levels: tuple[int, ...] = ()  # the levels of that run

    def moved(self, finding: Finding, levels: Iterable[int]) -> str:
        """The text says that it begins at another level now, as far as both runs asked that level; else it is empty."""
        first, now = self.first_level, finding.first_level
        if first is None or now == first:
            return ""
        asked = now in self.levels if now < first else first in set(levels)
        return f"begins at level {now}, and began at level {first}" if asked else ""


def read(path: Path) -> dict[str, Known]:
    """The function gives what is known of each cause by its hash.

    Raises InputError when the file is no baseline.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"baseline {path}: {error.strerror}; write one with 'kvmirror report --write-baseline'"
        ) from error
    except ValueError as error:
        raise InputError(f"baseline {path} is not JSON ({error}); write one with --write-baseline") from error
    if not isinstance(body, dict) or body.get("schema") != SCHEMA or not isinstance(body.get("known"), list):
        raise InputError(f"baseline {path} has not the schema {SCHEMA}; write one with --write-baseline")
    levels = tuple(n for n in body.get("levels", ()) if isinstance(n, int))
    known: dict[str, Known] = {}
    for entry in body["known"]:
        if not isinstance(entry, dict) or not isinstance(entry.get("cause"), str):
            raise InputError(f'baseline {path}: {entry!r} has no "cause"; each entry needs a finding\'s hash')
        first = entry.get("first_level")
        known[entry["cause"]] = Known(str(entry.get("remark", "")), first if isinstance(first, int) else None, levels)
    return known


def body(found: Iterable[Finding], levels: Iterable[int], known: dict[str, Known]) -> dict[str, Json]:
    """A baseline that holds ``found`` of a run of ``levels``, with the remarks people wrote into an earlier one."""
    return {
        "schema": SCHEMA,
        "levels": sorted(levels),
        "known": [
            {
                "cause": f.cause,
                "first_level": f.first_level,
                "remark": (known[f.cause].remark if f.cause in known else "") or f.title,
            }
            for f in found
        ],
    }


def write(path: Path, found: Iterable[Finding], levels: Iterable[int]) -> None:
    """The function writes or renews a baseline."""
    known = read(path) if path.exists() else {}
    write_whole(path, json.dumps(body(found, levels, known), indent=1) + "\n")


def write_whole(path: Path, text: str | bytes) -> None:
    """The file is written whole or not at all, Ctrl-C or a full disk included.

    Raises InputError when it cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(text.encode() if isinstance(text, str) else text)
        part.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; name another file") from error
    finally:
        part.unlink(missing_ok=True)
