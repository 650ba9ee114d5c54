"""The space of sequences: what an L2 meets when its entries, controls or accesses were other just before.

Parts are named, deterministic generators like those of ``harness.questions.core``; a part that samples has its seed
here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import product
from typing import Final

from kvmodel.question.sequence import SequenceVector, sequence
from kvmodel.question.vector import RWXU, Access, AccessVector, GuestPerm, Mbec, Perm

SEED: Final = 20250313  # the day the series was posted
SWX: Final = GuestPerm(False, True, True)
SWITCH: Final = (Mbec.ON, Mbec.OFF)
INVEPT: Final = ("", ".noinv")

# an access with the privilege level and the page it is usually made at
READ = AccessVector(access=Access.READ, cpl=3)
WRITE = AccessVector(access=Access.WRITE, cpl=3)
FETCH_USER = AccessVector(access=Access.FETCH, cpl=3)
FETCH_SUPERVISOR = AccessVector(access=Access.FETCH, gp=SWX)
ACCESSES: Final = (READ, WRITE, FETCH_USER, FETCH_SUPERVISOR)

# Where L1 leaves MBEC off bit 10 of an entry is ignored, so eight permissions differ. The bit says the opposite of
# bit 2, so that whoever goes by it is seen.
WITHOUT_MBEC: Final = tuple(perm for perm in Perm.all() if perm.u is not perm.x)


def _changes(perms: Iterable[Perm] = tuple(Perm.all())) -> Iterator[tuple[Perm, Perm]]:
    return ((before, after) for before, after in product(perms, repeat=2) if before != after)


BOTH: Final = ((Mbec.ON, tuple(Perm.all())), (Mbec.OFF, WITHOUT_MBEC))


def _counting(perm: Perm, mbec: Mbec) -> int:
    """The bits of an entry that permit something: bit 10 does not where MBEC is off."""
    return (perm if mbec is Mbec.ON else replace(perm, u=False)).bits


def _same_way(before: Perm, after: Perm, mbec: Mbec) -> bool:
    """Whether the permissions are only raised, or only lowered."""
    one, other = _counting(before, mbec), _counting(after, mbec)
    return one & other in (one, other)


def sequence_controls() -> Iterator[SequenceVector]:
    """The same EPT pointer is entered with MBEC on, off and on again: INVEPT or none, one vmcs12 or two side by
    side.

    With MBEC off throughout, the two vmcs12 in turn, with the same EPT pointer or with EPTP bit 6 other in one.
    """
    ways = (("{}", "{}"), ("{}.noinv", "{}.noinv"), ("{}.b", "{}.a"), ("{}.b.noinv", "{}.a.noinv"))
    for leaf, access, (one, other), way in product(Perm.all(), ACCESSES, (SWITCH, SWITCH[::-1]), ways):
        first = replace(access, leaf=leaf, mbec=one)
        turns = (way[0].format(f"mbec={other.value}"), way[1].format(f"mbec={one.value}"))
        yield sequence(first, *turns)
    for leaf, access, (there, back), how in product(WITHOUT_MBEC, ACCESSES, (("b", "a"), ("ad1.b", "ad0.a")), INVEPT):
        yield sequence(replace(access, leaf=leaf, mbec=Mbec.OFF), f"{there}{how}", f"{back}{how}")


def sequence_permissions() -> Iterator[SequenceVector]:
    """The leaf's permissions go from every one to every other; without INVEPT those raised or lowered, looked
    at twice.

    Then with MBEC off, where the next part looks once after INVEPT: looked at twice.
    """
    for mbec, perms in BOTH:
        for (before, after), access in product(_changes(perms), ACCESSES):
            first = replace(access, leaf=before, mbec=mbec)
            yield sequence(first, f"l1={after}", *(() if mbec is Mbec.ON else ("noinv",)))
            if _same_way(before, after, mbec):
                yield sequence(first, f"l1={after}.noinv", "noinv")


def sequence_permissions_without_mbec() -> Iterator[SequenceVector]:
    """The leaf's permissions are changed where L1 leaves MBEC off: a sample."""
    rng = random.Random(SEED)
    for before, after in rng.sample(list(_changes()), 64):
        for access, how in product(ACCESSES, INVEPT):
            yield sequence(replace(access, leaf=before, mbec=Mbec.OFF), f"l1={after}{how}")


def sequence_back_and_forth() -> Iterator[SequenceVector]:
    """One permission is taken from the leaf and given back, without INVEPT on the way back."""
    for leaf, access, mbec, how in product(Perm.all(), ACCESSES, SWITCH, INVEPT):
        if leaf != RWXU:
            yield sequence(replace(access, mbec=mbec), f"l1={leaf}{how}", "l1=rwxu.noinv")


def sequence_upper_entries() -> Iterator[SequenceVector]:
    """The entry above the leaf, and the one above that, taken down and up again: upper tables are write-tracked.

    With MBEC on and off.
    """
    for mbec, perms in BOTH:
        for level, upper, access, how in product((2, 3), perms, ACCESSES, INVEPT):
            if _counting(upper, mbec) != _counting(RWXU, mbec):
                first = replace(access, upper_level=level, mbec=mbec)
                yield sequence(first, f"l{level}={upper}{how}", f"l{level}=rwxu{how}")


def sequence_accessed_dirty() -> Iterator[SequenceVector]:
    """EPTP bit 6 is switched between entries, with accesses and with the page walk's own.

    With MBEC on and off.
    """
    walks = tuple(AccessVector(access=access, cpl=3) for access in (Access.WALK, Access.WALKA, Access.WALKD))
    for mbec, perms in BOTH:
        for leaf, access, ad, how in product(perms, (READ, WRITE, FETCH_USER, *walks), (False, True), INVEPT):
            first = replace(access, leaf=leaf, ad=ad, mbec=mbec)
            yield sequence(first, f"ad{not ad:d}{how}", f"ad{ad:d}{how}")


def sequence_other_accesses() -> Iterator[SequenceVector]:
    """A page is mapped by one access, then met by another: supervisor and user, data and fetch, no INVEPT between."""
    ways = (
        (FETCH_SUPERVISOR, "gpuwx.cpl3.noinv", "gpswx.cpl0.noinv"),
        (FETCH_USER, "gpswx.cpl0.noinv", "gpuwx.cpl3.noinv"),
        (FETCH_USER, "guswx.cpl0.noinv", "guuwx.cpl3.noinv"),
        (READ, "fetch.noinv", "write.noinv"),
        (WRITE, "fetch.noinv", "read.noinv"),
        (FETCH_USER, "read.noinv", "write.noinv"),
        (replace(READ, cpl=0, gp=SWX), "fetch.noinv", "gpuwx.cpl3.noinv"),
        (replace(READ, access=Access.RMW), "fetch.noinv", "rmw.noinv"),
    )
    for leaf, mbec, (first, *rest) in product(Perm.all(), SWITCH, ways):
        yield sequence(replace(first, leaf=leaf, mbec=mbec), *rest)


def sequence_large_pages() -> Iterator[SequenceVector]:
    """2 MiB leaves, on small and on huge pages of the host, with and without the NX-huge-page mitigation."""
    for env, leaf, access, how in product(("std", "huge", "hugenx"), Perm.all(), ACCESSES, INVEPT):
        if leaf != RWXU:
            first = replace(access, env=env, leaf_level=2, upper_level=3)
            yield sequence(first, f"l2={leaf}{how}", f"l2=rwxu{how}")
            if not how and access in (WRITE, FETCH_USER):
                yield sequence(replace(first, mbec=Mbec.OFF), f"l2={leaf}", "l2=rwxu")


def sequence_without_ad() -> Iterator[SequenceVector]:
    """The same changes are made where the host has no EPT accessed and dirty flags, so that KVM tracks accesses
    itself."""
    rng = random.Random(SEED + 1)
    for n, (before, after) in enumerate(rng.sample(list(_changes()), 48)):
        for access, how in product(ACCESSES, INVEPT):
            first = replace(access, env="eptad0", leaf=before, mbec=SWITCH[n % 3 == 2])
            yield sequence(first, f"l1={after}{how}", "noinv")


def sequence_misconfigured() -> Iterator[SequenceVector]:
    """A leaf is misconfigured for a while by its memory type, or by its permissions."""
    for mbec, access, how in product(SWITCH, ACCESSES, INVEPT):
        first = replace(access, mbec=mbec)
        yield sequence(first, f"mt2{how}", f"mt6{how}")
        if not how:  # sequence_back_and_forth has the other
            yield sequence(first, "l1=-w--", "l1=rwxu")


def sequence_sampled() -> Iterator[SequenceVector]:
    """Four turns of whatever may change, by chance."""
    rng = random.Random(SEED + 2)
    perms = list(Perm.all())
    for _ in range(600):
        first = replace(rng.choice(ACCESSES), leaf=rng.choice(perms), mbec=rng.choice(SWITCH), ad=rng.random() < 0.2)
        turns = sequence(first, "same", "same", "same").turns
        made = [turns[0]]
        for turn in turns[1:]:
            before = made[-1]
            a = before.access
            for change in rng.sample(range(6), rng.choice((1, 1, 2))):
                match change:
                    case 0 | 1:
                        a = replace(a, leaf=rng.choice(perms))
                    case 2:
                        a = replace(a, upper=rng.choice((RWXU, rng.choice(perms))))
                    case 3:
                        other = rng.choice(ACCESSES)
                        a = replace(a, access=other.access, gp=other.gp, cpl=other.cpl)
                    case 4:
                        a = replace(a, mbec=rng.choice(SWITCH))
                    case _:
                        a = replace(a, ad=not a.ad)
            second = before.second ^ (rng.random() < 0.2)
            made.append(replace(turn, access=a, invept=rng.random() < 0.5, second=second))
        yield SequenceVector(tuple(made))


SEQUENCES: dict[str, Callable[[], Iterator[SequenceVector]]] = {
    part.__name__: part
    for part in (
        sequence_controls,
        sequence_permissions,
        sequence_permissions_without_mbec,
        sequence_back_and_forth,
        sequence_upper_entries,
        sequence_accessed_dirty,
        sequence_other_accesses,
        sequence_large_pages,
        sequence_without_ad,
        sequence_misconfigured,
        sequence_sampled,
    )
}
