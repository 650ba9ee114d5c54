"""Other programs: the only place in harness that starts them.

Each program gets a process group of its own, and the group is ended whole on Ctrl-C, a timeout or any other
exception. Never a shell. A small guard process ends what is left when this process dies without a chance to.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from harness.errors import BuildError, KvmirrorError

GRACE: Final = 3.0  # seconds between asking a group to end and ending it
TAIL: Final = 15  # lines of output in an error message
GUARD: Final = Path(__file__).with_name("guard.py")

Arg = str | os.PathLike[str]
Env = Mapping[str, str | None]  # None takes a variable away


class Cancelled(KvmirrorError):
    """Work was given up because its caller was interrupted or work beside it failed. Exit code 130."""

    exit_code = 130


class Timeout(BuildError):
    """A program did not end in its time."""


@dataclass(frozen=True, slots=True)
class Completed:
    """This is a program that ended. ``returncode`` is its status, or minus the signal; ``seconds`` of wall time.

    With ``log`` the output went to the file and both texts are empty.
    """

    argv: tuple[str, ...]
    returncode: int
    data: bytes = field(repr=False)
    stderr: str
    seconds: float

    @property
    def stdout(self) -> str:
        """Standard output as text; bytes that are not UTF-8 are replaced (``data`` has them as they were)."""
        return self.data.decode("utf-8", "replace")


class Group:
    """The programs of a group are ended together: those which a thread starts inside ``with group.mine():``."""

    def __init__(self) -> None:
        self.cancelled = False
        self._lock = threading.Lock()
        self._live: set[Process] = set()

    @contextlib.contextmanager
    def mine(self) -> Iterator[None]:
        """The programs that this thread starts in the block are of the group."""
        before = getattr(_local, "group", None)
        _local.group = self
        try:
            yield
        finally:
            _local.group = before

    def cancel(self) -> None:
        """Every program of the group is ended; a thread that starts another one gets Cancelled."""
        with self._lock:
            self.cancelled = True
            live = list(self._live)
        end(live)

    def start(self, argv: Sequence[str], **how: object) -> Process:
        """A program is started in the group. Cancelled when the group is.

        Raises Cancelled when the group is cancelled.
        """
        with self._lock:
            if self.cancelled:
                raise Cancelled(f"{argv[0]} was not started: the work it belongs to was given up")
            process = Process(argv, how)
            self._live.add(process)
            return process

    def forget(self, process: Process) -> None:
        """``process`` has ended."""
        with self._lock:
            self._live.discard(process)


class Process:
    """This is a running program, the leader of its own process group.

    Raises BuildError when it is missing or cannot be started.
    """

    def __init__(self, argv: Sequence[str], how: Mapping[str, object]) -> None:
        self.argv = tuple(argv)
        self.started = time.monotonic()
        _guard.tell("")  # it is there before the program is
        try:
            self.popen: subprocess.Popen[bytes] = subprocess.Popen(  # type: ignore[call-overload]
                list(argv), start_new_session=True, **how
            )
        except FileNotFoundError as error:
            if not Path(str(how.get("cwd") or ".")).is_dir():
                raise BuildError(f"{argv[0]} cannot be started: the folder {how['cwd']} is missing") from error
            raise BuildError(
                f"the program {argv[0]} is missing: run `make setup`, which installs what is needed"
            ) from error
        except OSError as error:
            raise BuildError(f"{argv[0]} cannot be started: {error.strerror}") from error
        self.group: Group | None = None
        _live.add(self)
        _guard.tell(f"+{self.pid}\n")

    @property
    def pid(self) -> int:
        """Its process and its process group have this id."""
        return self.popen.pid

    @property
    def returncode(self) -> int | None:
        """This is its status once it ended, else None."""
        code: int | None = self.popen.poll()
        if code is not None:
            self._ended()
        return code

    def wait(self, timeout: float | None = None) -> int:
        """The function waits ``timeout`` seconds for the program's end and gives its status.

        Raises Timeout when it still runs then; it goes on running.
        """
        try:
            code = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Timeout(f"{self.argv[0]} still runs after {timeout:.0f} s") from None
        self._ended()
        return code

    def signal(self, number: int) -> None:
        """The whole group gets the signal ``number``; nothing happens when it is gone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def stop(self, grace: float = GRACE) -> None:
        """The whole group ends: it is asked first, and killed after ``grace`` seconds."""
        end([self], grace)

    def _ended(self) -> None:
        _live.discard(self)
        _guard.tell(f"-{self.pid}\n")
        if self.group is not None:
            self.group.forget(self)
            self.group = None

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Guard:
    """The guard process, started with the first program."""

    def __init__(self) -> None:
        self._pipe: IO[bytes] | None = None
        self._lock = threading.Lock()

    def tell(self, line: str) -> None:
        with self._lock:
            if self._pipe is None:
                popen = subprocess.Popen(
                    [sys.executable, "-IS", str(GUARD)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
                popen.returncode = 0  # it outlives us by design: nobody waits for it
                self._pipe = popen.stdin
            assert self._pipe is not None
            with contextlib.suppress(BrokenPipeError):
                self._pipe.write(line.encode())
                self._pipe.flush()


_local = threading.local()
_guard = _Guard()
_everything = Group()  # of threads that are in none
_live: set[Process] = set()  # whatever their groups


def _exited(process: Process) -> bool:
    """Whether the leader has ended; it is not reaped, so that its group's number stays taken."""
    if process.popen.returncode is not None:
        return True
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def end(processes: Sequence[Process], grace: float = GRACE) -> None:
    """End the groups of ``processes``: SIGTERM to all, SIGKILL to what is left after ``grace`` seconds."""
    running = [p for p in processes if p.popen.returncode is None]
    for process in running:
        process.signal(signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and not all(map(_exited, running)):
        time.sleep(0.02)
    for process in running:
        process.signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.popen.wait(GRACE)
        process._ended()


def end_all() -> None:
    """End every program this process still has."""
    end(list(_live))


atexit.register(end_all)


def scratch(prefix: str) -> Path:
    """The function makes a folder under the system's for temporary files, which goes with this process however that
    ends: to be given to ``removed`` or ``kept`` in the end.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    _guard.tell(f"+{folder}\n")
    return folder


def removed(folder: Path) -> None:
    """A ``scratch`` folder is not needed any more."""
    shutil.rmtree(folder, ignore_errors=True)
    _guard.tell(f"-{folder}\n")


def kept(folder: Path) -> None:
    """A ``scratch`` folder stays, for somebody to look at."""
    _guard.tell(f"-{folder}\n")


def given_up() -> bool:
    """Whether the group of this thread is cancelled: what fails from then on fails because of that."""
    group: Group | None = getattr(_local, "group", None)
    return group is not None and group.cancelled


def breathe() -> None:
    """The group of this thread is not cancelled; a loop that waits for something else than a program asks this.

    Raises Cancelled when it is.
    """
    if given_up():
        raise Cancelled("the work was given up")


def interruptible() -> None:
    """The process takes SIGTERM and SIGHUP as Ctrl-C: it ends with everything it started. Main thread only. Main thread
    only.
    """

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def tail(text: str, lines: int = TAIL) -> str:
    """The function gives the last ``lines`` lines that are not empty."""
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])


def tail_of(log: Path, lines: int = TAIL) -> str:
    """The function gives the last lines of a log file, the empty text when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 64 * 1024))
            return tail(file.read().decode("utf-8", "replace"), lines)
    except OSError:
        return ""


def _start(argv: Sequence[str], **how: object) -> Process:
    group: Group | None = getattr(_local, "group", None)
    process = (group or _everything).start(argv, **how)
    process.group = group or _everything
    return process


def _environment(env: Env | None) -> dict[str, str]:
    merged: Env = {**os.environ, "LC_ALL": "C.UTF-8", **(env or {})}
    return {name: value for name, value in merged.items() if value is not None}


def run(
    argv: Sequence[Arg],
    *,
    cwd: Path | None = None,
    env: Env | None = None,
    input: bytes | str | None = None,
    log: Path | None = None,
    timeout: float | None = None,
    check: bool = True,
    nice: int = 0,
    error: type[KvmirrorError] = BuildError,
) -> Completed:
    """The function runs a program to its end. ``env`` is added to this process's environment. With ``log`` both outputs
    are appended to that file, else they are in the result. Whatever is raised, Ctrl-C included, the program's process
    group is gone by then.

    Raises Timeout when it does not end in ``timeout`` seconds.
    Raises ``error``, with the command and its last lines, when ``check`` is set and its status is not 0.
    Raises Cancelled when the group of this thread is cancelled.
    """
    words = [os.fspath(a) for a in argv]
    if nice and shutil.which(words[0]):  # else the error names the program, not nice
        words = ["nice", "-n", str(nice), *words]
    data = input.encode() if isinstance(input, str) else input
    with contextlib.ExitStack() as stack:
        sink: object = subprocess.PIPE
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            sink = stack.enter_context(log.open("ab"))
        process = _start(
            words,
            cwd=cwd,
            env=_environment(env),
            stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
            stdout=sink,
            stderr=subprocess.STDOUT if log is not None else subprocess.PIPE,
        )
        group = process.group
        try:
            out, err = process.popen.communicate(data, timeout)
        except subprocess.TimeoutExpired:
            process.stop()
            raise Timeout(
                f"{shlex.join(words)} did not end within {timeout:.0f} s and was ended"
                + (f"; its last lines:\n{tail_of(log)}" if log is not None else "")
            ) from None
        except BaseException:
            process.stop()
            raise
        process._ended()
    if group is not None and group.cancelled:
        raise Cancelled(f"{words[0]} was ended: the work it belongs to was given up")
    done = Completed(
        tuple(words),
        process.popen.returncode,
        out or b"",
        (err or b"").decode("utf-8", "replace"),
        time.monotonic() - process.started,
    )
    if check and done.returncode:
        raise error(failure(done, log))
    return done


def failure(done: Completed, log: Path | None = None) -> str:
    """The message tells of a program that failed: its status, the command, the last lines, where the rest is."""
    how = f"ended by signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
    words = shlex.join(done.argv)
    text = f"{words if len(words) < 400 else words[:400] + ' ...'}: {how}"
    lines = tail_of(log) if log is not None else tail(done.stderr or done.stdout)
    if lines:
        text += f"; the last lines:\n{lines}"
    if log is not None:
        text += f"\n(all of it: {log})"
    return text


def spawn(
    argv: Sequence[Arg],
    *,
    cwd: Path | None = None,
    env: Env | None = None,
    log: Path | None = None,
    stdin: int | IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
) -> Process:
    """Start a program that stays; its output goes to ``log`` (appended) or nowhere.

    The caller ends it with ``stop()`` or a ``with`` block; it never outlives this process.
    """
    with contextlib.ExitStack() as stack:
        sink: object = subprocess.DEVNULL
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            sink = stack.enter_context(log.open("ab"))
        return _start(
            [os.fspath(a) for a in argv],
            cwd=cwd,
            env=_environment(env),
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=sink,
            stderr=subprocess.STDOUT,
            pass_fds=tuple(pass_fds),
        )
