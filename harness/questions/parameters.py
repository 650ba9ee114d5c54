"""The module parameters of one load, and what ``--param`` means for a series.

``Setting`` is what a load gives the modules by name. Its text is what the journal's column ``param`` holds and what
``--param`` takes: ``unset`` where nothing is given; ``0`` or ``1`` where it is the parameter of the series that is
mirrored, alone; ``kvm_intel.mbec=0`` for any other, several with commas between.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from harness.errors import InputError
from harness.series import Parameter
from harness.series import parameter as declared
from kvmodel.question.vector import PARAMETERS
from kvmodel.series import PARAMETER

SWITCH: Final = declared.SWITCH
OWN: Final = Parameter("kvm", PARAMETER, SWITCH, 3, type="bool")  # of the mirrored series
UNSET: Final = "unset"
ALL: Final = "all"
MOST: Final = 27  # loads of one level: three parameters of two values, each left unset as well
# Those that a vector's environment sets, or that a load cannot do without.
TAKEN: Final = frozenset(
    (
        ("kvm", "nx_huge_pages"),
        *(("kvm_intel", name) for name in ("nested", "enable_apicv", "ept", "eptad")),
        *(("kvm_intel", name) for env in PARAMETERS for name, _ in env.parameters),
    )
)

Key = tuple[str, str]
"""A parameter: module and name."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Module parameters given by name: module, name and value of each, sorted; the others are left unset."""

    words: tuple[tuple[str, str, str], ...] = ()

    @classmethod
    def of(cls, values: Mapping[Key, str]) -> Setting:
        """The function makes it from each parameter's value."""
        return cls(tuple((module, name, value) for (module, name), value in sorted(values.items())))

    @classmethod
    def own_value(cls, value: bool | None) -> Setting:
        """The function gives the mirrored series' parameter off, on, or left unset (None)."""
        return cls() if value is None else cls.of({OWN.key: str(int(value))})

    @classmethod
    def parse(cls, text: str) -> Setting:
        """The function is the inverse of ``str``.

        Raises InputError when ``text`` is no setting.
        """
        if text in (UNSET, *SWITCH):
            return cls.own_value(None if text == UNSET else text == "1")
        return cls.of(dict(_word(part, text) for part in text.split(",")))

    @property
    def values(self) -> dict[Key, str]:
        """The function gives each parameter's value."""
        return {(module, name): value for module, name, value in self.words}

    @property
    def own(self) -> bool | None:
        """The value is enable_pt_guest_exec_control as the mirror takes it: off, on, None where it is left unset."""
        value = self.values.get(OWN.key)
        return None if value is None else value == "1"

    def plus(self, key: Key, value: str) -> Setting:
        """The function gives this with one more parameter."""
        return Setting.of(self.values | {key: value})

    def only(self, keys: Collection[Key]) -> Setting:
        """The function gives the part of it that gives values to ``keys``."""
        return Setting.of({key: value for key, value in self.values.items() if key in keys})

    def at(self, level: int, known: Iterable[Parameter]) -> Setting:
        """What of it ``level`` has; a parameter that ``known`` does not name is the base's: every level has it."""
        gone = {p.key for p in known if not p.at(level)}
        return self.only(self.values.keys() - gone)

    def __str__(self) -> str:
        if not self.words:
            return UNSET
        if len(self.words) == 1 and self.words[0][:2] == OWN.key and self.words[0][2] in SWITCH:
            return self.words[0][2]
        return ",".join(f"{module}.{name}={value}" for module, name, value in self.words)


@lru_cache(maxsize=1 << 10)
def order(text: str) -> tuple[int, str]:
    """The key sorts the texts of settings: unset, 0, 1, then the others by name."""
    ranks = (UNSET, *SWITCH)
    return (ranks.index(text), "") if text in ranks else (len(ranks), text)


def _word(part: str, text: str) -> tuple[Key, str]:
    """``kvm_intel.mbec=0`` as key and value. InputError names ``text``."""
    name, found, value = part.strip().partition("=")
    module, _, name = name.partition(".")
    if not (found and module in declared.MODULES and declared.NAME.fullmatch(name)):
        raise InputError(
            f"--param {text!r}: {part!r} names no parameter; write it as in kvm.NAME=0,1 or kvm_intel.NAME=0"
        )
    if (module, name) in TAKEN:
        raise InputError(
            f"--param {text!r}: {module}.{name} is set by each vector's environment; choose vectors by their env= "
            "instead (docs/vectors.md)"
        )
    if value != UNSET and not declared.VALUE.fullmatch(value):
        raise InputError(
            f"--param {text!r}: {value!r} is no value of a parameter; write it without blanks, commas and quotes"
        )
    return (module, name), value


def chosen(text: str, known: Sequence[Parameter]) -> list[Setting]:
    """The function gives what ``--param TEXT`` asks for of a series with the parameters ``known``.

    ``all``: each parameter left unset and with each of its values, in all combinations; where those are more than
    ``MOST``, one parameter at a time. Otherwise values with the parameter's name before the first
    (``kvm_intel.mbec=0,1,kvm.foo=unset,2``), in all combinations, or ``unset``; of the mirrored series' parameter the
    values alone do.

    Raises InputError when a name or value is none, or the combinations are too many.
    """
    if text == ALL:
        return everything(known)
    bare: list[Setting] = []
    axes: dict[Key, list[str]] = {}
    key: Key | None = None
    for part in text.split(","):
        if "=" in part:
            key, value = _word(part, text)
            axes.setdefault(key, []).append(value)
        elif key is not None and (part == UNSET or declared.VALUE.fullmatch(part)):
            axes[key].append(part)
        else:
            bare.append(_bare(part, text, known))
    if (count := _count(len(values) for values in axes.values())) > MOST:
        raise InputError(f"--param {text!r}: {count} combinations are too many a level (at most {MOST}): name fewer")
    return list(dict.fromkeys([*bare, *(_product(axes) if axes else ())]))


def everything(known: Sequence[Parameter]) -> list[Setting]:
    """The function gives the setting of nothing given, and each value of each parameter: in all combinations, or one at
    a time where ``too_many``.
    """
    if too_many(known):
        return [Setting(), *(Setting.of({p.key: value}) for p in known for value in p.values)]
    return _product({p.key: [UNSET, *p.values] for p in known})


def too_many(known: Iterable[Parameter]) -> bool:
    """The parameters' combinations are more than a level is loaded with: True."""
    return _count(1 + len(p.values) for p in known) > MOST


def _count(axes: Iterable[int]) -> int:
    product = 1
    for length in axes:
        product *= length
    return product


def _product(axes: Mapping[Key, Sequence[str]]) -> list[Setting]:
    found = itertools.product(*axes.values())
    return [
        Setting.of({key: value for key, value in zip(axes, values, strict=True) if value != UNSET}) for values in found
    ]


def _bare(part: str, text: str, known: Sequence[Parameter]) -> Setting:
    """A value without a name: nothing given, or the mirrored series' parameter."""
    owned = OWN.key in {p.key for p in known}
    if part == UNSET or (owned and part in SWITCH):
        return Setting.parse(part)
    if owned:
        raise InputError(f"--param {text!r}: {part!r} is not one of unset, 0, 1, all; write one of these")
    names = ", ".join(f"{p}={','.join(p.values) or 'VALUE'}" for p in known)
    has = f"this series adds {names}" if known else "this series adds no module parameter"
    raise InputError(f"--param {text!r}: {part!r} names no parameter; {has}: write unset, all or MODULE.NAME=VALUE")


def switches(settings: Iterable[Setting], known: Iterable[Parameter]) -> list[Setting]:
    """Those settings that say something, of parameters that can be 0 or 1 only: one left unset has one of the two."""
    keys = {p.key for p in known if p.switch}
    return [s for s in settings if s.words and s.values.keys() <= keys]


def open_switches(setting: Setting, named: Collection[Setting]) -> list[Key]:
    """The parameters that ``setting`` leaves unset and ``named`` gives both values to, all else the same."""
    keys = dict.fromkeys(key for one in named for key in one.values if key not in setting.values)
    return [key for key in keys if all(setting.plus(key, value) in named for value in SWITCH)]
