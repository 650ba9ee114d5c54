"""The short form of a vector's id, which a person types: fields at their plain value are left out.

    e4k.l1=r--u.fetch.mbec=on

A vector has one full id, which ``Vector.id`` prints and the journal keeps, and one short form, ``short(id)``. Any id
between the two is read as well, its fields in any order; ``expanded(text)`` is the full id of all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from kvmodel.question.program import is_program
from kvmodel.question.sequence import PREFIX, SEPARATOR
from kvmodel.question.vector import CLIENT_STEPS, LOG_PREFIX, NX_PREFIX, READERS, Access, VectorError
from kvmodel.question.vm_exit import NOTHING, STEP
from kvmodel.question.vmcs import CHANGE

_compiled = cache(re.compile)


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an id: how it is written, and the value that it has where it is left out.

    ``plain`` is None where a field is always written. ``shown`` fields are in the short form at any value.
    """

    name: str
    pattern: str
    plain: str | None = None
    shown: bool = False

    def takes(self, word: str) -> bool:
        """Whether ``word`` is a value of this field."""
        return _compiled(self.pattern).fullmatch(word) is not None


@dataclass(frozen=True, slots=True)
class Form:
    """The ids of one kind of vector: a row of fields, the first of them the kind's own word."""

    what: str
    fields: tuple[Field, ...]

    def knows(self, words: list[str]) -> bool:
        """Whether each word fits a field, and no field that is always written is missing."""
        return self._in_full(words) or (
            all(any(f.takes(w) for f in self.fields) for w in words)
            and all(any(f.takes(w) for w in words) for f in self.fields if f.plain is None)
        )

    def _in_full(self, words: list[str]) -> bool:
        return len(words) == len(self.fields) and all(f.takes(w) for f, w in zip(self.fields, words, strict=True))

    def fill(self, words: list[str]) -> dict[str, str]:
        """Each field's word. VectorError names the word that fits no field, stands twice, or is missing."""
        if self._in_full(words):
            return {f.name: w for f, w in zip(self.fields, words, strict=True)}
        found: dict[str, str] = {}
        for word in words:
            fitting = [f.name for f in self.fields if f.takes(word)]
            free = [name for name in fitting if name not in found]
            if not fitting:
                raise VectorError(f"{word!r} is no field of {self.what}; its fields are {', '.join(self._examples())}")
            if not free:
                raise VectorError(f"{word!r}: {fitting[0]} is given twice, first as {found[fitting[0]]!r}")
            found[free[0]] = word
        for field in self.fields:
            if field.name not in found:
                if field.plain is None:
                    raise VectorError(f"{'.'.join(words)!r} lacks its {field.name}: {self.what} is never without")
                found[field.name] = field.plain
        return found

    def _examples(self) -> Iterator[str]:
        return (f"{f.name} ({f.plain or re.sub(r'[(?:)]', '', f.pattern)})" for f in self.fields[1:])


def _tail(env: str = "std") -> tuple[Field, ...]:
    return (
        Field("mbec", "mbec=(?:on|off|na)", "mbec=on", shown=True),
        Field("xo", "xo[01]", "xo1"),
        Field("ev", "ev[012]", "ev0"),
        _env(env),
    )


def _env(plain: str = "std") -> Field:
    return Field("env", r"env=\w+", f"env={plain}")


_PERM: Final = "[rwxu-]{4}"
_RELATION: Final = "[a-z0-9]+(?:-[a-z0-9]+)*"
_ACCESS: Final = "|".join(a.value for a in Access)
_PAGE: Final = Field("page", "pg[us]", "pgu")
_MODE: Final = Field("mode", "real|prot|long")


def _access(size: str, level: int, env: str = "std") -> Form:
    return Form(
        "an access of L2",
        (
            Field("size", size),
            Field("leaf entry", f"l{level}={_PERM}", f"l{level}=rwxu", shown=True),
            Field("upper entry", f"l[{level + 1}-4]={_PERM}", f"l{level + 1}=rwxu"),
            Field("memory type", "mt[0-7]", "mt6"),
            Field("leaf's further bits", "xb[0-9a-f]+", "xb0"),
            Field("upper entry's further bits", "ub[0-9a-f]+", "ub0"),
            Field("access", _ACCESS, "read", shown=True),
            Field("guest leaf", "gp[us][wr][xn]", "gpuwx"),
            Field("guest upper entry", "gu[us][wr][xn]", "guuwx"),
            Field("paging", "pg(?:off|32|pae|64)", "pg64"),
            Field("CPL", "cpl[03]", "cpl0"),
            Field("CR0.WP", "wp[01]", "wp1"),
            Field("CR4.SMEP", "smep[01]", "smep0"),
            Field("CR4.SMAP", "smap[01]", "smap0"),
            Field("EFER.NXE", "nxe[01]", "nxe1"),
            Field("EPT A/D", "ad[01]", "ad0"),
            *_tail(env),
        ),
    )


_FORMS: Final = (
    _access("e4k", 1),
    _access("e2m", 2),
    _access("e1g", 3),
    Form("a VM entry", (Field("kind", "entry"), Field("EPT", "ept[01]", "ept1", shown=True), *_tail())),
    Form(
        "a VM entry with changed fields",
        (
            Field("kind", "vmentry"),
            Field("changes", rf"{CHANGE}(?:\+{CHANGE})*|asis"),
            Field("paging", "pg(?:off|32|pae|64)", "pg64"),
            *_tail(),
        ),
    ),
    Form(
        "an exit that is told in full",
        (
            Field("kind", "vmexit"),
            Field("steps", rf"{STEP}(?:\+{STEP})*|{NOTHING}"),
            Field("changes", rf"{CHANGE}(?:\+{CHANGE})*|asis", "asis"),
            Field("paging", "pg(?:off|pae|64)", "pg64"),
            *_tail(),
        ),
    ),
    Form("an MSR read", (Field("kind", "msr"), Field("MSR", "m[0-9a-f]+"), *_tail())),
    Form("MSRs held against each other", (Field("kind", "caps"), Field("relation", _RELATION), *_tail())),
    Form("an MMIO access", (Field("kind", "mmio"), Field("access", _ACCESS, "read", shown=True), *_tail())),
    Form(
        "a sequence of the small client",
        (
            Field("kind", "cli"),
            _MODE,
            _PAGE,
            Field("memory", "m(?:4k|2m)"),
            Field("steps", rf"(?:{'|'.join(CLIENT_STEPS)})(?:\+(?:{'|'.join(CLIENT_STEPS)}))*"),
            _env(),
        ),
    ),
    Form("an access under the small client", (Field("kind", "cli"), _MODE, Field("access", _ACCESS), _PAGE, _env())),
    Form("writes of a capability MSR", (Field("kind", "umsr"), Field("MSR", "m48[bc]"), Field("steps", ".+"), _env())),
    Form(
        "MSRs of user space held against each other",
        (Field("kind", "ucaps"), Field("relation", _RELATION), Field("reader", "|".join(READERS), "vcpu"), _env()),
    ),
    Form("a question to the host", (Field("kind", "host"), Field("what", "[a-z0-9]+"), _env())),
)
_NX_FORMS: Final = tuple(replace(form, what=f"{form.what} under NX huge pages") for form in (
    _access("e4k", 1, "hugenx"), _access("e2m", 2, "hugenx"), _access("e1g", 3, "hugenx")))  # fmt: skip


def _form(words: list[str], forms: tuple[Form, ...]) -> Form:
    """The form that an id's words have: of two that begin alike, the one that knows all of them, else the last."""
    of_kind = [form for form in forms if form.fields[0].takes(words[0])]
    if not of_kind:
        known = ", ".join(dict.fromkeys(form.fields[0].pattern for form in forms))
        raise VectorError(
            f"{'.'.join(words)!r} is not a vector id: one begins with {known}, seq., prog+, {NX_PREFIX} or {LOG_PREFIX}"
        )
    return next((form for form in of_kind if form.knows(words)), of_kind[-1])


def _split(text: str) -> tuple[str, str, tuple[Form, ...], str]:
    """An id's prefix, its one access or question, the forms that this may have, and a sequence's further turns."""
    if text.startswith(LOG_PREFIX):
        inner, one, forms, turns = _split(text.removeprefix(LOG_PREFIX))
        return LOG_PREFIX + inner, one, forms, turns
    if text.startswith(PREFIX):
        first, plus, turns = text.removeprefix(PREFIX).partition(SEPARATOR)
        return PREFIX, first, _FORMS[:3], plus + turns
    if text.startswith(NX_PREFIX):
        return NX_PREFIX, text.removeprefix(NX_PREFIX), _NX_FORMS, ""
    return "", text, _FORMS, ""


def _read(text: str) -> tuple[str, list[tuple[Field, str]], str]:
    """An id's prefix, each field with its word, and a sequence's further turns."""
    prefix, one, forms, turns = _split(text)
    words = one.split(".")
    form = _form(words, forms)
    found = form.fill(words)
    return prefix, [(field, found[field.name]) for field in form.fields], turns


def _is_program(text: str) -> bool:
    """Whether an id is a program's, or that of what the kernel's log says while one is asked."""
    return is_program(text.removeprefix(LOG_PREFIX))


def expanded(text: str) -> str:
    """The full id that ``text`` stands for. VectorError where it is no id: the word that is wrong, and the mend."""
    if _is_program(text):
        return text
    prefix, rows, turns = _read(text)
    return prefix + ".".join(word for _, word in rows) + turns


def short(name: str) -> str:
    """The short form of the id ``name``."""
    if _is_program(name):  # which has one form
        return name
    prefix, rows, turns = _read(name)
    return prefix + ".".join(word for field, word in rows if field.shown or word != field.plain) + turns


def named_fields(name: str) -> list[tuple[str, str]]:
    """Each field of an id by its name, in the id's order, with those that are left out; then a sequence's turns."""
    if _is_program(name):
        head, *steps = name.split(SEPARATOR)
        return [("head", head), *(("step", step) for step in steps)]
    _, rows, turns = _read(name)
    return [(field.name, word) for field, word in rows] + [("turn", turn) for turn in turns.split(SEPARATOR)[1:]]
