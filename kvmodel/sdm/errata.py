"""Departures of CPUs from the manual that ``ept.walk`` can reproduce, keyed on the hardware's state.

Names are put into ``Cpu.errata`` by whoever measured them on the bare CPU; a sound CPU has none.
"""

from __future__ import annotations

from kvmodel.sdm.rules import Rule

BIT6_DATA = "mbec-data-bit6"
LARGE_BIT12 = "large-page-bit12"
WALK_AD_BIT0 = "ept-ad-walk-bit0"
UPDATE_UNCHECKED = "guest-ad-update-unchecked"

ERRATA: dict[str, Rule] = {
    BIT6_DATA: Rule(
        "28.2.1",
        "With MBEC, a violation by a data access or a page walk leaves qualification bit 6 clear and shows the AND "
        "of the entries' bit 10 in bit 13.",
    ),
    LARGE_BIT12: Rule("29.3.2", "Bit 12 of an EPT entry that maps a large page is not treated as reserved."),
    WALK_AD_BIT0: Rule(
        "28.2.1",
        "With EPT accessed and dirty flags, a violation by an access to a guest paging-structure entry sets bit 1 "
        "of the qualification without bit 0.",
    ),
    UPDATE_UNCHECKED: Rule(
        "29.3.3.2",
        "Without EPT accessed and dirty flags, setting accessed or dirty in a guest entry is not checked for EPT "
        "write permission.",
    ),
}
