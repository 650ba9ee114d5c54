"""A capture in a file, to be judged again elsewhere: the host's formats and the pages of the buffer as they came."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Final

from harness.passive.capture import EVENTS, Capture
from harness.recording import container, shapes
from harness.report import baseline

KIND: Final = "kvmirror-capture"
TEXT_MAX: Final = 20_000  # characters of a format file
_FORMS: Final = {
    "pid": int, "process": str, "release": str, "cpu": str, "events": list[str], "missing": list[str],
    "parameters": dict[str, str], "entries": int, "ended": bool,
}  # fmt: skip


def write(capture: Capture, path: Path) -> int:
    """The file is written whole or not at all; the value is its bytes.

    Raises InputError when it cannot be written.
    """
    lines: list[object] = [
        {"facts": shapes.shown(capture.facts), "lost": capture.lost, "exits": capture.exits},
        *({"format": [name, text]} for name, text in capture.texts.items()),
        *({"page": [cpu, base64.b64encode(page).decode("ascii")]} for cpu, page in capture.pages),
    ]
    data = container.packed(lines, KIND)
    baseline.write_whole(path, data)
    return len(data)


def read(path: Path) -> Capture:
    """The function reads a capture that ``write`` wrote.

    Raises InputError, with the file's name, the reason and the mend, when it is none.
    """
    found = Capture()
    for number, value in enumerate(container.unpacked(path, KIND).values()):
        match value:
            case {"facts": facts, "lost": lost, "exits": exits} if number == 0 and len(value) == 3:
                found.facts = shapes.known(path, "what it says of its host", facts, _FORMS)
                if not {*_FORMS} - {"entries", "ended"} <= set(facts) or not {*facts["events"], *facts["missing"]} <= {
                    *EVENTS
                }:
                    container.refuse(path, "what it says of its host is not complete")
                if not shapes.fits(lost, dict[str, int]) or not shapes.fits(exits, dict[str, float | int | None]):
                    container.refuse(path, "its counts are none")
                shapes.harmless_json(path, "a count", [lost, exits])
                found.lost, found.exits = lost, exits
            case {"format": [str() as name, str() as text]} if len(text) <= TEXT_MAX:
                found.texts[name] = text
            case {"page": [int() as cpu, str() as page]} if 0 <= cpu < 1 << 16:
                try:
                    found.pages.append((cpu, base64.b64decode(page, validate=True)))
                except (binascii.Error, ValueError):
                    container.refuse(path, "a page of it is none")
            case _:
                container.refuse(path, "a line of it is none that a capture has")
    if not found.facts or not {*found.facts["events"], "header_page", "header_event"} <= set(found.texts):
        container.refuse(path, "the formats of its events are missing")
    return found
