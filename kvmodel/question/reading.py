"""From an id, in full or in short, to the vector that it names."""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches

from kvmodel.question.ids import expanded
from kvmodel.question.program import is_program, program
from kvmodel.question.relations import EXISTENCE, RELATIONS
from kvmodel.question.sequence import PREFIX, SEPARATOR, sequence
from kvmodel.question.vector import (
    CLIENT_STEPS,
    ENVIRONMENTS,
    LOG_PREFIX,
    MOVES,
    NX_PREFIX,
    Access,
    AccessVector,
    CapsVector,
    ClientSequence,
    ClientVector,
    EntryVector,
    Evmcs,
    GuestPerm,
    HostVector,
    LogVector,
    Mbec,
    MmioVector,
    MsrVector,
    NxVector,
    OnHost,
    Paging,
    Perm,
    UserCapsVector,
    UserMsrVector,
    Vector,
    VectorError,
)
from kvmodel.question.vm_entry import VmEntryVector, changes
from kvmodel.question.vm_exit import VmExitVector, steps

_PERM = r"[rwxu-]{4}"
_TAIL = r"mbec=(?P<mbec>on|off|na)\.xo(?P<xo>[01])\.ev(?P<ev>[012])\.env=(?P<env>\w+)"
_ACCESS_RE = re.compile(
    rf"e(?P<size>4k|2m|1g)\.l(?P<ll>[123])=(?P<leaf>{_PERM})\.l(?P<ul>[234])=(?P<upper>{_PERM})"
    r"\.mt(?P<mt>[0-7])\.xb(?P<xb>[0-9a-f]+)\.ub(?P<ub>[0-9a-f]+)\.(?P<access>\w+)"
    r"\.gp(?P<gp>\w{3})\.gu(?P<gu>\w{3})\.pg(?P<pg>off|32|pae|64)\.cpl(?P<cpl>[03])\.wp(?P<wp>[01])"
    r"\.smep(?P<smep>[01])\.smap(?P<smap>[01])\.nxe(?P<nxe>[01])\.ad(?P<ad>[01])\." + _TAIL
)
_ENTRY_RE = re.compile(r"entry\.ept(?P<ept>[01])\." + _TAIL)
_VM_ENTRY_RE = re.compile(r"vmentry\.(?P<changes>[a-z0-9_:=+]+)\.pg(?P<pg>off|32|pae|64)\." + _TAIL)
_VM_EXIT_RE = re.compile(
    r"vmexit\.(?P<steps>[a-z0-9+]+)\.(?P<changes>[a-z0-9_:=+]+)\.pg(?P<pg>off|32|pae|64)\." + _TAIL
)
_MSR_RE = re.compile(r"msr\.m(?P<msr>[0-9a-f]+)\." + _TAIL)
_CAPS_RE = re.compile(r"caps\.(?P<relation>[a-z0-9-]+)\." + _TAIL)
_USER_CAPS_RE = re.compile(r"ucaps\.(?P<relation>[a-z0-9-]+)\.(?P<reader>vcpu|kvm)\.env=(?P<env>\w+)")
_MMIO_RE = re.compile(r"mmio\.(?P<access>\w+)\." + _TAIL)
_CLIENT_RE = re.compile(r"cli\.(?P<mode>real|prot|long)\.(?P<access>\w+)\.pg(?P<page>[us])\.env=(?P<env>\w+)")
_SEQUENCE_RE = re.compile(
    r"cli\.(?P<mode>real|prot|long)\.pg(?P<page>[us])\.m(?P<memory>4k|2m)\.(?P<steps>[a-z+]+)\.env=(?P<env>\w+)"
)
_MSR_STEP = r"(?:[cs]\d\d?|kvm)"
_USER_MSR_RE = re.compile(rf"umsr\.m(?P<msr>48b|48c)\.(?P<steps>{_MSR_STEP}(?:\+{_MSR_STEP})*)\.env=(?P<env>\w+)")
_HOST_RE = re.compile(r"host\.(?P<what>param|m48b|m48c|taccess|tspte|removed|reload|log)\.env=(?P<env>\w+)")
_SIZES = {"4k": 1, "2m": 2, "1g": 3}


def _access(text: str) -> Access:
    try:
        return Access(text)
    except ValueError:
        known = ", ".join(a.value for a in Access)
        raise VectorError(f"access {text!r} is not known: use one of {known}") from None


def _env(name: str) -> str:
    if name not in ENVIRONMENTS:
        known = ", ".join(known for known, env in ENVIRONMENTS.items() if env.taken is None)
        near = get_close_matches(name, ENVIRONMENTS, 3) if name.startswith("no_") else ["no_ept_1gb"]
        raise VectorError(
            f"environment {name!r} is not known: use one of {known}, or no_ and a capability of VMX, as in "
            f"{', '.join(near or ['no_ept_1gb'])}"
        )
    return name


def _common(m: re.Match[str]) -> tuple[Mbec, bool, Evmcs, str]:
    return Mbec(m["mbec"]), m["xo"] == "1", Evmcs(int(m["ev"])), _env(m["env"])


def _relation(name: str, asked: Collection[str]) -> str:
    if name not in RELATIONS:
        raise VectorError(f"relation {name!r} is not known: use one of {', '.join(RELATIONS)}")
    if name not in asked:
        raise VectorError(f"relation {name!r} is about which MSRs L1 can read: ask it of L1, as caps.{name}")
    return name


def parse_access(text: str) -> AccessVector:
    """The access vector that ``text`` names; VectorError where it names none."""
    m = _ACCESS_RE.fullmatch(text)
    if m is None:
        raise VectorError(f"{text!r} is not an access of L2: every field is written, as in {AccessVector().id!r}")
    leaf_level, upper_level = int(m["ll"]), int(m["ul"])
    if _SIZES[m["size"]] != leaf_level or upper_level <= leaf_level:
        raise VectorError(f"{text!r}: e4k goes with l1, e2m with l2, e1g with l3, and the second level is above")
    return AccessVector(
        *_common(m),
        leaf_level=leaf_level,
        leaf=Perm.parse(m["leaf"]),
        upper_level=upper_level,
        upper=Perm.parse(m["upper"]),
        memtype=int(m["mt"]),
        leaf_bits=int(m["xb"], 16),
        upper_bits=int(m["ub"], 16),
        access=_access(m["access"]),
        gp=GuestPerm.parse(m["gp"]),
        gu=GuestPerm.parse(m["gu"]),
        paging=Paging(m["pg"]),
        cpl=int(m["cpl"]),
        wp=m["wp"] == "1",
        smep=m["smep"] == "1",
        smap=m["smap"] == "1",
        nxe=m["nxe"] == "1",
        ad=m["ad"] == "1",
    )


def _client_steps(m: re.Match[str]) -> tuple[str, ...]:
    steps = tuple(m["steps"].split("+"))
    for step in steps:
        if step not in CLIENT_STEPS:
            raise VectorError(f"step {step!r} is not known: use {', '.join(CLIENT_STEPS)}, joined by '+'")
    if m["mode"] != "long" and m["page"] == "s":
        raise VectorError(f"mode {m['mode']} with pgs: without paging every page is a user page, write pgu")
    if m["mode"] == "real" and {"mread", "mwrite"} & set(steps):
        raise VectorError("real mode does not reach MMIO, which lies beyond 64 KiB: use prot or long")
    _check_moves(steps)
    return steps


def _check_moves(steps: tuple[str, ...]) -> None:
    """Raises VectorError where a slot that moves is logged too, or code is fetched from where no memory is."""
    if set(MOVES) & set(steps) and {"log", "unlog", "sync"} & set(steps):
        raise VectorError(f"{'+'.join(steps)!r}: a slot that is moved is not logged too; make two questions of it")
    away = False
    for step in steps:
        away = step in ("gone", "moved") or (away and step not in ("ronly", "back"))
        if away and step == "fetch":
            raise VectorError(f"{'+'.join(steps)!r}: KVM fetches no code from user space; write back before fetch")


def parse(text: str) -> Vector:
    """The vector that ``text`` names, in full or in short. VectorError with reason and mend where it is none."""
    if is_program(text):
        return program(text)
    if text.startswith(LOG_PREFIX) and is_program(inner := text.removeprefix(LOG_PREFIX)):
        return LogVector(program(inner))
    vector = _of_full(text) or _of_full(expanded(text))
    if vector is None:
        raise VectorError(f"{text!r} is no vector: two of its fields do not go together")
    return vector


def _of_full(text: str) -> Vector | None:
    """The vector of a full id; None where a field is left out, or it is no id. VectorError as ``parse``."""
    if text.startswith(LOG_PREFIX):
        inner = _of_full(text.removeprefix(LOG_PREFIX))
        if isinstance(inner, LogVector | OnHost):
            raise VectorError(f"{text!r}: {LOG_PREFIX} goes before a question to an L1; host.log is of the host itself")
        return None if inner is None else LogVector(inner)
    if text.startswith(PREFIX):
        first, *turns = text.removeprefix(PREFIX).split(SEPARATOR)
        return sequence(parse_access(first), *turns) if _ACCESS_RE.fullmatch(first) else None
    if text.startswith(NX_PREFIX):
        if not _ACCESS_RE.fullmatch(text.removeprefix(NX_PREFIX)):
            return None
        asked = parse_access(text.removeprefix(NX_PREFIX))
        if not asked.machine.env.nx_huge_pages:
            raise VectorError(f"{text!r}: {NX_PREFIX} goes before an access with env=hugenx, as in {NxVector().id!r}")
        return NxVector(asked)
    if _ACCESS_RE.fullmatch(text):
        return parse_access(text)
    if m := _ENTRY_RE.fullmatch(text):
        return EntryVector(*_common(m), ept=m["ept"] == "1")
    if m := _VM_ENTRY_RE.fullmatch(text):
        return VmEntryVector(*_common(m), changes=changes(m["changes"]), paging=Paging(m["pg"]))
    if m := _VM_EXIT_RE.fullmatch(text):
        made = changes(m["changes"])
        return VmExitVector(*_common(m), steps=steps(m["steps"]), changes=made, paging=Paging(m["pg"]))
    if m := _MSR_RE.fullmatch(text):
        return MsrVector(*_common(m), msr=int(m["msr"], 16))
    if m := _CAPS_RE.fullmatch(text):
        return CapsVector(*_common(m), relation=_relation(m["relation"], RELATIONS))
    if m := _USER_CAPS_RE.fullmatch(text):
        return UserCapsVector(_relation(m["relation"], RELATIONS.keys() - EXISTENCE), m["reader"], _env(m["env"]))
    if m := _MMIO_RE.fullmatch(text):
        return MmioVector(*_common(m), access=_access(m["access"]))
    if m := _CLIENT_RE.fullmatch(text):
        return ClientVector(m["mode"], _access(m["access"]), m["page"], _env(m["env"]))
    if m := _SEQUENCE_RE.fullmatch(text):
        return ClientSequence(m["mode"], m["page"], m["memory"], _client_steps(m), _env(m["env"]))
    if m := _USER_MSR_RE.fullmatch(text):
        return UserMsrVector(int(m["msr"], 16), tuple(m["steps"].split("+")), _env(m["env"]))
    if m := _HOST_RE.fullmatch(text):
        return HostVector(m["what"], _env(m["env"]))
    return None
