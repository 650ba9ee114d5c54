"""The kernel's ring buffer as ``trace_pipe_raw`` gives it: pages of records, taken apart by the host's own formats.

The record's head is that of ``events/header_event``: five bits of type, 27 of time since the record before.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from harness.errors import InputError
from harness.passive.formats import EventFormat, PageFormat

HEAD: Final = (
    "type_len",
    "5 bits",
    "time_delta",
    "27 bits",
    "array",
    "padding",
    "29",
    "time_extend",
    "30",
    "time_stamp",
    "31",
)
PADDING: Final = 29
TIME_EXTEND: Final = 30
TIME_STAMP: Final = 31
_LENGTH: Final = (1 << 20) - 1  # of the commit word; what is above are flags
_MISSED: Final = 1 << 31
_ABSOLUTE: Final = (1 << 59) - 1


@dataclass(frozen=True, slots=True)
class RawEvent:
    """One record has nanoseconds of the trace's clock, the task, the event's name and its fields."""

    time: int
    cpu: int
    pid: int
    name: str
    fields: Mapping[str, int]


def check_head(text: str) -> None:
    """The heads of records must be of the kind that is read here.

    Raises InputError when ``events/header_event`` says otherwise.
    """
    words = " ".join(text.replace(":", " ").split())
    if not all(word in words for word in HEAD):
        raise InputError("events/header_event describes records of another kind than this kvmirror reads: say so to us")


class Ring:
    """Pages of all CPUs become events in the order of their time; what the kernel lost is told beside."""

    def __init__(self, page: PageFormat, events: Iterable[EventFormat]) -> None:
        self._page = page
        self._events = {event.number: event for event in events}
        self.gaps = 0  # places at which a page says that events before it were lost
        self.unknown = 0  # records of events that were not asked for

    def events(self, pages: Iterable[tuple[int, bytes]]) -> list[RawEvent]:
        """The pages, each with its CPU, become events.

        Raises InputError when a page is none.
        """
        found = [event for cpu, page in pages for event in self._of_page(cpu, page)]
        found.sort(key=lambda event: event.time)  # stable: a CPU's own order stays
        return found

    def _of_page(self, cpu: int, page: bytes) -> Iterator[RawEvent]:
        fields = self._page.fields
        if len(page) != self._page.size:
            raise InputError(f"a page of the ring buffer has {len(page)} bytes, and not {self._page.size}")
        time, commit = fields["timestamp"].read(page), fields["commit"].read(page)
        self.gaps += bool(commit & _MISSED)
        at, end = fields["data"].offset, fields["data"].offset + (commit & _LENGTH)
        if end > len(page):
            raise InputError("a page of the ring buffer says that it holds more than it can")
        while at + 4 <= end:
            (head,) = struct.unpack_from("<I", page, at)
            kind, delta = head & 31, head >> 5
            at += 4
            if kind == PADDING and not delta:
                return
            if kind in (0, PADDING, TIME_EXTEND, TIME_STAMP):
                if at + 4 > end:
                    return
                (word,) = struct.unpack_from("<I", page, at)
            if kind == TIME_STAMP:
                time = time & ~_ABSOLUTE | (word << 27) + delta
                at += 4
            elif kind == TIME_EXTEND:
                time += (word << 27) + delta
                at += 4
            elif kind == PADDING:
                time += delta
                at += max(4, word)
            else:
                time += delta
                start, length = (at + 4, word - 4) if kind == 0 else (at, 4 * kind)
                if length < 4 or start + length > end:
                    raise InputError("a record of the ring buffer goes beyond its page")
                at = start + length
                if (event := self._event(page[start:at])) is not None:
                    yield RawEvent(time, cpu, *event)

    def _event(self, record: bytes) -> tuple[int, str, dict[str, int]] | None:
        (number,) = struct.unpack_from("<H", record)
        form = self._events.get(number)
        if form is None or len(record) < form.size:
            self.unknown += 1
            return None
        fields = {name: field.read(record) for name, field in form.fields.items()}
        return fields["common_pid"], form.name, fields
