"""Several accesses of one L2 that share their EPT12 tables and their page, so that history matters.

A sequence is a row of turns; each is one VM entry and one access, fully described by an ``AccessVector``. Between
turns L1 writes those of the two entries under test that differ, and the guest's; what else it does before it
enters is part of the turn: INVEPT or none, which of its two vmcs12 it enters on. The id prints the first access
whole and of every further turn what is other than in the turn before, in the order of an access's id:

    seq.<id of the first access>+l1=r-x-.noinv+fetch.cpl3.mbec=off.b+same
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from kvmodel.question.vector import Access, AccessVector, GuestPerm, Machine, Mbec, Perm, VectorError

PREFIX: Final = "seq."
SEPARATOR: Final = "+"
MAX_TURNS: Final = 8
SAME: Final = "same"  # a turn in which nothing changes


@dataclass(frozen=True, slots=True)
class Turn:
    """One VM entry of a sequence.

    ``invept``: L1 executes INVEPT between its writes and the entry (a first turn always does). ``second``: it
    enters on its second vmcs12, whose EPT pointer is the same.
    """

    access: AccessVector
    invept: bool = True
    second: bool = False


@dataclass(frozen=True, slots=True)
class _Token:
    """One thing that a turn may change: the pattern of its token, how it is written, how it is read."""

    pattern: str
    show: Callable[[Turn], str]
    read: Callable[[Turn, str], Turn]


def _with(turn: Turn, **changes: object) -> Turn:
    return replace(turn, access=replace(turn.access, **changes))  # type: ignore[arg-type]


def _entry(level: str, field: str) -> _Token:
    """A token ``l1=rwxu``: the level is the vector's and does not change."""
    return _Token(
        "l[1-4]=[rwxu-]{4}",
        lambda t: f"l{getattr(t.access, level)}={getattr(t.access, field)}",
        lambda t, text: _with(t, **{field: Perm.parse(text.partition("=")[2])}),
    )


_TOKENS: Final = (
    _entry("leaf_level", "leaf"),
    _entry("upper_level", "upper"),
    _Token("mt[0-7]", lambda t: f"mt{t.access.memtype}", lambda t, s: _with(t, memtype=int(s[2:]))),
    _Token("|".join(a.value for a in Access), lambda t: t.access.access.value, lambda t, s: _with(t, access=Access(s))),
    _Token("gp[us][wr][xn]", lambda t: f"gp{t.access.gp}", lambda t, s: _with(t, gp=GuestPerm.parse(s[2:]))),
    _Token("gu[us][wr][xn]", lambda t: f"gu{t.access.gu}", lambda t, s: _with(t, gu=GuestPerm.parse(s[2:]))),
    _Token("cpl[03]", lambda t: f"cpl{t.access.cpl}", lambda t, s: _with(t, cpl=int(s[3:]))),
    _Token("ad[01]", lambda t: f"ad{t.access.ad:d}", lambda t, s: _with(t, ad=s == "ad1")),
    _Token(
        "mbec=(?:on|off)",
        lambda t: f"mbec={t.access.mbec.value}",
        lambda t, s: _with(t, mbec=Mbec(s.partition("=")[2])),
    ),
    _Token("[ab]", lambda t: "b" if t.second else "a", lambda t, s: replace(t, second=s == "b")),
)
NO_INVEPT: Final = "noinv"
CHANGEABLE: Final = ("leaf", "upper", "memtype", "access", "gp", "gu", "cpl", "ad", "mbec")


def _change(before: Turn, now: Turn) -> str:
    """``now`` as its tokens against ``before``."""
    found = [shown for token in _TOKENS if (shown := token.show(now)) != token.show(before)]
    if not now.invept:
        found.append(NO_INVEPT)
    return ".".join(found) or SAME


def _changed(before: Turn, text: str) -> Turn:
    """The turn after ``before`` that ``text`` describes; VectorError where a token is none, or says nothing new."""
    now = replace(before, invept=True)
    for word in text.split(".") if text != SAME else ():
        if word == NO_INVEPT:
            now = replace(now, invept=False)
            continue
        # both entries are written alike: the one meant is told by its level
        token = next((t for t in _TOKENS if re.fullmatch(t.pattern, word) and _meant(t, before, word)), None)
        if token is None:
            raise VectorError(
                f"{word!r} is nothing that a turn of a sequence changes: use l{before.access.leaf_level}=, "
                f"l{before.access.upper_level}=, mt, an access, gp, gu, cpl, ad, mbec=on|off, a or b, {NO_INVEPT}, "
                f"or {SAME!r} alone"
            )
        now = token.read(now, word)
    if _change(before, now) != text:
        raise VectorError(f"{text!r}: write {_change(before, now)!r}: only what changes, each once, in this order")
    return now


def _meant(token: _Token, before: Turn, word: str) -> bool:
    return not word.startswith("l") or token.show(before)[:3] == word[:3]


@dataclass(frozen=True)
class SequenceVector:
    """Two to eight turns. VectorError where they cannot share tables and page."""

    turns: tuple[Turn, ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.turns) <= MAX_TURNS:
            raise VectorError(f"a sequence has 2 to {MAX_TURNS} turns, not {len(self.turns)}")
        first = self.turns[0]
        if not first.invept or first.second:
            raise VectorError("a sequence's first turn is on the first vmcs12 and comes after INVEPT")
        for turn in self.turns:
            shared = replace(turn.access, **{name: getattr(first.access, name) for name in CHANGEABLE})
            if shared != first.access:
                raise VectorError(f"{turn.access.id!r} differs from the first turn in what all turns share")
            if turn.access.access.is_emulated:
                raise VectorError(f"{turn.access.access.value} is asked alone, not in a sequence")
            if turn.access.access.is_walk is not first.access.access.is_walk:
                raise VectorError("a page walk under test and a plain access do not share their page")
            if (turn.access.mbec is Mbec.NA) is not (first.access.mbec is Mbec.NA):
                raise VectorError("mbec=na is the virtual CPU's, for all turns or none")

    @property
    def machine(self) -> Machine:
        """The machine all turns need."""
        return self.turns[0].access.machine

    @cached_property
    def id(self) -> str:
        """The name to print and type."""
        changes = (_change(before, now) for before, now in zip(self.turns, self.turns[1:], strict=False))
        return PREFIX + SEPARATOR.join([self.turns[0].access.id, *changes])


def sequence(first: AccessVector, *changes: str) -> SequenceVector:
    """The sequence that begins with ``first`` and goes on with ``changes``, written as in its id."""
    turns = [Turn(first)]
    for text in changes:
        turns.append(_changed(turns[-1], text))
    return SequenceVector(tuple(turns))
