"""The probe's protocol: what lies in L1's memory. The one definition; the C header is generated from it.

Little-endian, fixed records. The batch is a header, ``count`` vector records, and room for as many
observation records, at physical address BATCH_BASE on KVM (a shared memory file's offset) and behind a
Multiboot module's start on the bare machine; the same bytes in both places.

    python -m harness.protocol > probe_protocol.h
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from jinja2 import Environment, StrictUndefined

from kvmodel.question import program_layout as layout
from kvmodel.question.left import ASTRAY
from kvmodel.question.vm_entry import MOST
from kvmodel.question.vm_exit import ABSENT
from kvmodel.question.vmcs import MEMORY, REGION, SCRATCH, WORDS

MAGIC: Final = 0x3130_5249_4D56_4B31  # "1KVMIR01"
VERSION: Final = 1
BATCH_BASE: Final = 32 << 20  # bytes; L1-physical, above the probe and its tables' head
L1_MEMORY: Final = 1 << 30  # bytes QEMU gives L1
MSR_FIRST: Final = 0x480  # header.msrs[i] is MSR 0x480 + i as L1 reads it
MSR_COUNT: Final = 18

_C = {"Q": "uint64_t", "I": "uint32_t", "H": "uint16_t", "B": "uint8_t"}


@dataclass(frozen=True, slots=True)
class Record:
    """A record is a fixed C struct: rows of (format character, array length, name, what it is)."""

    name: str
    rows: tuple[tuple[str, int, str, str], ...]

    @property
    def packer(self) -> struct.Struct:
        """The packer has the record's layout: little-endian, no padding (rows are ordered so that C adds none)."""
        return struct.Struct("<" + "".join(f"{n if n > 1 else ''}{f}" for f, n, _, _ in self.rows))

    @property
    def size(self) -> int:
        """One record has this many bytes."""
        return self.packer.size

    def offset(self, field: str) -> int:
        """The field lies here in a record, in bytes.

        Raises KeyError when ``field`` is none.
        """
        at = 0
        for code, number, name, _ in self.rows:
            if name == field:
                return at
            at += number * struct.calcsize(f"<{code}")
        raise KeyError(field)

    def width(self, field: str) -> int:
        """One element of ``field`` has this many bytes.

        Raises KeyError when ``field`` is none.
        """
        return {name: struct.calcsize(f"<{code}") for code, _, name, _ in self.rows}[field]

    def pack(self, **values: int | tuple[int, ...]) -> bytes:
        """The bytes; a field not named is zero, a name that is not a field is refused."""
        if unknown := values.keys() - {name for _, _, name, _ in self.rows}:
            raise KeyError(f"{self.name} has no field {sorted(unknown)}")
        flat: list[int] = []
        for _, n, name, _ in self.rows:
            value = values.get(name, 0)
            flat.extend(
                (value,) if isinstance(value, int) and n == 1 else value if isinstance(value, tuple) else (0,) * n
            )
        return self.packer.pack(*flat)

    def unpack(self, data: bytes | memoryview, offset: int = 0) -> dict[str, int | tuple[int, ...]]:
        """The function gives the fields by name."""
        flat = self.packer.unpack_from(data, offset)
        out: dict[str, int | tuple[int, ...]] = {}
        at = 0
        for _, n, name, _ in self.rows:
            out[name] = flat[at] if n == 1 else flat[at : at + n]
            at += n
        return out


HEADER: Final = Record(
    "kvm_batch",
    (
        ("Q", 1, "magic", "MAGIC"),
        ("I", 1, "version", "VERSION"),
        ("I", 1, "count", "vector records in the batch"),
        ("I", 1, "start", "in: index of the first record to run (a restart after L1 died)"),
        ("I", 1, "current", "out: index of the record being run; the host reads it when L1 died"),
        ("I", 1, "state", "out: STATE_*"),
        ("I", 1, "deadline", "in: L1 timer deadline of one vector, microseconds of guest time"),
        ("Q", 1, "vectors", "in: offset of the vector records from the header, bytes"),
        ("Q", 1, "observations", "in: offset of the observation records from the header, bytes"),
        ("Q", 1, "arena", "in: L1-physical address of the probe's free memory, bytes"),
        ("Q", 1, "arena_size", "in: bytes of it"),
        ("Q", MSR_COUNT, "msrs", "out: MSR 0x480 + i as L1 reads it, 0 where the read faulted"),
        ("I", 1, "msr_faults", "out: bit i set where reading MSR 0x480 + i faulted"),
        ("I", 1, "maxphyaddr", "out: CPUID 0x80000008 EAX 7:0"),
        ("I", 1, "cpuid1_eax", "out: CPUID 1 EAX: family, model, stepping"),
        ("I", 1, "cpuid1_ecx", "out: CPUID 1 ECX (VMX is bit 5)"),
        ("I", 1, "cpuid7_ebx", "out: CPUID 7.0 EBX (SMEP 7, SMAP 20)"),
        ("I", 1, "bare", "out: 1 when not under a hypervisor"),
        ("Q", 1, "tsc_begin", "out: TSC before the first vector"),
        ("Q", 1, "tsc_end", "out: TSC after the last"),
        ("I", 1, "carried_out", "in: index + 1 of the OP_HOST record that the host is through with"),
        ("I", 1, "refused", "in: 1 where the host could not do it"),
    ),
)

VECTOR: Final = Record(
    "kvm_vector",
    (
        ("I", 1, "index", "place in the batch"),
        ("B", 1, "kind", "KIND_*"),
        ("B", 1, "access", "ACCESS_*"),
        ("B", 1, "leaf_level", "1, 2 or 3"),
        ("B", 1, "upper_level", "leaf_level + 1 to 4"),
        ("Q", 1, "leaf", "leaf entry without its address and page-size bit (A and D as given)"),
        ("Q", 1, "upper", "upper entry without its address"),
        ("Q", 1, "gp", "guest leaf entry's bits, P included, without address (A and D as given)"),
        ("Q", 1, "gu", "guest entry above it, the same"),
        ("B", 1, "paging", "PAGING_*"),
        ("B", 1, "cpl", "0 or 3"),
        ("B", 1, "cr", "CR_WP 1, CR_SMEP 2, CR_SMAP 4, CR_NXE 8, CR_PGE 16, CR_PSE 32"),
        (
            "B",
            1,
            "ept",
            "EPT_ENABLE 1, EPT_AD 2 (EPTP bit 6), EPT_MBEC 4 (secondary control bit 22 in vmcs12), EPT_EVMCS 8",
        ),
        ("I", 1, "msr", "KIND_MSR: which; KIND_CHANGE: the field's encoding"),
        ("I", 1, "flags", "FLAG_*"),
        ("I", 1, "reserved", "0"),
    ),
)

OBSERVATION: Final = Record(
    "kvm_observation",
    (
        ("I", 1, "index", "the vector's"),
        ("B", 1, "verdict", "VERDICT_*"),
        ("B", 1, "vector", "VERDICT_EXCEPTION: exception vector"),
        ("H", 1, "exits", "VM exits L1 took for this vector"),
        ("I", 1, "reason", "exit reason, all 32 bits"),
        ("I", 1, "error", "VM-instruction error, or exception error code; KIND_VM_EXIT: the preemption timer's value"),
        ("Q", 1, "qualification", "exit qualification (CR2 for a page fault)"),
        ("Q", 1, "gpa", "guest-physical address field; where a field is astray its encoding"),
        ("Q", 1, "gla", "guest-linear address field; what a field that is astray must hold"),
        ("Q", 1, "rip", "L2 RIP at the exit"),
        ("Q", 1, "value", "KIND_MSR: value; what a field that is astray holds; else the datum L2 read"),
        ("Q", 1, "leaf_after", "EPT12 leaf entry after the run"),
        ("Q", 1, "upper_after", "EPT12 upper entry after the run"),
        ("Q", 1, "gpte_after", "guest leaf entry after the run; OP_RUN: what was written over two pages, and RCX"),
        (
            "Q",
            1,
            "target_gpa",
            "L2-physical address of the page accessed; OP_RUN: L2's RSI; as value, of exit information",
        ),
        ("Q", 1, "target_gla", "L2-linear address accessed; OP_RUN: L2's RDI; as gla, of exit information"),
        ("Q", 1, "gpt_gpa", "L2-physical address of the guest entry that maps it; OP_RUN: L2's RDX; as gpa, the same"),
        ("Q", 1, "tsc", "TSC ticks from VM entry to the verdict"),
        ("Q", 1, "leaf_address", "L1-physical address of the EPT12 leaf entry (0: none); OP_RUN: read over two pages"),
        ("Q", 1, "astray", "ASTRAY_*: what the exit, or the failed VM entry, left otherwise than the manual has it"),
    ),
)

CONSTANTS: Final[dict[str, int]] = {
    "KVMIRROR_MAGIC": MAGIC,
    "KVMIRROR_VERSION": VERSION,
    "BATCH_BASE": BATCH_BASE,
    "MSR_FIRST": MSR_FIRST,
    "MSR_COUNT": MSR_COUNT,
    "STATE_LOADED": 0,  # the host has written the batch
    "STATE_RUNNING": 1,
    "STATE_DONE": 2,
    "STATE_REFUSED": 3,  # bad magic, version or no VMX
    "KIND_ACCESS": 0,
    "KIND_ENTRY": 1,
    "KIND_MSR": 2,
    "KIND_MMIO": 3,
    "KIND_SPIN": 4,  # L2 spins for ever: what shows that L1's timer works
    **ASTRAY,
    "KIND_STEP": 16,  # a step of a program; access is OP_*
    "OP_BUILD": 0,  # the tables at `leaf`, as every program finds them; `upper` 1: the guest's lead to L1's own pages
    "OP_WRITE": 1,  # 8 bytes `upper` at L1-physical `leaf`
    "OP_CODE": 2,  # 32 bytes of L2's code, `leaf` to `gu`, at offset `msr`
    "OP_RUN": 3,  # enters L2 at its code; `leaf` EPT12's root, `msr` the VPID or 0, `upper` primary controls, `gu` CR3
    "OP_INVEPT": 4,  # type `leaf`, descriptor `upper` and `gp`
    "OP_INVVPID": 5,
    "OP_FIELD": 9,  # `upper` into the field `leaf` of the vmcs12 that VM entries use
    "OP_LOOK_FIELD": 10,  # reads the field `leaf` of it
    "OP_PDPTES": 11,  # the four PDPTEs at L1-physical `leaf` into its fields
    "OP_LOOK": 8,  # reads 8 bytes at L1-physical `leaf`
    "OP_VMX": 7,  # VMX_* `leaf` with `upper`, an address or a field, and `gp`, a value
    "VMX_VMCLEAR": 0,
    "VMX_VMPTRLD": 1,
    "VMX_VMLAUNCH": 2,
    "VMX_VMRESUME": 3,
    "VMX_VMREAD": 4,
    "VMX_VMWRITE": 5,
    "PROGRAM_VMCS": 0x101A000,  # L1-physical: two regions of programs' own, then one of another revision
    "PROBE_VMCS": 0x1015000,  # L1-physical: the two that VM entries use
    "PROBE_VMXON": 0x1014000,
    "OP_HOST": 6,  # asks the host for HOST_* `leaf` with the operand `upper`, and waits until it is through
    "HOST_NX_OFF": 0,  # kvm.nx_huge_pages
    "HOST_NX_FORCE": 1,
    "HOST_NX_RESTORE": 2,  # as the environment has it
    "HOST_AGE": 3,  # every page is marked idle
    "HOST_LOG": 4,  # dirty logging of all memory begins
    "HOST_UNLOG": 5,  # it ends
    "HOST_REMAP": 6,  # the page at L1-physical `upper` becomes another page of the host's, its bytes the same
    "HOST_SAVE": 7,  # the virtual CPU's state is saved and restored; L2 calls for it itself in the middle of an OP_RUN
    "CALL_PORT": 0x505,  # QEMU's pvpanic device: what it knows is read there
    "CALL_OF_L1": 2,  # its bit by which QEMU tells its monitor and goes on
    "CALL_OF_L2": 1,  # its bit by which QEMU tells its monitor and stands still
    "PROGRAM_TABLES": 24 << 20,  # L1-physical: PROGRAM_AREAS areas of PROGRAM_AREA bytes, which programs take in turn
    "PROGRAM_AREA": 64 << 10,
    "PROGRAM_AREAS": 128,
    "PROGRAM_PAGES": 16,  # that know themselves by number: p0 to p7, q0 to q7
    "PROGRAM_SLOT": layout.SLOT,  # the entry of a page table that maps a window's first page
    "PROGRAM_PDE": layout.PDE,  # the entry of a page directory, EPT12's and (window a) the guest's
    "PROGRAM_P": layout.AREAS["p"],  # L1-physical: 2 MiB with the pages p at PROGRAM_SLOT and behind
    "PROGRAM_Q": layout.AREAS["q"],  # the same of the pages q
    "PROGRAM_GPT": 0x100B000,  # L1-physical: the guest's page tables of windows a, b, c
    "PROGRAM_PDS": layout.DIRECTORY_ADDRESSES["e1"],  # L1-physical: page directories e1 and e2
    "PROGRAM_PML4": layout.LONG_ROOTS[1],  # L1-physical: the second one of long mode, its PDPT behind it
    "PROGRAM_PDPTS": layout.PDPTS,  # L1-physical: PAE paging's, two of 32 bytes
    "GLA_PROGRAM": 0x403000,  # L2-linear: its code, supervisor's; user's one page on
    "PROGRAM_RESULTS": 0xF00,  # offset in the code page: a byte an access, what it read
    "PROGRAM_WRITTEN": layout.WRITTEN_AT,  # offset in a page of what a run's first part writes; the next: 8 bytes on
    "PROGRAM_OVER": layout.OVER_AT,  # offset in a page at which an access over two pages begins
    "PROGRAM_PARTS": 8,  # of a run
    "PROGRAM_KNOWN": 0x80,  # set in the byte by which a page knows itself
    "PROGRAM_MARK": 0x5A00_0000,  # what L2 writes: this and the number of the part
    "KIND_CHANGE": 5,  # field `msr` AND `leaf` OR `upper` in the VM entry that follows; at most CHANGES in a row
    "KIND_VM_ENTRY": 6,  # L2 idles; a vmcs12 made anew, with the changes before it
    "KIND_VM_EXIT": 7,  # as KIND_VM_ENTRY, but L2 executes what OP_CODE has put, and all that its exit tells is told
    "VM_EXIT_ABSENT": ABSENT,  # L2-physical: a page that its EPT12 lacks
    "CHANGES": MOST,
    "CHANGE_MEMORY": MEMORY,  # as a field: the 64-bit words of the scratch page
    "CHANGE_WORDS": WORDS,
    "SCRATCH_PAGE": SCRATCH,
    "VMCS_ASKED": REGION,
    "ACCESS_READ": 0,
    "ACCESS_WRITE": 1,
    "ACCESS_RMW": 2,
    "ACCESS_FETCH": 3,
    "ACCESS_WALK": 4,  # the entries under test map the guest leaf table; a data read
    "ACCESS_WALKA": 5,  # the same; the guest leaf entry has A clear
    "ACCESS_WALKD": 6,  # the same; a data write, the guest leaf entry has D clear
    "ACCESS_EMUREAD": 7,  # MOVS from the page to MMIO
    "ACCESS_EMUWRITE": 8,  # MOVS from MMIO to the page
    "ACCESS_EMUFETCH": 9,  # MOVS in the page, from MMIO to MMIO
    "GLA_MMIO": 0x402020,  # L2's linear address without memory: in L1's first such page the HPET's interrupt status
    "PAGING_OFF": 0,
    "PAGING_32": 1,
    "PAGING_PAE": 2,
    "PAGING_64": 3,
    "CR_WP": 1,
    "CR_SMEP": 2,
    "CR_SMAP": 4,
    "CR_NXE": 8,
    "CR_PGE": 16,
    "CR_PSE": 32,
    "EPT_ENABLE": 1,
    "EPT_AD": 2,
    "EPT_MBEC": 4,
    "EPT_EVMCS": 8,  # the vmcs12 is an enlightened one
    "EPT_VPID": 16,  # the vmcs12 has a VPID
    "FLAG_CONTINUE": 1,  # a sequence: the same addresses and tables as the record before, entries rewritten
    "FLAG_NO_INVEPT": 2,  # no INVEPT before this entry
    "FLAG_VMCS_B": 4,  # run on the second vmcs12
    "FLAG_KEEP_EFER": 8,  # the VM entry does not load EFER
    "FLAG_MARK": 64,  # CPUID(MARK_LEAF, index) before the vector: a line of its own in the host's trace
    "MARK_LEAF": 0x4B56_4D52,
    "MARK_PORT": 0x4B4D,  # an OUT to this port: the vector that begins is not marked, the one before it was
    "VERDICT_NONE": 0,  # not run
    "VERDICT_DONE": 1,
    "VERDICT_EXIT": 2,  # a VM exit to L1 other than the end of the access
    "VERDICT_EXCEPTION": 3,
    "VERDICT_ENTRY_FAIL": 4,  # VMfail: error has the number
    "VERDICT_ENTRY_EXIT": 5,  # exit reason bit 31
    "VERDICT_TIMEOUT": 6,  # L1's timer had to take the vCPU back
    "VERDICT_VALUE": 7,
    "VERDICT_SCAFFOLD": 8,  # the probe's own frame broke
}

_HEADER_TEMPLATE = """\
/* SPDX-License-Identifier: GPL-2.0-only */
/* Generated from {{ source }}: do not edit. */
#ifndef {{ guard }}
#define {{ guard }}

#include <stdint.h>

{% for name, value in constants.items() -%}
#define {{ name }} {{ "%#x" | format(value) }}{{ "ull" if value > 0xffffffff else "u" }}
{% endfor %}
{% for r in records %}
struct {{ r.name }} {
{%- for f, n, name, what in r.rows %}
	{{ c[f] }} {{ name }}{{ "[%d]" | format(n) if n > 1 else "" }};	/* {{ what }} */
{%- endfor %}
};
_Static_assert(sizeof(struct {{ r.name }}) == {{ r.size }}, "{{ r.name }}");
{% endfor %}
#endif
"""


def c_header(
    constants: Mapping[str, int] = CONSTANTS,
    records: Sequence[Record] = (HEADER, VECTOR, OBSERVATION),
    source: str = "harness/protocol.py",
    guard: str = "KVMIRROR_PROTOCOL_H",
) -> str:
    """The function gives the C header that the probe is compiled with; with arguments it is that of another image."""
    env = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    template = env.from_string(_HEADER_TEMPLATE)
    return template.render(constants=constants, records=records, c=_C, source=source, guard=guard)


if __name__ == "__main__":
    print(c_header(), end="")
