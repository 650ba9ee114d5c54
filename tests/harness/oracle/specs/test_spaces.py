"""Spaces: all of what is few, seeded samples of what is many."""

from __future__ import annotations

import random

from harness.oracle.specs.spaces import BOOL, MASK64, Bits, Space, flat


def test_all_values_of_few_bits() -> None:
    assert set(Bits(0b101, 0x10).all()) == {0x10, 0x11, 0x14, 0x15}
    assert Bits(0b101, 0x10).size == 4
    assert Bits(0b101, 0b100).size == 2


def test_samples_keep_to_the_mask_and_hold_the_base() -> None:
    values = Bits(0xFF00, 0x8001).sample(random.Random(1), 4000)
    assert all(v & ~0xFF01 == 0 and v & 0x8001 == 0x8001 for v in values)
    assert len(set(values)) == 128


def test_samples_are_dense_and_sparse() -> None:
    counts = [v.bit_count() for v in Bits().sample(random.Random(1), 1000)]
    assert min(counts) < 10
    assert max(counts) > 50


def test_a_small_space_is_run_whole() -> None:
    rows, whole = Space((BOOL, (1, 2, 3))).rows(6, random.Random(1))
    assert whole
    assert sorted(rows) == [(a, b) for a in (0, 1) for b in (1, 2, 3)]


def test_a_large_space_is_sampled_the_same_way_for_the_same_seed() -> None:
    space = Space((Bits(), BOOL, Bits(0xF)))
    assert space.size == 1 << 69
    rows, whole = space.rows(100, random.Random("seed"))
    assert not whole
    assert len(rows) == 100
    assert rows == space.rows(100, random.Random("seed"))[0]
    assert rows != space.rows(100, random.Random("other"))[0]


def test_rows_become_words() -> None:
    assert list(flat([(1, MASK64), (2, 3)])) == [1, MASK64, 2, 3]
