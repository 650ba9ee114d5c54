"""Series of our own making on the pinned kernel, as mails: sixty patches of many kinds, and three plain clean-ups.

Each patch is one replacement in one file of arch/x86/kvm, so that a series is made anew on whatever source is given
and every hunk applies. ``WRONG`` is a patch with a real error: it takes bit 5 out of the exit qualification that KVM
makes up for L1. ``FIRST`` and ``SECOND`` change machine code which ``FIRST_UNDONE`` and ``SECOND_UNDONE`` put back.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

COUNT = 60
PARAMETER = 12  # the patch that adds report_ept_exits to kvm-intel
FIRST, SECOND, FIRST_UNDONE, SECOND_UNDONE = 20, 21, 40, 41
WRONG = 45

KVM = "arch/x86/kvm"
VMX, NESTED, WALK = f"{KVM}/vmx/vmx.c", f"{KVM}/vmx/nested.c", f"{KVM}/mmu/paging_tmpl.h"
COMMENTED = tuple(
    f"{KVM}/{name}"
    for name in (
        "x86.c", "lapic.c", "mmu/mmu.c", "mmu/spte.c", "mmu/tdp_mmu.c", "mmu/tdp_iter.c", "mmu/page_track.c",
        "vmx/vmx.c", "vmx/nested.c", "vmx/vmcs12.c", "vmx/main.c", "vmx/posted_intr.c", "vmx/pmu_intel.c",
        "cpuid.c", "emulate.c", "ioapic.c", "irq.c", "irq_comm.c", "i8254.c", "i8259.c", "pmu.c", "mtrr.c", "smm.c",
        "debugfs.c", "hyperv.c", "vmx/hyperv.c",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Edit:
    """One patch: in ``path`` the first ``old`` becomes ``new``; an empty ``old`` is the end of the file."""

    subject: str
    path: str
    old: str
    new: str


_INVALID = "static bool __read_mostly dump_invalid_vmcs = 0;\n"
_DECLARED = "module_param(dump_invalid_vmcs, bool, 0644);\n"
_VIOLATION = "\ttrace_kvm_page_fault(vcpu, gpa, exit_qualification);\n"
_LOAD = "\tif (nested_vmx_load_msr_check(vcpu, &e)) {\n"
_GFN = "\twalker->gfn = real_gpa >> PAGE_SHIFT;\n"
_PEDANTIC = "\tif (unlikely(real_gpa >> 62))\n\t\treturn 0;\n\n"

PARTICULAR = {
    PARAMETER: Edit(
        "KVM: VMX: Let the user ask for a word on EPT exits",
        VMX,
        _DECLARED,
        f"{_DECLARED}\nstatic bool __read_mostly report_ept_exits;\nmodule_param(report_ept_exits, bool, 0444);\n",
    ),
    PARAMETER + 1: Edit(
        "KVM: VMX: Say a word on EPT exits where the user asked for it",
        VMX,
        _VIOLATION,
        f'{_VIOLATION}\tif (unlikely(report_ept_exits))\n\t\tpr_info_once("EPT exit at %llx\\n", gpa);\n',
    ),
    FIRST: Edit("KVM: x86/mmu: Look at the walked address once more", WALK, _GFN, f"{_PEDANTIC}{_GFN}"),
    SECOND: Edit(
        "KVM: nVMX: Look at the index of an MSR entry once more",
        NESTED,
        _LOAD,
        _LOAD.replace("if (", "if (e.index == ~0u ||\n\t\t    "),
    ),
    FIRST_UNDONE: Edit("KVM: x86/mmu: Trust the walked address", WALK, f"{_PEDANTIC}{_GFN}", _GFN),
    SECOND_UNDONE: Edit(
        "KVM: nVMX: Trust the index of an MSR entry",
        NESTED,
        _LOAD.replace("if (", "if (e.index == ~0u ||\n\t\t    "),
        _LOAD,
    ),
    WRONG: Edit(
        "KVM: x86/mmu: Name the permissions in an EPT walk's exit qualification",
        WALK,
        "(pte_access & VMX_EPT_RWX_MASK) <<",
        "(pte_access & (VMX_EPT_READABLE_MASK | VMX_EPT_WRITABLE_MASK)) <<",
    ),
}


def sixty() -> Iterator[Edit]:
    """The sixty: those of ``PARTICULAR`` at their numbers, a few octal modes, comments between."""
    plain = iter(
        [
            Edit("KVM: nVMX: Write a mode in octal", NESTED, "nested_early_check, bool, S_IRUGO",
                 "nested_early_check, bool, 0444"),
            Edit("KVM: VMX: Write a mode in octal", VMX, "allow_smaller_maxphyaddr, bool, S_IRUGO",
                 "allow_smaller_maxphyaddr, bool, 0444"),
            Edit("KVM: VMX: Write another mode in octal", VMX, "module_param(pt_mode, int, S_IRUGO)",
                 "module_param(pt_mode, int, 0444)"),
            *(_closing(path, turn) for turn in range(3) for path in COMMENTED),
        ]
    )  # fmt: skip
    for number in range(1, COUNT + 1):
        yield PARTICULAR.get(number) or next(plain)


def three() -> Iterator[Edit]:
    """Three clean-ups that change no machine code."""
    yield Edit("KVM: nVMX: Use an octal mode for nested_early_check", NESTED, "nested_early_check, bool, S_IRUGO",
               "nested_early_check, bool, 0444")  # fmt: skip
    yield Edit("KVM: x86/mmu: Spell unsigned int out in the walk", WALK, "unsigned index, accessed_dirty, pte_pkey;",
               "unsigned int index, accessed_dirty, pte_pkey;")  # fmt: skip
    yield Edit("KVM: VMX: Say what dump_invalid_vmcs is for", VMX,
               _INVALID, f"/* Print the VMCS where an entry fails. */\n{_INVALID.replace(' = 0', '')}")  # fmt: skip


def _closing(path: str, turn: int) -> Edit:
    name = Path(path).name
    text = ("ends", "has no more", "is whole")[turn]
    return Edit(f"KVM: x86: Say where {name} {text}", path, "", f"\n/* Here {name} {text}. */\n")


def mending() -> Iterator[Edit]:
    """One patch that stands on the sixty: it puts right what ``WRONG`` broke."""
    wrong = PARTICULAR[WRONG]
    yield Edit("KVM: x86/mmu: Give an EPT walk's exit qualification its bit 5 back", WALK, wrong.new, wrong.old)


def mails(
    edits: Iterable[Edit], source: Path, *, cover: str = "", trailers: str = "", below: Iterable[Edit] = ()
) -> list[bytes]:
    """The mails of a series on ``source`` with ``below`` applied, the cover first where ``cover`` is its subject.

    AssertionError where an edit is none.
    """
    patches = list(edits)
    total = len(patches)
    texts: dict[str, str] = {}
    for edit in below:
        _changed(edit, texts, source)
    made = [_mail(0, total, cover, "What it is about.\n")] if cover else []
    for number, edit in enumerate(patches, 1):
        before, after = _changed(edit, texts, source)
        rows = difflib.unified_diff(before.splitlines(True), after.splitlines(True), f"a/{edit.path}", f"b/{edit.path}")
        body = f"A small change to {edit.path}.\n---\n\ndiff --git a/{edit.path} b/{edit.path}\n{''.join(rows)}"
        made.append(_mail(number, total, edit.subject, body))
    if trailers:
        made[0 if cover else -1] = made[0 if cover else -1].replace(b"\n-- \n", f"\n{trailers}\n-- \n".encode())
    return made


def _changed(edit: Edit, texts: dict[str, str], source: Path) -> tuple[str, str]:
    """The edit's file before and after it; ``texts`` holds what the edits before made of the files."""
    before = texts.get(edit.path) or (source / edit.path).read_text(encoding="utf-8")
    assert edit.old in before, f"{edit.path} has no {edit.old!r}"
    texts[edit.path] = before.replace(edit.old, edit.new, 1) if edit.old else before + edit.new
    return before, texts[edit.path]


def _mail(number: int, total: int, subject: str, body: str) -> bytes:
    width = len(str(total))
    return (
        "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\n"
        "From: A Maintainer <maintainer@example.org>\n"
        f"Date: Mon, 1 Jun 2026 {10 + number // 60}:{number % 60:02}:00 +0000\n"
        f"Subject: [PATCH {number:0{width}}/{total}] {subject}\n"
        f"Message-ID: <made-{total}-{number}@example.org>\n\n{body}-- \n2.39.5\n\n"
    ).encode()
