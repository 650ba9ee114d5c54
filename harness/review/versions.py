"""Machine-code versions: when is a function of two levels the same code, callees and constants included?

The digest of a function is over its section's bytes with the relocated places blanked, and over what each of them
refers to: code and read-only data by their own digests (in the order they are met), writable data by its name and
initial bytes, what the image does not have by its name. Line numbers in the table of WARNs are no part of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Final

from harness.review.elf import (
    SHF_EXECINSTR,
    SHF_WRITE,
    SHN_ABS,
    SHN_UNDEF,
    STB_LOCAL,
    Elf,
    ElfSection,
    Relocation,
    Symbol,
)

SHF_MERGE: Final = 0x10
SHF_STRINGS: Final = 0x20
CONSTANT: Final = 32  # bytes of a merged constant that are looked at
WEAK: Final = 2
WIDTH: Final = {1: 8, 24: 8}  # R_X86_64_64, R_X86_64_PC64; the others that occur have 4 bytes
PC_RELATIVE: Final = frozenset({2, 4, 24})

Place = tuple[int, int]  # index of the object, index of the section


class Versions:
    """The objects of one image; ``digest(name)`` tells the version of the function ``name``."""

    def __init__(self, objects: Iterable[Path]) -> None:
        self.objects = [Elf(path) for path in sorted(objects)]

    @cached_property
    def _globals(self) -> dict[str, tuple[int, Symbol]]:
        found: dict[str, tuple[int, Symbol]] = {}
        for n, elf in enumerate(self.objects):
            for s in elf.symbols:
                if s.section in (SHN_UNDEF, SHN_ABS) or s.bind == STB_LOCAL or not s.name:
                    continue
                if s.bind == WEAK and s.name in found:
                    continue
                found[s.name] = (n, s)
        return found

    def functions(self, name: str) -> list[str]:
        """The name reaches these sections of code and constants, by name."""
        seen: dict[Place, int] = {}
        self._walk(name, seen, hashlib.sha256())
        return [self.objects[o].sections[s].name for o, s in seen]

    def digest(self, name: str) -> str:
        """The version of ``name`` and all it reaches: 16 hexadecimal digits. KeyError when there is no such symbol."""
        h = hashlib.sha256()
        self._walk(name, {}, h)
        return h.hexdigest()[:16]

    def _walk(self, name: str, seen: dict[Place, int], h: hashlib._Hash) -> None:
        n, symbol = self._globals[name]
        queue: list[Place] = []
        h.update(self._reference(n, symbol, 0, seen, queue).encode())
        at = 0
        while at < len(queue):
            self._section(queue[at], seen, queue, h)
            at += 1

    def _section(self, place: Place, seen: dict[Place, int], queue: list[Place], h: hashlib._Hash) -> None:
        n, index = place
        elf = self.objects[n]
        section = elf.sections[index]
        data = bytearray(section.data)
        told = []
        for r in elf.relocations.get(index, ()):
            width = WIDTH.get(r.type, 4)
            data[r.offset : r.offset + width] = bytes(width)
            told.append(f"{r.offset}:{r.type}:{self._reference(n, r.symbol, self._addend(r), seen, queue)}")
        h.update(bytes(data))
        h.update("\n".join(told).encode())

    @staticmethod
    def _addend(r: Relocation) -> int:
        return r.addend + 4 if r.type in PC_RELATIVE else r.addend

    def _reference(self, n: int, symbol: Symbol, addend: int, seen: dict[Place, int], queue: list[Place]) -> str:
        if symbol.section == SHN_UNDEF or symbol.bind != STB_LOCAL:
            if symbol.name not in self._globals:
                return f"missing {symbol.name}+{addend}"
            n, symbol = self._globals[symbol.name]
        if symbol.section == SHN_ABS:
            return f"absolute {symbol.value + addend}"
        section = self.objects[n].sections[symbol.section]
        at = symbol.value + addend
        if section.flags & SHF_MERGE:
            return f"constant {self._merged(section, at).hex()}"
        if section.flags & SHF_WRITE:
            name = symbol.name
            return f"data {section.name} {name}+{addend} {hashlib.sha256(section.data).hexdigest()}"
        place = (n, symbol.section)
        if place not in seen:
            seen[place] = len(seen)
            queue.append(place)
        kind = "code" if section.flags & SHF_EXECINSTR else "read-only"
        return f"{kind} {seen[place]}+{at}"

    @staticmethod
    def _merged(section: ElfSection, at: int) -> bytes:
        if section.flags & SHF_STRINGS:
            return section.data[at : section.data.index(b"\0", at)] if 0 <= at < section.size else b"?"
        return section.data[at : at + CONSTANT]
