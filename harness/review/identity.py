"""Object identity: which functions and data of a module are the same code at two levels, and what else differs.

The machine code of a function is its instructions as objdump prints them, with every relocation and every jump
resolved to a symbol and an offset, a string or the contents it points at; addresses play no part. Line numbers live
in the table of WARNs (__bug_table), which is compared apart. A function that differs only in offsets of memory
operands changed for a structure's layout, one that differs only in immediate operands for a constant.
"""

from __future__ import annotations

import bisect
import difflib
import hashlib
import json
import re
import struct
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from harness.build import Cache, sha256
from harness.errors import BuildError
from harness.jsonable import Json
from harness.process import programs
from harness.review.elf import SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS, STT_FUNC, Elf, ElfSection, Relocation, Symbol

RECIPE: Final = 1  # counts changes of what is compared
SHF_STRINGS: Final = 0x20
STT_OBJECT: Final = 1
BUG_TABLE: Final = "__bug_table"
PC_RELATIVE: Final = frozenset((2, 4, 9, 24))  # R_X86_64_PC32, PLT32, GOTPCREL, PC64
# Code that the kernel writes over text or generates; it is not a function's own.
NOT_TEXT: Final = (".altinstr_replacement", ".altinstr_aux", ".static_call.text")
# Data that names, numbers or places other things and follows them.
NOT_DATA: Final = (BUG_TABLE, ".modinfo", ".orc_", "__ksymtab", ".gnu.linkonce", "__ex_table", ".note", ".data..once")
_INSTRUCTION = re.compile(r"^\s+([0-9a-f]+):\t(.*)$")
_RELOCATION = re.compile(r"^\t\t\t([0-9a-f]+): (R_\w+)\t")
_FUNCTION = re.compile(r"^([0-9a-f]+) <(.+)>:$")
_SECTION = re.compile(r"^Disassembly of section (.+):$")
_TARGET = re.compile(r"\b[0-9a-f]+ <([^>]+)>")
_PADDING = re.compile(r"^(nop\w*|data16|cs nop\w*|xchg\s+%ax,%ax|int3)\b")
_NUMBERED = re.compile(r"\.\d+$")
_DISPLACEMENT = re.compile(r"-?0x[0-9a-f]+(?=\((?!%rip|%rsp))")
_BARE = re.compile(r"(?<![0-9a-fx])(?=\(%(?!rip|rsp))")
_IMMEDIATE = re.compile(r"\$-?0x[0-9a-f]+")


@dataclass(frozen=True)
class Snapshot:
    """The snapshot has what is compared of one module: digests by name, texts where they are worth showing.

    ``functions`` and ``data``: name to digest. ``bugs``: place and flags of each WARN to its line (0: not kept).
    ``formats``: tracepoint to its fields and print format. ``parameters``: module parameter to its type.
    """

    functions: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    bugs: Mapping[str, int] = field(default_factory=dict)
    formats: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CodeChange:
    """This is a function that differs. ``why``: code, constants, layout, added or removed."""

    module: str
    name: str
    why: str
    excerpt: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """The record has all that differs between two levels' modules."""

    functions: tuple[CodeChange, ...]
    data: tuple[str, ...]
    moved_lines: int
    warns: int
    formats: tuple[str, ...]
    parameters: tuple[str, ...]

    @property
    def code(self) -> bool:
        """Some function's machine code differs: True."""
        return bool(self.functions)

    @property
    def interface(self) -> bool:
        """What user space reads differs, parameters or formats of tracepoints: True."""
        return bool(self.parameters or self.formats)

    @property
    def nothing(self) -> bool:
        """Nothing differs that can be seen at run time (lines of WARNs are left out): True."""
        return not (self.functions or self.data or self.warns or self.formats or self.parameters)


class Module:
    """This is a kernel module (.ko) read for comparison.

    Raises BuildError when it is no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.elf = Elf(path)
        self._by_name = {s.name: s for s in self.elf.sections if s.flags & SHF_ALLOC}
        self._symbols: dict[int, list[Symbol]] = defaultdict(list)
        for symbol in self.elf.symbols:
            if symbol.type in (STT_FUNC, STT_OBJECT) and 0 < symbol.section < len(self.elf.sections):
                self._symbols[symbol.section].append(symbol)
        for symbols in self._symbols.values():
            symbols.sort(key=lambda s: (s.value, -s.size))
        self._starts = {index: [s.value for s in symbols] for index, symbols in self._symbols.items()}
        self._referenced: dict[int, set[int]] = defaultdict(set)
        self._contents: dict[tuple[int, int], str] = {}

    def _text(self, section: ElfSection) -> bool:
        return bool(section.flags & SHF_EXECINSTR) and section.name not in NOT_TEXT

    def _covering(self, section: int, offset: int) -> Symbol | None:
        at = bisect.bisect_right(self._starts.get(section, []), offset) - 1
        while at >= 0:
            symbol = self._symbols[section][at]
            if symbol.value <= offset < symbol.value + max(symbol.size, 1):
                return symbol
            if offset - symbol.value > 1 << 16:
                return None
            at -= 1
        return None

    def _place(self, section: ElfSection, offset: int) -> str:
        """What lies at ``offset`` of ``section``, told without an address."""
        if section.flags & SHF_STRINGS and 0 <= offset < len(section.data):
            return json.dumps(section.data[offset : section.data.index(b"\0", offset)].decode("latin-1"))
        symbol = self._covering(section.index, offset)
        if symbol is not None:
            name = _NUMBERED.sub(".*", symbol.name)
            if name != symbol.name and symbol.type == STT_OBJECT and section.type != SHT_NOBITS:
                # Two static locals of one name are told apart by what they hold, not by the compiler's count.
                name += "=" + self._content(section, symbol.value, symbol.value + symbol.size)[:16]
            return f"{name}+{offset - symbol.value:#x}"
        if section.flags & SHF_EXECINSTR:
            return f"{section.name}+{offset:#x}"
        if section.type == SHT_NOBITS or not 0 <= offset < section.size:
            return f"{section.name}"
        return f"{section.name}={self._content(section, offset, self._end(section, offset))[:16]}"

    def _end(self, section: ElfSection, offset: int) -> int:
        """Where the nameless thing at ``offset`` ends: at the next one that is referred to or has a name."""
        later = [o for o in self._referenced[section.index] if o > offset]
        later += [o for o in self._starts.get(section.index, []) if o > offset]
        return min([*later, section.size])

    def _content(self, section: ElfSection, start: int, end: int) -> str:
        known = self._contents.get((section.index, start))
        if known is not None:
            return known
        self._contents[section.index, start] = "itself"  # a table that points into itself
        data = bytearray(section.data[start:end])
        places = []
        for relocation in self._within(section.index, start, end):
            width = 8 if relocation.type in (1, 24) else 4
            at = relocation.offset - start
            data[at : at + width] = bytes(width)
            addend = relocation.addend + (at if relocation.type in PC_RELATIVE else 0)
            places.append(f"{at}:{self._target(relocation.symbol, addend)}")
        found = hashlib.sha256(bytes(data) + "\n".join(places).encode()).hexdigest()
        self._contents[section.index, start] = found
        return found

    @cached_property
    def _offsets(self) -> dict[int, list[int]]:
        return {index: [r.offset for r in rows] for index, rows in self.elf.relocations.items()}

    def _within(self, section: int, start: int, end: int) -> tuple[Relocation, ...]:
        offsets = self._offsets.get(section, [])
        low, high = bisect.bisect_left(offsets, start), bisect.bisect_left(offsets, end)
        return self.elf.relocations.get(section, ())[low:high]

    def _target(self, symbol: Symbol, offset: int) -> str:
        """A relocation's target: a place in a section where the symbol is one's, else name and offset."""
        if 0 < symbol.section < len(self.elf.sections):
            section = self.elf.sections[symbol.section]
            if symbol.name == section.name or _NUMBERED.search(symbol.name):
                return self._place(section, symbol.value + offset)
        return f"{symbol.name}{offset:+#x}" if offset else symbol.name

    @cached_property
    def functions(self) -> dict[str, tuple[str, ...]]:
        """The instructions of every function, by name; a second one of a name has #2 behind it."""
        done = programs.run(["objdump", "-dr", "--no-show-raw-insn", "-w", self.path], error=BuildError)
        raw = self._instructions(done.stdout)
        for section, rows in raw.values():
            for end, _, relocations in rows:
                for relocation in relocations:
                    symbol = relocation.symbol
                    if 0 < symbol.section < len(self.elf.sections):
                        self._referenced[symbol.section].add(symbol.value + self._effective(relocation, end))
            del section
        found = {}
        for name, (_, rows) in raw.items():
            lines = [self._line(text, end, relocations) for end, text, relocations in rows]
            while lines and _PADDING.match(lines[-1]):
                lines.pop()
            found[name] = tuple(lines)
        return found

    def _instructions(self, listing: str) -> dict[str, tuple[str, list[tuple[int, str, list[Relocation]]]]]:
        """objdump's listing as functions: for each instruction where it ends, its text, its relocations."""
        section: ElfSection | None = None
        found: dict[str, tuple[str, list[tuple[int, str, list[Relocation]]]]] = {}
        starts: list[tuple[int, str]] = []
        name = ""

        def close(end: int) -> None:
            if section is None or not name or not self._text(section):
                starts.clear()
                return
            rows: list[tuple[int, str, list[Relocation]]] = []
            for at, (start, text) in enumerate(starts):
                stop = starts[at + 1][0] if at + 1 < len(starts) else end
                rows.append((stop, text, list(self._within(section.index, start, stop))))
            key, count = name, 1
            while key in found:
                count += 1
                key = f"{name}#{count}"
            found[key] = (section.name, rows)
            starts.clear()

        for line in listing.splitlines():
            if instruction := _INSTRUCTION.match(line):
                starts.append((int(instruction[1], 16), re.split(r"\t[0-9a-f]+: R_", instruction[2])[0].rstrip()))
            elif head := _FUNCTION.match(line):
                close(int(head[1], 16))
                name = head[2]
            elif part := _SECTION.match(line):
                close(section.size if section else 0)
                section, name = self._by_name.get(part[1]), ""
        close(section.size if section else 0)
        return found

    @staticmethod
    def _effective(relocation: Relocation, end: int) -> int:
        """The offset from the symbol that an instruction which ends at ``end`` refers to."""
        return relocation.addend + (end - relocation.offset if relocation.type in PC_RELATIVE else 0)

    def _line(self, text: str, end: int, relocations: list[Relocation]) -> str:
        text = re.sub(r"\s*#.*$", "", re.sub(r"\s+", " ", text))
        if not relocations:
            return _TARGET.sub(lambda m: f"<{_NUMBERED.sub('.*', m[1])}>", text)
        text = _TARGET.sub("<>", text)
        targets = [self._target(r.symbol, self._effective(r, end)) for r in relocations]
        return f"{text} {{{', '.join(targets)}}}"

    @cached_property
    def data(self) -> dict[str, str]:
        """The function gives digests of named data; static locals, which have numbers for names, are the set of what
        they hold.
        """
        found: dict[str, list[str]] = defaultdict(list)
        for index, symbols in self._symbols.items():
            section = self.elf.sections[index]
            if section.flags & SHF_EXECINSTR or section.name.startswith(NOT_DATA):
                continue
            for symbol in symbols:
                if symbol.type != STT_OBJECT or symbol.name.startswith(("__UNIQUE_ID", "__func__", "__already_done")):
                    continue
                content = "zero" if section.type == SHT_NOBITS else self._holds(section, symbol)
                found[_NUMBERED.sub(".*", symbol.name)].append(f"{symbol.size}:{content}")
        return {name: hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest() for name, rows in found.items()}

    def _holds(self, section: ElfSection, symbol: Symbol) -> str:
        data = section.data[symbol.value : symbol.value + symbol.size]
        if not any(data) and not self._within(section.index, symbol.value, symbol.value + symbol.size):
            return "zero"  # as in .bss: a variable that moves there holds the same
        return self._content(section, symbol.value, symbol.value + symbol.size)

    @cached_property
    def bugs(self) -> dict[str, int]:
        """The module has these WARNs and BUGs, by place, file and flags, each with its line (0 where the table keeps
        none).
        """
        section = self._by_name.get(BUG_TABLE)
        if section is None:
            return {}
        rows = self.elf.relocations.get(section.index, ())
        places = [r for r in rows if self._is_code(r)]
        if not places:
            return {}
        stride = section.size // len(places)
        found: dict[str, int] = {}
        for place in places:
            start = place.offset
            file, line, flags = "", 0, 0
            others = [r for r in self._within(section.index, start + 4, start + stride)]
            if others:
                file = self._target(others[0].symbol, others[0].addend)
                line, flags = struct.unpack_from("<HH", section.data, start + 8)
            else:
                (flags,) = struct.unpack_from("<H", section.data, start + 4)
            key = f"{self._target(place.symbol, place.addend)} {file} {flags:#x}"
            while key in found:
                key += "'"
            found[key] = line
        return found

    def _is_code(self, relocation: Relocation) -> bool:
        index = relocation.symbol.section
        return 0 < index < len(self.elf.sections) and bool(self.elf.sections[index].flags & SHF_EXECINSTR)

    @cached_property
    def formats(self) -> dict[str, str]:
        """The function gives every tracepoint's record and print format, as events/.../format would show them."""
        found: dict[str, str] = {}
        fields: dict[str, str] = {}
        for index, symbols in self._symbols.items():
            section = self.elf.sections[index]
            for symbol in symbols:
                if symbol.name.startswith("print_fmt_"):
                    data = section.data[symbol.value : symbol.value + symbol.size]
                    found[symbol.name.removeprefix("print_fmt_")] = data.rstrip(b"\0").decode("latin-1")
                elif symbol.name.startswith("trace_event_fields_"):
                    rows = self._within(index, symbol.value, symbol.value + symbol.size)
                    words = [self._target(r.symbol, r.addend).strip('"') for r in rows]
                    pairs = [f"{a} {b}" for a, b in zip(words[::2], words[1::2], strict=False)]
                    fields[symbol.name.removeprefix("trace_event_fields_")] = "; ".join(pairs)
        return {name: f"{fields.get(name, '')} | {text}" for name, text in found.items()}

    @cached_property
    def parameters(self) -> dict[str, str]:
        """The module has these parameters with their types, from .modinfo."""
        section = self._by_name.get(".modinfo")
        rows = section.data.split(b"\0") if section else []
        words = [r.decode("latin-1").removeprefix("parmtype=") for r in rows if r.startswith(b"parmtype=")]
        return dict(w.partition(":")[::2] for w in words)

    def snapshot(self) -> Snapshot:
        """The snapshot has all that is compared."""
        functions = {n: hashlib.sha256("\n".join(r).encode()).hexdigest()[:24] for n, r in self.functions.items()}
        return Snapshot(functions, self.data, self.bugs, self.formats, self.parameters)


def snapshot(cache: Cache, module: Path) -> Snapshot:
    """The function gives the snapshot of a module, from the cache where it was taken before."""

    def take(folder: Path) -> None:
        taken = Module(module).snapshot()
        text = json.dumps({name: dict(getattr(taken, name)) for name in Snapshot.__dataclass_fields__})
        (folder / "snapshot.json").write_text(text, encoding="utf-8")

    folder = cache.entry("identity", {"module": sha256(module), "recipe": RECIPE}, take, title=f"read {module.name}")
    data: dict[str, Any] = json.loads((folder / "snapshot.json").read_text(encoding="utf-8"))
    return Snapshot(**data)


def why(old: tuple[str, ...], new: tuple[str, ...]) -> str:
    """Two versions of a function's instructions have this kind of difference."""
    if len(old) != len(new):
        return "code"
    for name, masks in (("layout", (_BARE, _DISPLACEMENT)), ("constants", (_BARE, _DISPLACEMENT, _IMMEDIATE))):
        if all(_masked(a, masks) == _masked(b, masks) for a, b in zip(old, new, strict=True)):
            return name
    return "code"


def _masked(line: str, masks: tuple[re.Pattern[str], ...]) -> str:
    for mask in masks:
        line = mask.sub("0x0" if mask is _BARE else "N", line)
    return line


def excerpt(old: tuple[str, ...], new: tuple[str, ...], limit: int = 12) -> tuple[str, ...]:
    """The excerpt has the lines in which two versions of a function differ, - and + before them; at most ``limit``."""
    rows = [r for r in difflib.unified_diff(old, new, lineterm="", n=0) if not r.startswith(("---", "+++", "@@"))]
    return tuple(rows[:limit]) + ((f"({len(rows) - limit} more lines)",) if len(rows) > limit else ())


def compare(cache: Cache, old: Mapping[str, Path], new: Mapping[str, Path]) -> Difference:
    """The modules of two levels differ in this, by their names (kvm.ko, kvm-intel.ko, ...)."""
    functions: list[CodeChange] = []
    data: list[str] = []
    formats: list[str] = []
    parameters: list[str] = []
    moved = warns = 0
    for name in sorted(old.keys() | new.keys()):
        if name not in old or name not in new:
            functions.append(CodeChange(name, name, "added" if name in new else "removed"))
            continue
        a, b = snapshot(cache, old[name]), snapshot(cache, new[name])
        changed = _differing(a.functions, b.functions)
        if changed:
            lines = Module(old[name]).functions, Module(new[name]).functions
            functions += [_change(name, function, *lines) for function in changed]
        formats += _differing(a.formats, b.formats)
        events = tuple(f"{prefix}{e}" for e in _differing(a.formats, b.formats) for prefix in _EVENT_DATA)
        data += [d for d in _differing(a.data, b.data) if d not in events]
        parameters += [p for p in _differing(a.parameters, b.parameters)]
        warns += len(a.bugs.keys() ^ b.bugs.keys()) if not changed else 0
        moved += sum(a.bugs[k] != b.bugs[k] for k in a.bugs.keys() & b.bugs.keys())
    return Difference(tuple(functions), tuple(data), moved, warns, tuple(formats), tuple(parameters))


def fingerprint(cache: Cache, modules: Mapping[str, Path]) -> str:
    """The digest is of machine code, data, parameters, tracepoints and WARNs of a level's modules (their lines may
    move).
    """
    told: dict[str, Json] = {}
    for name, path in sorted(modules.items()):
        s = snapshot(cache, path)
        told[name] = [dict(s.functions), dict(s.data), dict(s.formats), dict(s.parameters), sorted(s.bugs)]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


_EVENT_DATA: Final = ("print_fmt_", "trace_event_fields_", "event_")


def _differing(a: Mapping[str, object], b: Mapping[str, object]) -> list[str]:
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def _change(
    module: str, name: str, old: Mapping[str, tuple[str, ...]], new: Mapping[str, tuple[str, ...]]
) -> CodeChange:
    if name not in old or name not in new:
        return CodeChange(module, name, "added" if name in new else "removed")
    return CodeChange(module, name, why(old[name], new[name]), excerpt(old[name], new[name]))
