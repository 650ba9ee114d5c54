"""What an EPT violation's qualification cannot say, whatever the access was: the bits against one another.

SDM 28.2.1, table 28-7, and 29.3.3: nothing here knows the EPT entries. A rule that does not decide is silent.
"""

from __future__ import annotations

from typing import Final

from kvmodel.bits import GENMASK
from kvmodel.sdm.qualification import (
    EXECUTABLE,
    FETCH,
    FINAL,
    LINEAR_VALID,
    READ,
    READABLE,
    RESERVED,
    USER_EXECUTABLE,
    WRITABLE,
    WRITE,
)

RULES: Final = {
    "no-access": "none of bits 0 to 2 says what the access was",
    "fetch-and-data": "an instruction fetch is no data access: bit 2 excludes bits 0 and 1",
    "permitted": "the access was a kind that bits 3 to 6 permit",
    "write-without-read": "bit 4 without bit 3: an entry that gives writing without reading is a misconfiguration",
    "final-without-linear": "bit 8 without bit 7: there is no linear address whose translation it could be",
    "reserved": "bits 63 to 17 read as 0",
}
"""Each rule by its name; the section of all of them is 28.2.1."""


def contradictions(qualification: int, *, mbec: bool) -> tuple[str, ...]:
    """The rules that a qualification (64 bits) breaks.

    ``mbec``: the guest may run with mode-based execute control, so that bit 6 may speak for a fetch.
    """
    access = qualification & (READ | WRITE | FETCH)
    found = []
    if not access:
        found.append("no-access")
    if access & FETCH and access & (READ | WRITE):
        found.append("fetch-and-data")
    elif access and _permits(qualification, mbec=mbec):
        found.append("permitted")
    if qualification & WRITABLE and not qualification & READABLE:
        found.append("write-without-read")
    if qualification & FINAL and not qualification & LINEAR_VALID:
        found.append("final-without-linear")
    if qualification & RESERVED:
        found.append("reserved")
    return tuple(found)


def _permits(qualification: int, *, mbec: bool) -> bool:
    """Whether the entries give all that the access wanted; bits 13 to 15 say that something else forbade it."""
    if qualification & GENMASK(15, 13):
        return False
    if qualification & FETCH:
        wanted = EXECUTABLE | USER_EXECUTABLE if mbec else EXECUTABLE
    else:
        wanted = (READABLE if qualification & READ else 0) | (WRITABLE if qualification & WRITE else 0)
    return qualification & wanted == wanted
