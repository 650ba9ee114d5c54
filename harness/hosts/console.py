"""The serial console of a host: read line by line through pexpect, and what its lines mean.

``Recogniser`` is the judge and does no I/O; ``Console`` feeds it from a file descriptor in a thread, for as long
as the host lives.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

import pexpect
import pexpect.fdpexpect

from harness.errors import HostError

READY: Final = "kvmirror-host: ready"
TAIL: Final = 25  # lines kept in an error message
SILENCE: Final = 45.0  # seconds without a character before the boot counts as hung

_STAMP = re.compile(r"^(?:<\d+>)?\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ?")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x20-\x7e\t]")
# A WARN's header is "CPU: 0 PID: 1 at FILE:LINE FUNCTION+0x1/0x2" to Linux 6.18, "FILE:LINE at FUNCTION+0x1/0x2" from 7
# on; a kernel without CONFIG_DEBUG_BUGVERBOSE names no file.
WARNING: Final = (
    r"WARNING: (?:CPU: \d+ PID: \d+ at )?(?:at )?"
    r"(?:(?P<place>(?P<file>[^\s:]+):\d+) )?(?:at )?(?P<function>[^\s+]+)\+0x"
)
_WARNING = re.compile(WARNING)
_PLAIN_WARNING = re.compile(r"WARNING: (?P<text>.+)")


# What a BUG line may begin with that the kernel goes on behind.
_SURVIVED: Final = "KASAN|KFENCE|KCSAN|workqueue|sleeping function|scheduling while|spinlock|rwlock|Bad page|using "


class Trouble(Enum):
    """The trouble is what ends a host."""

    PANIC = "panicked"
    OOPS = "had an oops"
    BUG = "hit a BUG"
    HUNG = "has a hung task"
    BOOT = "found nothing to boot"


_FATAL: Final = (
    (Trouble.PANIC, re.compile(r"Kernel panic - not syncing")),
    (Trouble.BUG, re.compile(rf"kernel BUG at |^BUG: (?!{_SURVIVED})")),
    (Trouble.OOPS, re.compile(r"^Oops: |general protection fault, |^(?:#GP|stack segment): .*\bOops\b|double fault: ")),
    (Trouble.HUNG, re.compile(r"INFO: task .+ blocked for more than|soft lockup|hard LOCKUP|rcu: INFO: .* stall")),
    (
        Trouble.BOOT,
        re.compile(r"No bootable device|ISOLINUX .*(?:failed|error)|Could not find kernel image|Boot failed"),
    ),
)
"""In this order: a BUG line is the cause, the Oops after it the consequence, the panic the end of both."""


@dataclass(frozen=True, slots=True)
class Warn:
    """One WARN_ON of the kernel: the whole header line, the function it is in, and file:line.

    ``at`` counts the console's lines, so that a reader can tell which came in between; function and place are
    empty for a warning without a place.
    """

    text: str
    function: str
    place: str
    at: int


@dataclass(slots=True)
class Recogniser:
    """The recogniser reads a console's lines one by one; it remembers the warnings, the first fatal trouble, and
    whether it is ready.
    """

    ready: bool = False
    trouble: Trouble | None = None
    cause: str = ""
    warnings: list[Warn] = field(default_factory=list)
    lines: int = 0

    def feed(self, raw: str) -> str:
        """Take a line in as it came; gives it back as text without control characters and time stamp."""
        self.lines += 1
        line = _STAMP.sub("", _CONTROL.sub("", raw).strip("\r\n"))
        if READY in line:
            self.ready = True
        for trouble, pattern in _FATAL:
            if pattern.search(line):
                # A panic of an Oops is still the Oops: the first word is the cause.
                if self.trouble is None:
                    self.trouble, self.cause = trouble, line
                break
        else:
            if match := _WARNING.search(line):
                self.warnings.append(Warn(line, match["function"], match["place"] or "", self.lines))
            elif match := _PLAIN_WARNING.match(line):
                self.warnings.append(Warn(line, "", "", self.lines))
        return line


class Console:
    """A serial line that is read until it closes. Thread-safe; ``descriptor`` is not closed here."""

    def __init__(self, descriptor: int, log: Path | None = None) -> None:
        self._child = pexpect.fdpexpect.fdspawn(descriptor, encoding="utf-8", codec_errors="replace", timeout=None)
        self._log = log.open("a", encoding="utf-8") if log else None
        self._recogniser = Recogniser()
        self._tail: deque[str] = deque(maxlen=400)
        self._changed = threading.Condition()
        self._heard = time.monotonic()
        self._partial = ""
        self._closed = False
        self._stop = False
        self._thread = threading.Thread(target=self._read, name="console", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        patterns: list[re.Pattern[str] | re.Pattern[bytes] | str | bytes | type[pexpect.EOF] | type[pexpect.TIMEOUT]]
        patterns = [r"\n", pexpect.TIMEOUT, pexpect.EOF]
        while not self._stop:
            try:
                which = self._child.expect(patterns, timeout=0.2)
            except (OSError, ValueError):
                which = 2  # a pty whose other end has closed gives EIO
            with self._changed:
                if which == 1:
                    if (partial := self._child.buffer) != self._partial:
                        self._partial, self._heard = partial, time.monotonic()
                    continue
                raw = self._child.before or ""
                if which == 0 or raw:
                    self._heard, self._partial = time.monotonic(), ""
                    line = self._recogniser.feed(raw if isinstance(raw, str) else "")
                    self._tail.append(line)
                    if self._log:
                        self._log.write(line + "\n")
                        self._log.flush()
                self._closed = which == 2
                self._changed.notify_all()
            if which == 2:
                return

    def close(self) -> None:
        """The reading stops. The descriptor may be closed afterwards. The descriptor may be closed afterwards."""
        self._stop = True
        self._thread.join(2)
        if self._log:
            self._log.close()
            self._log = None

    def tail(self, lines: int = TAIL) -> str:
        """The function gives the last ``lines`` lines."""
        with self._changed:
            return "\n".join(list(self._tail)[-lines:])

    def warnings(self) -> list[Warn]:
        """The function gives all warnings so far."""
        with self._changed:
            return list(self._recogniser.warnings)

    @property
    def trouble(self) -> str:
        """The text says in words what ended the host; it is empty where nothing did."""
        with self._changed:
            found = self._recogniser.trouble
            return f"{found.value}: {self._recogniser.cause}" if found else ""

    def error(self, what: str) -> HostError:
        """The function gives a HostError that says ``what``, with the last lines."""
        tail = self.tail()
        return HostError(f"{what}; the console's last lines:\n{tail}" if tail else f"{what}; its console said nothing")

    def check(self) -> None:
        """The kernel has not died of anything that the console told.

        Raises HostError when it has.
        """
        if self.trouble:
            raise self.error(f"the host {self.trouble}")

    def wait_ready(self, timeout: float, silence: float = SILENCE) -> None:
        """Return once the host's init says so.

        HostError when it panics, has an oops, closes its line, is silent for ``silence`` seconds or not ready after
        ``timeout`` seconds of wall time.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            self._heard = time.monotonic()
            while not self._recogniser.ready:
                now = time.monotonic()
                # The lines behind the first word of trouble (registers, call trace) take a moment to arrive.
                if self._recogniser.trouble:
                    self._changed.wait(0.5)
                    raise self.error(f"the host {self.trouble}")
                if self._closed:
                    raise self.error("the host closed its serial line while it booted")
                if now >= deadline:
                    raise self.error(f"the host did not get ready within {timeout:.0f} s")
                if now - self._heard >= silence:
                    raise self.error(f"the host hangs: silent for {silence:.0f} s while it booted")
                self._changed.wait(min(0.2, deadline - now))
