"""The emulated Intel CPU: Bochs from Debian's source tarball, with our mends for its errata or without."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from harness import places
from harness.build import fetch
from harness.build.cache import GIB, Cache, sha256
from harness.build.kernel import BUILD_ENV, NICE, jobs
from harness.errors import BuildError, FetchError, InputError
from harness.process import programs

VERSION: Final = "3.0"
SUITE: Final = "trixie"
OLDEST: Final = (2, 8)  # the first release with mode-based execute control
PATCHES: Final = places.IMAGES / "bochs"
LOG_LINES: Final = 1450  # lines of configure's and make's output, for the first estimate
ROOM: Final = GIB  # bytes of disk for source, objects and binary

# A CPU with VMX and EPT (vmx=2), one processor, no screen, no debugger; everything that makes it faster.
CONFIGURE: Final = (
    "--enable-x86-64",
    "--enable-cpu-level=6",
    "--enable-vmx=2",
    "--enable-avx",
    "--enable-evex",
    "--enable-protection-keys",
    "--enable-repeat-speedups",
    "--enable-fast-function-calls",
    "--enable-handlers-chaining",
    "--enable-trace-linking",
    "--enable-pci",
    "--enable-e1000",
    "--enable-cdrom",
    "--disable-debugger",
    "--disable-debugger-gui",
    "--disable-stats",
    "--disable-show-ips",  # its timer signal logs, and waits for ever when it interrupts a log line
    "--disable-iodebug",
    "--disable-docbook",
    "--with-nogui",
    "--without-x",
    "--without-x11",
)
FLAGS: Final = ("-O2", "-fno-pie")  # no debug information: a third less to write
# What the profile never came to is compiled as without one; its counts need no locks, one thread emulates.
PROFILING: Final = ("-fprofile-update=single", "-fprofile-partial-training", "-Wno-missing-profile")


def mends() -> list[Path]:
    """Our patches for the emulator's errata, in the order they are applied."""
    return sorted(PATCHES.glob("*.patch"))


def leaving_out(name: str) -> Path:
    """The patch of ours takes something from all the emulator's CPUs, as ``advanced-info`` does."""
    return PATCHES / "without" / f"{name}.patch"


def tarball(cache: Cache) -> Path:
    """Debian's source tarball is fetched and verified by the signed index.

    Raises FetchError, which says what else can be done.
    """
    try:
        return fetch.debian_source(cache, "bochs", f"{VERSION}+dfsg", SUITE, ".orig.tar.xz")
    except FetchError as error:
        raise FetchError(
            f"{error}. Or name an emulator of yours, {OLDEST[0]}.{OLDEST[1]} or newer, by --bochs PATH"
        ) from error


def build(
    cache: Cache,
    mended: bool = True,
    exercise: Callable[[Path], object] | None = None,
    *,
    without: Iterable[str] = (),
) -> Path:
    """The function gives the emulator's binary, built once for each set of inputs.

    With ``exercise`` it is compiled twice: that is given the first binary to run, and the second is optimised for
    what it did. ``without`` names what its CPUs are not to have (``leaving_out``).

    Raises FetchError when the source is not to be had.
    Raises BuildError when it does not compile, or a patch of ours does not apply.
    """
    archive = tarball(cache)
    patches = [*(mends() if mended else []), *map(leaving_out, without)]
    key = {
        "tarball": sha256(archive),
        "patches": [sha256(p) for p in patches],
        "configure": CONFIGURE,
        "flags": [*FLAGS, *(PROFILING if exercise else ())],
        "compiler": programs.run(["g++", "--version"]).stdout.splitlines()[0],
    }
    kind = "bochs" if mended else "bochs-unmended"

    def compile_in(folder: Path) -> None:
        profile = folder / "profile"
        log = cache.log(kind)
        if exercise is not None:
            # At one path both times: a profile knows its objects by where they were.
            binary = _compile(folder / "src", archive, patches, (*PROFILING, f"-fprofile-generate={profile}"), log)
            shutil.rmtree(profile, ignore_errors=True)  # what configure's own programs did
            exercise(binary)
            shutil.rmtree(folder / "src")
        flags = (*PROFILING, f"-fprofile-use={profile}") if exercise is not None else ()
        shutil.move(_compile(folder / "src", archive, patches, flags, log), folder / "bochs")
        shutil.rmtree(folder / "src")
        shutil.rmtree(profile, ignore_errors=True)

    lines = LOG_LINES * (2 if exercise else 1)
    return cache.entry(kind, key, compile_in, needs=ROOM, lines=lines, title=f"{kind} {VERSION}") / "bochs"


def _compile(src: Path, archive: Path, patches: Iterable[Path], flags: Iterable[str], log: Path) -> Path:
    """The binary from a fresh source in ``src``."""
    src.mkdir()
    programs.run(["tar", "-xf", archive, "-C", src, "--strip-components=1", "--no-same-owner"])
    for patch in patches:
        apply(patch, src)
    words = " ".join((*FLAGS, *flags))
    env = {**BUILD_ENV, "CFLAGS": words, "CXXFLAGS": words, "CXX": None, "LDFLAGS": "-no-pie"}
    programs.run(["./configure", *CONFIGURE], cwd=src, env=env, log=log, nice=NICE)
    programs.run(["make", f"-j{jobs()}", "bochs"], cwd=src, env=env, log=log, nice=NICE)
    return src / "bochs"


def apply(patch: Path, src: Path) -> None:
    """One patch is applied to the source in ``src``, without fuzz.

    Raises BuildError, which names the patch and the hunks that fail.
    """
    argv = ["patch", "-p1", "--fuzz=0", "--forward", "--batch", "--no-backup-if-mismatch", "-i", str(patch)]
    done = programs.run(argv, cwd=src, check=False)
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if re.search(r"FAILED|can't find|malformed|Reversed", line)]
        raise BuildError(
            f"{patch} does not apply to Bochs {VERSION}: "
            + ("; ".join(lines) or programs.tail(done.stdout + done.stderr))
        )


def users(path: Path) -> Path:
    """An emulator of the user's: the binary, InputError when it cannot be run or is older than 2.8."""
    path = path.expanduser().absolute()
    if path.is_dir():
        path = path / "bochs"
    if not path.is_file():
        raise InputError(f"--bochs {path}: there is no such program; name Bochs' binary")
    try:
        with tempfile.TemporaryDirectory() as folder:  # it writes its log where it stands
            done = programs.run([path, "-q", "-n"], cwd=Path(folder), check=False, timeout=10)
    except BuildError as error:
        raise InputError(f"--bochs {path}: it does not run ({error}); name Bochs' binary") from error
    match = re.search(r"Bochs x86 Emulator (\d+)\.(\d+)", done.stdout + done.stderr)
    if not match:
        raise InputError(f"--bochs {path}: it does not say that it is Bochs; name Bochs' binary")
    if (int(match[1]), int(match[2])) < OLDEST:
        raise InputError(
            f"--bochs {path}: it is {match[1]}.{match[2]}, which has no mode-based execute control; "
            f"{OLDEST[0]}.{OLDEST[1]} or newer is needed; leave --bochs out for ours"
        )
    return path
