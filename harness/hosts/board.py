"""What L1's virtual machine is made of: which of its machine types a host's QEMU has, and whether it has pvpanic."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

QUICK: Final = "microvm"  # without PCI or ACPI tables, both of which are made anew at each reset
SLOW: Final = ("pc", "q35")  # what distributions build that leave microvm out; their firmware is SeaBIOS
MACHINES: Final = (QUICK, *SLOW)  # the first that there is is taken
PVPANIC: Final = "pvpanic"
# The small firmware starts a kernel within a few milliseconds of guest time; SeaBIOS, QEMU's own, takes a hundred.
FIRMWARE: Final = "qboot.rom"
_OPTIONS: Final = {
    QUICK: "acpi=off,rtc=off,pit=on,auto-kernel-cmdline=off",
    # What L1 has no use for is left out; the HPET lies where L2's device memory is. The interrupt controllers are
    # split as a kernel without CONFIG_KVM_IOAPIC wants it.
    **dict.fromkeys(SLOW, "smm=off,vmport=off,hpet=off,usb=off,graphics=off,kernel-irqchip=split"),
}


@dataclass(frozen=True, slots=True)
class Board:
    """The board is one machine type of QEMU. Without ``pvpanic`` L1 powers itself off by ACPI and cannot call its
    host.
    """

    machine: str = QUICK
    pvpanic: bool = True

    @property
    def quick(self) -> bool:
        """This says whether it is the board that L1 is made for."""
        return self == BOARD

    @property
    def arguments(self) -> list[str]:
        """QEMU's options for it; L1's memory is the object ``l1``."""
        acpi = "" if self.machine == QUICK else f",acpi={'off' if self.pvpanic else 'on'}"
        return [
            *("-machine", f"{self.machine},{_OPTIONS[self.machine]}{acpi},memory-backend=l1"),
            *(("-device", PVPANIC) if self.pvpanic else ()),
            *(("-bios", FIRMWARE) if self.machine == QUICK else ()),
        ]

    @property
    def words(self) -> str:
        """The text is the board in a sentence, with what it costs."""
        slower = "" if self.machine == QUICK else f", which starts more slowly than {QUICK}"
        return f"L1 by QEMU's machine {self.machine}{slower}" + (
            "" if self.pvpanic else f"; without {PVPANIC} no program can call its host"
        )

    def __str__(self) -> str:
        return self.machine + ("" if self.pvpanic else f" without {PVPANIC}")


BOARD: Final = Board()  # what L1 is made for, and what an emulated host's QEMU has


def read(text: str) -> Board:
    """The function is the inverse of ``str``."""
    machine, _, without = text.partition(" without ")
    return Board(machine, not without)


def beside(first: Board) -> list[Board]:
    """The function gives ``first``, and what is taken where a QEMU lacks it, the quickest first."""
    others = [Board(name, pvpanic) for pvpanic in (True, False) for name in MACHINES if pvpanic or name in SLOW]
    return list(dict.fromkeys((first, *others)))


def offered(machines: str, devices: str, wanted: str | None = None) -> Board | None:
    """The function reads what QEMU says to ``-machine help`` and to ``-device help``; None where it has no machine that
    L1 runs on (or not the ``wanted`` one). A microvm without pvpanic has no way to power itself off: it is none.
    """
    there = {line.split()[0] for line in machines.splitlines() if line.strip()}
    pvpanic = re.search(rf'^name "{PVPANIC}"', devices, re.MULTILINE) is not None
    boards = [Board(name, pvpanic) for name in MACHINES if name in there and (pvpanic or name in SLOW)]
    return next((one for one in boards if wanted in (None, one.machine)), None)


def named(machine: str | None) -> Board:
    """The function gives the board of an emulated host, whose QEMU has every machine type."""
    return BOARD if machine is None else Board(machine)


def names(boards: Sequence[str] = MACHINES) -> str:
    """The function gives the machine types as a list in words."""
    return f"{', '.join(boards[:-1])} or {boards[-1]}"
