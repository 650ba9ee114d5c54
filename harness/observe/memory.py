"""L1's memory as the host that runs QEMU has it: a file that QEMU maps shared, written and read there by ``memio``.

What crosses the emulated wire costs most, and so does each program that is started there. Little goes through one
``memio`` that stays; much goes through one of its own, compressed or packed.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from typing import Final

from harness import protocol
from harness.errors import GuestError
from harness.hosts import Host, Remote

LITTLE: Final = 4096  # bytes; more goes packed
SILENCE: Final = 60.0  # seconds in which ``memio`` has to answer
_REQUEST: Final = struct.Struct("<QII")  # memio.c's struct request


def unpacked(packed: bytes, stride: int) -> bytes:
    """The function gives what ``memio pack`` packed; it is shorter than what was asked for where ``packed`` is
    cut off.
    """
    at, parts = 0, []
    while at + 4 <= len(packed):
        zeroes, literal = struct.unpack_from("<HH", packed, at)
        parts += [bytes(zeroes), packed[at + 4 : at + 4 + literal]]
        at += 4 + literal
    changes = b"".join(parts)
    found, record = [], 0
    for begin in range(0, len(changes), stride):
        change = changes[begin : begin + stride]
        record ^= int.from_bytes(change.ljust(stride, b"\0"), "little")
        found.append(record.to_bytes(stride, "little")[: len(change)])
    return b"".join(found)


class Memory:
    """The file ``path`` on ``host``; offsets are bytes behind BATCH_BASE (L1's address is the file's offset)."""

    def __init__(self, host: Host, path: str) -> None:
        self._host = host
        self._path = path
        self._server: Remote | None = None
        self._line: socket.socket | None = None

    @property
    def path(self) -> str:
        """This is the file on the host."""
        return self._path

    def write(self, data: bytes, offset: int = 0) -> None:
        """The data is written.

        Raises GuestError when the file does not take it.
        """
        at = protocol.BATCH_BASE + offset
        if len(data) > LITTLE:
            self._host.feed(f"memio write {self._path} {at}", data)
        else:
            self._ask(_REQUEST.pack(at, len(data), 1) + data, 1)

    def read(self, length: int, offset: int = 0) -> bytes:
        """The function reads ``length`` bytes.

        Raises GuestError when there are fewer.
        """
        if not length:
            return b""
        at = protocol.BATCH_BASE + offset
        if length <= LITTLE:
            return self._ask(_REQUEST.pack(at, length, 0), length)
        stride = protocol.OBSERVATION.size
        packed = self._host.run(f"memio pack {self._path} {at} {length} {stride}", timeout=300, check=True).data
        data = unpacked(packed, stride)
        if len(data) != length:
            raise GuestError(f"L1's memory at {offset:#x} behind the batch's start gave {len(data)} of {length} bytes")
        return data

    def _ask(self, request: bytes, length: int) -> bytes:
        if self._line is None:
            self._server = self._host.spawn(f"memio serve {self._path}")
            self._line = self._server.socket()
            self._line.settimeout(0.5)
        deadline = time.monotonic() + SILENCE
        found = b""
        try:
            self._line.sendall(request)
            while len(found) < length:
                with contextlib.suppress(TimeoutError):
                    if not (part := self._line.recv(length - len(found))):
                        break
                    found += part
                    continue
                self._host.check()
                if time.monotonic() > deadline:
                    raise GuestError(f"memio did not answer within {SILENCE:.0f} s")
        except OSError:
            found = b""
        if len(found) < length:
            self._host.check()
            words = self._server.errors().strip() if self._server else ""
            self.close()
            raise GuestError(f"L1's memory cannot be reached: {words or 'memio ended'}")
        return found

    def close(self) -> None:
        """Let go of the file."""
        if self._line is not None:
            self._line.close()
            self._line = None
        if self._server is not None:
            self._server.stop()
            self._server = None
