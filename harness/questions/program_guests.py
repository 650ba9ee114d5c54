"""The space of programs about L2's own paging registers: PAE paging and its PDPTEs, CR3 and its exits, EFER.NXE."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Final

from harness.questions.written import of
from kvmodel.question.program import ProgramVector

_WAYS: Final = ((True, "std"), (False, "std"), (False, "ept0"))  # with EPT, without it, where KVM has none itself
_RELOADS: Final = ("cr3", "cr3.0", "pge1", "pse1", "smep1")
_RESERVED: Final = ("2", "4", "20", "40", "80", "100", "10000000000000", "8000000000000000")
_FREE: Final = ("8", "10", "200", "800")
_LOOKS: Final = ("read", "write", "fetch")


def _told_apart(ept: bool) -> tuple[str, ...]:
    """Page 3 of each window is another one, so that it can be told whose page table was used."""
    return ("t13=q3", "t23=p6") if ept else ("g.b3=q3", "g.c3=p6")


def _invlpg(env: str) -> str:
    """INVLPG; where KVM has no EPT MOV to CR3 instead, since each INVLPG in PAE paging may cost the host there.

    docs/findings/invlpg-of-a-pae-guest.md has a program that asks it.
    """
    return "cr3" if env == "ept0" else "invlpg.b3"


def _pae(ept: bool, *before: str) -> tuple[str, ...]:
    return (*_told_apart(ept), *before, "pg=pae")


def program_pdptes() -> Iterator[ProgramVector]:
    """PAE paging: PDPTEs are loaded by MOV to CR3, CR0 or CR4 and by VM entry, from memory or from the VMCS, refused
    where a reserved bit is set, and not changed by a write to memory.
    """
    for (ept, env), way, to in product(_WAYS, (*_RELOADS, "invlpg.b3"), ("e1", "e2", "none")):
        if way == "invlpg.b3" and env == "ept0":
            continue
        seen = ("look.pdptr1",) if ept else ()
        yield of(*_pae(ept), f"read.b3,pte.k01={to},{way},read.b3", *seen, "read.b3", ept=ept, env=env)
        if to != "none":  # of what was not present nothing is cached
            run = f"read.a3,pte.k01={to},read.a3,{way},read.b3"
            yield of(*_pae(ept, "g.k01=none"), run, *seen, "look.g.k01", "write.b3", ept=ept, env=env)
    for (ept, env), bits, number in product(_WAYS, (*_RESERVED, *_FREE), range(4)):
        for way in ("cr3", _RELOADS[2 + number % 3], *(() if env == "ept0" else ("invlpg.b3",))):
            yield of(*_pae(ept), f"read.a3,pte.k0{number}=e0.x{bits},{way},read.b3", "read.a4", ept=ept, env=env)
        yield of(*_pae(ept), f"g.k1{number}=e1.x{bits}", "read.b3,cr3.1,read.b3", "read.c3", ept=ept, env=env)
        yield of(
            *_told_apart(ept), f"g.k0{number}=e2.x{bits}", "pg=pae", "read.b3", "cr3=1", "read.b3", ept=ept, env=env
        )
    for bits, number in product((*_RESERVED, *_FREE), range(4)):
        look = f"look.pdptr{number}"
        yield of(*_pae(True), f"pdptr{number}=e2.x{bits}", "read.b3", look, f"pdptr{number}=e1", "read.b3", look)
        if number:
            yield of(*_pae(True), f"pdptr{number}=none.x{bits}", "read.a3", f"{_LOOKS[number % 3]}.b3", "read.c3", look)
    for to, look in product(("e1", "e2", "none"), _LOOKS):
        yield of(
            *_pae(True), f"{look}.b3", f"pdptr1={to}", f"{look}.b3", "look.pdptr1", "cr3=1", f"{look}.b3", f"{look}.c3"
        )
        yield of(
            *_pae(True), f"pdptr1={to}", "vmcs=1", "pdptr1=e2", f"{look}.b3", "vmcs=0", f"{look}.b3", "look.pdptr1"
        )
        yield of(*_pae(True), f"pdptr2={to}", "vpid=1", f"{look}.c3", "pdptr2=e1", f"{look}.c3", "vpid=2", f"{look}.c3")
        yield of(*_pae(True), "read.b3", "pg=64", f"{look}.b3", "g.k01=" + to, "pg=pae", f"{look}.b3", "look.pdptr1")


def program_pae() -> Iterator[ProgramVector]:
    """L2 pages by PAE in 32-bit mode: its tables' permissions, EPT's, accessed and dirty flags are asked at both
    privilege levels.
    """
    for (ept, env), perm, look, cpl in product(_WAYS, ("urx", "swx", "uwn", "srn"), (*_LOOKS, "rmw"), (0, 3)):
        head = (*_pae(ept), *(("cpl=3",) if cpl else ()))
        to = "b3" if ept else "q3"
        yield of(*head, f"g.b3={to}.{perm}", f"{look}.b3", "wp=0", "smep=1", f"{look}.b3", ept=ept, env=env)
        clean = (f"g.b3={to}.clean", "gu.b=uwx.clean")
        yield of(*head, f"gu.b={perm}", f"{look}.b3", *clean, f"{look}.b3", "look.g.b3", "look.gu.b", ept=ept, env=env)
        if not cpl:
            run = f"read.b3,pte.b3={to}.{perm},{_invlpg(env)},{look}.b3"
            yield of(*head, run, f"read.b3,pte.b3=none,cr3,{look}.b3", "smap=1", f"{look}.c3", ept=ept, env=env)
    perms = ("r---", "rw--", "r-x-", "r--u", "----")
    for perm, look, cpl, mbec in product(perms, _LOOKS, (0, 3), (False, True)):
        head = (*_pae(True), *(("mbec=on",) if mbec else ()), *(("cpl=3",) if cpl else ()))
        yield of(*head, f"t13=q3.{perm}", f"{look}.b3", "root=1", "ad=1", f"m1=t0.{perm}", f"{look}.b4")
        yield of(*head, "cr3=1", f"t23=q5.{perm}", "pg=pae", f"{look}.b3", "t23=q4", "invept1.r0", f"{look}.b3")
    for look, vpid in product(_LOOKS, (0, 1)):
        head = (*_pae(True), *(("vpid=1",) if vpid else ()))
        yield of(*head, f"read.b3,pte.k01=e2,save,{look}.b3", "look.pdptr1", f"{look}.b3")
        yield of(*head, "pdptr1=e1", "g.k01=e2", "read.a3", "host.save", f"{look}.b3", "read.b3,cr3,save,read.b3")
    for ept, env in _WAYS[1:]:
        yield of(
            *_pae(ept),
            "read.b3,save,read.c3",
            "read.b3,pte.k01=e2,cr3,save,read.b3",
            "g.k01=e1",
            "host.save",
            "read.b3",
            ept=ept,
            env=env,
        )


def program_efer() -> Iterator[ProgramVector]:
    """EFER.NXE is changed by L2 and between VM entries while its tables have XD: with MSR bitmaps, without them, and
    where VM entry does not load EFER.
    """
    heads = ((), ("pg=pae",))
    for (ept, env), head, look in product(_WAYS, heads, _LOOKS):
        to = "b3" if ept else "q3"
        for setting in (f"g.b3={to}.uwn", "gu.b=uwn"):
            start = (*_told_apart(ept), *head, setting)
            own = (f"nxe0,{look}.b3", f"{look}.a3", f"nxe1,{look}.b3", f"{look}.b3")
            yield of(*start, "msrs=pass", f"{look}.b3", *own, ept=ept, env=env)
            yield of(
                *start,
                "msrs=pass",
                "cpl=3",
                f"{look}.b3",
                "nxe=0",
                f"{look}.b3",
                "nxe=1",
                f"{look}.b3",
                ept=ept,
                env=env,
            )
            yield of(*start, "msrs=read", "nxe=0", f"nxe1,{look}.b3", "smep=1", f"nxe0,{look}.b3", ept=ept, env=env)
            yield of(*start, "efer=0", f"{look}.b3", "msrs=pass", f"nxe1,{look}.b3", f"{look}.b3", ept=ept, env=env)
        start = (*_told_apart(ept), *head)
        for change in ("msrs=write", "msrs=none"):
            run = f"{look}.a3" if look == "fetch" else f"{look}.a3,nxe1,{look}.b3"
            yield of(
                *start,
                "msrs=pass",
                "nxe0,read.a3",
                change,
                run,
                f"nxe0,{look}.b3",
                "msrs=pass",
                f"nxe1,{look}.b3",
                ept=ept,
                env=env,
            )
        if head:
            run = f"read.b3,pte.b3={to}.uwn,nxe0,{_invlpg(env)},nxe1,{look}.b3"
            yield of(*start, "msrs=pass", run, "nxe0,save,read.b3", f"{look}.b3", ept=ept, env=env)


def program_cr3() -> Iterator[ProgramVector]:
    """L2 loads CR3 with another table, the same, the same with PWT: with CR3-load exiting and CR3-target values."""
    for (ept, env), head, look in product(_WAYS, ((), ("pg=pae",)), _LOOKS):
        start = (*_told_apart(ept), *head)
        for number in (1, 2):
            yield of(
                *start,
                f"read.b3,cr3.{number},{look}.b3",
                "look.cr3",
                f"read.c3,cr3.0,{look}.b3",
                "look.cr3",
                f"{look}.a3",
                ept=ept,
                env=env,
            )
            yield of(
                *start,
                f"cr3={number}",
                f"{look}.b3",
                "vpid=1" if env != "ept0" else "smap=1",
                f"{look}.b3",
                "cr3=0",
                f"{look}.b3",
                ept=ept,
                env=env,
            )
            yield of(
                *start,
                "cr3exit=1",
                f"read.b3,cr3.{number},{look}.b3",
                f"{look}.b3",
                "cr3exit=0",
                f"cr3.0,{look}.b3",
                ept=ept,
                env=env,
            )
        yield of(*start, "cr3exit=1", f"read.b3,cr3,{look}.b3", "cr3exit=0", f"read.b3,cr3,{look}.b3", ept=ept, env=env)
    for head, count, place, number in product(((), ("pg=pae",)), range(6), range(4), (1, 2)):
        start = (*_told_apart(True), *head, "cr3exit=1")
        run = f"read.b3,cr3.{number},read.b3"
        yield of(*start, f"targets={count}", f"target{place}={number}", run, "targets=0", "cr3.0,read.b3")
        yield of(*start, f"target{place}=0", f"targets={count}", "read.b3,cr3,read.b3", f"cr3.{3 - number},read.c3")


GUESTS: Final = (program_pdptes, program_pae, program_efer, program_cr3)
