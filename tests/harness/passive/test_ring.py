"""Pages of the ring buffer: every kind of record head, what was lost, and pages that are none."""

from __future__ import annotations

import struct

import pytest

from harness.errors import InputError
from harness.passive import formats
from harness.passive.ring import Ring, check_head
from tests.harness.passive import made

CAPTURE = made.recorded()
PAGE = formats.page(CAPTURE.texts["header_page"])
FAULT = formats.parsed(CAPTURE.texts["kvm/kvm_page_fault"], "kvm_page_fault")


def head(kind: int, delta: int) -> bytes:
    return struct.pack("<I", kind | delta << 5)


def record(address: int) -> bytes:
    return made.record(FAULT, {"fault_address": address})


def test_a_real_capture_is_taken_apart() -> None:
    """Its events are the host's: exits, faults at page-aligned or other addresses, entries for them."""
    events = [formats.parsed(CAPTURE.texts[e], e) for e in CAPTURE.facts["events"]]
    ring = Ring(PAGE, events)
    found = ring.events(CAPTURE.pages)
    assert len(found) == 1255 and ring.unknown == 0 and ring.gaps == 0
    assert [e.time for e in found] == sorted(e.time for e in found)
    exits = [e.fields["exit_reason"] for e in found if e.name == "kvm_exit"]
    assert set(exits) == {0, 18, 23, 24, 25, 32, 48, 50} & set(exits) and exits.count(48) == 203
    assert {e.fields["isa"] for e in found if e.name == "kvm_exit"} == {1}
    assert all(e.fields["level"] == 1 for e in found if e.name == "kvm_mmu_set_spte")


def test_a_field_is_read_where_the_host_says() -> None:
    """The same record on a kernel that puts the address elsewhere is another address."""
    moved = CAPTURE.texts["kvm/kvm_page_fault"].replace(
        "u64 fault_address;\toffset:24", "u64 fault_address;\toffset:32"
    )
    moved = moved.replace("u64 error_code;\toffset:32", "u64 error_code;\toffset:24")
    data = made.record(FAULT, {"fault_address": 0x5000, "error_code": 0x182})
    for text, address in ((CAPTURE.texts["kvm/kvm_page_fault"], 0x5000), (moved, 0x182)):
        (event,) = Ring(PAGE, [formats.parsed(text, "kvm_page_fault")]).events([(3, made.page(data))])
        assert event.fields["fault_address"] == address and event.cpu == 3 and event.pid == made.TASK


def test_every_kind_of_head_counts_time() -> None:
    data = (
        head(30, 5) + struct.pack("<I", 1)  # time extend: 5 + (1 << 27)
        + record(1)  # delta 10
        + head(31, 7) + struct.pack("<I", 2)  # an absolute time: 7 + (2 << 27)
        + record(2)
        + head(29, 3) + struct.pack("<I", 8) + b"\0" * 4  # padding of 8 bytes behind its head
        + record(3)
    )  # fmt: skip
    found = Ring(PAGE, [FAULT]).events([(0, made.page(data, time=1000))])
    assert [e.fields["fault_address"] for e in found] == [1, 2, 3]
    assert [e.time for e in found] == [1000 + 5 + (1 << 27) + 10, 7 + (2 << 27) + 10, 7 + (2 << 27) + 10 + 3 + 10]


def test_a_short_record_has_its_length_in_its_head() -> None:
    long = record(9)[8:]
    data = head(len(long) // 4, 1) + long
    (event,) = Ring(PAGE, [FAULT]).events([(0, made.page(data))])
    assert event.fields["fault_address"] == 9 and event.time == 1001


def test_what_follows_an_end_is_not_read() -> None:
    assert len(Ring(PAGE, [FAULT]).events([(0, made.page(record(1) + head(29, 0) + record(2)))])) == 1


def test_a_gap_is_told() -> None:
    ring = Ring(PAGE, [FAULT])
    ring.events([(0, made.page(record(1))), (0, made.page(record(2), flags=1 << 31))])
    assert ring.gaps == 1


def test_other_events_are_counted() -> None:
    ring = Ring(PAGE, [])
    assert ring.events([(0, made.page(record(1) + record(2)))]) == [] and ring.unknown == 2


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (b"short", "has 5 bytes, and not 4096"),
        (struct.pack("<QQ", 1, 5000).ljust(4096, b"\0"), "holds more than it can"),
        (made.page(head(28, 1) + b"\0" * 8), "goes beyond its page"),
        (made.page(head(0, 1) + struct.pack("<I", 1 << 30)), "goes beyond its page"),
        (made.page(head(0, 1) + struct.pack("<I", 0)), "goes beyond its page"),
    ],
)
def test_a_page_that_is_none_is_refused(page: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Ring(PAGE, [FAULT]).events([(0, page)])


def test_names_of_exits_are_the_hosts_own() -> None:
    names = formats.symbols(formats.parsed(CAPTURE.texts["kvm/kvm_exit"], "kvm_exit"))
    assert names[48] == "EPT_VIOLATION" and names[0] == "EXCEPTION_NMI"
    assert "npf" not in names.values(), "the table of the other vendor"


@pytest.mark.parametrize("text", ["", "name: x\nID: 5\nformat:\n", "field:unsigned short common_type; offset:0;"])
def test_a_format_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="kvm_exit: its format file is none"):
        formats.parsed(text, "kvm_exit")


def test_heads_of_another_kind_are_refused() -> None:
    check_head(CAPTURE.texts["header_event"])
    with pytest.raises(InputError, match="another kind"):
        check_head(CAPTURE.texts["header_event"].replace("27 bits", "59 bits"))
    with pytest.raises(InputError, match="header_page is none"):
        formats.page("field: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n")
