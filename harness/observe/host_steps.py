"""What a program has its host do in the middle, behind KVM's back: L1 calls, the host acts, L1 goes on.

Nothing of it may be seen by L1 or L2. What changes the host itself is undone when the program is over, or dies.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from harness import protocol
from harness.errors import GuestError, HostError
from harness.observe.qemu import Qemu

_C: Final = protocol.CONSTANTS
NX_HUGE_PAGES: Final = "/sys/module/kvm/parameters/nx_huge_pages"
IDLE_BITMAP: Final = "/sys/kernel/mm/page_idle/bitmap"
PAGE: Final = 4096  # bytes
LOGGED: Final = 500  # milliseconds of dirty logging that are asked for
LOG_DEADLINE: Final = 60.0  # seconds of wall time in which dirty logging has to end


class HostSteps:
    """The host's part in the programs of one QEMU; ``nx_huge_pages`` is how the environment has the mitigation."""

    def __init__(self, qemu: Qemu, nx_huge_pages: bool) -> None:
        self._qemu = qemu
        self._nx = "force" if nx_huge_pages else "off"
        self._changed = False

    def carry_out(self, call: int, operand: int) -> bool:
        """The host does HOST_* ``call``; the function says whether it could."""
        calls: dict[int, Callable[[int], None]] = {
            _C["HOST_NX_OFF"]: lambda _: self._mitigate("off"),
            _C["HOST_NX_FORCE"]: lambda _: self._mitigate("force"),
            _C["HOST_NX_RESTORE"]: lambda _: self._mitigate(self._nx),
            _C["HOST_AGE"]: lambda _: self._age(),
            _C["HOST_LOG"]: lambda _: self._log(),
            _C["HOST_UNLOG"]: lambda _: self._unlog(),
            _C["HOST_REMAP"]: self._remap,
        }
        try:
            calls[call](operand)
        except GuestError:
            return False
        except HostError:
            self._qemu.host.check()  # a host that is gone is another matter
            return False
        return True

    def restore(self) -> None:
        """What a program left behind when it died is taken away: it is undone."""
        if self._changed:
            self._mitigate(self._nx)

    def _mitigate(self, value: str) -> None:
        self._changed = value != self._nx
        self._qemu.host.run(f"echo {value} > {NX_HUGE_PAGES}", check=True)

    def _age(self) -> None:
        """Marks all of memory idle: behind its last page the bitmap refuses, which is no failure."""
        self._qemu.host.run(
            f"test -w {IDLE_BITMAP} && {{ tr '\\0' '\\377' </dev/zero | "
            f"dd of={IDLE_BITMAP} bs=4096 2>/dev/null; true; }}",
            check=True,
        )

    def _log(self) -> None:
        """QEMU logs what is written for a while, by KVM's dirty log; what an earlier program began ends first."""
        if self._qemu.command("query-dirty-rate")["status"] == "measuring":
            self._unlog()
        arguments = {"calc-time": LOGGED, "calc-time-unit": "millisecond", "mode": "dirty-bitmap"}
        self._qemu.command("calc-dirty-rate", arguments)

    def _unlog(self) -> None:
        """Waits until QEMU has read its log and ended it."""
        deadline = time.monotonic() + LOG_DEADLINE
        while self._qemu.command("query-dirty-rate")["status"] != "measured":
            if time.monotonic() > deadline:
                raise GuestError(f"QEMU's dirty logging did not end within {LOG_DEADLINE:.0f} s")
            time.sleep(0.05)

    def _remap(self, address: int) -> None:
        self._qemu.host.run(f"memio remap {self._qemu.memory_file} {address} {PAGE}", check=True)
