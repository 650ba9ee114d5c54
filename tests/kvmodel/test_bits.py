"""Integers as C stores them."""

import pytest

from kvmodel.bits import BIT, GENMASK, field, u8, u16, u32, u64


def test_masks() -> None:
    assert BIT(0) == 1
    assert BIT(63) == 1 << 63
    assert GENMASK(5, 3) == 0b111000
    assert GENMASK(63, 0) == 2**64 - 1


@pytest.mark.parametrize("nr", [-1, 64])
def test_a_bit_that_no_unsigned_long_has(nr: int) -> None:
    with pytest.raises(ValueError, match="must be 0 to 63"):
        BIT(nr)


@pytest.mark.parametrize(("high", "low"), [(3, 5), (64, 0), (3, -1)])
def test_a_mask_that_is_none(high: int, low: int) -> None:
    with pytest.raises(ValueError, match="needs 0 <= low"):
        GENMASK(high, low)


def test_stores_truncate_as_c_does() -> None:
    assert (u8(0x1FF), u16(-1), u32(1 << 32), u64(-1)) == (0xFF, 0xFFFF, 0, 2**64 - 1)


def test_field_refuses_instead_of_truncating() -> None:
    assert field(15, 4, "access") == 15
    with pytest.raises(ValueError, match="access: 0x10 does not fit 4 bits"):
        field(16, 4, "access")
