"""The findings that are known already: a JSON file of their causes' hashes, for a CI that asks what is new."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from harness.errors import InputError
from harness.findings import Finding

SCHEMA: Final = "kvmirror-baseline-1"


def read(path: Path) -> dict[str, str]:
    """Hash and remark of each known finding; InputError where the file is no baseline."""
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
    known: dict[str, str] = {}
    for entry in body["known"]:
        if not isinstance(entry, dict) or not isinstance(entry.get("cause"), str):
            raise InputError(f'baseline {path}: {entry!r} has no "cause"; each entry needs a finding\'s hash')
        known[entry["cause"]] = str(entry.get("remark", ""))
    return known


def body(found: Iterable[Finding], remarks: dict[str, str]) -> dict[str, Any]:
    """A baseline that holds ``found``, with the remarks people wrote into an earlier one."""
    return {
        "schema": SCHEMA,
        "known": [{"cause": f.cause, "remark": remarks.get(f.cause) or str(f.symptom)} for f in found],
    }


def write(path: Path, found: Iterable[Finding]) -> None:
    """Write or renew a baseline."""
    remarks = read(path) if path.exists() else {}
    write_whole(path, json.dumps(body(found, remarks), indent=1) + "\n")


def write_whole(path: Path, text: str) -> None:
    """A file that is there whole or not at all, Ctrl-C or a full disk included; InputError where it cannot be."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; name another file") from error
    finally:
        part.unlink(missing_ok=True)
