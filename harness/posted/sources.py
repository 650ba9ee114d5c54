"""Where the mails of a series come from: a box, packed or not, a folder, standard input, a range of commits."""

from __future__ import annotations

import bz2
import lzma
import re
import stat
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from harness.errors import InputError, SeriesError
from harness.series import GitTree, Mail, flattened, git, harmless

MAX_MAILS: Final = 500
MAX_BYTES: Final = 64 << 20
MAX_COMMITS: Final = 500
TOO_MANY_MAILS: Final = f"too many for a series (at most {MAX_MAILS}); give one series' alone"
TOO_MUCH: Final = "too much for a series; give one series' mails alone"
SUFFIXES: Final = (".patch", ".diff", ".eml", ".mbox", ".mbx", ".txt", ".mail", ".cover", ".gz", ".xz", ".bz2")
_PACKED: Final = (  # how it begins, what it is, what to do
    (b"PK\x03\x04", "a zip archive", "unpack it and name the folder"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd", "run zstd -d on it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it and name the folder"),
    (b"\xd0\xcf\x11\xe0", "a message of Outlook", "export it as a plain mail"),
    (b"%PDF", "a PDF document", "export it as a plain mail"),
)
_FORMAT: Final = "%H%x00%an%x00%ae%x00%aD%x00%s%x00%b%x00"
_TRACKED: Final = "--- b4-submit-tracking ---"


@dataclass(frozen=True, slots=True)
class Raw:
    """This is one mail as found, and where."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """A source has this: mails to be read, and what was not read, with why."""

    mails: tuple[Raw, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CommitLine:
    """A line of commits: the commit it stands on, with the kernel's Makefile there, and its patches in order; the title
    is that of an empty first commit, in which b4 keeps the cover."""

    base: str
    makefile: str
    title: str | None
    patches: tuple[Mail, ...]
    left_out: tuple[str, ...] = field(default=())


class _Unpacker(Protocol):
    """What bz2, lzma and zlib have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


def is_range(source: str) -> bool:
    """Whether ``source`` is meant as a range of commits: it names no file, and has two dots between two names."""
    return ".." in source and not Path(source).expanduser().exists()


def gather(source: str) -> Found:
    """The function gives the mails of a box, of a folder, or (``-``) of standard input.

    Raises InputError when ``source`` is none of them.
    Raises SeriesError for what cannot be taken.
    """
    if source == "-":
        if sys.stdin.isatty():
            raise InputError("standard input is the terminal: pipe a mail or an mbox into it, or name a file")
        return Found(tuple(_mails(sys.stdin.buffer.read(MAX_BYTES + 1), "standard input")))
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return _folder(path)
        if path.exists():
            return Found(tuple(_mails(_bytes(path), str(path))))
    except PermissionError as error:
        raise InputError(
            f"{harmless(str(path))}: it may not be read ({error.strerror}); give yourself the right to"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{harmless(source)}: it cannot be read ({error}); name another file") from error
    raise InputError(
        f"{harmless(source)}: there is no such file or folder; name an mbox (.gz too), a folder of mails, - for "
        "standard input, or a range A..B with --linux"
    )


def _bytes(path: Path) -> bytes:
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
        raise InputError(f"{harmless(str(path))}: it is neither a file nor a pipe; name one")
    if status.st_size > MAX_BYTES:
        raise SeriesError(f"{path}: {status.st_size} bytes, more than {MAX_BYTES}, are {TOO_MUCH}")
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _mails(data: bytes, name: str) -> list[Raw]:
    data = _plain(data, name)
    pieces = git.split(data, name)
    if len(pieces) > MAX_MAILS:
        raise SeriesError(f"{name}: {len(pieces)} mails are {TOO_MANY_MAILS}")
    if not pieces:
        raise SeriesError(f"{name}: it is empty; name a mail or an mbox")
    if len(pieces) == 1:
        return [Raw(name, _whole(pieces[0], name))]
    return [Raw(f"{name}, mail {number}", piece) for number, piece in enumerate(pieces, 1)]


def _whole(mail: bytes, name: str) -> bytes:
    """A mail without a From line of a box before it, unless a box follows it in the same file."""
    if mail.lstrip().startswith(b"From ") or re.search(rb"(?im)^content-type:\s*(multipart|message)/", mail[:100_000]):
        return mail
    for found in re.finditer(rb"(?m)^From [^\n]{1,300}:\d\d[^\n]{0,80}\n(?=(?:From|Date|Subject): )", mail):
        if len(git.split(mail[found.start() :], name)) and found.start():
            line = mail.count(b"\n", 0, found.start()) + 1
            raise SeriesError(
                f"{name}: another mail begins at line {line}, but the file does not begin with a From line as an mbox "
                "does: give the mails as files of their own"
            )
    return mail


def _plain(data: bytes, name: str) -> bytes:
    """The bytes unpacked, in UTF-8 where they are UTF-16, without a mark of the byte order."""
    for _ in range(3):
        if len(data) > MAX_BYTES:
            raise SeriesError(f"{name}: more than {MAX_BYTES} bytes are {TOO_MUCH}")
        for magic, what, mend in _PACKED:
            if data.startswith(magic):
                raise SeriesError(f"{name}: it is {what}: {mend}")
        if data[257:262] == b"ustar":
            raise SeriesError(f"{name}: it is a tar archive: unpack it and name the folder")
        maker = _unpacker(data)
        if maker is None:
            break
        data = _unpacked(data, maker, name)
    else:
        raise SeriesError(f"{name}: it is packed more than twice: unpack it")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            data = data.decode("utf-16").encode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise SeriesError(f"{name}: it begins as UTF-16 and is none: save it as UTF-8") from error
    data = data.removeprefix(b"\xef\xbb\xbf")
    if re.match(rb"\s*<(!doctype|html)", data[:200], re.I):
        raise SeriesError(
            f"{name}: it is a web page, not the mail: fetch the thread's t.mbox.gz, or the mail's raw form"
        )
    return data


def _unpacker(data: bytes) -> Callable[[], _Unpacker] | None:
    if data.startswith(b"\x1f\x8b"):
        return lambda: zlib.decompressobj(wbits=31)
    if data.startswith(b"BZh"):
        return bz2.BZ2Decompressor
    if data.startswith(b"\xfd7zXZ\0"):
        return lambda: lzma.LZMADecompressor(memlimit=256 << 20)
    return None


def _unpacked(data: bytes, maker: Callable[[], _Unpacker], name: str) -> bytes:
    """All the parts of a packed file, one after the other; never more than is allowed."""
    out = bytearray()
    try:
        while data and _unpacker(data) is not None:
            unpacker = maker()
            out += unpacker.decompress(data, MAX_BYTES + 1 - len(out))
            if len(out) > MAX_BYTES:
                raise SeriesError(f"{name}: unpacked it has more than {MAX_BYTES} bytes: {TOO_MUCH}")
            if not unpacker.eof:
                raise SeriesError(f"{name}: the packed file is cut short; fetch it again")
            data = unpacker.unused_data
    except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
        raise SeriesError(f"{name}: it is packed and cannot be unpacked ({error}); fetch it again") from error
    return bytes(out)


def _folder(folder: Path) -> Found:
    """The mails of a folder of files, or of a maildir (``new`` and ``cur``)."""
    maildir = [folder / part for part in ("new", "cur") if (folder / part).is_dir() and (folder / "cur").is_dir()]
    found: list[Raw] = []
    left: list[str] = []
    for path in sorted(p for place in (maildir or [folder]) for p in place.iterdir()):
        if path.name.startswith(".") or path.name == "series.toml":
            continue
        if not maildir and not _is_mail(path):
            left.append(f"{harmless(str(path))}: " + ("a folder within it" if path.is_dir() else _not_named()))
            continue
        if path.is_symlink() or not path.is_file():
            raise SeriesError(f"{path}: it is no plain file: symbolic links are refused; put the mail itself there")
        if path.stat().st_size:
            found += _mails(_bytes(path), str(path))
        else:
            left.append(f"{harmless(str(path))}: it is empty")
        if sum(len(raw.data) for raw in found) > MAX_BYTES:
            raise SeriesError(f"{folder}: its mails have more than {MAX_BYTES} bytes: {TOO_MUCH}")
        if len(found) > MAX_MAILS:
            raise SeriesError(f"{folder}: its mails are {TOO_MANY_MAILS}")
    if not found:
        raise SeriesError(f"{folder}: it has no mails (files ending in {', '.join(SUFFIXES)}); name a folder that has")
    return Found(tuple(found), tuple(left))


def _not_named() -> str:
    return f"its name ends in none of {', '.join(SUFFIXES)}"


def _is_mail(path: Path) -> bool:
    """By its name: one of the endings, in letters of any size, or a number, as MH names mails."""
    return not path.is_dir() and (path.name.lower().endswith(SUFFIXES) or path.name.isdigit())


def commits(span: str, linux: Path) -> CommitLine:
    """The commits ``A..B`` of the git tree ``linux``, read from git's objects: no mail is made of them.

    InputError for what is no range there; SeriesError for a merge, or no commit.
    """
    if linux.is_file():
        raise InputError(f"--linux {linux}: a range of commits needs a git tree, and this is a file; name a tree")
    if not linux.is_dir():
        raise InputError(f"--linux {linux}: there is no such file or folder; name a git tree with the range's commits")
    first, dots, last = span.partition("..")
    if span.startswith("-") or not dots or last.startswith((".", "-")) or ".." in last:
        raise InputError(f"{harmless(span)!r} is no range A..B of commits; write it as in v6.12..HEAD")
    tree = GitTree(linux)
    try:
        tree.git("rev-parse", "--git-dir")
    except InputError:
        raise InputError(f"--linux {linux}: it is no git tree; name the one that has the range's commits") from None
    ends = [_commit(tree, name or "HEAD", span) for name in (first, last)]
    listed = tree.git("rev-list", "--reverse", "--topo-order", "--parents", f"{ends[0]}..{ends[1]}", "--")
    rows = [row.split() for row in listed.decode().splitlines()]
    for row in rows:
        if len(row) > 2:
            raise SeriesError(
                f"{span}: commit {row[0][:12]} is a merge: a series is a line of commits; name a range without merges"
            )
    if not rows:
        raise SeriesError(f"{span}: it has no commits in {linux}; name another range")
    if len(rows) > MAX_COMMITS:
        raise SeriesError(
            f"{span}: {len(rows)} commits are too many for a series (at most {MAX_COMMITS}); name a shorter range"
        )
    base = rows[0][1] if len(rows[0]) > 1 else ""
    return _line(tree, span, base, [row[0] for row in rows])


def _commit(tree: GitTree, name: str, span: str) -> str:
    try:
        return tree.git("rev-parse", "--verify", "-q", "--end-of-options", f"{name}^{{commit}}").decode().strip()
    except InputError:
        raise InputError(
            f"{harmless(span)}: {tree.folder} has no commit {harmless(name)!r}; name one that it has"
        ) from None


def _line(tree: GitTree, span: str, base: str, ids: Sequence[str]) -> CommitLine:
    told = tree.git("log", "--no-walk=unsorted", "--no-show-signature", "--no-color", "--no-notes", "--encoding=UTF-8",
                    f"--format={_FORMAT}", "--stdin", data="\n".join(ids).encode())  # fmt: skip
    words = told.decode("utf-8", "replace").split("\0")
    rows = {row[0].strip(): row[1:] for row in (words[at : at + 6] for at in range(0, len(words) - 1, 6))}
    diffs = _diffs(tree, ids)
    title: str | None = None
    left: list[str] = []
    kept = [commit for commit in ids if diffs[commit]]
    for commit in ids:
        subject, body = rows[commit][3:]
        if diffs[commit]:
            continue
        if commit == ids[0] and (_TRACKED in body or len(ids) > 1):
            title = subject
            left.append(
                f"commit {commit[:12]} ({harmless(subject)!r}) has no changes: its subject is the series' title"
            )
        else:
            left.append(f"commit {commit[:12]} ({harmless(subject)!r}) has no changes")
    patches = []
    for number, commit in enumerate(kept, 1):
        author, address, date, subject, body = rows[commit]
        title_line, name = flattened(subject), flattened(author)
        if (title_line, name) != (" ".join(subject.split()), " ".join(author.split())):
            left.append(f"characters of subject or author of commit {commit[:12]} that cannot be seen")
        place = f"{span}, commit {commit[:12]}"
        who = f"{name or address} <{address}>"
        patches.append(Mail(place, number, len(kept), 1, title_line, who, "", date, body.strip(), diffs[commit]))
    try:
        makefile = tree.git("show", f"{base}:Makefile").decode("utf-8", "replace") if base else ""
    except InputError:
        makefile = ""
    return CommitLine(base, makefile, title, tuple(patches), tuple(left))


def _diffs(tree: GitTree, ids: Sequence[str]) -> dict[str, str]:
    """The diff of each commit, in git's plain form whatever is configured."""
    data = tree.git(
        "diff-tree", "--stdin", "-p", "-r", "--root", "--full-index", "--no-renames", "--no-ext-diff", "--no-textconv",
        "--no-color", "--src-prefix=a/", "--dst-prefix=b/", "-U3", "--inter-hunk-context=0", "--diff-algorithm=myers",
        "--indent-heuristic", "--no-relative", "--submodule=short", "-O/dev/null",
        data="".join(f"{commit}\n" for commit in ids).encode(),
    )  # fmt: skip
    found: dict[str, list[str]] = {commit: [] for commit in ids}
    rows: list[str] = []
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise SeriesError(
            f"{tree.folder}: a diff among these commits is not in UTF-8: it is refused; name a range without it"
        ) from None
    for line in text.split("\n"):
        rows = found.get(line, rows) if len(line) >= 40 else rows
        if line not in found:
            rows.append(line)
    return {commit: "\n".join(lines).strip("\n") + "\n" if any(lines) else "" for commit, lines in found.items()}
