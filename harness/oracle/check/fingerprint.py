"""What a mirror function's answers depend on at a level: when it is equal, so are the answers.

The function runs over some of the cases with recorders in the place of the level and of its headers. What was
consulted (patches, constants, the role layout) is then read at any level and compared, with the state's masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

from harness.oracle.specs import Row, Side, Spec, State, spread
from kvmodel.include.asm.kvm_host import Kvm, kvm_mmu
from kvmodel.series import Level

PILOT = 1000  # cases an ordinary function is watched over


class HasRows(Protocol):
    """This is a batch, as far as it matters here."""

    state: State
    rows: Sequence[Row]


class _Watched:
    """Stands for an object and notes which of its attributes are read."""

    def __init__(self, real: object, name: str, seen: set[tuple[str, str]]) -> None:
        self._real, self._name, self._seen = real, name, seen

    def __getattr__(self, attribute: str) -> object:
        self._seen.add((self._name, attribute))
        return getattr(self._real, attribute)


class _Words:
    """Stands for a level and notes which patches it is asked for."""

    def __init__(self, level: Level, seen: set[tuple[str, str]]) -> None:
        self._level, self._seen = level, seen

    def has(self, patch: int) -> bool:
        self._seen.add(("has", str(patch)))
        return self._level.has(patch)


_consulted: dict[tuple[str, int, int], frozenset[tuple[str, str]]] = {}


def consulted(spec: Spec, batch: HasRows, level: Level) -> frozenset[tuple[str, str]]:
    """The function gives what the mirror function of ``spec`` reads of the level in this state."""
    key = (spec.entry, id(spec), hash((batch.state, level)))
    if key not in _consulted:
        seen: set[tuple[str, str]] = set()
        side = batch.state.side(level)
        kvm = side.kvm
        asked = _Words(level, seen)
        kvm.has = asked.has
        kvm.h = cast("type(kvm.h)", _Watched(kvm.h, "h", seen))  # type: ignore[valid-type]
        kvm.s = cast("type(kvm.s)", _Watched(kvm.s, "s", seen))  # type: ignore[valid-type]
        kvm.roles = cast("type(kvm.roles)", _Watched(kvm.roles, "roles", seen))  # type: ignore[valid-type]
        side.level = cast(Level, asked)
        function = spec.mirror(side)
        for number in spread(len(batch.rows), PILOT // spec.cost):
            function(*batch.rows[number])
        _consulted[key] = frozenset(seen)
    return _consulted[key]


def fingerprint(spec: Spec, batch: HasRows, level: Level) -> tuple[object, ...]:
    """The fingerprint is of the state and every value consulted, at ``level``."""
    side = batch.state.side(level)
    seen = consulted(spec, batch, level)
    values = tuple((place, name, _value(side, place, name)) for place, name in sorted(seen))
    return (
        values,
        _scalars(side.kvm),
        side.vcpu.pt_guest_exec_control,
        *map(_mmu, (side.vcpu.mmu, side.vcpu.guest_mmu)),
    )


def _value(side: Side, place: str, name: str) -> object:
    if place == "has":
        return side.level.has(int(name))
    owner = getattr(side.kvm, place)
    value = getattr(owner, name, None)
    if callable(value):  # a method sees the whole object
        return tuple((n, repr(getattr(owner, n, None))) for n in type(owner).__slots__ if n != "level")
    return repr(value)


def _scalars(kvm: Kvm) -> tuple[tuple[str, int], ...]:
    return tuple((n, v) for n in Kvm.__slots__ if isinstance(v := getattr(kvm, n), int))


def _mmu(mmu: kvm_mmu) -> tuple[object, ...]:
    checks = (mmu.guest_rsvd_check, mmu.shadow_zero_check)
    return (
        mmu.root_role,
        mmu.cpu_role,
        tuple(mmu.permissions),
        tuple((tuple(map(tuple, c.rsvd_bits_mask)), c.bad_mt_xwr) for c in checks),
    )
