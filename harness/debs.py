"""Debian packages of a newer suite, resolved, verified, fetched and unpacked without root and without installing.

apt does the work with a private state folder: the mirror's address and any proxy come from the machine's own
apt configuration, the suite's index is verified with the machine's Debian archive keyring, each package with
the index's hash. What is fetched stays in the cache: the suite moves, a cache does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from harness import proc
from harness.errors import BuildError, FetchError

KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
DEFAULT_MIRROR: Final = "http://deb.debian.org/debian"
_LIBRARY_FOLDERS: Final = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib64", "lib64", "usr/lib")
_NEEDED = re.compile(r"\((NEEDED)\)\s+Shared library: \[([^]]+)\]")
_RUNPATH = re.compile(r"\((?:RUNPATH|RPATH)\)\s+Library r(?:un)?path: \[([^]]+)\]")


def mirror() -> str:
    """The machine's Debian mirror: the first archive of its apt sources that is Debian's main one."""
    done = proc.run(["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)"], check=False)
    for line in done.stdout.splitlines():
        origin, _, uri = line.partition(" ")
        if origin == "Debian" and "security" not in uri and uri:
            return uri.rstrip("/")
    return DEFAULT_MIRROR


def _configure(folder: Path, suite: str) -> list[str]:
    """apt-get with its state, lists and archives under ``folder`` and the one suite as its source."""
    for sub in ("lists/partial", "archives/partial", "etc"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(f"deb [signed-by={KEYRING} arch=amd64] {mirror()} {suite} main\n")
    options = {
        "Dir::State": folder,
        "Dir::State::Lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder,
        "Dir::Cache::archives": folder / "archives",
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "",
        "APT::Install-Recommends": "false",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Debug::NoLocking": "true",
    }
    return ["apt-get", "-q", "-y", *(f"-o{key}={value}" for key, value in options.items())]


def download(suite: str, packages: Iterable[str], folder: Path) -> list[Path]:
    """The .deb files of ``packages`` and all they depend on, from ``suite``, in ``folder``/archives.

    FetchError when the suite cannot be reached or verified, or has no such package.
    """
    if not KEYRING.exists():
        raise FetchError(
            f"{KEYRING} is missing, so that Debian's signatures cannot be checked: install debian-archive-keyring"
        )
    apt = _configure(folder, suite)
    for step, argv in (
        ("index", [*apt, "update", "-o", "APT::Update::Error-Mode=any"]),
        ("packages", [*apt, "install", "--download-only", *packages]),
    ):
        done = proc.run(argv, check=False)
        if done.returncode:
            reason = " ".join(line for line in done.stderr.splitlines() if line.startswith("E:")) or done.stderr[-400:]
            raise FetchError(
                f"Debian {suite}'s {step} could not be fetched: {reason.strip()} "
                "(is the mirror of this machine's apt sources reachable?)"
            )
    debs = sorted((folder / "archives").glob("*.deb"))
    if not debs:
        raise FetchError(f"apt fetched nothing for {', '.join(packages)} from {suite}: remove {folder} and try again")
    return debs


def unpack(debs: Iterable[Path], root: Path) -> None:
    """The files of the packages under ``root``; no maintainer script runs. BuildError for a broken package."""
    for deb in debs:
        done = proc.run(["dpkg-deb", "-x", str(deb), str(root)], check=False)
        if done.returncode:
            raise BuildError(f"{deb.name} cannot be unpacked: {done.stderr.strip()}: remove it and try again")


def closure(root: Path, binaries: Iterable[str]) -> dict[str, Path]:
    """The shared libraries that ``binaries`` (paths below ``root``) need, all the way: soname to the real file.

    BuildError names a library that is nowhere under ``root``.
    """
    found: dict[str, Path] = {}
    queue = [root / binary for binary in binaries]
    while queue:
        file = queue.pop()
        done = proc.run(["readelf", "-d", str(file)], check=False)
        if done.returncode:
            raise BuildError(f"{file} is not an ELF file: {done.stderr.strip()}")
        run_path = [p.lstrip("/") for m in _RUNPATH.finditer(done.stdout) for p in m[1].split(":")]
        for match in _NEEDED.finditer(done.stdout):
            soname = match[2]
            if soname in found:
                continue
            for folder in (*run_path, *_LIBRARY_FOLDERS):
                candidate = root / folder / soname
                if candidate.exists():
                    found[soname] = candidate.resolve()
                    queue.append(found[soname])
                    break
            else:
                raise BuildError(
                    f"{file.name} needs {soname}, which no unpacked package has: "
                    "add its package to the list in harness/rootfs.py"
                )
    return found
