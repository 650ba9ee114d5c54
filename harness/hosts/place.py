"""A place of a lab that is acquired: reached by SSH, switched by its power port, heard on its serial console."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import pexpect

from harness.errors import HostError
from harness.hosts.booted import BootCommands, KernelImage
from harness.hosts.console import Console
from harness.hosts.coordinator import Coordinator
from harness.hosts.login import Unreachable
from harness.hosts.ssh import QEMU, SshHost
from harness.process import PROGRESS, programs

BOOT: Final = 300.0  # seconds that a machine has to answer after its power came back
TRY: Final = 3.0  # seconds between two attempts to log in meanwhile
READ: Final = 0.5  # seconds in which a console is read at one go


class HeldPlace:
    """This is one acquired place. ``suspect``: the last run on it failed, so that its power is cycled before the next.
    ``suspect``: the last run on it failed, so that its power is cycled before the next.
    """

    def __init__(self, coordinator: Coordinator, name: str) -> None:
        self.coordinator = coordinator
        self.name = name
        self.service = coordinator.service(name)
        self.suspect = False

    def __str__(self) -> str:
        at = self.service
        return f"{self.name} ({at.user}@{at.address}:{at.port})"


class SerialConsole:
    """This is a place's serial line as ``Console`` reads it: labgrid's driver on one end of a pipe, in a thread."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._out, self._in = os.pipe()
        self._closing = threading.Event()
        self.console = Console(self._out)
        self._thread = threading.Thread(target=self._pump, name="serial", daemon=True)
        self._thread.start()

    def _pump(self) -> None:
        while not self._closing.is_set():
            try:
                os.write(self._in, self._driver.read(size=1, timeout=READ))
            except pexpect.TIMEOUT:
                continue
            except Exception:  # the line went away: whatever its driver raises, the machine is still asked by SSH
                return

    def close(self) -> None:
        """The line is left to others."""
        self._closing.set()
        self._thread.join(2 * READ + 1)
        self.console.close()
        with contextlib.suppress(Exception):
            self._driver.target.deactivate(self._driver)
        for descriptor in (self._in, self._out):
            os.close(descriptor)


class PlaceHost(SshHost):
    """The host is the machine of an acquired place.

    One that does not answer, or on which the last run failed, has its power cycled where the place has a power port,
    and gets BOOT seconds to come up. Its serial console, where it has one, tells of a panic at once.
    """

    def __init__(
        self,
        place: HeldPlace,
        *,
        key: Path | None = None,
        known_hosts: Path | None = None,
        release: str | None = None,
        qemu: str = QEMU,
        l1_machine: str | None = None,
        memio: Path | None = None,
        boot: BootCommands | None = None,
        image: KernelImage | None = None,
    ) -> None:
        at = place.service
        address = f"[{at.address}]" if ":" in at.address else at.address
        super().__init__(
            f"{at.user}@{address}:{at.port}",
            key=key,
            known_hosts=known_hosts,
            release=release,
            qemu=qemu,
            l1_machine=l1_machine,
            memio=memio,
            boot=boot,
            image=image,
        )
        self.place = place
        self.name = place.name
        self._serial: SerialConsole | None = None

    def start(self) -> None:
        """As every lab machine; it is woken before."""
        try:
            self.wake()
            super().start()
        except BaseException:
            self._hang_up()
            raise

    def wake(self) -> None:
        """The machine is logged in to, its power cycled where that takes it.

        Raises HostError when the machine does not answer.
        """
        place = self.place
        self._held()
        self._listen()
        if place.suspect and self._cycle("the last run on it failed"):
            place.suspect = False
            self._wait()
            return
        try:
            self.connect_only()
        except Unreachable as error:
            try:
                switched = self._cycle("it does not answer")
            except HostError as why:
                raise HostError(f"{error}; {why}") from why
            if not switched:
                raise HostError(f"{error} (place {place.name} has no power port that labgrid could switch)") from error
            self._wait()

    def connect_only(self) -> None:
        """As every lab machine; one that was woken is connected already."""
        if self._client is None:
            super().connect_only()

    def _cycle(self, why: str) -> bool:
        if not self.place.coordinator.cycle(self.place.name):
            return False
        PROGRESS.say(f"{self.name}: {why}: its power was cycled")
        return True

    def _wait(self) -> None:
        """Until the machine that was switched on takes a log-in."""
        deadline = time.monotonic() + BOOT
        while True:
            try:
                self.connect_only()
                return
            except Unreachable as error:
                if time.monotonic() > deadline:
                    tail = self.console_tail()
                    raise HostError(
                        f"{self.name} does not answer {BOOT:.0f} s after its power was cycled: {error}"
                        + (f"; the console's last lines:\n{tail}" if tail else "")
                    ) from error
            programs.breathe()
            time.sleep(TRY)

    def _held(self) -> None:
        if not self.place.coordinator.holds(self.name):
            raise HostError(f"place {self.name} was taken away from this run: somebody else released it")

    def _listen(self) -> None:
        """Open the serial console; a place whose console is not to be had is asked without."""
        if self._serial is None:
            try:
                driver = self.place.coordinator.console(self.name)
            except Exception as error:  # whatever a driver raises
                PROGRESS.say(f"{self.name}: its console cannot be read: {error}")
                return
            if driver is not None:
                self._serial = SerialConsole(driver)

    def _hang_up(self) -> None:
        if self._serial is not None:
            self._serial.close()
            self._serial = None

    def check(self) -> None:
        """HostError when the place was taken away, or its console told of a panic."""
        super().check()
        self._held()
        if self._serial is not None:
            self._serial.console.check()

    def console_tail(self, lines: int = 25) -> str:
        """The function gives the last lines of its serial console; of the kernel's log where it has none."""
        if self._serial is not None and (said := self._serial.console.tail(lines)):
            return said
        return super().console_tail(lines) if self._client is not None else ""

    def stop(self) -> None:
        """As every lab machine; its console is left to others."""
        super().stop()
        self._hang_up()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.place.suspect = isinstance(value, HostError)
        super().__exit__(kind, value, trace)
