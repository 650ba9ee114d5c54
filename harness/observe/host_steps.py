"""What a program has its host do in the middle, behind KVM's back: L1 calls, the host acts, L1 goes on.

Nothing of it may be seen by L1 or L2. What changes the host itself is undone when the program is over, or dies.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from harness import protocol
from harness.errors import GuestError, HostError
from harness.hosts import FILES
from harness.observe.qemu import Qemu

_C: Final = protocol.CONSTANTS
NX_HUGE_PAGES: Final = "/sys/module/kvm/parameters/nx_huge_pages"
IDLE_BITMAP: Final = "/sys/kernel/mm/page_idle/bitmap"
PAGE: Final = 4096  # bytes
LOG_DEADLINE: Final = 60.0  # seconds of wall time in which dirty logging has to end
JOB_DEADLINE: Final = 60.0  # seconds of wall time in which saving and restoring have to end
STATE: Final = f"{FILES}/l1-state"  # the file on the host that the state is saved to
IMAGE: Final = f"{FILES}/l1-image"  # and what keeps the pages that QEMU's reset writes
NODE: Final = "state"  # QEMU's name for its block device, which no machine has


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
            _C["HOST_SAVE"]: lambda _: self._save(),
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
        arguments = {"calc-time": self._qemu.host.few_commands, "calc-time-unit": "millisecond", "mode": "dirty-bitmap"}
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

    def _save(self) -> None:
        """QEMU saves the virtual CPU's state to a file and restores it, KVM_GET_NESTED_STATE and its kin.

        L1's memory is left as it is. QEMU resets its machine before it restores, which writes the probe's image anew:
        what lay there is put back.
        """
        running = self._qemu.status() == "running"
        if running:
            self._qemu.command("stop")
        self._have_node()
        where: dict[str, object] = {"vmstate": NODE, "devices": [NODE], "tag": "middle"}
        self._job("snapshot-save", where)
        memory, (first, count) = self._qemu.memory_file, self._qemu.image
        self._dd(f"if={memory} of={IMAGE} skip={first} count={count}")
        self._job("snapshot-load", where)
        self._dd(f"if={IMAGE} of={memory} seek={first} count={count} conv=notrunc")
        self._job("snapshot-delete", {"devices": [NODE], "tag": "middle"})
        if running:
            self._qemu.command("cont")

    def _have_node(self) -> None:
        """Gives QEMU a file to save to, once."""
        if any(node["node-name"] == NODE for node in self._qemu.command("query-named-block-nodes", {"flat": True})):
            return
        self._qemu.command(
            "migrate-set-capabilities", {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}
        )
        self._job("blockdev-create", {"options": {"driver": "file", "filename": STATE, "size": 0}})
        self._qemu.command("blockdev-add", {"driver": "file", "filename": STATE, "node-name": f"{NODE}-file"})
        self._job("blockdev-create", {"options": {"driver": "qcow2", "file": f"{NODE}-file", "size": 1 << 20}})
        self._qemu.command("blockdev-add", {"driver": "qcow2", "file": f"{NODE}-file", "node-name": NODE})

    def _dd(self, what: str) -> None:
        self._qemu.host.run(f"dd bs={PAGE} {what} 2>/dev/null", check=True)

    def _job(self, name: str, arguments: dict[str, object]) -> None:
        """A job of QEMU's from its start to its end. GuestError where it fails."""
        self._qemu.command(name, {"job-id": "kvmirror", **arguments})
        deadline = time.monotonic() + JOB_DEADLINE
        while (job := self._qemu.command("query-jobs")[0])["status"] != "concluded":
            if time.monotonic() > deadline:
                raise GuestError(f"QEMU's {name} did not end within {JOB_DEADLINE:.0f} s; it is {job['status']}")
            time.sleep(0.02)
        self._qemu.command("job-dismiss", {"id": "kvmirror"})
        if "error" in job:
            raise GuestError(f"QEMU's {name} failed: {job['error']}")
