"""The build cache: finished builds keyed by their inputs, and working folders that are kept.

    ROOT/KIND/DIGEST/            a finished build, with inputs.json and seconds.json; never changed
    ROOT/KIND/.tmp-DIGEST-*/     one that is being made
    ROOT/trees/NAME/             a working folder (a kernel's build tree), one user at a time
    ROOT/locks/ ROOT/logs/ ROOT/records/

An entry is made in a temporary folder beside its place and renamed, under a lock that other processes and threads
wait for: there is no half-made entry, whatever dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from harness import places
from harness.errors import BuildError
from harness.process import PROGRESS, Progress, Task, programs

ENVIRONMENT: Final = "KVMIRROR_CACHE"
DIGEST: Final = 16  # hexadecimal digits of an entry's name
WAIT_EVERY: Final = 0.2  # seconds between tries for a lock
MIB: Final = 1 << 20
GIB: Final = 1 << 30

Key = Mapping[str, object] | str


def default_root() -> Path:
    """The cache is at KVMIRROR_CACHE, else in kvmirror under XDG_CACHE_HOME, else at ~/.cache/kvmirror."""
    if chosen := os.environ.get(ENVIRONMENT):
        return Path(chosen).expanduser().absolute()
    return places.user_cache()


def digest(kind: str, key: Key) -> str:
    """The digest names the entry of ``kind`` with the inputs ``key``: 16 hexadecimal digits."""
    text = json.dumps([kind, key if isinstance(key, str) else dict(key)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST]


def sha256(path: Path) -> str:
    """The function gives a file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """The record has what the last build of a kind took: seconds of wall time, and lines of its log. Zero:
    never built.
    """

    seconds: float = 0
    lines: int = 0


class Cache:
    """A build cache has its entries, logs and working trees under ``root``.

    Raises BuildError when the folder cannot be made.
    """

    def __init__(self, root: Path | None = None, progress: Progress = PROGRESS) -> None:
        self.root = (root or default_root()).absolute()
        self.progress = progress
        self._held: dict[str, _Held] = {}
        self._guard = threading.Lock()
        try:
            for sub in ("locks", "logs", "records", "trees"):
                (self.root / sub).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BuildError(
                f"the cache folder {self.root} cannot be made ({error.strerror}): set {ENVIRONMENT} to a folder "
                "of yours"
            ) from error

    def log(self, name: str) -> Path:
        """The log file of a build; it stays when the build fails."""
        return self.root / "logs" / f"{name}.log"

    def lookup(self, kind: str, key: Key) -> Path | None:
        """The function gives the finished entry, or None."""
        place = self.root / kind / digest(kind, key)
        return place if place.is_dir() else None

    def entry(
        self,
        kind: str,
        key: Key,
        build: Callable[[Path], object],
        *,
        needs: int = 0,
        lines: int = 0,
        title: str | None = None,
        record: str | None = None,
    ) -> Path:
        """The function gives the folder of the finished build of ``kind`` with the inputs ``key``; ``build(folder)``
        makes it if it is missing. ``needs`` is how many bytes of free disk the build wants. ``lines`` is a rough figure
        for the lines of its log, for the estimate of the first build. The build writes its log to ``self.log(kind)``.
        ``record`` is the name under which log and time are kept, where that is not the kind. Whatever ``build`` raises
        leaves nothing behind but that log.

        Raises BuildError, before the build starts, when fewer than ``needs`` bytes are free.
        """
        place = self.root / kind / digest(kind, key)
        if place.is_dir():
            return place
        name = place.name
        with self.lock(f"{kind}-{name}"):
            if place.is_dir():
                return place
            self._sweep(place.parent, name)
            if needs:
                self.room(needs, title or kind)
            place.parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=f".tmp-{name}-", dir=place.parent))
            try:
                with self.building(record or kind, title=title or kind, lines=lines) as task:
                    build(folder)
                    seconds = task.elapsed
                inputs = key if isinstance(key, str) else dict(key)
                _write_json(folder / "inputs.json", {"kind": kind, "inputs": inputs})
                _write_json(folder / "seconds.json", seconds)
                folder.chmod(0o755)
                _sync(folder)
                folder.rename(place)
                _sync(place.parent)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        return place

    @contextlib.contextmanager
    def building(self, kind: str, *, title: str | None = None, lines: int = 0) -> Iterator[Task]:
        """The block shows the progress of a build of ``kind``, with an estimate from the last one and a fresh log; what
        it took is recorded.
        """
        last = self.record(kind)
        log = self.log(kind)
        log.unlink(missing_ok=True)
        with self.progress.task(title or kind, log=log, lines=last.lines or lines, seconds=last.seconds) as task:
            yield task
        _write_json(self.root / "records" / f"{kind}.json", {"seconds": round(task.elapsed, 1), "lines": task.logged()})

    def record(self, kind: str) -> BuildRecord:
        """The function gives what the last build of ``kind`` took."""
        try:
            data = json.loads((self.root / "records" / f"{kind}.json").read_text(encoding="utf-8"))
            return BuildRecord(float(data["seconds"]), int(data["lines"]))
        except (OSError, ValueError, KeyError, TypeError):
            return BuildRecord()

    @contextlib.contextmanager
    def tree(self, name: str) -> Iterator[Path]:
        """A working folder that is kept, the caller's alone in the block (a thread may take it twice).

        It may be in any state when the last user died: whoever writes it keeps a mark of what is finished.
        """
        with self.lock(f"tree-{name}"):
            folder = self.root / "trees" / name
            folder.mkdir(parents=True, exist_ok=True)
            yield folder

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock ``name`` against other processes and threads; waiting is told and can be interrupted."""
        with self._guard:
            held = self._held.setdefault(name, _Held())
        while not held.thread.acquire(timeout=WAIT_EVERY):
            programs.breathe()
        try:
            held.depth += 1
            if held.depth == 1:
                held.file = self._take(name)
            try:
                yield
            finally:
                if held.depth == 1 and held.file is not None:
                    held.file.close()
                    held.file = None
        finally:
            held.depth -= 1
            held.thread.release()

    def _take(self, name: str) -> IO[str]:
        """The lock file, locked, with this process's id in it."""
        file = (self.root / "locks" / f"{name}.lock").open("a+", encoding="ascii")
        try:
            if not _try_lock(file):
                with self.progress.task(name.removeprefix("tree-")) as task:
                    told = False
                    while not _try_lock(file):
                        programs.breathe()
                        file.seek(0)
                        owner = file.read(32).strip()
                        task.note = f"waiting for process {owner or 'unknown'}, which is at work on it"
                        if not told and task.elapsed > 1:
                            told = True
                            self.progress.say(f"{task.name}: {task.note}")
                        time.sleep(WAIT_EVERY)
            file.seek(0)
            file.truncate()
            file.write(str(os.getpid()))
            file.flush()
        except BaseException:
            file.close()
            raise
        return file

    def room(self, needed: int, what: str) -> None:
        """The cache's disk has room for ``needed`` bytes.

        Raises BuildError when fewer are free.
        """
        free = shutil.disk_usage(self.root).free
        if free < needed:
            raise BuildError(
                f"{what} needs {needed / GIB:.1f} GiB of disk and {self.root} has {free / GIB:.1f} GiB free: "
                f"make room there, or set {ENVIRONMENT} to a folder on a larger disk"
            )

    def _sweep(self, parent: Path, own: str) -> None:
        """Remove temporary folders in ``parent`` whose maker is dead: those of ``own`` (its lock is ours), and those
        of other entries whose lock nobody holds."""
        for folder in parent.glob(".tmp-*"):
            name = folder.name.split("-")[1]
            if name == own:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            with (self.root / "locks" / f"{parent.name}-{name}.lock").open("a+") as file:
                if _try_lock(file):
                    shutil.rmtree(folder, ignore_errors=True)


class _Held:
    """A lock as this process holds it: between its threads, and against other processes."""

    def __init__(self) -> None:
        self.thread = threading.RLock()
        self.depth = 0
        self.file: IO[str] | None = None


def _try_lock(file: IO[str]) -> bool:
    """flock: of the open file, so that it works between threads too and a dead process holds nothing."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_json(path: Path, value: object) -> None:
    """Write ``value`` to ``path`` so that a reader sees the old file or the new one."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, sort_keys=True, default=str)
        file.write("\n")
    Path(name).chmod(0o644)
    Path(name).replace(path)


def _sync(folder: Path) -> None:
    """Have the disk keep the order, contents before name: for the folder and the files right in it."""
    for path in (*(p for p in folder.iterdir() if p.is_file() and not p.is_symlink()), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
