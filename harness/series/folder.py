"""A series folder: read, checked, and applied level by level.

A folder holds series.toml and one mail a patch. Hunks may land at an offset, never with fuzz: a hunk whose context
is not there ends the work with the patch, the level, the file and the hunk in the message.
"""

from __future__ import annotations

import email.utils
import re
import shutil
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import tomli_w

from harness import places
from harness.errors import InputError, SeriesError
from harness.jsonable import Json
from harness.process import programs
from harness.series import git as mail_git
from harness.series import mail as mails
from harness.series import parameter as parameters
from harness.series import pinned, whole
from harness.series.parameter import Parameter
from kvmodel import series as model
from kvmodel.series import Claim

FOLDER: Final = places.PATCHES
INDEX: Final = "series.toml"
SCHEMA: Final = 1
OWN: Final = "mbec"  # the name of the series that kvmodel mirrors

State = dict[str, bytes | None]
"""Files of a level by their path in the tree; None for one that is not there."""


@dataclass(frozen=True, slots=True)
class Visible:
    """The row says what should be seen from outside: ``where`` (code, data, tracepoint, parameter, spte, msr, exit),
    what, and from which level on.
    """

    where: str
    what: str
    level: int


@dataclass(frozen=True)
class Patch:
    """This is one patch of a series folder."""

    number: int
    subject: str
    author: str
    message_id: str
    claim: Claim
    files: tuple[str, ...]
    visible: tuple[Visible, ...]
    path: Path
    mail: mails.Mail

    @property
    def name(self) -> str:
        """Messages tell of it by number and file."""
        return f"patch {self.number} ({self.path.name})"


@dataclass(frozen=True, slots=True)
class Offset:
    """A hunk did not land where its header says: it is so many lines later (negative: earlier)."""

    path: str
    hunk: int
    lines: int


@dataclass(frozen=True)
class Series:
    """A series folder that was read and found sound.

    ``base_commit`` and ``prerequisite_patch_ids`` are what git format-patch --base says below a mail. ``on`` are the
    patches that level 0 has above the base: prerequisites, no part of the series.
    """

    folder: Path
    name: str
    title: str
    base_version: str
    base_sha256: str | None
    patches: tuple[Patch, ...]
    parameters: tuple[Parameter, ...] = ()
    base_commit: str = ""
    prerequisite_patch_ids: tuple[str, ...] = ()
    on: tuple[Patch, ...] = ()

    @property
    def last(self) -> int:
        """This is the highest level."""
        return len(self.patches)

    @property
    def mirrored(self) -> bool:
        """``kvmodel`` has a mirror of this series: True."""
        return self.name == OWN

    @cached_property
    def touched(self) -> tuple[str, ...]:
        """These files are changed by some patch, sorted."""
        return tuple(sorted({path for patch in self.patches for path in patch.files}))

    @cached_property
    def reached(self) -> tuple[str, ...]:
        """These files are changed by some patch or some prerequisite, sorted."""
        return tuple(sorted({*self.touched, *(path for patch in self.on for path in patch.files)}))

    @property
    def told_base(self) -> str:
        """The series says this of its base, for messages."""
        words = [f"Linux {self.base_version}"]
        words += [f"base-commit {self.base_commit[:12]}"] if self.base_commit else []
        count = len(self.prerequisite_patch_ids)
        words += [f"{count} prerequisite patch{'' if count == 1 else 'es'}"] if count else []
        return ", ".join(words)

    def numbers(self, level: int | Collection[int]) -> tuple[int, ...]:
        """A level has these patches: 1 to ``level``, or exactly those given.

        Raises SeriesError for an unknown one.
        """
        wanted = range(1, level + 1) if isinstance(level, int) else sorted(level)
        if isinstance(level, int) and not 0 <= level <= self.last:
            raise SeriesError(f"level {level} is unknown: this series has levels 0 to {self.last}; name one of these")
        for number in wanted:
            if not 1 <= number <= self.last:
                raise SeriesError(
                    f"patch {number} is unknown: this series has patches 1 to {self.last}; name one of these"
                )
        return tuple(wanted)


def read(folder: Path = FOLDER) -> Series:
    """The function reads a series folder.

    Raises SeriesError for whatever is missing, contradictory or unsafe in it.
    """
    folder = folder.expanduser().absolute()
    index = folder / INDEX
    try:
        data = tomllib.loads(index.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SeriesError(f"{folder} is no series folder: it has no {INDEX}; make one with series import") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SeriesError(f"{index} cannot be read: {error}; mend it, or make the folder with series import") from error
    try:
        if data["schema"] != SCHEMA:
            raise SeriesError(
                f"{index}: schema {data['schema']} is unknown; this version reads schema {SCHEMA}; "
                "make the folder anew with series import"
            )
        patches = tuple(_patch(folder, row) for row in data["patch"])
        base = data["base"]
        series = Series(
            folder,
            data["name"],
            data["title"],
            base["version"],
            base.get("sha256"),
            patches,
            _parameters(data.get("parameter"), patches),
            base.get("base_commit", ""),
            tuple(base.get("prerequisite_patch_ids", ())),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SeriesError(f"{index}: {_what(error)}; compare it with {FOLDER / INDEX}") from error
    _in_order(series, index)
    if series.mirrored:
        _as_mirrored(series, index)
    return series


def _parameters(rows: Iterable[Mapping[str, Any]] | None, patches: Sequence[Patch]) -> tuple[Parameter, ...]:
    """Those of the tables; where series.toml has none (one made before there were any), those of the diffs."""
    if rows is None:
        return tuple(parameters.found([patch.mail.files for patch in patches]))
    return tuple(parameters.of_row(row, len(patches)) for row in rows)


def _what(error: Exception) -> str:
    return f"the key {error} is missing" if isinstance(error, KeyError) else str(error)


def _patch(folder: Path, row: Mapping[str, Any]) -> Patch:
    number, file = row["number"], row["file"]
    if not re.fullmatch(r"[\w.+-]+", file) or file.startswith("."):
        raise SeriesError(
            f"{folder / INDEX}: patch {number}: {file!r} is no plain file name; name a file of the folder"
        )
    path = folder / file
    if path.is_symlink() or not path.is_file():
        raise SeriesError(f"patch {number}: {path} is no file; put the patch there")
    mail = mails.parse(path.read_bytes(), f"patch {number} ({file})")
    files = tuple(f.path for f in mail.files)
    visible = tuple(Visible(v["where"], v["what"], v["level"]) for v in row.get("visible", ()))
    patch = Patch(
        number,
        row["subject"],
        row["author"],
        row.get("message_id", ""),
        Claim(row.get("claim", "none")),
        tuple(row["files"]),
        visible,
        path,
        mail,
    )
    if not files:
        raise SeriesError(f"{patch.name}: it has no diff; put the whole mail there, or leave the patch out")
    for what, said, found in (
        ("subject", patch.subject, mail.subject),
        ("author", patch.author, mail.author),
        ("files", sorted(patch.files), sorted(files)),
    ):
        if said != found:
            raise SeriesError(f"{patch.name}: {INDEX} says {what} {said!r}, the mail has {found!r}: mend one of them")
    return patch


def _in_order(series: Series, index: Path) -> None:
    for expected, patch in enumerate(series.patches, 1):
        if patch.number != expected:
            raise SeriesError(
                f"{index}: patch {patch.number} stands where patch {expected} belongs: "
                "numbers go from 1 without a gap, each once; mend the order"
            )
    if not series.patches:
        raise SeriesError(f"{index}: it names no patch; give each a [[patch]] table")
    keys = [parameter.key for parameter in series.parameters]
    if twice := next((p for p in series.parameters if keys.count(p.key) > 1), None):
        raise SeriesError(f"{index}: the parameter {twice} is there twice: give it one table")


def _as_mirrored(series: Series, index: Path) -> None:
    """The folder says of each patch what ``kvmodel.series`` says: the mirror is of this very series."""
    if len(series.patches) != model.LAST:
        raise SeriesError(
            f"{index}: the series {OWN!r} has {model.LAST} patches, not {len(series.patches)}: "
            "give another series another name"
        )
    for patch, known in zip(series.patches, model.PATCHES, strict=True):
        for what in ("subject", "author", "message_id", "claim"):
            if getattr(patch, what) != getattr(known, what):
                raise SeriesError(
                    f"{index}: patch {patch.number}: {what} is {getattr(patch, what)!r}, the mirror was made for "
                    f"{getattr(known, what)!r}: give another series another name than {OWN!r}"
                )


def apply_patch(folder: Path, patch: Patch, level: str, *, reverse: bool = False) -> list[Offset]:
    """One patch is applied to the files in ``folder``, all of it or nothing; the function gives the hunks that landed
    at an offset.

    With ``reverse`` it is taken back.

    Raises SeriesError, which names patch, level, file and hunk where one does not apply.
    """
    for path in patch.files:
        at = folder
        for part in Path(path).parts:
            at = at / part
            if at.is_symlink():
                raise SeriesError(
                    f"{patch.name}: {path} is reached through a symbolic link: it is refused; name a tree without it"
                )
    done = programs.run(
        ["git", "apply", "--verbose", "--whitespace=nowarn", *(["--reverse"] if reverse else []), "-"],
        cwd=folder,
        env=mail_git.environment(folder),
        input=patch.mail.diff,
        check=False,
    )
    if done.returncode:
        raise SeriesError(_why_not(folder, patch, level, done.stderr))
    offsets = []
    current = ""
    for line in done.stderr.splitlines():
        if found := re.match(r"Checking patch (.*?)\.\.\.$", line):
            current = found[1]
        elif found := re.match(r"Hunk #(\d+) succeeded at \d+ \(offset (-?\d+) lines?\)", line):
            offsets.append(Offset(current, int(found[1]), int(found[2])))
    return offsets


def _why_not(folder: Path, patch: Patch, level: str, text: str) -> str:
    """One sentence from git's answer: which file and which hunk, or that it is there already."""
    backwards = ["git", "apply", "--reverse", "--check", "-"]
    done = programs.run(backwards, cwd=folder, env=mail_git.environment(folder), input=patch.mail.diff, check=False)
    if done.returncode == 0:
        return f"{patch.name} does not apply at level {level}: what it does is there already"
    file, line = "", 0
    for row in text.splitlines():
        if found := re.match(r"error: patch failed: (.*):(\d+)$", row):
            file, line = found[1], int(found[2])
            break
        if found := re.match(r"error: (.*): (No such file or directory|already exists in working directory)", row):
            return f"{patch.name} does not apply at level {level}: {found[1]}: {found[2].lower()}"
    for change in patch.mail.files:
        if change.path == file:
            for hunk in change.hunks:
                if hunk.old_start == line:
                    return (
                        f"{patch.name} does not apply at level {level}: hunk {hunk.number} of {len(change.hunks)} "
                        f"of {file} (line {line}) finds no such context; rebase it, fuzz is never allowed"
                    )
    return f"{patch.name} does not apply at level {level}: {text.strip()}"


@dataclass(frozen=True, slots=True)
class Applied:
    """The record has the files after a patch, and how its hunks landed."""

    patch: Patch
    state: State
    offsets: tuple[Offset, ...]


def base_state(series: Series, pristine: Path) -> State:
    """The function gives the touched files as level 0 has them: the base's, with the prerequisites applied."""
    applied = _applied(series, pristine, series.on)
    return applied[-1].state if applied else _untouched(series, pristine)


def _untouched(series: Series, pristine: Path) -> State:
    state: State = {}
    for path in series.reached:
        file = pristine / path
        state[path] = file.read_bytes() if file.is_file() else None
    return state


def standing_on(series: Series, below: Series) -> Series:
    """The function gives ``series`` with the patches of ``below`` as its prerequisites."""
    return replace(series, on=(*below.on, *below.patches))


def states(series: Series, pristine: Path, level: int | Collection[int] | None = None) -> list[Applied]:
    """The patches of ``level`` (default: all) are applied one after the other to the touched files of ``pristine``.

    One item a patch, in order; the base and what the series stands on are not among them.

    Raises SeriesError where a patch does not apply: it names the base that was tried.
    """
    return in_order(series, pristine, series.numbers(series.last if level is None else level))


def in_order(series: Series, pristine: Path, order: Sequence[int]) -> list[Applied]:
    """The patches with these numbers are applied one after the other, as ``states`` does, in any order."""
    patches = (*series.on, *(series.patches[number - 1] for number in order))
    return _applied(series, pristine, patches)[len(series.on) :]


def _applied(series: Series, pristine: Path, patches: Iterable[Patch]) -> list[Applied]:
    state = _untouched(series, pristine)
    made: list[Applied] = []
    with laid_out(state) as folder:
        for patch in patches:
            below = any(patch is one for one in series.on)
            try:
                offsets = apply_patch(folder, patch, "0 (prerequisites)" if below else str(patch.number))
            except SeriesError as error:
                raise SeriesError(f"{error}\n{_tried(series, pristine, made)}") from error
            state = state | read_back(folder, patch.files)
            made.append(Applied(patch, state, tuple(offsets)))
    return made


@contextmanager
def laid_out(state: State) -> Iterator[Path]:
    """The files of ``state`` are in a folder of their own for the time of the block."""
    folder = programs.scratch("kvmirror-apply-")
    try:
        for path, data in state.items():
            if data is not None:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(data)
        yield folder
    finally:
        programs.removed(folder)


def read_back(folder: Path, paths: Iterable[str]) -> State:
    """The function reads those files of ``folder`` as a state."""
    return {path: (folder / path).read_bytes() if (folder / path).is_file() else None for path in paths}


def _tried(series: Series, pristine: Path, made: Sequence[Applied]) -> str:
    """What was tried, what the series says of its base, and the mend."""
    try:
        words = f"Linux {pinned.of_tree(pristine, str(pristine))}"
    except InputError:
        words = str(pristine)
    if below := sum(any(done.patch is one for one in series.on) for done in made):
        words += f" with {below} of {len(series.on)} prerequisites"
    return (
        f"tried on {words}, where {len(made) - below} of {series.last} patches applied; {INDEX} names "
        f"{series.told_base}: name the kernel that it is for with --linux, or what it stands on with --on"
    )


def level_state(series: Series, pristine: Path, level: int | Collection[int]) -> State:
    """The function gives the touched files at a level: patches 1 to ``level``, or exactly the patches given."""
    numbers = series.numbers(level)
    return states(series, pristine, numbers)[-1].state if numbers else base_state(series, pristine)


def _authored(patch: Patch) -> dict[str, str]:
    """git's environment for a commit by the patch's author, on its date where git can read that."""
    name, _, address = patch.author.rpartition(" <")
    said = {"GIT_AUTHOR_NAME": name or address.rstrip(">"), "GIT_AUTHOR_EMAIL": address.rstrip(">")}
    if email.utils.parsedate_tz(patch.mail.date):
        said["GIT_AUTHOR_DATE"] = patch.mail.date
    return said


def apply_tree(series: Series, pristine: Path, target: Path, level: int) -> str:
    """The function makes ``target`` a git tree of the base and one commit a patch up to ``level``, and gives the last
    commit's id.

    Raises SeriesError when ``target`` exists and is not empty, or when a patch does not apply; then nothing is left
    behind.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SeriesError(f"{target} is there already: name a folder that is not")
    numbers = series.numbers(level)
    states(series, pristine, numbers)  # all of it applies, or nothing is made
    with whole.made(target) as work:
        programs.run(["cp", "-a", "--no-preserve=ownership", "--reflink=auto", f"{pristine}/.", work])
        for name in (".git", "inputs.json", "seconds.json"):  # the cache's own notes are no part of the source
            junk = work / name
            if junk.is_dir():
                shutil.rmtree(junk)
            junk.unlink(missing_ok=True)
        environment: dict[str, str | None] = {
            **mail_git.environment(work),
            "GIT_COMMITTER_NAME": "kvmirror",
            "GIT_COMMITTER_EMAIL": "kvmirror@localhost",
            "GIT_AUTHOR_NAME": "kvmirror",
            "GIT_AUTHOR_EMAIL": "kvmirror@localhost",
        }

        def git(*words: str, text: str | None = None, **more: str) -> str:
            options = ("-c", "core.hooksPath=/dev/null", "-c", "core.looseCompression=0", "-c", "commit.gpgSign=false")
            return programs.run(["git", *options, *words], cwd=work, env={**environment, **more}, input=text).stdout

        git("init", "-q", "-b", "main")
        git("add", "-A", "-f")
        git("commit", "-q", "-m", f"Linux {series.base_version}")
        for patch in (*series.on, *(series.patches[number - 1] for number in numbers)):
            git("apply", "--index", "--whitespace=nowarn", "-", text=patch.mail.diff)
            message = f"{patch.subject}\n\n{patch.mail.message}\n"
            git("commit", "-q", "--allow-empty-message", "-F", "-", text=message, **_authored(patch))
        return git("rev-parse", "HEAD").strip()


def write(
    folder: Path,
    *,
    name: str,
    title: str,
    base: Mapping[str, Json],
    rows: Iterable[Mapping[str, Any]],
    parameters: Iterable[Parameter] = (),
) -> None:
    """The function writes series.toml. ``rows`` have the keys of a ``[[patch]]`` table; values are text, numbers and
    lists.
    """
    body: dict[str, Json] = {"schema": SCHEMA, "name": name, "title": title, "base": dict(base)}
    if known := [parameter.row for parameter in parameters]:
        body["parameter"] = known
    (folder / INDEX).write_text(tomli_w.dumps(body | {"patch": list(rows)}), encoding="utf-8")
