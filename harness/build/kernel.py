"""The base kernel: the pinned source, its configuration, the image, and the tree in which levels are built.

trees/linux-KEY/src/      the working source: levels are patched in place here, since a build tree knows its path
trees/linux-KEY/build/    its O=
kernel/DIGEST/            bzImage, config, fragment, Module.symvers, System.map of the base, never changed
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.build import archive, fetch, needs
from harness.build.archive import Debian
from harness.build.cache import GIB, Cache, digest, sha256
from harness.build.needs import Need, Settled
from harness.errors import BuildError, CompileError, FetchError, InputError
from harness.process import programs
from harness.series import pinned

SUITE: Final = "trixie"
NEEDS: Final = needs.FILE
DEBUG_WORDS: Final = "kasan_multi_shot"  # on its command line: KASAN speaks more than once
DEBUG_NEEDS: Final = NEEDS.with_name("debug.toml")
CPP: Final = Path(__file__).with_name("cpp_without_lines.sh")
RECIPE: Final = 2  # counts changes of how the base is built
SOURCE_ROOM: Final = 2 * GIB  # bytes of disk that an unpacked source takes, with some to spare
BUILD_ROOM: Final = 3 * GIB  # the same for the working source and its build tree
LOG_LINES: Final = 1700  # lines of make's output, for the first estimate
NICE: Final = 10
BUILD_KIND: Final = "kernel-build"  # with its key: its log and its record of time; the entry itself is only a copy
SOURCE_KIND: Final = "linux-source"
MARK: Final = "base.json"  # of a working tree that is finished
IMAGE: Final = "arch/x86/boot/bzImage"
ASKED: Final = "kvmirror.fragment"  # in a build tree: the settings that the kernel was configured with
KEPT: Final = {
    IMAGE: "bzImage",
    ".config": "config",
    ASKED: "fragment",
    "Module.symvers": "Module.symvers",
    "System.map": "System.map",
}

# The first build of a tree finds nothing in ccache, and what it would leave there no level looks for: those go by
# preprocessed input, so that a header edit that changes nothing costs nothing. ccache only starts the compiler.
FIRST_BUILD: Final = {"CCACHE_DISABLE": "1"}

# The same bytes whoever builds, wherever and whenever; and nothing of a make that started us.
BUILD_ENV: Final[dict[str, str | None]] = {
    "KBUILD_BUILD_TIMESTAMP": "Thu Jan  2 00:00:00 UTC 2025",
    "KBUILD_BUILD_USER": "kvmirror",
    "KBUILD_BUILD_HOST": "kvmirror",
    "KBUILD_BUILD_VERSION": "1",
    **dict.fromkeys(("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "ARCH", "CROSS_COMPILE", "LOCALVERSION")),
    **dict.fromkeys(("KBUILD_OUTPUT", "O", "M", "V", "W", "C", "KCFLAGS", "KCPPFLAGS", "KAFLAGS", "CC", "LD")),
}


@dataclass(frozen=True, slots=True)
class Debug:
    """The kernel (None: Linux 6.12.8) has what images/kernel/debug.toml says on top: sanitizer, lockdep, checks."""

    linux: Path | Debian | None = None

    def __str__(self) -> str:
        return f"{self.linux or f'Linux {pinned.VERSION}'} for debugging"


Linux = Path | Debian | Debug
"""A kernel that the user names: a tarball, a source tree, or one of Debian's archive; each for debugging too."""


@dataclass(frozen=True, slots=True)
class BaseKernel:
    """This is the base as built.

    ``bzimage``, ``config``, ``symvers``: files of the cache entry. ``pristine``: the source as unpacked, read only
    by convention. ``source_dir`` and ``build_dir``: the working source and its O= tree, to be used inside
    ``working()`` only. ``release``: ``make kernelrelease``, which modules must carry. ``key``: identifies all inputs.
    ``lost``: what a run would need and this kernel's configuration does not give, each with what falls away.
    """

    bzimage: Path
    config: Path
    symvers: Path
    pristine: Path
    source_dir: Path
    build_dir: Path
    release: str
    key: str
    lost: tuple[str, ...] = ()

    @property
    def fragment(self) -> Path:
        """The configuration was made from these settings."""
        return self.config.with_name("fragment")

    @property
    def build_id(self) -> str:
        """This is the build id of the image, in hexadecimal; empty where its vmlinux is gone."""
        return build_id(self.build_dir / "vmlinux")

    @property
    def tree(self) -> str:
        """The working tree has this name in the cache."""
        return f"linux-{self.key}"


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a source comes from: ``key`` names its contents, ``make`` puts them into a folder."""

    key: dict[str, str]
    make: Callable[[Path], None]
    title: str
    room: int = SOURCE_ROOM


def build_id(file: Path) -> str:
    """The function gives the GNU build id of an ELF file in hexadecimal; empty where it has none, or is not there."""
    said = programs.run(["readelf", "--wide", "--notes", file], check=False).stdout
    found = re.search(r"Build ID: ([0-9a-f]+)", said)
    return found[1] if found else ""


def source(cache: Cache, linux: Linux | None = None) -> Path:
    """The function gives the unpacked source: Linux 6.12.8, or what ``linux`` names.

    Raises FetchError when a kernel of the archive is neither in the cache nor to be had.
    Raises InputError when ``linux`` is no kernel source.
    """
    origin = _origin(cache, linux)
    return cache.entry(SOURCE_KIND, origin.key, origin.make, needs=origin.room, title=origin.title)


def _named(linux: Linux | None) -> Path | Debian | None:
    """The source that ``linux`` is made of, as the user named it."""
    return linux.linux if isinstance(linux, Debug) else linux


def wanted(linux: Linux | None) -> tuple[Need, ...]:
    """The function gives what the configuration of ``linux`` is asked for."""
    return needs.read(NEEDS) + (needs.read(DEBUG_NEEDS) if isinstance(linux, Debug) else ())


def _origin(cache: Cache, linux: Linux | None) -> _Origin:
    linux = _named(linux)
    if linux is None:
        return _of_tarball({"tarball": pinned.SHA256}, lambda: _pinned(cache))
    if isinstance(linux, Debian):
        offer = archive.find(cache, linux)
        return _of_tarball({"archive": offer.sha256}, lambda: archive.tarball(cache, offer))
    linux = linux.expanduser().absolute()
    if linux.is_file():
        return _of_tarball({"tarball": sha256(linux)}, lambda: linux)
    if not linux.is_dir():
        raise InputError(
            f"--linux {linux}: there is no such file or folder; name a kernel's tarball or source tree, or one of "
            "Debian's, as in debian:7.2, debian:6.12.117 or debian:trixie"
        )
    if (linux / ".git").exists():
        return _of_git(cache, linux)
    return _of_folder(linux)


def _pinned(cache: Cache) -> Path:
    try:
        return fetch.debian_source(cache, "linux", f"{pinned.VERSION}-1", SUITE, ".orig.tar.xz", pinned.SHA256)
    except FetchError as error:
        raise FetchError(
            f"{error}. Or fetch https://cdn.kernel.org/pub/linux/kernel/v6.x/linux-{pinned.VERSION}.tar.xz "
            "elsewhere and name it with --linux PATH"
        ) from error


def _of_tarball(key: dict[str, str], tarball: Callable[[], Path]) -> _Origin:
    def make(folder: Path) -> None:
        path = tarball()
        done = programs.run(
            ["tar", "-xf", path, "-C", folder, "--strip-components=1", "--no-same-owner"], check=False, nice=NICE
        )
        if done.returncode:
            raise InputError(f"{path} cannot be unpacked: {programs.tail(done.stderr, 3)}; name a kernel's tarball")
        pinned.of_tree(folder, str(path))

    return _Origin(key, make, "unpack the kernel")


def _of_git(cache: Cache, linux: Path) -> _Origin:
    def git(*words: str) -> str:
        return programs.run(["git", "-C", linux, *words], error=InputError).stdout.strip()

    if git("status", "--porcelain", "--untracked-files=no"):
        cache.progress.say(f"--linux {linux}: it has changes that are not committed; its HEAD is used, without them")

    def make(folder: Path) -> None:
        tar = folder / ".archive.tar"
        git("archive", "--format=tar", "-o", str(tar), "HEAD")
        programs.run(["tar", "-xf", tar, "-C", folder, "--no-same-owner"], nice=NICE)
        tar.unlink()
        pinned.of_tree(folder, str(linux))

    return _Origin({"git-tree": git("rev-parse", "HEAD^{tree}")}, make, "export the kernel", 2 * SOURCE_ROOM)


def _of_folder(linux: Path) -> _Origin:
    pinned.of_tree(linux, str(linux))
    if (linux / ".config").exists() or (linux / "include" / "config").exists():
        raise InputError(f"--linux {linux}: something was built in it; run `make mrproper` there, or name a tarball")
    listed = []
    for path, folders, files in os.walk(linux):
        folders.sort()
        for name in sorted(files):
            status = os.lstat(Path(path) / name)
            listed.append(f"{os.path.relpath(path, linux)}/{name} {status.st_size} {status.st_mtime_ns}")
    key = {"folder": str(linux), "files": digest("files", "\n".join(listed))}
    return _Origin(key, lambda folder: _copy(linux, folder), "copy the kernel")


def _copy(source_dir: Path, target: Path) -> None:
    programs.run(["cp", "-a", "--no-preserve=ownership", "--reflink=auto", f"{source_dir}/.", target], nice=NICE)


def compiler(cache: Cache) -> tuple[str, dict[str, str | None]]:
    """The value of CC, and the environment it needs: ccache in front of gcc where there is one.

    A build tree notes CC in every object's command: the base and its levels use the same.
    """
    if not shutil.which("ccache"):
        return "gcc", {}
    return "ccache gcc", {
        "CCACHE_DIR": str(cache.root / "ccache"),
        "CCACHE_MAXSIZE": "3G",
        # Sources get new time stamps whenever a level is set up, and lines move: neither makes another object.
        "CCACHE_SLOPPINESS": "include_file_mtime,include_file_ctime",
        "CCACHE_PREFIX_CPP": str(CPP),
    }


def compiler_version() -> str:
    """The function gives the first line that gcc says of itself."""
    return programs.run(["gcc", "--version"]).stdout.splitlines()[0]


def jobs() -> int:
    """The function gives how many compilations run at once: KVMIRROR_JOBS, else one a processor this process may use.

    Raises InputError when KVMIRROR_JOBS is no number of jobs.
    """
    text = os.environ.get("KVMIRROR_JOBS", "")
    if text and not (text.isdigit() and int(text)):
        raise InputError(f"KVMIRROR_JOBS={text!r} is no number of jobs; set it to 1 or more, or unset it")
    return int(text) if text else len(os.sched_getaffinity(0))


def make(
    cache: Cache,
    source_dir: Path,
    build_dir: Path,
    targets: Sequence[str],
    *,
    log: Path,
    error: type[BuildError] | type[InputError] = BuildError,
    variables: Iterable[str] = (),
    env: programs.Env | None = None,
) -> programs.Completed:
    """The function runs the kernel's make for ``targets``; its output is appended to ``log``. ``variables`` are
    NAME=VALUE for make, ``env`` is for its environment.

    Raises ``error``, with the compiler's own lines, when the source does not compile.
    Raises BuildError when make fails for another reason.
    """
    cc, cc_env = compiler(cache)
    argv = ["make", "-C", str(source_dir), f"O={build_dir}", f"-j{jobs()}", "LOCALVERSION=", f"CC={cc}"]
    done = programs.run(
        [*argv, *variables, *targets], env={**BUILD_ENV, **cc_env, **(env or {})}, log=log, check=False, nice=NICE
    )
    if done.returncode:
        lines = compiler_errors(log)
        if not lines:
            raise BuildError(programs.failure(done, log))
        raise error(
            f"the kernel in {source_dir} does not build ({' '.join(targets)}):\n" + "\n".join(lines) + f"\n(log: {log})"
        )
    return done


def compiler_errors(log: Path, limit: int = 20) -> list[str]:
    """These lines of a build log tell what is wrong with the source: errors of compiler, linker and modpost."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    wrong = re.compile(r"(: (fatal )?error:|undefined reference to|ERROR: modpost|\berror: .*\[-Werror)")
    return [line for line in text.splitlines() if wrong.search(line)][:limit]


def configure(
    cache: Cache,
    source_dir: Path,
    build_dir: Path,
    *,
    log: Path,
    asked: Sequence[Need] | None = None,
    error: type[BuildError] | type[InputError] = BuildError,
    variables: Iterable[str] = (),
) -> Settled:
    """Configure a build tree with what is ``asked`` (None: what a run needs); nothing is compiled but Kconfig itself.

    ``error`` is raised where the kernel does not take what no run can do without.
    """
    asked = wanted(None) if asked is None else asked
    there = needs.known(source_dir, frozenset().union(*(need.symbols for need in asked)))

    def ask(fragment: str) -> str:
        file = build_dir / ASKED
        file.write_text(fragment, encoding="utf-8")
        words = [*variables, f"KCONFIG_ALLCONFIG={file}"]
        make(cache, source_dir, build_dir, ["allnoconfig"], log=log, error=error, variables=words)
        return (build_dir / ".config").read_text(encoding="utf-8")

    settled = needs.settle(asked, there, ask)
    if missing := [str(lost) for lost in settled.lost if lost.need.required]:
        raise error(
            f"{pinned.of_tree(source_dir, str(source_dir))}: the kernel did not take what a run cannot do without: "
            + ". ".join(missing)
            + f". Give {NEEDS.name} ({NEEDS}) another way to it for this kernel"
        )
    return settled


def _place(cache: Cache, pristine: Path, linux: Linux | None) -> tuple[str, dict[str, object], Path]:
    """The base of a source: its key, the inputs of its cache entry, its working tree."""
    inputs: dict[str, object] = {
        "source": pristine.name,
        "config": needs.key(wanted(linux)),
        "compiler": compiler_version(),
        "cc": compiler(cache)[0],
        "recipe": RECIPE,
    }
    key = digest("kernel", inputs)[:12]
    return key, inputs, cache.root / "trees" / f"linux-{key}"


def built(cache: Cache, linux: Linux | None = None) -> BaseKernel | None:
    """The base kernel as the cache has it, None where it was not built; nothing is fetched, unpacked or built.

    FetchError where ``linux`` names a kernel of the archive and the archive cannot be asked which that is.
    """
    if isinstance(named := _named(linux), Debian) and archive.held(cache, named) is None:
        return None
    pristine = cache.lookup(SOURCE_KIND, _origin(cache, linux).key)
    if pristine is None:
        return None
    key, inputs, tree = _place(cache, pristine, linux)
    made = cache.lookup("kernel", inputs)
    if made is None or not (tree / MARK).exists():
        return None
    return _base(made, pristine, tree, key)


def base(cache: Cache, linux: Linux | None = None) -> BaseKernel:
    """The function gives the base kernel, built if it is not there, with its working tree ready for levels.

    Raises FetchError when the source is not to be had.
    Raises InputError when ``linux`` is no kernel source.
    Raises CompileError when a source of the user's does not compile.
    Raises BuildError when the machine cannot build it.
    """
    pristine = source(cache, linux)
    key, inputs, tree = _place(cache, pristine, linux)
    made = cache.lookup("kernel", inputs)
    if made is None or not (tree / MARK).exists():
        with cache.tree(tree.name):
            if not (tree / MARK).exists():
                _build(cache, pristine, tree, linux)

            def keep(folder: Path) -> None:
                for name, kept in KEPT.items():
                    shutil.copy2(tree / "base" / name, folder / kept)

            made = cache.entry("kernel", inputs, keep)
    return _base(made, pristine, tree, key)


def _base(made: Path, pristine: Path, tree: Path, key: str) -> BaseKernel:
    mark = json.loads((tree / MARK).read_text(encoding="utf-8"))
    return BaseKernel(
        made / "bzImage",
        made / "config",
        made / "Module.symvers",
        pristine,
        tree / "src",
        tree / "build",
        mark["release"],
        key,
        tuple(mark["lost"]),
    )


def _build(cache: Cache, pristine: Path, tree: Path, linux: Linux | None) -> None:
    """Make ``tree``: working source, configuration, image and modules; its mark comes last."""
    debug = isinstance(linux, Debug)
    error: type[BuildError] | type[InputError] = BuildError if _named(linux) is None else CompileError
    cache.room(BUILD_ROOM * (2 if debug else 1), "the base kernel's build")
    src, build = tree / "src", tree / "build"
    kind = f"{BUILD_KIND}-{tree.name.removeprefix('linux-')}"
    with cache.building(
        kind,
        title=f"kernel {pinned.of_tree(pristine, str(pristine))}{' for debugging' if debug else ''}",
        lines=LOG_LINES,
    ) as task:
        log = cache.log(kind)
        for folder in (src, build, tree / "base"):  # of a build that died half-way
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        task.note = "copying the source"
        _copy(pristine, src)
        task.note = "configuring"
        settled = configure(cache, src, build, log=log, asked=wanted(linux), error=error)
        task.note = ""
        make(cache, src, build, ["bzImage", "modules"], log=log, error=error, env=FIRST_BUILD)
        for name in KEPT:
            target = tree / "base" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(build / name, target)
        mark = {
            "release": (build / "include" / "config" / "kernel.release").read_text(encoding="ascii").strip(),
            "source": pristine.name,
            "lost": [str(lost) for lost in settled.lost],
        }
        (tree / MARK).write_text(json.dumps(mark) + "\n", encoding="utf-8")


@contextlib.contextmanager
def working(cache: Cache, kernel: BaseKernel) -> Iterator[BaseKernel]:
    """The working source and build tree are the caller's alone in the block.

    The source is as the last user left it: call ``restore()`` for the files that may differ.
    """
    with cache.tree(kernel.tree):
        yield kernel


def restore(kernel: BaseKernel, paths: Iterable[str]) -> list[str]:
    """The named files of the working source become as in the pristine one; the function gives those that were not.

    A file that comes back gets a new time stamp, so that make sees the change.
    """
    changed = []
    for path in paths:
        old, new = kernel.pristine / path, kernel.source_dir / path
        if not old.exists():
            if new.exists():
                new.unlink()
                changed.append(path)
        elif not new.exists() or new.read_bytes() != old.read_bytes():
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(old, new)
            changed.append(path)
    return changed
