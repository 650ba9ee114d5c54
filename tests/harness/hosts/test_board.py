"""What L1 is made of: which machine type is taken of those that a QEMU says it has."""

from __future__ import annotations

import pytest

from harness.hosts.board import BOARD, Board, offered

DEBIAN = """\
Supported machines are:
microvm              microvm (i386)
pc                   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-11.1)
pc-i440fx-11.1       Standard PC (i440FX + PIIX, 1996) (default)
q35                  Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-11.1)
none                 empty machine
"""
OLDER = "\n".join(line for line in DEBIAN.splitlines() if "microvm" not in line)
NEWER = "\n".join(line for line in OLDER.splitlines() if not line.startswith("pc"))
PVPANIC = 'Misc devices:\nname "pvpanic", bus ISA\nname "pvpanic-pci", bus PCI\n'


@pytest.mark.parametrize(
    ("machines", "devices", "wanted", "found"),
    [
        (DEBIAN, PVPANIC, None, BOARD),
        (DEBIAN, PVPANIC, "q35", Board("q35")),
        (DEBIAN, 'name "pvpanic-pci", bus PCI\n', None, Board("pc", pvpanic=False)),
        (DEBIAN, "", "microvm", None),
        (OLDER, PVPANIC, None, Board("pc")),
        (OLDER, PVPANIC, "microvm", None),
        (NEWER, "", None, Board("q35", pvpanic=False)),
        ("none                 empty machine\n", PVPANIC, None, None),
        ("", "", None, None),
    ],
)
def test_the_first_that_there_is_is_taken(machines: str, devices: str, wanted: str | None, found: Board | None) -> None:
    assert offered(machines, devices, wanted) == found


def test_what_is_not_there_is_not_asked_for() -> None:
    words = " ".join(Board("pc", pvpanic=False).arguments)
    assert "pvpanic" not in words and "qboot" not in words and "acpi=on" in words
    assert "acpi=off" in " ".join(Board("q35").arguments)
    assert BOARD.arguments[-1] == "qboot.rom"


def test_what_it_costs_is_said() -> None:
    assert Board("pc").words == "L1 by QEMU's machine pc, which starts more slowly than microvm"
    assert Board("pc", pvpanic=False).words.endswith("without pvpanic no program can call its host")
    assert (str(BOARD), str(Board("q35", pvpanic=False))) == ("microvm", "q35 without pvpanic")
