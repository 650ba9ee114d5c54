"""The part of the space that the small KVM client asks: what the host does to a guest's memory, and its MSRs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations, product
from typing import Final

from kvmodel.question.vector import ClientSequence, UserMsrVector, Vector

MODES: Final = (("real", "u"), ("prot", "u"), ("long", "u"), ("long", "s"))
PAGING: Final = MODES[2:]
SIZES: Final = ("4k", "2m")
ACCESSES: Final = ("read", "write", "fetch")


def _sequences(
    texts: tuple[str, ...], modes: tuple[tuple[str, str], ...], sizes: tuple[str, ...], envs: tuple[str, ...]
) -> Iterator[Vector]:
    for env, (mode, page), size, text in product(envs, modes, sizes, texts):
        yield ClientSequence(mode, page, size, tuple(text.split("+")), env)


def client_upgrades() -> Iterator[Vector]:
    """One access after another of another kind; with the NX-huge-page mitigation a fetch splits what a read mapped."""
    pairs = tuple("+".join(pair) for pair in permutations(ACCESSES, 2))
    yield from _sequences(pairs, MODES, SIZES, ("std",))
    yield from _sequences((*pairs, "read+fetch+write+fetch"), MODES[1:], ("2m",), ("hugenx",))


def client_aging() -> Iterator[Vector]:
    """The host ages the page between two accesses; without EPT A/D its entry is one of access tracking then."""
    pairs = tuple(f"{first}+age+{then}" for first, then in product(("read", "fetch"), ACCESSES))
    yield from _sequences(pairs, PAGING, SIZES[:1], ("std",))
    yield from _sequences((*pairs, "fetch+age+read+fetch", "fetch+age+age+write+fetch"), MODES[1:], SIZES, ("eptad0",))
    yield from _sequences((*pairs, "read+age+read+age+fetch"), MODES[1:], SIZES[1:], ("eptad0nx",))


def client_logging() -> Iterator[Vector]:
    """Dirty logging on, which splits large mappings, the log read, and logging off, which lets them come again."""
    texts = (
        "read+log+write",
        "write+log+write+sync+write",
        "read+log+fetch",
        "fetch+log+fetch+write",
        "log+fetch+write",
        "read+log+unlog+fetch",
        "fetch+log+unlog+read+fetch",
    )
    yield from _sequences(texts, PAGING, SIZES, ("std", "eptad0"))
    yield from _sequences(texts, PAGING, SIZES[1:], ("hugenx", "eptad0nx"))


def client_aged_and_logged() -> Iterator[Vector]:
    """Large mappings are aged, then split by dirty logging, then used or aged again."""
    texts = tuple(
        f"{first}+age+log+{then}" for first, then in product(("read", "fetch"), ("read", "write", "fetch", "age"))
    )
    yield from _sequences(texts, PAGING, SIZES[1:], ("eptad0", "eptad0nx"))


def client_mmio() -> Iterator[Vector]:
    """An address without memory is met twice, as the slots' generation stays, moves by one and by many changes."""
    texts = tuple(f"{a}{b}+{a}" for a, b in product(("mread", "mwrite"), ("", "+slot", "+slots")))
    yield from _sequences((*texts, "mread+slots+read+mread+fetch"), MODES[1:3], SIZES[:1], ("std",))
    yield from _sequences(texts[1:3], PAGING[:1], SIZES[:1], ("eptad0", "hugenx"))


def client_slots() -> Iterator[Vector]:
    """The page's memory slot is deleted, moved, made read-only and put back between accesses: what it does not take is
    user space's.
    """
    texts = tuple(
        f"{first}+{move}+{then}+{then}+back+{first}+read"
        for move, first, then in product(("gone", "moved", "ronly"), ("read", "write"), ("read", "write", "rmw"))
    )
    more = (
        "fetch+ronly+fetch+write+back+write+fetch",
        "gone+read+slots+read+back+rmw+gone+write+back+read",
        "write+moved+read+gone+read+moved+write+back+rmw",
        "age+read+gone+age+read+back+age+write",
    )
    yield from _sequences((*texts, *more), MODES[1:], SIZES, ("std",))
    yield from _sequences(more, PAGING[:1], SIZES, ("eptad0", "ept0"))


def user_msrs() -> Iterator[Vector]:
    """User space takes capabilities from a vCPU, gives them back, and asks for such as KVM does not have."""
    for env in ("std", "eptad0"):
        for text in ("c54", "c54+kvm", "s54", "c54+s54", "s55", "s55+c54", "c39+s39"):
            yield UserMsrVector(0x48B, tuple(text.split("+")), env)
        for text in ("c0", "c0+s0", "c21+kvm", "s8", "c16+s8"):
            yield UserMsrVector(0x48C, tuple(text.split("+")), env)


CLIENT: Final[dict[str, Callable[[], Iterator[Vector]]]] = {
    part.__name__: part
    for part in (
        client_upgrades,
        client_aging,
        client_logging,
        client_aged_and_logged,
        client_mmio,
        client_slots,
        user_msrs,
    )
}
