"""The child process that holds an image, and how cases get in and results out.

Cases are rows of 64-bit words in shared memory; a whole batch goes through one entry for one message.
"""

from __future__ import annotations

import bisect
import mmap
import os
import select
import socket
import struct
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Final

from harness.errors import InfraError
from harness.oracle.image.build import STRAY_BASE, STRAY_STEP
from harness.process import programs
from harness.review import SHF_EXECINSTR, Elf

SHM_BYTES: Final = 64 << 20
EVENTS_MAX: Final = 1 << 10  # events of one batch that are told one by one
TIMEOUT: Final = 60.0  # seconds for one batch
_CONTROL: Final = struct.Struct("<18Q")
_EVENT: Final = struct.Struct("<4Q")
_ENTRY: Final = struct.Struct("<48sQII")
_BUG: Final = struct.Struct("<iiHH")
_EVENTS_COUNT: Final = 8  # words of the control block
_CURRENT: Final = 9


class OracleError(InfraError):
    """The oracle's own failure: the child died or hung, or an image lacks an entry."""


class EventKind(IntEnum):
    """The kind says what a case did beside returning: runner.c's EVENT_*."""

    WARN = 1
    BUG = 2
    STRAY = 3
    FAULT = 4


@dataclass(frozen=True, slots=True)
class Trap:
    """A case was trapped: ``function`` is where in the kernel, ``what`` the source line of a WARN or BUG, the missing
    symbol, or the address that faulted.
    """

    kind: EventKind
    function: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind.name} in {self.function} ({self.what})"


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """This is an entry of an image: its name, address and the words of a case and of a result."""

    name: str
    address: int
    words_in: int
    words_out: int


class Image:
    """The image is linked; it has its entries, and names for its addresses."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.elf = Elf(path)
        self.runner = path.with_name("runner")
        self.strays = path.with_name("strays.txt").read_text().split()
        address = {s.name: s.value for s in self.elf.symbols}
        self.symbols = address
        self.bugs = (address["__start___bug_table"], address["__stop___bug_table"])
        self.once = (address["__oracle_once_start"], address["__oracle_once_stop"])
        self.trap = address["oracle_trap"]
        executable = {s.index for s in self.elf.sections if s.flags & SHF_EXECINSTR}
        functions = sorted((s.value, s.name) for s in self.elf.symbols if s.section in executable and s.size)
        self._starts = [value for value, _ in functions]
        self._names = [name for _, name in functions]
        self.entries: dict[str, EntryPoint] = {}
        for section in self.elf.sections:
            if section.name == "oracle_entries":
                for name, fn, words_in, words_out in _ENTRY.iter_unpack(section.data):
                    text = name.rstrip(b"\0").decode()
                    self.entries[text] = EntryPoint(text, fn, words_in, words_out)
        self._lines: dict[int, str] = {}
        raw = self.elf.read(self.bugs[0], self.bugs[1] - self.bugs[0])
        for at in range(0, len(raw), _BUG.size):
            where, file, line, _ = _BUG.unpack_from(raw, at)
            base = self.bugs[0] + at
            self._lines[base + where] = f"{self._text(base + 4 + file)}:{line}"

    def _text(self, address: int) -> str:
        return self.elf.read(address, 256).split(b"\0")[0].decode()

    def function(self, address: int) -> str:
        """The function gives the name of the function that ``address`` is in."""
        at = bisect.bisect_right(self._starts, address) - 1
        return self._names[at] if at >= 0 else f"{address:#x}"

    def event(self, kind: int, rip: int, address: int) -> Trap:
        """The function gives an event of the runner with names in the place of addresses."""
        what = f"{address:#x}"
        if kind in (EventKind.WARN, EventKind.BUG):
            what = self._lines.get(rip, "?")
        elif kind == EventKind.STRAY:
            what = self.strays[(address - STRAY_BASE) // STRAY_STEP]
        return Trap(EventKind(kind), self.function(rip).removesuffix(".cold"), what)

    def constants(self, worker: ImageWorker) -> dict[str, int]:
        """The function gives every constant of the level, by its C name."""
        entry = self.entries["constants"]
        out = worker.call("constants", array("Q", [0])).out
        table = self.symbols["oracle_constant_names"]
        count = entry.words_out // 2
        pointers = struct.unpack(f"<{count}Q", self.elf.read(table, 8 * count))
        return {self._text(p): out[2 * i + 1] for i, p in enumerate(pointers) if out[2 * i]}


@dataclass(frozen=True, slots=True)
class Results:
    """What a batch gave: ``out`` holds the results row after row, ``events`` those of the cases that had any.

    ``status`` has one byte a case: its worst EventKind, 0 for none. A case that ended in a BUG, a stray use or a
    fault has zeros in its row. ``lost``: events beyond what is kept.
    """

    out: array[int]
    words: int
    status: bytearray
    events: dict[int, tuple[Trap, ...]]
    lost: int = 0

    def row(self, index: int) -> tuple[int, ...]:
        """The function gives the result of case ``index``."""
        return tuple(self.out[index * self.words : (index + 1) * self.words])

    def rows(self) -> Iterable[tuple[int, ...]]:
        """The function gives all results in order."""
        return zip(*[iter(self.out)] * self.words, strict=True)


class ImageWorker:
    """The worker is a child process with an image in it; a context manager."""

    def __init__(self, image: Image, timeout: float = TIMEOUT) -> None:
        self.image = image
        self.timeout = timeout
        self.calls = 0
        self._fd = os.memfd_create("oracle")
        os.ftruncate(self._fd, SHM_BYTES)
        self._shm = mmap.mmap(self._fd, SHM_BYTES)
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = programs.spawn(
                [self.image.runner, self.image.path, str(self._fd), str(SHM_BYTES), str(theirs.fileno())],
                pass_fds=(self._fd, theirs.fileno()),
            )
        self._socket = ours

    def call(self, name: str, rows: array[int]) -> Results:
        """The function runs ``rows`` (cases one after another, flat) through the entry ``name``, in order.

        Raises OracleError when the entry is missing, a row is short, or the child dies or hangs; a new one is started,
        without the state that the old one had.
        """
        entry = self.image.entries.get(name)
        if entry is None:
            raise OracleError(f"{self.image.path} has no entry {name}: see harness/oracle/glue")
        if len(rows) % entry.words_in:
            raise OracleError(f"{name} takes {entry.words_in} words a case, {len(rows)} words were given")
        count = len(rows) // entry.words_in
        room = SHM_BYTES - _CONTROL.size - EVENTS_MAX * _EVENT.size
        most = room // (8 * (entry.words_in + entry.words_out) + 1)
        out = array("Q")
        status = bytearray()
        events: dict[int, tuple[Trap, ...]] = {}
        lost = 0
        for first in range(0, count, most):
            n = min(most, count - first)
            part = rows if n == count else rows[first * entry.words_in : (first + n) * entry.words_in]
            results = self._batch(entry, part, n)
            out.extend(results.out)
            status += results.status
            events.update((first + i, e) for i, e in results.events.items())
            lost += results.lost
        self.calls += count
        return Results(out, entry.words_out, status, events, lost)

    def _batch(self, entry: EntryPoint, rows: array[int], count: int) -> Results:
        at_in = (_CONTROL.size + EVENTS_MAX * _EVENT.size + 7) & ~7
        at_out = at_in + 8 * entry.words_in * count
        at_status = at_out + 8 * entry.words_out * count
        end = at_status + count
        image = self.image
        stray_stop = STRAY_BASE + STRAY_STEP * len(image.strays)
        shm = self._shm
        control = (entry.address, entry.words_in, entry.words_out, count, at_in, at_out, _CONTROL.size, EVENTS_MAX)
        shm[: _CONTROL.size] = _CONTROL.pack(
            *control, 0, 0, *image.bugs, STRAY_BASE, stray_stop, *image.once, at_status, image.trap
        )
        shm[at_in:at_out] = rows.tobytes()
        shm[at_out:end] = bytes(end - at_out)
        self._go(entry)
        words = struct.unpack_from("<16Q", shm)
        out = array("Q", shm[at_out:at_status])
        events: dict[int, tuple[Trap, ...]] = {}
        seen = min(words[_EVENTS_COUNT], EVENTS_MAX)
        for n in range(seen):
            index, kind, rip, address = _EVENT.unpack_from(shm, _CONTROL.size + n * _EVENT.size)
            events[index] = (*events.get(index, ()), image.event(kind, rip, address))
        return Results(out, entry.words_out, bytearray(shm[at_status:end]), events, words[_EVENTS_COUNT] - seen)

    def _go(self, entry: EntryPoint) -> None:
        """Let the child run the batch that lies in the shared memory."""
        try:
            self._socket.send(b"g")
            ready, _, _ = select.select([self._socket], [], [], self.timeout)
            if ready and self._socket.recv(1):
                return
        except OSError:
            ready = [self._socket]
        (current,) = struct.unpack_from("<Q", self._shm, 8 * _CURRENT)
        words_in = entry.words_in
        at = struct.unpack_from("<Q", self._shm, 32)[0] + 8 * words_in * current
        case = struct.unpack_from(f"<{words_in}Q", self._shm, at)
        self._stop()
        self._start()
        how = "died" if ready else f"did not end within {self.timeout:.0f} s"
        text = ", ".join(f"{w:#x}" for w in case)
        raise OracleError(f"the oracle's child {how} in {entry.name}, case {current} ({text}): look at that case")

    def _stop(self) -> None:
        self._socket.close()
        self._process.stop(0.2)

    def close(self) -> None:
        """The child is ended."""
        self._stop()
        self._shm.close()
        os.close(self._fd)

    def __enter__(self) -> ImageWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
