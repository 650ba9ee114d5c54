"""ELF files as the oracle needs them: sections, symbols and relocations of x86-64 objects and images."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from harness.errors import BuildError

SHT_SYMTAB: Final = 2
SHT_RELA: Final = 4
SHT_NOBITS: Final = 8
SHF_WRITE: Final = 1
SHF_ALLOC: Final = 2
SHF_EXECINSTR: Final = 4
SHN_UNDEF: Final = 0
SHN_ABS: Final = 0xFFF1
STB_LOCAL: Final = 0
STT_FUNC: Final = 2
STT_SECTION: Final = 3

_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_RELA: Final = struct.Struct("<QQq")


@dataclass(frozen=True, slots=True)
class Section:
    """One section; ``address`` and ``size`` in bytes, ``data`` empty where the file holds none (.bss)."""

    index: int
    name: str
    type: int
    flags: int
    address: int
    size: int
    data: bytes
    link: int
    info: int


@dataclass(frozen=True, slots=True)
class Symbol:
    """One symbol; ``value`` is an offset in its section (objects) or an address (images)."""

    name: str
    value: int
    size: int
    type: int
    bind: int
    section: int


@dataclass(frozen=True, slots=True)
class Relocation:
    """One relocation of a section: at ``offset``, of ``type`` R_X86_64_*, against ``symbol`` plus ``addend``."""

    offset: int
    type: int
    symbol: Symbol
    addend: int


class Elf:
    """An ELF file, read whole. BuildError when it is not a 64-bit little-endian one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        data = path.read_bytes()
        if data[:6] != b"\x7fELF\x02\x01":
            raise BuildError(f"{path} is not a 64-bit little-endian ELF file: remove it and build again")
        (offset,) = struct.unpack_from("<Q", data, 40)
        count, names = struct.unpack_from("<HH", data, 60)
        raw = [_SECTION.unpack_from(data, offset + i * _SECTION.size) for i in range(count)]

        def text(table: int, at: int) -> str:
            start = raw[table][4] + at
            return data[start : data.index(b"\0", start)].decode()

        self.sections = tuple(
            Section(
                i,
                text(names, r[0]),
                r[1],
                r[2],
                r[3],
                r[5],
                b"" if r[1] == SHT_NOBITS else data[r[4] : r[4] + r[5]],
                r[6],
                r[7],
            )
            for i, r in enumerate(raw)
        )
        self.symbols: tuple[Symbol, ...] = ()
        for section in self.sections:
            if section.type == SHT_SYMTAB:
                self.symbols = tuple(
                    Symbol(
                        self.sections[index].name if info & 15 == STT_SECTION else text(section.link, name),
                        value,
                        size,
                        info & 15,
                        info >> 4,
                        index,
                    )
                    for name, info, _, index, value, size in _SYMBOL.iter_unpack(section.data)
                )

    @cached_property
    def relocations(self) -> dict[int, tuple[Relocation, ...]]:
        """By the index of the section they apply to, in order of their offsets."""
        found: dict[int, tuple[Relocation, ...]] = {}
        for section in self.sections:
            if section.type == SHT_RELA:
                rows = (
                    Relocation(offset, info & 0xFFFFFFFF, self.symbols[info >> 32], addend)
                    for offset, info, addend in _RELA.iter_unpack(section.data)
                )
                found[section.info] = tuple(sorted(rows, key=lambda r: r.offset))
        return found

    @property
    def undefined(self) -> set[str]:
        """Names the file uses and does not define."""
        return {s.name for s in self.symbols if s.section == SHN_UNDEF and s.name}

    @property
    def defined(self) -> set[str]:
        """Names other files may use."""
        return {s.name for s in self.symbols if s.section != SHN_UNDEF and s.bind != STB_LOCAL and s.name}

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes of an image at ``address``; BuildError when they are in no section."""
        for section in self.sections:
            if section.flags & SHF_ALLOC and section.address <= address < section.address + section.size:
                at = address - section.address
                return section.data[at : at + size] if section.data else bytes(size)
        raise BuildError(f"{self.path}: nothing lies at {address:#x}")
