"""ELF files as the oracle needs them: sections, symbols and relocations of x86-64 objects and images."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from elftools.common.exceptions import ELFError
from elftools.elf import sections
from elftools.elf.constants import SH_FLAGS, SHN_INDICES
from elftools.elf.elffile import ELFFile
from elftools.elf.enums import ENUM_ST_INFO_BIND, ENUM_ST_INFO_TYPE
from elftools.elf.relocation import RelocationSection

from harness.errors import BuildError

SHT_NOBITS: Final = "SHT_NOBITS"
SHF_WRITE: Final = SH_FLAGS.SHF_WRITE
SHF_ALLOC: Final = SH_FLAGS.SHF_ALLOC
SHF_EXECINSTR: Final = SH_FLAGS.SHF_EXECINSTR
SHN_UNDEF: Final = SHN_INDICES.SHN_UNDEF
SHN_ABS: Final = SHN_INDICES.SHN_ABS
STB_LOCAL: Final = ENUM_ST_INFO_BIND["STB_LOCAL"]
STT_FUNC: Final = ENUM_ST_INFO_TYPE["STT_FUNC"]
STT_SECTION: Final = ENUM_ST_INFO_TYPE["STT_SECTION"]

# Elf64_Sym and Elf64_Rela. A module has tens of thousands of them, which pyelftools reads one by one, in eight times
# the time; the tables' places and everything else come from it.
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_RELA: Final = struct.Struct("<QQq")


@dataclass(frozen=True, slots=True)
class ElfSection:
    """This is one section."""

    index: int
    name: str
    type: str
    flags: int
    address: int
    size: int
    data: bytes


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
    """A relocation of a section is at ``offset``, of ``type`` R_X86_64_*, against ``symbol`` plus ``addend``."""

    offset: int
    type: int
    symbol: Symbol
    addend: int


class Elf:
    """This is an ELF file, read whole.

    Raises BuildError when it is not a 64-bit little-endian one, or not whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sections: tuple[ElfSection, ...] = ()
        self.symbols: tuple[Symbol, ...] = ()
        self._rela: dict[int, bytes] = {}  # by the index of the section they apply to
        try:
            self._read(ELFFile(io.BytesIO(path.read_bytes())))
        except (ELFError, struct.error, LookupError, ValueError) as error:
            raise BuildError(f"{path} is no whole ELF file of x86-64 ({error}): remove it and build again") from error

    def _read(self, file: ELFFile) -> None:
        if file.elfclass != 64 or not file.little_endian:
            raise ELFError("it is not 64-bit and little-endian")
        parts = tuple(file.iter_sections())
        self.sections = tuple(_section(index, part) for index, part in enumerate(parts))
        for part, section in zip(parts, self.sections, strict=True):
            if isinstance(part, sections.SymbolTableSection):
                self.symbols = tuple(self._symbols(section.data, self.sections[part["sh_link"]].data))
            elif isinstance(part, RelocationSection):
                self._rela[part["sh_info"]] = section.data

    def _symbols(self, table: bytes, strings: bytes) -> Iterator[Symbol]:
        for at, info, _, index, value, size in _SYMBOL.iter_unpack(table):
            kind = info & 15
            if kind == STT_SECTION:
                name = self.sections[index].name
            else:
                name = strings[at : strings.index(b"\0", at)].decode()
            yield Symbol(name, value, size, kind, info >> 4, index)

    @cached_property
    def relocations(self) -> dict[int, tuple[Relocation, ...]]:
        """The relocations are given by the index of the section they apply to, in order of their offsets."""
        found: dict[int, tuple[Relocation, ...]] = {}
        for index, table in self._rela.items():
            rows = (
                Relocation(offset, info & 0xFFFFFFFF, self.symbols[info >> 32], addend)
                for offset, info, addend in _RELA.iter_unpack(table)
            )
            found[index] = tuple(sorted(rows, key=lambda r: r.offset))
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
        """The function reads ``size`` bytes of an image at ``address``.

        Raises BuildError when they are in no section.
        """
        for section in self.sections:
            if section.flags & SHF_ALLOC and section.address <= address < section.address + section.size:
                at = address - section.address
                return section.data[at : at + size] if section.data else bytes(size)
        raise BuildError(f"{self.path}: nothing lies at {address:#x}")


def _section(index: int, part: sections.Section) -> ElfSection:
    data = b"" if part["sh_type"] == SHT_NOBITS else part.data()
    if len(data) != part["sh_size"] and data:
        raise ELFError(f"its section {part.name} ends behind the file")
    return ElfSection(index, part.name, part["sh_type"], part["sh_flags"], part["sh_addr"], part["sh_size"], data)
