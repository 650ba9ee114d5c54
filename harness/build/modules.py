"""The modules of each level: kvm.ko, kvm-intel.ko and irqbypass.ko of the base with some patches applied.

A level is built in the kernel's one working tree and kept under the contents of the files that its patches change,
so that a level is built once however it was named. Between two levels only files that differ are touched; what make
then compiles again ccache answers from the preprocessed text with the line numbers of its markers taken out, so that
a header edit that changes nothing costs a preprocessor run.

A level also proves that the base image takes its modules: every object of the image that includes a changed file is
compiled from the level's source and compared with the same object of the base's source.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.build import kernel
from harness.build.cache import GIB, Cache, digest
from harness.build.kernel import BaseKernel
from harness.errors import BuildError, CompileError, InputError
from harness.process import programs
from harness.series import Series, State, base_state, level_state, states

KIND: Final = "level"
RECIPE: Final = 1  # counts changes of how a level is built
ROOM: Final = GIB  # bytes of disk
NOTE: Final = "differs.json"  # in the working tree: files of its source that may differ from the base's
MODULES: Final = {
    "irqbypass.ko": "virt/lib/irqbypass.ko",
    "kvm.ko": "arch/x86/kvm/kvm.ko",
    "kvm-intel.ko": "arch/x86/kvm/kvm-intel.ko",
}
OPTIONAL: Final = "irqbypass.ko"  # built into the image by some configurations
_WARNING = re.compile(r"^(?P<file>[^\s:]+):(?P<line>\d+):(?:\d+:)? warning: (?P<text>.*)$", re.M)
_MODPOST = re.compile(r"^WARNING: (?:modpost: )?(?P<text>.*)$", re.M)


@dataclass(frozen=True, slots=True)
class Modules:
    """The record has the modules of a level and what their build said.

    ``level`` is k for patches 1 to k, None for another set. ``irqbypass`` is None where the image has it built in.
    ``warnings``: compiler and modpost warnings without line numbers. ``image_objects``: objects of the base image that
    include a changed file; ``image_differs`` those among them that come out otherwise (then the base image does not
    serve). ``seconds`` of wall time, ``compiled`` objects that make asked for.
    """

    level: int | None
    irqbypass: Path | None
    kvm: Path
    kvm_intel: Path
    warnings: tuple[str, ...]
    image_objects: tuple[str, ...]
    image_differs: tuple[str, ...]
    seconds: float
    compiled: int

    @property
    def folder(self) -> Path:
        """The modules lie in this cache entry."""
        return self.kvm.parent

    @property
    def log(self) -> Path:
        """The build's log is here."""
        return self.folder / "build.log"


def build(
    cache: Cache,
    series: Series,
    wanted: Iterable[int] | None = None,
    *,
    linux: kernel.Linux | None = None,
    need_image: bool = True,
) -> dict[int, Modules]:
    """The function gives the modules of the ``wanted`` levels (default: all), by level, and builds those that the cache
    has not.

    Raises SeriesError when a patch does not apply.
    Raises CompileError, with the compiler's lines, when a level does not compile.
    Raises InputError when the base image cannot serve a level (unless ``need_image`` is false).
    """
    levels = sorted(set(range(series.last + 1) if wanted is None else wanted))
    base = kernel.base(cache, linux)
    every = _every(base, series, levels)
    made: dict[int, Modules] = {}
    for level in levels:
        made[level] = of_state(cache, base, every[level], name=f"level {level}", level=level)
        if need_image and made[level].image_differs:
            raise InputError(
                f"level {level} changes objects of the kernel image itself ({', '.join(made[level].image_differs)}): "
                "one base image cannot take its modules; limit the series to what modules are made of"
            )
    return made


def missing(cache: Cache, series: Series, wanted: Iterable[int], *, linux: kernel.Linux | None = None) -> list[int]:
    """The cache has no modules of these, of the ``wanted`` levels."""
    levels = sorted(set(wanted))
    base = kernel.base(cache, linux)
    every = _every(base, series, levels)
    return [level for level in levels if cache.lookup(KIND, key_of(base, every[level])) is None]


def _every(base: BaseKernel, series: Series, levels: Iterable[int]) -> list[State]:
    """The touched files at level 0, 1, ... up to the highest of ``levels``."""
    applied = states(series, base.pristine, max(levels, default=0))
    return [base_state(series, base.pristine), *(a.state for a in applied)]


def modules(
    cache: Cache, series: Series, level: int | Collection[int], *, linux: kernel.Linux | None = None
) -> Modules:
    """The function gives the modules of one level, or of exactly the patches given.

    Raises what ``build`` raises.
    """
    if isinstance(level, int):
        series.numbers(level)
        return build(cache, series, [level], linux=linux)[level]
    base = kernel.base(cache, linux)
    numbers = series.numbers(level)
    applied = states(series, base.pristine, numbers)
    state = applied[-1].state if applied else base_state(series, base.pristine)
    name = "patches " + (",".join(map(str, numbers)) or "none")
    return of_state(cache, base, state, name=name, level=None)


def _changes(base: BaseKernel, state: State) -> State:
    """Those files of ``state`` that differ from the base's."""
    changes: State = {}
    for path, data in state.items():
        file = base.pristine / path
        if data != (file.read_bytes() if file.is_file() else None):
            changes[path] = data
    return changes


def key_of(base: BaseKernel, state: State) -> dict[str, object]:
    """The modules of a level depend on this: the base (source, configuration, compiler) and the changed files."""
    files = {
        path: None if data is None else digest("file", data.decode("latin-1"))
        for path, data in _changes(base, state).items()
    }
    return {"base": base.key, "files": files, "recipe": RECIPE}


def of_state(
    cache: Cache,
    base: BaseKernel,
    state: State,
    *,
    name: str,
    level: int | None = None,
) -> Modules:
    """The modules of the base with the files of ``state``; ``name`` is for messages. CompileError, BuildError."""
    changes = _changes(base, state)

    def make(folder: Path) -> None:
        _build(cache, base, changes, folder, name)

    folder = cache.entry(KIND, key_of(base, state), make, needs=ROOM, title=name, lines=60)
    said = json.loads((folder / "level.json").read_text(encoding="utf-8"))
    return Modules(
        level,
        folder / OPTIONAL if (folder / OPTIONAL).exists() else None,
        folder / "kvm.ko",
        folder / "kvm-intel.ko",
        tuple(said["warnings"]),
        tuple(said["image_objects"]),
        tuple(said["image_differs"]),
        said["seconds"],
        said["compiled"],
    )


def _build(cache: Cache, base: BaseKernel, changes: State, folder: Path, name: str) -> None:
    started = time.monotonic()
    with kernel.working(cache, base):
        into_source(base, changes)
        log = folder / "build.log"
        done = make(cache, base, ["modules"], log)
        text = log.read_text(encoding="utf-8", errors="replace")
        if done.returncode:
            kept = cache.log(KIND)
            shutil.copyfile(log, kept)
            lines = compiler_lines(text)
            if not lines:
                raise BuildError(programs.failure(done, kept))
            raise CompileError(f"{name} does not compile:\n" + "\n".join(lines) + f"\n(all of it: {kept})")
        for file, path in MODULES.items():
            if (base.build_dir / path).exists():
                shutil.copy2(base.build_dir / path, folder / file)
            elif file != OPTIONAL:
                raise BuildError(f"make built no {path}: see that the configuration has CONFIG_KVM_INTEL=m")
        objects, differs = serve(cache, base, changes, folder)
    said = {
        "warnings": sorted(warnings(text.replace(f"{base.source_dir}/", ""))),
        "image_objects": objects,
        "image_differs": differs,
        "seconds": round(time.monotonic() - started, 1),
        "compiled": len(re.findall(r"^  CC ", text, re.M)),
    }
    (folder / "level.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def make(cache: Cache, base: BaseKernel, targets: list[str], log: Path) -> programs.Completed:
    """The function runs make in the working tree; its output goes to ``log``, its status is the caller's to judge."""
    cc, env = kernel.compiler(cache)
    argv = [
        "make",
        "-C",
        str(base.source_dir),
        f"O={base.build_dir}",
        f"-j{kernel.jobs()}",
        "LOCALVERSION=",
        f"CC={cc}",
    ]
    return programs.run(
        [*argv, *targets],
        env={**kernel.BUILD_ENV, **env},
        log=log,
        check=False,
        nice=kernel.NICE,
    )


def naive(cache: Cache, series: Series, level: int, *, linux: kernel.Linux | None = None) -> float:
    """A level takes this many seconds of wall time the naive way: the whole kernel from a clean tree, nothing reused.

    For comparison only; what it builds is thrown away.

    Raises CompileError when the level does not compile.
    Raises BuildError when the machine cannot build it.
    """
    base = kernel.base(cache, linux)
    changes = _changes(base, level_state(series, base.pristine, level))
    cache.room(kernel.BUILD_ROOM, "a build from a clean tree")
    with kernel.working(cache, base), tempfile.TemporaryDirectory(prefix="naive-", dir=base.build_dir.parent) as name:
        into_source(base, changes)
        shutil.copyfile(base.config, Path(name) / ".config")
        argv = ["make", "-C", str(base.source_dir), f"O={name}", f"-j{kernel.jobs()}", "LOCALVERSION=", "CC=gcc"]
        with cache.building("naive", title=f"level {level}, naively") as task:
            for target in (["olddefconfig"], ["bzImage", "modules"]):
                programs.run([*argv, *target], env=kernel.BUILD_ENV, log=cache.log("naive"), nice=kernel.NICE)
            return task.elapsed


def compiler_lines(text: str, limit: int = 20) -> list[str]:
    """The lines of a build log that say what is wrong, each with the source line the compiler shows under it."""
    wrong = re.compile(r"(: (fatal )?error:|undefined reference to|ERROR: modpost|undefined!$)")
    found: list[str] = []
    rows = text.splitlines()
    for at, row in enumerate(rows):
        if wrong.search(row):
            found.append(row)
            found += [r for r in rows[at + 1 : at + 2] if re.match(r"\s+\d+ \|", r)]
    return found[:limit]


def warnings(text: str) -> set[str]:
    """A build log has these warnings, without line numbers: ``file: text``."""
    found = {f"{m['file']}: {m['text']}" for m in _WARNING.finditer(text)}
    return found | {f"modpost: {m['text']}" for m in _MODPOST.finditer(text)}


def into_source(base: BaseKernel, changes: State) -> list[str]:
    """The working source becomes the base with ``changes``; the function gives the files written. Only what differs
    gets a new time stamp.

    A note beside the source names the files that may differ from the base's; it is written first, so that a run that
    dies here is put right by the next one.
    """
    note = base.source_dir.parent / NOTE
    try:
        before = set(json.loads(note.read_text(encoding="utf-8")))
    except FileNotFoundError:
        before = set()
    _write(note, sorted(before | changes.keys()))
    written = kernel.restore(base, sorted(before - changes.keys()))
    for path, data in sorted(changes.items()):
        file = base.source_dir / path
        if data is None:
            if file.exists():
                file.unlink()
                written.append(path)
        elif not file.is_file() or file.read_bytes() != data:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            written.append(path)
    _write(note, sorted(changes))
    return written


def _write(note: Path, paths: list[str]) -> None:
    fresh = note.with_suffix(".new")
    fresh.write_text(json.dumps(paths) + "\n", encoding="utf-8")
    fresh.replace(note)


def image_objects(base: BaseKernel, paths: Collection[str]) -> dict[str, str]:
    """The function gives the image's objects that are made from one of ``paths``, with the command that makes each.

    kbuild notes an object's dependencies and its command in a .cmd file beside it.
    """
    listed = set(_listed(base.build_dir / "modules.order", base.build_dir))
    needles = {f"{base.source_dir}/{path}" for path in paths} | set(paths)
    found: dict[str, str] = {}
    for file in sorted(base.build_dir.rglob(".*.o.cmd")):
        name = str(file.parent.relative_to(base.build_dir) / file.name.removeprefix(".").removesuffix(".cmd"))
        if name in listed:
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        command = re.search(r"^savedcmd_\S+ := (.*)$", text, re.M)
        source = re.search(r"^source_\S+ := (\S+)$", text, re.M)
        if command is None or source is None or "-DMODULE" in command[1]:
            continue
        words = {w.rstrip("\\").strip() for w in text.split()}
        if needles & words:
            found[name] = command[1]
    return found


def _listed(order: Path, build_dir: Path) -> list[str]:
    try:
        return [line.strip() for line in order.read_text(encoding="ascii").splitlines()]
    except OSError as error:
        raise BuildError(f"{build_dir} has no modules.order: remove the tree and build the base again") from error


def serve(cache: Cache, base: BaseKernel, changes: State, folder: Path) -> tuple[list[str], list[str]]:
    """The image's objects that see a changed file are compiled from the working source and compared with the base's.

    The names of those objects, and of those that differ. The compiler's own output is compared, without the passes
    kbuild runs over an object afterwards, from both sources alike.
    """
    objects = image_objects(base, changes.keys())
    differs = []
    for name, command in objects.items():
        now = _compile(cache, base, command, folder / "image.o")
        then = cache.entry(
            "image-object",
            {"base": base.key, "object": name, "command": command},
            lambda place, command=command: _of_base(cache, base, command, changes, place),  # type: ignore[misc]
            title=f"base's {Path(name).name}",
        )
        if now != (then / "object").read_bytes():
            differs.append(name)
    (folder / "image.o").unlink(missing_ok=True)
    return list(objects), differs


def _of_base(cache: Cache, base: BaseKernel, command: str, changes: State, place: Path) -> None:
    """One object from the base's source, which lies at the same path as the level's for the time of one compilation."""
    try:
        into_source(base, {})
        (place / "object").write_bytes(_compile(cache, base, command, place / "image.o"))
        (place / "image.o").unlink(missing_ok=True)
    finally:
        into_source(base, changes)


def _compile(cache: Cache, base: BaseKernel, command: str, output: Path) -> bytes:
    """Run the compiler of a .cmd file's command with its output, and its list of dependencies, elsewhere."""
    words = shlex.split(command.split(" ; ")[0])
    argv: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "-o":
            next(rest)
        elif word.startswith("-Wp,-MMD"):
            continue
        else:
            argv.append(word)
    _, env = kernel.compiler(cache)
    programs.run(
        [*argv, "-o", output],
        cwd=base.build_dir,
        env={**kernel.BUILD_ENV, **env},
        nice=kernel.NICE,
        error=CompileError,
    )
    return output.read_bytes()
