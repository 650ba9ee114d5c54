"""Which patch wrote each line of a level."""

from __future__ import annotations

from collections.abc import Iterable

from harness.series.folder import Applied, State


def authors(base: State, applied: Iterable[Applied]) -> dict[str, list[int]]:
    """The function gives the number of the patch that wrote each line last, by file; 0 where it is the base's."""
    found = {path: [0] * len((data or b"").splitlines()) for path, data in base.items()}
    for done in applied:
        later = {(offset.path, offset.hunk): offset.lines for offset in done.offsets}
        for file in done.patch.mail.files:
            lines = found.setdefault(file.path, [])
            for hunk in file.hunks:
                at = max(hunk.new_start - 1, 0) + later.get((file.path, hunk.number), 0)
                for row in hunk.rows:
                    if row.startswith("-"):
                        del lines[at]
                    elif row.startswith("+"):
                        lines.insert(at, done.patch.number)
                        at += 1
                    elif not row.startswith("\\"):
                        at += 1
    return found
