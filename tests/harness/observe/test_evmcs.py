"""The probe's table of the enlightened VMCS against the kernel's own, and what the part asks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import protocol
from harness.build.probe import IMAGES
from harness.observe import batch
from harness.process import programs
from harness.questions import core
from kvmodel.machine.answers import predict
from kvmodel.question.outcome import Kind
from kvmodel.question.reading import parse
from kvmodel.question.vector import Evmcs
from kvmodel.question.vmcs import FIELDS, MEMORY, PLAIN_ONLY
from tests.kvmodel.mirror import CPU

# Every place of the table, printed: field encoding and byte offset.
PRINT = r"""
#include <stdio.h>
#include <stdlib.h>
#include "evmcs.c"

void platform_say(const char *text, uint64_t number) { printf("%s %#llx\n", text, (unsigned long long)number); }
void platform_off(void) { exit(3); }
void zero_pages(uint64_t address, uint64_t pages) { (void)address; (void)pages; }
int wrmsr_safe(uint32_t msr, uint64_t value) { (void)msr; (void)value; return 1; }

int main(int argc, char **argv)
{
	for (unsigned int i = 0; argc == 1 && i < sizeof(runs) / sizeof(runs[0]); i++)
		for (unsigned int n = 0; n < runs[i].count; n++)
			printf("%u %u\n", runs[i].field + 2 * n, (unsigned int)place(0, runs[i].field + 2 * n));
	for (int i = 1; i < argc; i++)
		printf("%u\n", (unsigned int)place(0, strtoul(argv[i], NULL, 16)));
	return 0;
}
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evmcs")
    (folder / "print.c").write_text(PRINT)
    (folder / "protocol.h").write_text(protocol.c_header())
    programs.run(["gcc", "-o", folder / "print", f"-I{IMAGES / 'probe'}", f"-I{folder}", folder / "print.c"])
    return folder / "print"


def offsets(program: Path) -> dict[int, int]:
    lines = programs.run([program]).stdout.splitlines()
    rows = [tuple(map(int, line.split())) for line in lines]
    found = dict(rows)  # type: ignore[arg-type]
    assert len(found) == len(rows), "a field is in two runs"
    return found


def test_the_table_has_every_field_the_probe_writes_or_reads(table: Path) -> None:
    text = (IMAGES / "probe" / "cpu.h").read_text()
    fields = text[text.index("/* VMCS fields */") : text.index("#define REASON_EXCEPTION")]
    named = {int(value, 16) for value in re.findall(r"#define \w+\s+(0x[0-9a-f]+)", fields)}
    assert len(named) > 60
    assert named <= offsets(table).keys()


def test_a_field_it_lacks_ends_the_probe(table: Path) -> None:
    done = programs.run([table, "0x2016"], check=False)
    assert done.returncode == 3 and "not a field of the enlightened VMCS" in done.stdout


def test_a_vm_entry_changes_only_what_it_has(table: Path) -> None:
    there = offsets(table).keys()
    for name, encoding in FIELDS.items():
        assert (encoding in there or encoding >= MEMORY) or name in PLAIN_ONLY, name


def kernel_offsets(tree: Path) -> dict[int, int]:
    """Field encoding to offset, from the kernel's structure and its table of names."""
    layout = (tree / "arch/x86/include/asm/hyperv-tlfs.h").read_text()
    body = layout[layout.index("struct hv_enlightened_vmcs {") :]
    body = re.sub(r"struct \{[^}]*\}\s*__packed (\w+);", r"u32 \1;", body[: body.index("u64 padding64_6")])
    at, offset = 0, {}
    for bits, name, many in re.findall(r"\bu(16|32|64)\s+(\w+)(?:\[(\d+)\])?;", body):
        offset[name] = at
        at += int(bits) // 8 * int(many or 1)
    encodings = (tree / "arch/x86/include/asm/vmx.h").read_text()
    encoding = {n: int(v, 16) for n, v in re.findall(r"^\t(\w+)\s*=\s*(0x[0-9a-fA-F]{8}),", encodings, re.M)}
    names = re.sub(r"/\*.*?\*/", "", (tree / "arch/x86/kvm/vmx/hyperv_evmcs.c").read_text(), flags=re.S)
    pairs = re.findall(r"EVMCS1_FIELD\((\w+),\s*(\w+),", names)
    return {encoding[field]: offset[name] for field, name in pairs if field in encoding}


def test_the_table_is_the_kernels(table: Path, pinned_source: Path) -> None:
    theirs = kernel_offsets(pinned_source)
    assert len(theirs) > 100
    assert all(theirs[field] == at for field, at in offsets(table).items())


def test_the_part_asks_each_filter_offered_and_in_use() -> None:
    asked = list(core.evmcs())
    assert len({v.id for v in asked}) == len(asked) == 399
    assert all(parse(v.id) == v for v in asked)
    used = [v for v in asked if v.id.split(".ev")[1].startswith("2")]
    assert len({v.machine for v in used}) == 2  # with and without vmx-mbec: one QEMU start each
    assert not set(core.evmcs()) & set(core.core()) - {v for v in asked if ".ev2." not in v.id}


def test_the_record_says_that_the_vmcs12_is_enlightened() -> None:
    used = [v for v in core.evmcs() if ".ev2." in v.id]
    plain = [parse(v.id.replace(".ev2.", ".ev1.")) for v in used]
    at = protocol.VECTOR
    for enlightened, other in zip(used, plain, strict=True):
        a = at.unpack(batch.pack([enlightened]), protocol.HEADER.size)
        b = at.unpack(batch.pack([other]), protocol.HEADER.size)
        assert isinstance(a["ept"], int) and isinstance(b["ept"], int)
        assert a["ept"] == b["ept"] | protocol.CONSTANTS["EPT_EVMCS"] and a["ept"] != b["ept"]
        assert {**a, "ept": 0} == {**b, "ept": 0}


def test_permissions_in_use_are_predicted_as_by_a_plain_vmcs12() -> None:
    """From patch 17 on; before it the entry with MBEC is refused where eVMCS is offered."""
    for vector in core.evmcs():
        plain = parse(vector.id.replace(".ev2.", ".ev0.").replace(".ev1.", ".ev0."))
        if vector.id.startswith("e4k"):
            now, before = (predict(k, True, CPU, vector).outcome for k in (18, 16))
            assert now == predict(18, True, CPU, plain).outcome
            assert (before.kind is Kind.ENTRY_FAIL) == (".mbec=on." in vector.id)
    assert Evmcs(2) is Evmcs.USED
