"""A machine that can run KVM, and how it is reached: one SSH connection for commands, files and tunnels.

``Host`` is what the rest of the tool knows. Subclasses say how the machine comes up (``start``) and goes down
(``stop``).
"""

from __future__ import annotations

from abc import abstractmethod
from types import TracebackType
from typing import Self

from harness.hosts import cpuinfo
from harness.hosts.board import BOARD, Board
from harness.hosts.console import Warn
from harness.hosts.cpuinfo import Capabilities, CpuInfo
from harness.hosts.kvm_modules import KvmModules, ModuleFiles


class Host(KvmModules):
    """A host is one machine; a context manager. Its methods raise HostError when the machine is not there (any more).
    Methods raise HostError when the machine is not there (any more).
    """

    board: Board = BOARD  # what L1 is made of there
    huge_pages: int = 0  # what its ``nr_hugepages`` is where L1 takes none
    few_commands: int = 500  # milliseconds of its clock in which a few commands of ours are carried out there

    @abstractmethod
    def start(self) -> None:
        """The machine is brought up and connected to.

        Raises HostError, with the console's last lines, when it does not come up.
        """

    def boot_for(self, modules: ModuleFiles) -> bool:
        """A machine that is booted anew for each level is, for that of ``modules``; True where it was: what was brought
        to it is gone.
        """
        return False

    @abstractmethod
    def stop(self) -> None:
        """The machine is taken down (or a machine that is not ours is left as it was). It never raises for one already
        gone. Never raises for one already gone.
        """

    @abstractmethod
    def console_tail(self, lines: int = 25) -> str:
        """The function gives the last lines of its console (of the kernel's log where there is no console)."""

    @abstractmethod
    def warnings(self) -> list[Warn]:
        """The function gives the kernel's WARNs since the machine came up, oldest first."""

    def cpu_info(self) -> CpuInfo:
        """This is the machine's CPU as its kernel describes it."""
        return CpuInfo.parse(self.run("cat /proc/cpuinfo", check=True).stdout)

    def capabilities(self) -> Capabilities:
        """The machine's CPU itself says that it can do this."""
        return cpuinfo.reading(lambda command: self.run(command).data, self.cpu_info())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
