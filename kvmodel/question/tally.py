"""What KVM's statistics and its dirty log say after a client's sequence, packed into one 64-bit word.

The word is the ``code`` of a DONE outcome. A count too large for its field stands as the field's largest value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Name as KVM's statistics have it, and width in bits, from bit 0 up. ``dirty``: pages in the log read at the end.
FIELDS: Final = (
    ("pages_4k", 12),
    ("pages_2m", 4),
    ("nx_lpage_splits", 4),
    ("pf_taken", 8),
    ("pf_fixed", 8),
    ("pf_spurious", 4),
    ("pf_fast", 4),
    ("pf_emulate", 4),
    ("pf_mmio_spte_created", 4),
    ("mmio_exits", 4),
    ("dirty", 8),
)


def _places() -> dict[str, tuple[int, int]]:
    places, at = {}, 0
    for name, width in FIELDS:
        places[name] = (at, (1 << width) - 1)
        at += width
    assert at <= 64
    return places


_PLACE: Final = _places()
MASK: Final = {name: largest << at for name, (at, largest) in _PLACE.items()}
ALL: Final = sum(MASK.values())


def pack(counts: Mapping[str, int]) -> int:
    """The word of ``counts``; a name that is missing counts 0, one that has no field is left out."""
    return sum(min(counts.get(name, 0), largest) << at for name, (at, largest) in _PLACE.items())


def unpack(word: int) -> dict[str, int]:
    """The counts of ``word``, each field once."""
    return {name: word >> at & largest for name, (at, largest) in _PLACE.items()}


def text(word: int) -> str:
    """The counts that are not 0, to read."""
    return ", ".join(f"{name} {count}" for name, count in unpack(word).items() if count)
