"""Programs in which one path, VPID or host step leaves something behind for the next: who may go by it, who may not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Final

from harness.questions.written import of as _of
from kvmodel.question.program import ProgramVector

_LOOKS: Final = ("read", "write", "fetch")
_HOSTS: Final = ((True, "std"), (False, "std"), (False, "ept0"))


def _switch(mbec: bool) -> tuple[str, ...]:
    return ("mbec=on",) if mbec else ()


def program_restricted_below() -> Iterator[ProgramVector]:
    """A table is shared by two paths of other permissions while an entry below forbids more; then that one permits."""
    for mbec, upper, below, look in product((False, True), ("r---", "r-x-", "rw--", "r--u"), ("r---", "r-x-"), _LOOKS):
        head, lifted = _switch(mbec), ("m0=t0", "invept1.r0")
        yield _of(*head, f"d0b=m0.{upper}", f"m0=t0.{below}", "read.a3", "read.b3", *lifted, f"{look}.a3", f"{look}.b3")
        yield _of(*head, f"d0b=m0.{upper}", f"m0=t0.{below}", "read.b3", "read.a3", *lifted, f"{look}.b4", f"{look}.a4")
        leaf = f"t03=p3.{below}"
        yield _of(
            *head, f"m1=t0.{upper}", leaf, "read.a3", "read.b3", "t03=p3", "invept1.r0", f"{look}.a3", f"{look}.b3"
        )


def program_nothing_left() -> Iterator[ProgramVector]:
    """The leaf and the entry above permit something each and together nothing, once L1 has changed one of them."""
    pairs = (("rw--", "--x-"), ("--x-", "rw--"), ("r---", "--x-"), ("--x-", "r---"), ("r---", "----"), ("--x-", "r-x-"))
    for mbec, (upper, then), way in product((False, True), pairs, (("invept1.r0",), ("invept2.r0",), ())):
        first = "fetch" if upper == "--x-" else "read"
        for look in _LOOKS:
            leaf = (f"m0=t0.{upper}", f"{first}.a3", f"t03=p3.{then}", *way, f"{look}.a3", "t03=p5", *way, f"{look}.a3")
            yield _of(*_switch(mbec), *leaf)
            above = (
                f"t03=p3.{then}",
                f"read.a4,{first}.a3",
                f"m0=t0.{upper}",
                *way,
                f"{look}.a3",
                "m0=t0",
                f"{look}.a3",
            )
            yield _of(*_switch(mbec), *above)


def program_tables_behind_kvm() -> Iterator[ProgramVector]:
    """The host logs or ages L1's pages before L2 uses the tables in them for the first time; then L1 changes those."""
    for env, call, (entry, back), look in product(
        ("pml0", "eptad0"),
        ("log", "age"),
        (("m0=t1", "m0=t0"), ("d0a=m1", "d0a=m0"), ("t03=p4", "t03=p3")),
        ("read", "write"),
    ):
        after = (f"{look}.a3", entry, "invept1.r0", f"{look}.a3", back, "invept1.r0", f"{look}.a3")
        yield _of("t13=p6", f"host.{call}", *after, env=env)
        yield _of("t13=p6", f"{look}.a3", f"host.{call}", "root=1", *after, env=env)


def program_vpid_turns() -> Iterator[ProgramVector]:
    """L1 changes the guest's tables and enters L2 under a VPID that it has not used yet, or under none."""
    for (ept, env), (there, back), look in product(_HOSTS, ((1, 2), (1, 0), (2, 1), (0, 1)), _LOOKS):
        one, other = ("a5", "b4") if ept else ("p5", "q4")
        for change in (f"g.a3={one}", f"g.a3={other}.srx", "g.a3=none", "gu.a=srn"):
            turn = (f"{look}.a3", change, f"vpid={back}", f"{look}.a3")
            yield _of(*((f"vpid={there}",) if there else ()), *turn, env=env, ept=ept)
            if change[0:3] == "g.a" and not change.endswith("none"):
                again = (f"g.a3={one}.urx", f"vpid={there}", f"{look}.a3", "g.a4=none", f"{look}.a4")
                yield _of(
                    *((f"vpid={there}",) if there else ()),
                    f"{look}.a3",
                    change,
                    f"vpid={back}",
                    *again,
                    env=env,
                    ept=ept,
                )


def program_flushed_by_cr4() -> Iterator[ProgramVector]:
    """L2 changes its tables, then a bit of CR4 whose change makes the CPU forget all of them, or one that need not."""
    for (ept, env), bit, look, to in product(_HOSTS, ("pge", "pse", "smep"), _LOOKS, (1, 0)):
        one, other = ("a5", "b4") if ept else ("p5", "q4")
        head = () if to else (f"{bit}=1",)
        for change in (f"pte.a3={one}", f"pte.a3={other}.srx", "pte.a3=none"):
            yield _of(*head, f"read.a3,{change},{bit}{to},{look}.a3", f"{look}.a3", env=env, ept=ept)
            yield _of(*head, f"read.a3,{change},{bit}{to},{bit}{1 - to},{look}.a3", env=env, ept=ept)


def program_violations_of_roots() -> Iterator[ProgramVector]:
    """An EPT violation is met under one EPT pointer: the others of the same table go by what was cached no longer."""
    for then, look, (there, back), page in product(
        ("none", "p5.r---", "p5.--x-"),
        _LOOKS,
        (("ad=1", "ad=0"), ("vmcs=1", "vmcs=0"), ("root=1", "root=0")),
        ("a3", "b3"),
    ):
        entry = "t03" if page == "a3" else "t13"
        for first in ((f"{look}.{page}",), (f"{look}.{page}", there, f"{look}.{page[0]}4", back)):
            turn = (f"{entry}={then}", there, f"{look}.{page}", back, f"{look}.{page}")
            yield _of(*first, *turn)
            yield _of("mbec=on", *first, *turn)


TURNS: Final[tuple[Callable[[], Iterator[ProgramVector]], ...]] = (
    program_restricted_below,
    program_nothing_left,
    program_tables_behind_kvm,
    program_vpid_turns,
    program_flushed_by_cr4,
    program_violations_of_roots,
)
