"""ELF files: what is read of them, held against binutils; files that are broken."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.errors import BuildError
from harness.review.elf import SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, SHN_ABS, SHN_UNDEF, STB_LOCAL, Elf

SOURCE = """
extern int there(const char *);
static int counted = 7;
int zero[40];
const char *const names[] = {"one", "two"};
__attribute__((weak)) int soft(void) { return 1; }
int here(int a) { counted += a; return there("text") + counted + zero[a] + soft(); }
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An object with a section for each thing."""
    path = tmp_path_factory.mktemp("elf") / "made.o"
    flags = ("-O1", "-ffunction-sections", "-fdata-sections", "-fno-pic", "-c", "-xc", "-", "-o", str(path))
    subprocess.run(["gcc", *flags], input=SOURCE, text=True, check=True)
    return path


def rows(*argv: object) -> list[list[str]]:
    """What a program of binutils says, in words."""
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=True)
    return [line.split() for line in done.stdout.splitlines()]


def test_sections(made: Path) -> None:
    elf = Elf(made)
    # [Nr] Name Type Address Off Size ES Flg Lk Inf Al
    listed = [r[r[0] == "[" :] for r in rows("readelf", "-SW", made) if r]
    theirs = {r[1]: r for r in listed if r[0].endswith("]") and len(r) in (10, 11) and r[-1].isdigit()}
    assert {".text.here", ".bss.zero", ".data.counted", ".rodata.str1.1"} <= theirs.keys()
    ours = {s.name: s for s in elf.sections}
    letters = (("A", SHF_ALLOC), ("W", SHF_WRITE), ("X", SHF_EXECINSTR))
    for name, row in theirs.items():
        section = ours[name]
        flags = row[7] if len(row) == 11 else ""
        assert section.size == int(row[5], 16) and section.address == int(row[3], 16)
        assert len(section.data) == (0 if row[2] == "NOBITS" else section.size)
        assert [bool(section.flags & bit) for _, bit in letters] == [letter in flags for letter, _ in letters]
    assert ours[".rodata.str1.1"].data == b"one\0two\0"
    assert [s.index for s in elf.sections] == list(range(len(elf.sections)))


def test_symbols(made: Path) -> None:
    elf = Elf(made)
    numbers = {"UND": SHN_UNDEF, "ABS": SHN_ABS}
    # Num: Value Size Type Bind Vis Ndx Name; the first one is nothing and has no name
    listed = [r for r in rows("readelf", "-sW", made) if len(r) == 8 and r[0][:-1].isdigit()]
    theirs = [
        (r[7], int(r[1], 16), int(r[2], 0), numbers[r[6]] if r[6] in numbers else int(r[6]), r[4] == "LOCAL")
        for r in listed
    ]
    assert [(s.name, s.value, s.size, s.section, s.bind == STB_LOCAL) for s in elf.symbols[1:]] == theirs
    assert elf.undefined == {"there"}
    assert elf.defined == {"zero", "names", "soft", "here"}
    assert {s.name for s in elf.symbols if s.bind == STB_LOCAL} >= {"counted"}


def test_relocations(made: Path) -> None:
    elf = Elf(made)
    theirs = [r for r in rows("readelf", "-rW", made) if len(r) == 7 and r[5] in "+-"]
    ours = [(r.offset, r.symbol.name, r.addend, r.type) for table in elf.relocations.values() for r in table]
    assert sorted(ours) == sorted(
        (int(r[0], 16), r[4], int(r[5] + r[6], 16), int(r[1], 16) & 0xFFFFFFFF) for r in theirs
    )
    (here,) = (s.index for s in elf.sections if s.name == ".text.here")
    assert "there" in {r.symbol.name for r in elf.relocations[here]}
    for table in elf.relocations.values():
        assert [r.offset for r in table] == sorted(r.offset for r in table)


def test_an_image_is_read_by_address(made: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    subprocess.run(["ld", "-static", "-e", "here", "--defsym=there=0x1000", made, "-o", image], check=True)
    elf = Elf(image)
    at = {s.name: s for s in elf.symbols}
    assert elf.read(at["counted"].value, 4) == (7).to_bytes(4, "little")
    assert elf.read(at["zero"].value, 160) == bytes(160)
    assert at["there"].section == SHN_ABS
    with pytest.raises(BuildError, match=r"nothing lies at 0x10$"):
        elf.read(0x10, 4)


def test_what_is_no_whole_file_is_a_sentence(made: Path, tmp_path: Path) -> None:
    whole = made.read_bytes()
    broken = tmp_path / "broken.o"
    texts = [b"", b"#!/bin/sh\n", b"\x7fELF\x01" + whole[5:], b"\x7fELF\x02\x02" + whole[6:]]
    for data in (*texts, *(whole[:n] for n in range(4, len(whole), 97))):
        broken.write_bytes(data)
        with pytest.raises(BuildError, match=r"broken\.o is no whole ELF file of x86-64 \(.+\): remove it and build"):
            Elf(broken).relocations  # noqa: B018
