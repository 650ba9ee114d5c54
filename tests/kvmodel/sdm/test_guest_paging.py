"""Guest paging against the manual's access-rights prose (4.6), retold as sentences over sets."""

from __future__ import annotations

from itertools import product

from kvmodel.question.vector import GuestPerm, Paging
from kvmodel.sdm import guest_paging as gp
from kvmodel.sdm.access import Linear, Use

PERMS = [GuestPerm(u, w, x) for u, w, x in product((False, True), repeat=3)]
FINAL = (Use.READ, Use.WRITE, Use.RMW, Use.FETCH)
MODES = [
    gp.Mode(paging, cpl, *flags)
    for paging, cpl in product(Paging, (0, 3))
    for flags in product((False, True), repeat=5)
]


def verdict(mode: gp.Mode, both: tuple[GuestPerm, GuestPerm], use: Use) -> int | None:
    """The error code as the manual's sentences give it; None where the access is let through."""
    if mode.paging is Paging.OFF:
        return None
    user_page = both[0].u and both[1].u
    read_only = not (both[0].w and both[1].w)
    xd = mode.paging is not Paging.BITS32 and not (both[0].x and both[1].x)
    code = {Use.READ: 0x1, Use.WRITE: 0x3, Use.RMW: 0x3, Use.FETCH: 0x1}[use] + {0: 0, 3: 4}[mode.cpl]
    fetches_told_apart = mode.smep or (mode.nxe and mode.paging is not Paging.BITS32)
    if use is Use.FETCH and fetches_told_apart:
        code += 0x10
    if xd and not mode.nxe:
        return code + 0x8
    reasons = {
        "user access to a supervisor page": mode.cpl == 3 and not user_page,
        "user write to a read-only page": mode.cpl == 3 and read_only and use in (Use.WRITE, Use.RMW),
        "supervisor write under WP": mode.cpl == 0 and mode.wp and read_only and use in (Use.WRITE, Use.RMW),
        "SMAP": mode.cpl == 0 and mode.smap and not mode.ac and user_page and use is not Use.FETCH,
        "SMEP": mode.cpl == 0 and mode.smep and user_page and use is Use.FETCH,
        "XD": xd and use is Use.FETCH,
    }
    return code if any(reasons.values()) else None


def test_every_mode_and_every_pair_of_entries() -> None:
    faults = 0
    for mode, gu, gl, use in product(MODES, PERMS, PERMS, FINAL):
        expected = verdict(mode, (gu, gl), use)
        got = gp.fault(mode, (gu, gl), use)
        assert (got.error if got else None) == expected, (mode, gu, gl, use)
        if got:
            faults += 1
            assert got.rule == ("guest-reserved" if got.error & 8 else "guest-protection")
    assert faults > 1000


def test_the_levels_are_interchangeable() -> None:
    for mode, gu, gl in product(MODES, PERMS, PERMS):
        assert gp.linear(mode, (gu, gl)) == gp.linear(mode, (gl, gu))


def test_user_mode_linear_addresses_do_not_depend_on_the_privilege_level() -> None:
    for gu, gl in product(PERMS, PERMS):
        for paging in (Paging.BITS32, Paging.PAE, Paging.LONG):
            answers = {
                gp.user_mode_linear_address(gp.Mode(paging, cpl, True, smep, False, True), (gu, gl))
                for cpl, smep in product((0, 3), (False, True))
            }
            assert answers == {gu.u and gl.u}
        assert gp.user_mode_linear_address(gp.Mode(Paging.OFF, 0, True, False, False, True), (gu, gl))


def test_paging_off_ignores_the_entries() -> None:
    mode = gp.Mode(Paging.OFF, 3, True, True, True, False)
    for gu, use in product(PERMS, FINAL):
        assert gp.linear(mode, (gu, gu)) == Linear(True, True, False)
        assert gp.fault(mode, (gu, gu), use) is None


def test_32_bit_entries_have_no_xd() -> None:
    mode = gp.Mode(Paging.BITS32, 0, True, False, False, True)
    n = GuestPerm(True, True, False)
    assert not gp.linear(mode, (n, n)).execute_disable
    assert gp.fault(mode, (n, n), Use.FETCH) is None
