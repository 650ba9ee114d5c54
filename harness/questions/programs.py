"""The space of programs: tables shared and swapped, several EPT pointers, the guest's own tables, invalidations.

Parts are named, deterministic generators like those of ``harness.questions.core``; a part that samples has its seed
here. Each says what it is for.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Final

from harness.questions.program_guests import GUESTS
from harness.questions.program_turns import TURNS
from harness.questions.written import of as _of
from kvmodel.question.program import (
    BAD_EPTP,
    PAGES,
    REGIONS,
    UPPER_ENTRIES,
    WINDOWS,
    Control,
    Flush,
    Invept,
    Invvpid,
    L2Run,
    Op,
    ProgramVector,
    SetEntry,
    SetGuest,
    SetGuestUpper,
    Step,
    Toggle,
    Touch,
    level_of,
)
from kvmodel.question.vector import RWXU, UWX, Access, GuestPerm, Perm

SEED: Final = 20250313  # the day the series was posted
LOOK: Final = ("read", "write", "fetch")
PERMS: Final = tuple(map(Perm.parse, ("r---", "rw--", "r-x-", "r--u", "rwx-", "rw-u", "r-xu", "----")))


def _switch(mbec: bool) -> tuple[str, ...]:
    return ("mbec=on",) if mbec else ()


def program_shared_tables() -> Iterator[ProgramVector]:
    """Two upper entries with different permissions that lead to one table: each path has its own answer."""
    for mbec, perm, (entry, table), look in product(
        (False, True), PERMS, (("m1", "t0"), ("d0b", "m0"), ("r0c", "d2")), LOOK
    ):
        window = "c" if entry == "r0c" else "b"
        setting = f"{entry}={table}" + ("" if perm == RWXU else f".{perm}")
        first = f"{look}.{window}3"
        for cpl in (0, 3) if look == "fetch" else (3,):
            head = (*_switch(mbec), *((f"cpl={cpl}",) if cpl else ()), setting)
            yield _of(*head, first, f"{look}.a3", first)
            if look != "read":  # the path is there before the other makes an entry of the table that it must not have
                yield _of(*head, f"read.{window}3", f"{look}.a3", first)
            yield _of(*head, f"{look}.a3", first, "t03=p5.r-x-", "invept1.r0", first, f"{look}.a3")


def program_moved_tables() -> Iterator[ProgramVector]:
    """An upper entry is led to another table, to a large page and back, pages swapped: with and without INVEPT."""
    moves = (
        ("m0=t1", "m0=t0"),
        ("m0=g0", "m0=t0"),
        ("m0=g1.r-x-", "m0=t0"),
        ("m0=none", "m0=t0"),
        ("d0a=m1", "d0a=m0"),
        ("d0a=none", "d0a=m1"),
        ("r0c=d2", "r0c=d1"),
        ("t03=p4", "t03=p3"),
        ("t03=q3.r--u", "t03=p3.rw--"),
        ("t03=none", "t03=q7"),
    )
    ways = ((), ("invept1.r0",), ("invept2.r0",), ("invept1.r1",))
    for mbec, (there, back), way, look in product((False, True), moves, ways, LOOK):
        page = "c3" if there.startswith("r0c") else "a3"
        mark = ("t13=p6",)  # the other table maps another page, so that it can be told apart
        what = f"{look}.{page}"
        yield _of(*_switch(mbec), *mark, what, there, *way, what, back, *way, what)


def program_roots() -> Iterator[ProgramVector]:
    """Two EPT pointers with tables in common are entered in turn: other controls or A/D bit, one invalidated."""
    for control, perm, way in product(
        ("mbec=on", "ad=1", "vmcs=1"), PERMS, ((), ("invept1.r0",), ("invept1.r1",), ("invept2.r0",))
    ):
        back = {"mbec=on": "mbec=off", "ad=1": "ad=0", "vmcs=1": "vmcs=0"}[control]
        looks = "read.a3,read.b2"
        for look in ("write.a3", "fetch.a3"):
            yield _of(looks, "root=1", control, looks, f"t03=p5.{perm}", *way, look, "root=0", back, look, *way, look)
            yield _of("m1=t0", look, "root=1", f"d2a=m1.{perm}", control, look, "root=0", *way, look, back, look)


def program_guest_tables() -> Iterator[ProgramVector]:
    """L2's own page tables are changed by L1 and by L2, with INVLPG, MOV to CR3 or neither, at both privilege
    levels.
    """
    perms = tuple(map(GuestPerm.parse, ("uwx", "urx", "uwn", "swx", "srn", "urn")))
    for (ept, env), perm, look, cpl in product(
        ((True, "std"), (False, "std"), (False, "ept0")), perms, (*LOOK, "rmw"), (0, 3)
    ):
        target = "b5" if ept else "q5"
        setting = f"a3={target}" + ("" if perm == UWX else f".{perm}")
        level = ("cpl=3",) if cpl else ()
        yield _of(*level, f"{look}.a3", f"g.{setting}", f"{look}.a3", f"gu.a={perm}", f"{look}.a3", env=env, ept=ept)
        yield _of(f"read.a3,pte.{setting},invlpg.a3,{look}.a3", *level, f"{look}.a3", env=env, ept=ept)
        yield _of(f"read.a3,pte.{setting},cr3,{look}.a3", "g.a3=none", f"{look}.a3", env=env, ept=ept)


def program_control_registers() -> Iterator[ProgramVector]:
    """CR0.WP, CR4.SMEP and CR4.SMAP are changed by L2 in the middle, and between entries."""
    perms = tuple(map(GuestPerm.parse, ("uwx", "urx", "srx", "swx")))
    for (ept, env), perm, (name, off), look in product(
        ((True, "std"), (False, "std"), (False, "ept0")), perms, (("wp", 1), ("smep", 0), ("smap", 0)), LOOK
    ):
        target = "a3" if ept else "p3"
        setting = f"g.a3={target}" + ("" if perm == UWX else f".{perm}")
        to = 1 - off
        yield _of(
            setting,
            f"{look}.a3",
            f"{name}{to},{look}.a3",
            f"{look}.a3",
            f"{name}={off}",
            f"{look}.a3",
            env=env,
            ept=ept,
        )
        if look != "fetch":
            yield _of(setting, f"{name}{to},{look}.a3,{name}{off},{look}.a3", env=env, ept=ept)
            yield _of(setting, f"{name}{off},{look}.a3,{name}{to},{look}.a3", env=env, ept=ept)


def program_flags() -> Iterator[ProgramVector]:
    """Accessed and dirty flags are cleared and read back after accesses: in EPT12 with EPTP bit 6 and without, in L2's
    own tables.
    """
    looks = (*LOOK, "rmw")
    entries = (("t03=p3", "a3"), ("m0=t0", "a3"), ("m0=g0", "a3"), ("d0a=m0", "a3"), ("r0c=d1", "c3"), ("d1c=m2", "c3"))
    for ad, (setting, page), look, mbec in product((0, 1), entries, looks, (False, True)):
        entry, large = setting.partition("=")[0], setting.endswith("g0")
        seen = (f"look.{entry}",)
        head = (*_switch(mbec), *(("ad=1",) if ad else ()))
        yield _of(*head, f"{setting}.clean", f"{look}.{page}", *seen, f"write.{page}", *seen)
        for way in ((), ("invept1.r0",)):
            to = f"ad={1 - ad}"
            yield _of(*head, f"write.{page}", f"{setting}.clean", *way, f"read.{page}", *seen, f"{look}.{page}", *seen)
            if not (mbec or large):
                yield _of(*head, f"{setting}.clean", f"read.{page}", to, *way, f"{look}.{page}", *seen, "look.m0")
                turn = ("root=1", to, f"{setting}.clean", *way, f"{look}.{page}", *seen)
                back = ("root=0", f"ad={ad}", f"{look}.{page}", *seen)
                yield _of(*head, f"{look}.{page}", *turn, *back)
    for ad, perm, look in product((0, 1), ("r---", "rw--", "r-x-", "--x-"), LOOK):
        head = ("ad=1",) if ad else ()
        yield _of(
            *head, f"t03=p3.{perm}.clean", "m0=t0.clean", f"{look}.a3", "look.t03", "look.m0", "read.a4", "look.m0"
        )
        yield _of(
            *head, f"m1=t0.{perm}.clean", "t03=p3.clean", f"{look}.b3", "look.t03", f"{look}.a3", "look.t03", "look.m1"
        )
    for (ept, env), look, cpl in product(((True, "std"), (False, "std"), (False, "ept0")), looks, (0, 3)):
        to = "a3" if ept else "p3"
        level, both = (("cpl=3",) if cpl else ()), ("look.g.a3", "look.gu.a")
        clean = (f"g.a3={to}.clean", "gu.a=uwx.clean")
        yield _of(*level, *clean, f"{look}.a3", *both, "write.a3", *both, env=env, ept=ept)
        yield _of(*level, "write.a3", *clean, "read.a3", *both, f"{look}.a3", *both, env=env, ept=ept)
        yield _of(*clean, f"read.a3,pte.a3={to}.clean,cr3,{look}.a3", *both, env=env, ept=ept)
        yield _of(
            *level, f"g.a3={to}.urx.clean", "wp=0", f"{look}.a3", *both, "wp=1", f"{look}.a3", *both, env=env, ept=ept
        )


def program_two_pages() -> Iterator[ProgramVector]:
    """Accesses over two pages of which one forbids them: nothing is done, but in the first page what goes in steps."""
    whats = ("readx.a3", "writex.a3", "rmwx.a3", "fetchx.a3", "stos.a3", "movs.b5.a3")
    perms = ("r---", "rw--", "r-x-", "----", "r--u")
    for what, perm, mbec in product(whats, perms, (False, True)):
        for cpl in (0, 3) if mbec or what[0] == "f" else (3,):
            head = (*_switch(mbec), *((f"cpl={cpl}",) if cpl else ()))
            yield _of(*head, f"t03=p3.{perm}", f"t16=q6.{perm}", what, "t03=p3", "invept1.r0", what)
            yield _of(*head, f"t04=q4.{perm}", what, "t04=q4", "invept1.r0", what, f"m1=t0.{perm}", what)
    for what in whats:
        yield _of("t04=q7", what, "m0=g0", "invept1.r0", what, "m0=t0", "t03=none", "t04=none", "invept2.r0", what)
        yield _of("t03=p3.mt2", what, "t03=q3", "t04=q4.mt2", "invept1.r0", what, "t04=q4", "invept1.r0", what)
        yield _of("ad=1", "t03=p3.clean", "t04=p4.r---.clean", what, "look.t03", "t04=p4.clean", "invept1.r0", what)
    perms_of_guest = ("urx", "swn", "srx")
    for what, perm, (ept, env) in product(whats, perms_of_guest, ((True, "std"), (False, "std"), (False, "ept0"))):
        first, second = ("a3", "a4") if ept else ("p3", "p4")
        turned = f"g.a4={second}.{perm}"
        yield _of("cpl=3", turned, what, f"g.a4={second}", what, f"g.a3={first}.{perm}", what, env=env, ept=ept)
        yield _of("smep=1", turned, what, "g.a4=none", what, "wp=0", f"g.a4={second}.{perm}", what, env=env, ept=ept)


def program_vpids() -> Iterator[ProgramVector]:
    """What the CPU may keep of the guest's tables under a VPID, and what INVVPID of each type takes away."""
    for kind, vpid, look, ept in product(range(4), (1, 2), LOOK, (True, False)):
        target = "a4" if ept else "q4"
        steps = (f"{look}.a3", f"g.a3={target}", f"{look}.a3", f"invvpid{kind}.1.a3", f"{look}.a3")
        yield _of(f"vpid={vpid}", *steps, "vpid=0", f"{look}.a3", "vpid=1", f"{look}.a3", ept=ept)


def program_invalidations() -> Iterator[ProgramVector]:
    """INVEPT and INVVPID of every type, with good operands and bad ones: each gives the manual's number."""
    for kind, bad in product((0, 1, 2, 3, 4, 31, 64), ("", *BAD_EPTP)):
        yield _of(f"invept{kind}.r0" + (f".{bad}" if bad else ""), "read.a0")
    for kind, vpid, bad in product((0, 1, 2, 3, 4, 32), (0, 1), ("", "reserved", "noncanonical")):
        yield _of(f"invvpid{kind}.{vpid}.a0" + (f".{bad}" if bad else ""), "read.a0")


def program_vmcs() -> Iterator[ProgramVector]:
    """VMCLEAR, VMPTRLD, VMLAUNCH, VMRESUME, VMREAD and VMWRITE are made in right states and wrong ones: the manual's
    numbers.
    """
    for what, region in product(("vmclear", "vmptrld"), REGIONS):
        yield _of("vmclear.c", "vmptrld.c", f"{what}.{region}", "vmread.6800", "read.a0")
        yield _of("vmclear.c", "vmptrld.c", "vmclear.c", f"{what}.{region}", "vmread.6800", "read.a0")
    for entry in ("vmlaunch", "vmresume"):
        yield _of("read.a0", entry, entry, "read.a1")
        yield _of("read.a0", "vmclear.a", "vmptrld.a", entry, "vmresume", "vmlaunch", "read.a1")
        yield _of("read.a0", "vmclear.a", entry, "read.a1")
        yield _of("vmclear.c", "vmptrld.c", entry, "vmread.4400", "read.a0")
        yield _of("read.a0", "vmcs=1", "read.a1", "vmptrld.a", "vmresume", "vmclear.b", "vmresume", "vmptrld.b", entry)
    fields = (
        0x800,
        0xC02,
        0x4002,
        0x4012,
        0x4816,
        0x6804,
        0x681E,
        0x6C16,
        0x2800,
        0x2801,
        0x2010,
        0x2011,
        0x4402,
        0x6400,
    )
    absent = (0x68FE, 0x40FE, 0x8FE, 0x20FE, 0x6801, 0x4003, 0x801, 0x1800, 0x7800, 0x8800, 0x1_6800, 1 << 32 | 0x6800)
    for encoding in (*fields, *absent):
        value = 0x1234_5678_9ABC_DEF0
        around = (
            f"vmwrite.{encoding:x}={value:x}",
            f"vmread.{encoding:x}",
            f"vmwrite.{encoding:x}=0",
            f"vmread.{encoding:x}",
        )
        yield _of("vmclear.c", "vmptrld.c", *around)
        yield _of("vmclear.c", "vmptrld.c", "vmclear.d", around[0], "vmptrld.d", around[1], "vmptrld.c", around[1])
        yield _of("vmclear.c", "vmptrld.c", "vmclear.c", *around[:2])


def program_host_settings() -> Iterator[ProgramVector]:
    """The same is asked of other hosts: large pages under L1, the NX-huge-page mitigation, no EPT accessed and dirty
    flags.
    """
    for env, mbec, way, look in product(("huge", "hugenx", "eptad0"), (False, True), ((), ("invept1.r0",)), LOOK):
        yield _of(
            *_switch(mbec),
            f"{look}.a3",
            "m0=g0.rw-u",
            *way,
            f"{look}.a3",
            "m1=g0",
            f"{look}.b3",
            "m0=t0",
            *way,
            f"{look}.a3",
            f"{look}.b4",
            env=env,
        )


def program_behind_kvm() -> Iterator[ProgramVector]:
    """The host does this behind KVM's back: other pages, ageing, dirty logging, nx_huge_pages switched."""
    calls = (
        ("host.remap.p3",),
        ("host.age",),
        ("host.log",),
        ("host.log", "host.unlog"),
        ("host.nx-force",),
        ("host.nx-force", "host.nx-off"),
    )
    for env, calling, mbec, look in product(("std", "huge", "hugenx", "eptad0"), calls, (False, True), LOOK):
        if (env == "hugenx" and calling == ("host.nx-force",)) or (env != "std" and look == "read"):
            continue
        if calling[0] == "host.remap.p3" and env.startswith("huge"):  # its pages are of 2 MiB
            continue
        for way in ("", "m1=t0.r-x-"):
            steps = (*_switch(mbec), *((way,) if way else ()), "read.a3,write.b4" if not way else "read.a3,read.b4")
            yield _of(*steps, calling[0], f"{look}.a3", f"{look}.b3", *calling[1:], "write.a3", f"{look}.b4", env=env)
    for calling, look in product(calls[:4], LOOK):
        yield _of("read.a3,write.a4", calling[0], f"{look}.a3", *calling[1:], f"{look}.a3", ept=False)
        yield _of("read.a3,write.a4", calling[0], f"{look}.a3", *calling[1:], f"{look}.a3", ept=False, env="ept0")


def program_saved() -> Iterator[ProgramVector]:
    """The virtual CPU's state is saved and restored, in the middle of L2 and between L1's VM entries: all goes on as
    before.
    """
    heads: tuple[tuple[str, ...], ...] = ((), ("mbec=on",), ("ad=1",), ("root=1", "vmcs=1", "vpid=1"))
    for head in heads:
        yield _of(*head, "t03=p3.rw--.clean", "read.a3,save,write.a3,read.b4", "look.t03", "fetch.a3")
        yield _of(*head, "t03=p3.r-x-", "read.a3", "host.save", "fetch.a3", "t03=q4", "invept2.r0", "write.a3")
    turns: tuple[tuple[str, ...], ...] = ((), ("vpid=1",))
    for (ept, env), head in product(((True, "std"), (False, "std"), (False, "ept0")), turns):
        if head and env == "ept0":
            continue
        one, other = ("a3", "b5") if ept else ("p3", "q5")
        yield _of(*head, f"g.a3={one}.srx", "read.a3,wp0,save,write.a3", "write.a3", env=env, ept=ept)
        yield _of(*head, f"read.a3,pte.a3={other},invlpg.a3,smap0,save,smap1,read.a3", "fetch.a3", env=env, ept=ept)
        yield _of(*head, f"g.a3={one}.swx", "smep1,save,fetch.a3", "host.save", "nxe=0", "fetch.a3", env=env, ept=ept)
    own = ("vmclear.c", "vmptrld.c")
    yield _of(*own, "vmwrite.681e=10", "host.save", "vmread.681e", "vmread.4400", "read.a0")
    yield _of(*own, "vmclear.c", "host.save", "vmread.681e", "vmptrld.c", "read.a0")
    yield _of(*own, "vmlaunch", "host.save", "vmread.4400", "vmwrite.4400=1", "vmread.4400")
    yield _of("read.a0", "host.save", "vmresume", "vmlaunch", "read.a1")
    yield _of("read.a0", "vmclear.a", "vmptrld.a", "host.save", "vmresume", "vmlaunch", "host.save", "vmlaunch")
    yield _of(*own, "vmwrite.6800=80000031", "vmclear.d", "vmptrld.d", "host.save", "vmptrld.c", "vmread.6800")


def _random_perm(rng: random.Random) -> Perm:
    return rng.choice((RWXU, rng.choice(PERMS), rng.choice(list(Perm.all()))))


def _random_entry(rng: random.Random) -> SetEntry:
    entry = rng.choice([*UPPER_ENTRIES, *(f"t{n}{rng.randrange(PAGES)}" for n in (0, 0, 1, 2))])
    targets = {
        4: ("d1", "d2"),
        3: ("m0", "m1", "m2"),
        2: ("t0", "t1", "t2", "g0", "g1"),
        1: tuple(f"{kind}{n}" for kind in "pq" for n in range(PAGES)),
    }[level_of(entry)]
    if rng.random() < 0.1:
        return SetEntry(entry, "none")
    made = SetEntry(entry, rng.choice(targets), _random_perm(rng))
    return replace(made, memtype=2) if made.is_leaf and rng.random() < 0.03 else made


def _random_page(rng: random.Random) -> str:
    return f"{rng.choice(WINDOWS)}{rng.choice((0, 3, 3, 3, 4))}"


def _random_guest(rng: random.Random, *, ept: bool, by_l2: bool) -> SetGuest:
    page = _random_page(rng)
    perm = rng.choice((UWX, GuestPerm(rng.random() < 0.7, rng.random() < 0.7, rng.random() < 0.7)))
    if rng.random() < 0.1:
        return SetGuest(page, "", present=False, by_l2=by_l2)
    target = _random_page(rng) if ept else f"{rng.choice('pq')}{rng.randrange(PAGES)}"
    return SetGuest(page, target, perm, by_l2=by_l2)


def _random_run(rng: random.Random, *, ept: bool, cpl: int) -> L2Run:
    ops: list[Op] = []
    for _ in range(rng.choice((1, 1, 2, 3, 4))):
        dice = rng.random()
        if cpl == 0 and dice < 0.12:
            ops.append(Toggle(rng.choice(("wp", "smep", "smap")), rng.randrange(2)))
        elif cpl == 0 and dice < 0.22:
            ops.append(_random_guest(rng, ept=ept, by_l2=True))
        elif cpl == 0 and dice < 0.3:
            ops.append(Flush(rng.choice(("", _random_page(rng)))))
        else:
            ops.append(Touch(rng.choice((Access.READ, Access.WRITE, Access.RMW)), _random_page(rng)))
    last = rng.choice((Access.READ, Access.WRITE, Access.FETCH, Access.FETCH))
    return L2Run((*ops, Touch(last, _random_page(rng))))


def _random_control(rng: random.Random, *, ept: bool) -> Control:
    names = ["cpl", "cpl", "vpid", "vmcs", "wp", "smep", "smap", "nxe"] + (
        ["mbec", "mbec", "ad", "root", "root"] if ept else []
    )
    name = rng.choice(names)
    values = {"cpl": (0, 3), "vpid": (0, 1, 2)}.get(name, (0, 1))
    return Control(name, rng.choice(values))


def sampled(seed: int, count: int, *, ept: bool = True, env: str = "std") -> Iterator[ProgramVector]:
    """The function gives ``count`` programs of twelve steps at most, drawn by ``seed``."""
    rng = random.Random(seed)
    for _ in range(count):
        steps: list[Step] = []
        cpl = 0
        for _ in range(rng.randrange(4, 12)):
            dice = rng.random()
            if dice < 0.3:
                made: Step = _random_control(rng, ept=ept)
                cpl = made.value if isinstance(made, Control) and made.name == "cpl" else cpl
            elif dice < 0.5 and ept:
                made = _random_entry(rng)
            elif dice < 0.6 and ept:
                made = Invept(rng.choice((1, 1, 2)), rng.choice(("r0", "r1")))
            elif dice < 0.65:
                made = Invvpid(rng.randrange(4), rng.randrange(1, 3), _random_page(rng))
            elif dice < 0.75:
                made = _random_guest(rng, ept=ept, by_l2=False)
            elif dice < 0.78:
                made = SetGuestUpper(
                    rng.choice(WINDOWS), GuestPerm(rng.random() < 0.7, rng.random() < 0.7, rng.random() < 0.8)
                )
            else:
                made = _random_run(rng, ept=ept, cpl=cpl)
            if env == "ept0" and isinstance(made, Invvpid):
                continue
            steps.append(made)
        yield ProgramVector((*steps, _random_run(rng, ept=ept, cpl=cpl)), env, ept)


def program_sampled() -> Iterator[ProgramVector]:
    """Programs of whatever L1 and L2 may do, by chance: with EPT, without it, and where KVM has none itself."""
    yield from sampled(SEED, 600)
    yield from sampled(SEED + 1, 200, ept=False)
    yield from sampled(SEED + 2, 200, ept=False, env="ept0")
    yield from sampled(SEED + 3, 100, env="eptad0")
    yield from sampled(SEED + 4, 100, env="hugenx")


PROGRAMS: Final[dict[str, Callable[[], Iterator[ProgramVector]]]] = {
    part.__name__: part
    for part in (
        program_shared_tables,
        program_moved_tables,
        program_roots,
        program_guest_tables,
        program_control_registers,
        program_flags,
        program_two_pages,
        program_vpids,
        program_invalidations,
        program_vmcs,
        program_host_settings,
        program_behind_kvm,
        program_saved,
        *GUESTS,
        *TURNS,
        program_sampled,
    )
}
