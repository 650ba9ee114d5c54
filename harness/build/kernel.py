"""The base kernel: the pinned source, its configuration, the image, and the tree in which levels are built.

trees/linux-KEY/src/      the working source: levels are patched in place here, since a build tree knows its path
trees/linux-KEY/build/    its O=
kernel/DIGEST/            bzImage, config, Module.symvers, System.map of the base, never changed
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness import places
from harness.build import fetch
from harness.build.cache import GIB, Cache, digest, sha256
from harness.errors import BuildError, CompileError, FetchError, InputError
from harness.process import programs
from harness.series import pinned

SUITE: Final = "trixie"
FRAGMENT: Final = places.IMAGES / "kernel" / "config.fragment"
CPP: Final = Path(__file__).with_name("cpp_without_lines.sh")
RECIPE: Final = 1  # counts changes of how the base is built
SOURCE_ROOM: Final = 2 * GIB  # bytes of disk that an unpacked source takes, with some to spare
BUILD_ROOM: Final = 3 * GIB  # the same for the working source and its build tree
LOG_LINES: Final = 1700  # lines of make's output, for the first estimate
NICE: Final = 10
BUILD_KIND: Final = "kernel-build"  # its log and its record of time; the entry itself is only a copy
IMAGE: Final = "arch/x86/boot/bzImage"
KEPT: Final = {IMAGE: "bzImage", ".config": "config", "Module.symvers": "Module.symvers", "System.map": "System.map"}

# ccache by the compiler's own list of headers: no preprocessing for a miss, a sixth less time, and all are misses.
# Levels go without it: by preprocessed input, a header edit that changes nothing costs nothing.
FIRST_BUILD: Final = {"CCACHE_DEPEND": "1"}

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
class BaseKernel:
    """The base as built.

    ``bzimage``, ``config``, ``symvers``: files of the cache entry. ``pristine``: the source as unpacked, read only
    by convention. ``source_dir`` and ``build_dir``: the working source and its O= tree, to be used inside
    ``working()`` only. ``release``: ``make kernelrelease``, which modules must carry. ``key``: identifies all inputs.
    """

    bzimage: Path
    config: Path
    symvers: Path
    pristine: Path
    source_dir: Path
    build_dir: Path
    release: str
    key: str

    @property
    def tree(self) -> str:
        """The name of the working tree in the cache."""
        return f"linux-{self.key}"


def source(cache: Cache, linux: Path | None = None) -> Path:
    """The unpacked source: Linux 6.12.8, or the tarball, git tree or folder that ``linux`` names.

    FetchError when 6.12.8 is neither in the cache nor to be had; InputError when ``linux`` is no kernel source.
    """
    if linux is None:
        return _unpacked(cache, _pinned(cache))
    linux = linux.expanduser().absolute()
    if linux.is_file():
        return _unpacked(cache, linux)
    if not linux.is_dir():
        raise InputError(f"--linux {linux}: there is no such file or folder; name a kernel's tarball or source tree")
    if (linux / ".git").exists():
        return _from_git(cache, linux)
    return _from_folder(cache, linux)


def _pinned(cache: Cache) -> Path:
    try:
        return fetch.debian_source(cache, "linux", f"{pinned.VERSION}-1", SUITE, ".orig.tar.xz", pinned.SHA256)
    except FetchError as error:
        raise FetchError(
            f"{error}. Or fetch https://cdn.kernel.org/pub/linux/kernel/v6.x/linux-{pinned.VERSION}.tar.xz "
            "elsewhere and name it with --linux PATH"
        ) from error


def _unpacked(cache: Cache, tarball: Path) -> Path:
    def build(folder: Path) -> None:
        done = programs.run(
            ["tar", "-xf", tarball, "-C", folder, "--strip-components=1", "--no-same-owner"], check=False, nice=NICE
        )
        if done.returncode:
            raise InputError(f"{tarball} cannot be unpacked: {programs.tail(done.stderr, 3)}; name a kernel's tarball")
        pinned.of_tree(folder, str(tarball))

    return cache.entry(
        "linux-source", {"tarball": sha256(tarball)}, build, needs=SOURCE_ROOM, title="unpack the kernel"
    )


def _from_git(cache: Cache, linux: Path) -> Path:
    def git(*words: str) -> str:
        return programs.run(["git", "-C", linux, *words], error=InputError).stdout.strip()

    commit = git("rev-parse", "HEAD^{tree}")
    if git("status", "--porcelain", "--untracked-files=no"):
        cache.progress.say(f"--linux {linux}: it has changes that are not committed; its HEAD is used, without them")

    def build(folder: Path) -> None:
        archive = folder / ".archive.tar"
        git("archive", "--format=tar", "-o", str(archive), "HEAD")
        programs.run(["tar", "-xf", archive, "-C", folder, "--no-same-owner"], nice=NICE)
        archive.unlink()
        pinned.of_tree(folder, str(linux))

    return cache.entry("linux-source", {"git-tree": commit}, build, needs=2 * SOURCE_ROOM, title="export the kernel")


def _from_folder(cache: Cache, linux: Path) -> Path:
    pinned.of_tree(linux, str(linux))
    if (linux / ".config").exists() or (linux / "include" / "config").exists():
        raise InputError(f"--linux {linux}: something was built in it; run `make mrproper` there, or name a tarball")
    listed = []
    for path, folders, files in os.walk(linux):
        folders.sort()
        for name in sorted(files):
            status = os.lstat(Path(path) / name)
            listed.append(f"{os.path.relpath(path, linux)}/{name} {status.st_size} {status.st_mtime_ns}")

    def build(folder: Path) -> None:
        _copy(linux, folder)

    return cache.entry(
        "linux-source",
        {"folder": str(linux), "files": digest("files", "\n".join(listed))},
        build,
        needs=SOURCE_ROOM,
        title="copy the kernel",
    )


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
    """The first line that gcc says of itself."""
    return programs.run(["gcc", "--version"]).stdout.splitlines()[0]


def jobs() -> int:
    """How many compilations at once: KVMIRROR_JOBS, else one a processor this process may use."""
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
    """Run the kernel's make for ``targets``; its output is appended to ``log``.

    ``variables``: NAME=VALUE for make; ``env``: for its environment. ``error`` is raised, with the compiler's own
    lines, when it fails.
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
    """The lines of a build log that say what is wrong with the source: errors of compiler, linker and modpost."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    wrong = re.compile(r"(: (fatal )?error:|undefined reference to|ERROR: modpost|\berror: .*\[-Werror)")
    return [line for line in text.splitlines() if wrong.search(line)][:limit]


def untaken(fragment: str, config: str) -> list[str]:
    """The symbols of ``fragment`` that ``config`` has otherwise, each as it was asked for and as it is."""
    have = dict(re.findall(r"^(CONFIG_\w+)=(.*)$", config, re.M))
    wrong = []
    for name, value in re.findall(r"^(CONFIG_\w+)=(.*)$", fragment, re.M):
        if have.get(name) != value:
            wrong.append(f"{name}={value} (is {have.get(name, 'not set')})")
    for name in re.findall(r"^# (CONFIG_\w+) is not set$", fragment, re.M):
        if name in have:
            wrong.append(f"{name} not set (is {have[name]})")
    return wrong


def base(cache: Cache, linux: Path | None = None) -> BaseKernel:
    """The base kernel, built if it is not there, with its working tree ready for levels.

    FetchError, InputError (``linux``), CompileError (a source of the user's that does not compile), BuildError.
    """
    pristine = source(cache, linux)
    inputs = {
        "source": pristine.name,
        "config": sha256(FRAGMENT),
        "compiler": compiler_version(),
        "cc": compiler(cache)[0],
        "recipe": RECIPE,
    }
    key = digest("kernel", inputs)[:12]
    tree = cache.root / "trees" / f"linux-{key}"
    made = cache.lookup("kernel", inputs)
    if made is None or not (tree / "base.json").exists():
        with cache.tree(tree.name):
            if not (tree / "base.json").exists():
                _build(cache, pristine, tree, BuildError if linux is None else CompileError)

            def keep(folder: Path) -> None:
                for name, kept in KEPT.items():
                    shutil.copy2(tree / "base" / name, folder / kept)

            made = cache.entry("kernel", inputs, keep)
    mark = json.loads((tree / "base.json").read_text(encoding="utf-8"))
    return BaseKernel(
        made / "bzImage",
        made / "config",
        made / "Module.symvers",
        pristine,
        tree / "src",
        tree / "build",
        mark["release"],
        key,
    )


def _build(cache: Cache, pristine: Path, tree: Path, error: type[BuildError] | type[InputError]) -> None:
    """Make ``tree``: working source, configuration, image and modules; ``base.json`` comes last."""
    cache.room(BUILD_ROOM, "the base kernel's build")
    src, build = tree / "src", tree / "build"
    with cache.building(BUILD_KIND, title=f"kernel {pinned.of_tree(pristine, str(pristine))}", lines=LOG_LINES) as task:
        task.note = "copying the source"
        for folder in (src, build, tree / "base"):  # of a build that died half-way
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        _copy(pristine, src)
        log = cache.log(BUILD_KIND)
        task.note = "configuring"
        make(cache, src, build, ["allnoconfig"], log=log, error=error, variables=[f"KCONFIG_ALLCONFIG={FRAGMENT}"])
        wrong = untaken(FRAGMENT.read_text(encoding="utf-8"), (build / ".config").read_text(encoding="utf-8"))
        if wrong:
            raise error(f"{FRAGMENT}: the kernel did not take " + ", ".join(wrong) + ": see what they depend on")
        task.note = ""
        make(cache, src, build, ["bzImage", "modules"], log=log, error=error, env=FIRST_BUILD)
        for name in KEPT:
            target = tree / "base" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(build / name, target)
        release = (build / "include" / "config" / "kernel.release").read_text(encoding="ascii").strip()
        (tree / "base.json").write_text(json.dumps({"release": release, "source": pristine.name}) + "\n")


@contextlib.contextmanager
def working(cache: Cache, kernel: BaseKernel) -> Iterator[BaseKernel]:
    """The working source and build tree, the caller's alone in the block.

    The source is as the last user left it: call ``restore()`` for the files that may differ.
    """
    with cache.tree(kernel.tree):
        yield kernel


def restore(kernel: BaseKernel, paths: Iterable[str]) -> list[str]:
    """Make the named files of the working source as in the pristine one; the names of those that were not.

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
