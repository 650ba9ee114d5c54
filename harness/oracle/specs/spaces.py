"""Spaces of inputs: what each word of a case may be, all of it where that is few, seeded samples where it is many."""

from __future__ import annotations

import itertools
import math
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

MASK64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Bits:
    """The column has words with any of the bits of ``mask``, and always those of ``base``."""

    mask: int = MASK64
    base: int = 0

    @property
    def size(self) -> int:
        """The size is how many values there are."""
        return 1 << (self.mask & ~self.base).bit_count()

    def all(self) -> tuple[int, ...]:
        """The function gives every value (for few bits)."""
        bits = [1 << n for n in range(64) if (self.mask & ~self.base) >> n & 1]
        return tuple(
            self.base | sum(b for b, on in zip(bits, chosen, strict=True) if on)
            for chosen in itertools.product((False, True), repeat=len(bits))
        )

    def sample(self, rng: random.Random, count: int) -> list[int]:
        """The function gives values of four densities, since a rule may want nearly all or nearly none of the bits."""
        get, mask, base = rng.getrandbits, self.mask, self.base
        out = []
        for n in range(count):
            kind = n & 3
            value = get(64)
            if kind == 1:
                value &= get(64) & get(64)
            elif kind == 2:
                value |= get(64)
            elif kind == 3:
                value &= get(64)
            out.append(value & mask | base)
        rng.shuffle(out)
        return out


Column = Bits | tuple[int, ...]


@dataclass(frozen=True)
class Space:
    """The space has the columns of a case, in the order of the entry's words."""

    columns: tuple[Column, ...]

    @property
    def size(self) -> int:
        """The size is how many cases there are in all."""
        return math.prod(c.size if isinstance(c, Bits) else len(c) for c in self.columns)

    def rows(self, count: int, rng: random.Random) -> tuple[Sequence[tuple[int, ...]], bool]:
        """The function gives every case where there are at most ``count``, else ``count`` of them; and whether it is
        every case.
        """
        if self.size <= count:
            return list(itertools.product(*(c.all() if isinstance(c, Bits) else c for c in self.columns))), True
        columns = [c.sample(rng, count) if isinstance(c, Bits) else rng.choices(c, k=count) for c in self.columns]
        return list(zip(*columns, strict=True)), False


def flat(rows: Sequence[Sequence[int]]) -> array[int]:
    """The function gives rows one after another, as ``ImageWorker.call`` takes them."""
    return array("Q", itertools.chain.from_iterable(rows))


BOOL = (0, 1)
ACCESS = tuple(range(16))


def spread(count: int, wanted: int) -> range:
    """The numbers of about ``wanted`` of ``count`` cases, at least one, evenly over all: a space has an order."""
    return range(0, count, max(1, count // max(1, wanted)))
