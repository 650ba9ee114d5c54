"""Builds the image of a level: the kernel's own KVM C, the glue, and a trap for every symbol that is missing.

The compiler is called with kbuild's own command line, taken from a prepared build tree, so that headers,
configuration and flags are the kernel's. Only ``-ffunction-sections -fdata-sections`` are added (they change
where code lies, not what it does, and make each function's code a thing of its own), and file names and lines
in the table of WARNs, which the code does not read.
"""

from __future__ import annotations

import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.build import kernel
from harness.errors import BuildError, CompileError
from harness.oracle.image import constants
from harness.process import programs
from harness.review import SHF_ALLOC, Elf

GLUE: Final = Path(__file__).with_name("glue")
STRAY_BASE: Final = 0x6000_0000  # address space of missing symbols: nothing is mapped there
STRAY_STEP: Final = 0x4000  # bytes a missing symbol has, so that a read behind its start still names it
COMMAND: Final = "arch/x86/kvm/mmu/.spte.o.cmd"  # where kbuild's command line is taken from

KVM: Final = "arch/x86/kvm"

# What the image is made of: name of the object, source (glue unless it says otherwise), module.
WRAPPED: Final = (
    ("spte", "kvm"),
    ("mmu", "kvm"),
    ("vmx", "kvm_intel"),
    ("nested", "kvm_intel"),
    ("hyperv", "kvm_intel"),
    ("text", "kvm"),
)
PLAIN: Final = (
    ("tdp_mmu", f"{KVM}/mmu/tdp_mmu.c", "kvm"),
    ("tdp_iter", f"{KVM}/mmu/tdp_iter.c", "kvm"),
    ("page_track", f"{KVM}/mmu/page_track.c", "kvm"),
    ("vmcs12", f"{KVM}/vmx/vmcs12.c", "kvm_intel"),
    ("hyperv_evmcs", f"{KVM}/vmx/hyperv_evmcs.c", "kvm_intel"),
)

# What a level has, told by its source and not by its number: a series with a patch left out builds too.
FEATURES: Final = {
    "ORACLE_HAS_GUEST_EXEC_FLAG": ("arch/x86/include/asm/kvm_host.h", r"\bbool\s+pt_guest_exec_control\s*;"),
    "ORACLE_HAS_PARAM": ("arch/x86/include/asm/kvm_host.h", r"\benable_pt_guest_exec_control\s*;"),
    "ORACLE_HAS_UX_MASK": ("arch/x86/kvm/mmu/spte.h", r"\bshadow_ux_mask\s*;"),
    "ORACLE_HAS_VMX_HAS_MBEC": ("arch/x86/kvm/vmx/vmx.h", r"\bvmx_has_mbec\s*\("),
    "ORACLE_HAS_CPU_HAS_MBEC": ("arch/x86/kvm/vmx/capabilities.h", r"\bcpu_has_vmx_mbec\s*\("),
    "ORACLE_ACCESS_ALLOWED_TAKES_VCPU": (
        "arch/x86/kvm/mmu/mmu.c",
        r"\bis_access_allowed\s*\([^)]*struct kvm_vcpu",
    ),
    "ORACLE_SET_SPTE_TAKES_VCPU": (
        "arch/x86/kvm/mmu/mmutrace.h",
        r"\bkvm_mmu_set_spte,\s*TP_PROTO\(struct kvm_vcpu",
    ),
}

# What is cut out of x86.c, too large to be taken whole: the parameter's lines, and one function.
CUTS: Final = (
    re.compile(r"^bool [\w ]*\benable_pt_guest_exec_control\b.*\n(?:^.*\benable_pt_guest_exec_control\b.*\n)*", re.M),
    re.compile(r"^void kvm_inject_emulated_page_fault\(.*?^}\n", re.M | re.S),
)
CUT_HEAD: Final = """\
// SPDX-License-Identifier: GPL-2.0-only
/* Generated: parts of arch/x86/kvm/x86.c. */
#include <linux/kvm_host.h>
#include <linux/moduleparam.h>
#include "mmu.h"
#include "x86.h"
#include "oracle.h"

"""
CUT_TAIL: Final = """
/* out: the parameter is there, its value where nobody sets it */
ENTRY(module_param, 1, 2)
{
#ifdef ORACLE_HAS_PARAM
	out[0] = 1;
	out[1] = oracle_param_default;
#else
	out[0] = out[1] = 0;
#endif
}
"""


@dataclass(frozen=True, slots=True)
class Kbuild:
    """A level's source: ``source`` is the pristine tree, ``overlay`` a folder with the files that differ (whole
    folders ``arch/x86/kvm``, ``arch/x86/include`` and ``virt/kvm``), or the same folder."""

    source: Path
    overlay: Path

    def file(self, name: str) -> Path:
        """The function gives a file of the level; None where it is not there."""
        own = self.overlay / name
        return own if own.exists() else self.source / name


@dataclass(frozen=True, slots=True)
class Command:
    """This is kbuild's command line for a KVM object, without what names the object."""

    argv: tuple[str, ...]
    source: str
    cwd: Path

    @classmethod
    def read(cls, prepared: Path) -> Command:
        """The function reads it from ``prepared``, a build tree (O=) in which mmu/spte.o was made.

        Raises BuildError when it was not.
        """
        path = prepared / COMMAND
        try:
            text = path.read_text()
        except OSError:
            raise BuildError(f"{path} is missing: make arch/x86/kvm/mmu/spte.o in that build tree first") from None
        saved = re.search(r"^savedcmd_\S+ := (.*)$", text, re.M)
        source = re.search(r"^source_\S+ := (.*)/arch/x86/kvm/mmu/spte\.c$", text, re.M)
        if saved is None or source is None:
            raise BuildError(f"{path} holds no command line of kbuild: remove it and make the object again")
        words = shlex.split(saved[1].split(" ; ")[0])
        keep: list[str] = []
        skip = False
        for word in words:
            if skip:
                skip = False
            elif word == "-o":
                skip = True
            elif not (
                word == "-c" or word.startswith(("-Wp,-MMD", "-DKBUILD_", "-D__KBUILD_")) or word.endswith("spte.c")
            ):
                keep.append(word)
        return cls(tuple(keep), source[1], prepared)

    def object(
        self, tree: Kbuild, source: Path, output: Path, base: str, module: str, extra: tuple[str, ...]
    ) -> list[str]:
        """The function gives the command line that compiles ``source`` of ``tree`` to ``output`` as file ``base`` of
        ``module``.
        """
        words: list[str] = []
        pair = False
        for word in self.argv:
            path = word.removeprefix("-I") if word.startswith("-I") or pair else None
            if path is not None and path.startswith(self.source + "/"):
                rest = path.removeprefix(self.source + "/")
                prefix = [] if pair else ["-I"]
                del words[len(words) - pair :]
                for root in dict.fromkeys((tree.overlay, tree.source)):
                    words += ["-I", str(root / rest)] if pair or prefix else []
            else:
                words.append(word.replace(self.source, str(tree.source)))
            pair = word == "-I"
        return [
            *words,
            f"-fmacro-prefix-map={tree.overlay}/=",
            f"-I{GLUE}",
            "-include",
            str(GLUE / "pages.h"),
            "-ffunction-sections",
            "-fdata-sections",
            "-DCONFIG_DEBUG_BUGVERBOSE=1",
            "-DMODULE",
            f'-DKBUILD_BASENAME="{base}"',
            f'-DKBUILD_MODNAME="{module}"',
            f"-D__KBUILD_MODNAME=kmod_{module}",
            *extra,
            "-c",
            "-o",
            str(output),
            str(source),
        ]


def features(tree: Kbuild) -> tuple[str, ...]:
    """The function gives the preprocessor definitions that tell the glue what this level has."""
    return tuple(
        f"-D{name}" for name, (file, pattern) in FEATURES.items() if re.search(pattern, tree.file(file).read_text())
    )


def cut(x86: str) -> str:
    """The function gives C source with the parts of x86.c that the image has; the parameter's own line once more, never
    written to.
    """
    found = [match[0] if (match := pattern.search(x86)) else "" for pattern in CUTS]
    default = found[0].split("\n")[0].replace("enable_pt_guest_exec_control", "oracle_param_default")
    return CUT_HEAD + "\n".join([f"static {default}" if default else "", *found]) + CUT_TAIL


def compile_object(argv: list[str], cwd: Path) -> None:
    """The compiler is run on one source.

    Raises CompileError, with the compiler's lines, when it refuses the source.
    """
    done = programs.run(argv, cwd=cwd, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line or "Error" in line]
        raise CompileError(
            f"{argv[-1]} does not compile (exit status {done.returncode}): mend the patch or the glue; "
            "the compiler says:\n" + "\n".join(lines[:12] or done.stderr.splitlines()[-12:])
        )


def build(folder: Path, prepared: Path, tree: Kbuild) -> Path:
    """Make ``folder/image`` (and ``runner``, and the objects) for the level in ``tree``; returns the image.

    ``prepared``: a kernel build tree of the same base. CompileError when the level does not compile.
    """
    command = Command.read(prepared)
    has = features(tree)
    table = folder / "constants.c"
    table.write_text(constants.source(tree.file))
    parts = folder / "x86.c"
    parts.write_text(cut(tree.file(f"{KVM}/x86.c").read_text()))
    jobs: list[list[str]] = []
    for name, module in WRAPPED:
        jobs.append(command.object(tree, GLUE / f"{name}.c", folder / f"{name}.o", name, module, has))
    for name, file, module in PLAIN:
        jobs.append(command.object(tree, tree.file(file), folder / f"{name}.o", name, module, has))
    jobs.append(command.object(tree, GLUE / "world.c", folder / "world.o", "world", "kvm", has))
    jobs.append(command.object(tree, table, folder / "constants.o", "constants", "kvm", has))
    jobs.append(command.object(tree, parts, folder / "x86.o", "x86", "kvm", has))
    compile_all(sorted(jobs, key=_weight), command.cwd)
    return link(folder, [folder / f"{Path(argv[argv.index('-o') + 1]).name}" for argv in jobs])


def compile_all(jobs: list[list[str]], cwd: Path) -> None:
    """The compilers are run, several at once. The first failure, or Ctrl-C, ends those that run and starts no other."""
    group = programs.Group()

    def work(argv: list[str]) -> None:
        with group.mine():
            compile_object(argv, cwd)

    pool = ThreadPoolExecutor(kernel.jobs())
    try:
        # The largest come first, so that the last one does not leave a processor idle.
        for _ in pool.map(work, jobs):
            pass
    except BaseException:
        group.cancel()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _weight(argv: list[str]) -> int:
    order = ("vmx.c", "mmu.c", "nested.c")
    name = Path(argv[-1]).name
    return order.index(name) if name in order else len(order)


def link(folder: Path, objects: list[Path]) -> Path:
    """Link ``objects`` to ``folder/image``; every symbol that is missing gets an address where a use traps."""
    files = [Elf(path) for path in objects]
    missing = sorted(set().union(*(f.undefined for f in files)) - set().union(*(f.defined for f in files)))
    missing = [m for m in missing if not m.startswith(("__start_", "__stop_", "__oracle_once"))]
    strays = folder / "strays.lds"
    strays.write_text("".join(f'"{name}" = {STRAY_BASE + i * STRAY_STEP:#x};\n' for i, name in enumerate(missing)))
    image = folder / "image"
    flags = ("-static", "-no-pie", "-nostdlib", "--no-warn-rwx-segments", "-z", "noexecstack")
    programs.run(["ld", *flags, "-T", GLUE / "image.lds", strays, *objects, "-o", image])
    (folder / "strays.txt").write_text("".join(f"{name}\n" for name in missing))
    programs.run(["gcc", "-O2", "-Wall", "-Wextra", "-o", str(folder / "runner"), str(GLUE / "runner.c")])
    return image


def allocated(file: Elf) -> int:
    """The function gives the bytes of an image in memory."""
    return sum(s.size for s in file.sections if s.flags & SHF_ALLOC)
