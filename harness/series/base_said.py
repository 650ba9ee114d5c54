"""What mails say of the base they are for, as git format-patch --base writes it below a patch or a cover."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

COMMIT: Final = "base_commit"  # keys of [base] in series.toml
PREREQUISITES: Final = "prerequisite_patch_ids"
_TRAILER = re.compile(rb"^(base-commit|prerequisite-patch-id): ([0-9a-f]{12,64})\s*$", re.M)


def base_said(mails: Iterable[bytes]) -> dict[str, object]:
    """``base_commit`` and ``prerequisite_patch_ids``, each only where the mails say it; ids once, in their order."""
    commit, ids = "", dict[str, None]()
    for data in mails:
        for key, value in _TRAILER.findall(data):
            if key == b"base-commit":
                commit = commit or value.decode()
            else:
                ids[value.decode()] = None
    found: dict[str, object] = {COMMIT: commit} if commit else {}
    return found | ({PREREQUISITES: list(ids)} if ids else {})
