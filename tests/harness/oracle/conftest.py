"""A little image of the oracle's form, made without kernel headers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.oracle.image import build
from harness.oracle.image.worker import Image, ImageWorker

SOURCE = (
    rf"""
#include "{build.GLUE / "trap.h"}"
"""
    + r"""
typedef unsigned long u64;
typedef unsigned int u32;
struct oracle_entry { char name[48]; u64 fn; u32 words_in, words_out; };
#define ENTRY(e, i, o) void o_##e(const u64 *in, u64 *out); \
    static const struct oracle_entry oracle_entry_##e \
    __attribute__((used, section("oracle_entries"), aligned(8))) = { #e, (u64)o_##e, i, o }; \
    void o_##e(const u64 *in, u64 *out)

int missing_function(int x);
extern int missing_data;
static u64 state;
static char once __attribute__((section(".data..once"), used));

static inline void warn(int flags)
{
    asm volatile("1: call oracle_ud2\n.pushsection __bug_table, \"aw\"\n2: .long 1b - 2b\n.long file - .\n"
             ".word 42\n.word %c0\n.popsection\n" : : "i"(flags));
}
asm(".section .rodata.str1.1, \"aMS\", @progbits, 1\nfile: .asciz \"some/file.c\"\n.text");

ENTRY(sum, 2, 1) { out[0] = in[0] + in[1]; }
ENTRY(masked, 2, 1) { out[0] = in[0] & ~(in[1] ? 0x400ul : 0ul); }
ENTRY(keep, 1, 1) { out[0] = state; state = in[0]; }
ENTRY(warns, 1, 1) { if (in[0]) warn(1); out[0] = 7; }
ENTRY(bugs, 1, 1) { if (in[0]) warn(0); out[0] = 7; }
ENTRY(calls, 1, 1) { out[0] = missing_function(3); }
ENTRY(reads, 1, 1) { out[0] = *(&missing_data + in[0]); }
ENTRY(wild, 1, 1) { out[0] = *(volatile u64 *)in[0]; }
ENTRY(first, 1, 1) { out[0] = !once; once = 1; }
ENTRY(hangs, 1, 1) { while (in[0]) asm volatile(""); out[0] = 1; }
ENTRY(dies, 1, 1) { if (in[0]) asm volatile("syscall" : : "a"(231), "D"(3)); out[0] = 1; }
"""
)

FLAGS = (
    "-O2",
    "-fno-pie",
    "-mcmodel=kernel",
    "-ffreestanding",
    "-mno-red-zone",
    "-ffunction-sections",
    "-fdata-sections",
)


def compile_c(text: str, output: Path, *flags: str) -> Path:
    """Compile ``text`` as the kernel is compiled, as far as it matters here."""
    source = output.with_suffix(".c")
    source.write_text(text)
    subprocess.run(["gcc", *FLAGS, *flags, "-c", "-o", output, source], check=True)
    return output


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    folder = tmp_path_factory.mktemp("image")
    return Image(build.link(folder, [compile_c(SOURCE, folder / "little.o", "-fno-stack-protector")]))


@pytest.fixture
def worker(image: Image) -> Iterator[ImageWorker]:
    with ImageWorker(image, timeout=2) as worker:
        yield worker
