"""Shared libraries that a program names but never calls here, replaced by ones of a few hundred bytes.

The emulated host unpacks its whole file system at each boot, and the program maps all its libraries at each start.
A stub has the soname and the symbols that the program asks of it, with their versions; whoever calls one is
ended, unless it is one of those that may answer 0.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from harness.errors import BuildError
from harness.process import programs

_SYMBOL = re.compile(  # number, value, size, kind, binding, visibility, section, name and version
    r"^ *\d+: \w+ +\w+ (?P<kind>\w+) +\w+ +\w+ +(?P<at>\w+) (?P<name>[^@\s]+)(?:@+(?P<version>\S+))?", re.MULTILINE
)


def _symbols(file: Path, defined: bool) -> dict[str, tuple[str, str]]:
    """The dynamic symbols of ``file`` that it defines, or that it wants: name to kind and version."""
    done = programs.run(["readelf", "-W", "--dyn-syms", str(file)], check=False)
    if done.returncode:
        raise BuildError(f"{file} is not an ELF file: {done.stderr.strip()}")
    return {
        m["name"]: (m["kind"], m["version"] or "")
        for m in _SYMBOL.finditer(done.stdout)
        if (m["at"] != "UND") is defined
    }


def make(program: Path, library: Path, soname: str, folder: Path, answering: Collection[str] = ()) -> Path:
    """The function makes ``folder``/``soname``, which has what ``program`` asks of ``library``, and no more.
    ``answering`` return 0, no more.

    Raises BuildError where it asks for data (a stub could only answer it wrongly), or where the compiler refuses.
    """
    offered = _symbols(library, defined=True)
    asked = {n: version for n, (_, version) in _symbols(program, defined=False).items() if n in offered}
    # Data that the linker had copied into the program is defined in both.
    shared = asked.keys() | _symbols(program, defined=True).keys() & offered.keys()
    if data := sorted(n for n in shared if offered[n][0] == "OBJECT"):
        raise BuildError(f"{program.name} uses data of {soname} ({data[0]}): leave it out of the stubs")
    source, script, out = (folder / f"{soname}{suffix}" for suffix in (".c", ".map", ""))
    source.write_text(
        "".join(
            f"int {n}(void) {{ return 0; }}\n" if n in answering else f"void {n}(void) {{ __builtin_trap(); }}\n"
            for n in sorted(asked)
        )
    )
    versions: dict[str, list[str]] = {}
    for name, version in asked.items():
        versions.setdefault(version, []).append(name)
    script.write_text(
        "".join(f"{v} {{ global: {'; '.join(sorted(names))}; }};\n" for v, names in sorted(versions.items()) if v)
    )
    argv = ["gcc", "-shared", "-nostdlib", "-fPIC", "-w", "-fno-builtin", f"-Wl,-soname,{soname}", "-o", str(out)]
    if script.stat().st_size:
        argv.append(f"-Wl,--version-script={script}")
    done = programs.run([*argv, str(source)], check=False)
    if done.returncode:
        raise BuildError(f"no stub for {soname}: {done.stderr.strip()[-400:]} (is build-essential installed?)")
    return out
