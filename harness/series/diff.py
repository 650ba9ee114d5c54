"""Where in a mail's text the diff is, and that diff in the form in which ``git diff`` writes it.

A diff is read by its own counts: a hunk has as many lines as its header says, so that a signature or a list's footer
after it is none of it, whatever it looks like. Diffs of ``diff -u`` and quilt, and those of git without or with other
prefixes than a/ and b/, get the header lines of git's plain form; hunks stay as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from harness.errors import SeriesError

_HUNK = re.compile(r"^@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_EXTENDED: Final = (
    "index ", "old mode ", "new mode ", "new file mode ", "deleted file mode ", "similarity index ",
    "dissimilarity index ", "rename from ", "rename to ", "copy from ", "copy to ",
)  # fmt: skip
_JUNK = re.compile(r"(Index: |=+\s*$|diff -|Only in |retrieving revision |RCS file: |\s*$)")
_SIDE = re.compile(r"(?:---|\+\+\+) (\"(?:[^\"\\]|\\.)*\"|[^\t\n]*?)(?:\t(.*)|\s+(\d{4}-\d\d-\d\d .*))?\s*$")
_GIT = re.compile(r'diff --git (?P<old>"(?:[^"\\]|\\.)*"|\S.*?) (?P<new>"(?:[^"\\]|\\.)*"|\S.*)$')
_ESCAPES: Final = {"a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13, '"': 34, "\\": 92}
_BORDER = re.compile(r"^---\s*$", re.M)
TOPS: Final = re.compile(  # a folder of the kernel: a path that begins with one has nothing before it
    "Documentation|LICENSES|arch|block|certs|crypto|drivers|fs|include|init|io_uring|ipc|kernel|lib|mm|net|rust|samples|"
    "scripts|security|sound|tools|usr|virt"
)
MAX_RUNS: Final = 50  # diffs with text between them, as a message may quote some
MAX_LINE: Final = 4096  # characters of a line that names a file
SIGNATURES: Final = ("-- ", "--")


@dataclass(frozen=True, slots=True)
class Divided:
    """A text in two: the message, without the notes below its ``---`` line, and the diff; ``above`` is all that stands
    above the diff. ``plain``: the diff was no git diff of the usual form, and how it was."""

    message: str
    diff: str
    above: str
    plain: str


@dataclass(frozen=True, slots=True)
class _Run:
    """Blocks of a diff that follow each other, as line numbers from ``start`` to before ``end``."""

    start: int
    end: int
    blocks: tuple[tuple[int, int], ...]


def unquoted(path: str) -> str:
    """A path as git writes it, without its quotes: ``"b/\\303\\274"`` is b/ü. It stays as it is where it has none."""
    if len(path) < 2 or not path.startswith('"') or not path.endswith('"'):
        return path
    data = bytearray()
    for octal, letter, other in re.findall(r'\\([0-3][0-7]{2})|\\(["\\abtnvfr])|([^\\])', path[1:-1]):
        data += bytes([int(octal, 8)]) if octal else bytes([_ESCAPES[letter]]) if letter else other.encode("utf-8")
    return data.decode("utf-8", "replace")


def divide(text: str, name: str) -> Divided:
    """The function divides a mail's text; the diff is the empty text where there is none. The diff is the empty text
    where there is none.

    Raises SeriesError, naming ``name``, when a text has two diffs and other text between them.
    """
    lines = text.split("\n")
    runs = _runs(lines)
    if not runs:
        return Divided(_message(text), "", text, "")
    quoted, run = _own(lines, runs, name)
    before = lines[: run.start]
    head = "\n".join(before[:quoted])
    message = head + ("\n" if quoted else "") + _BORDER.split("\n".join(before[quoted:]), maxsplit=1)[0]
    diff, plain = _canonical(lines, run, name)
    return Divided(message.strip(), diff, "\n".join(before), plain)


def _message(text: str) -> str:
    return _BORDER.split(text, maxsplit=1)[0].strip()


def _own(lines: list[str], runs: list[_Run], name: str) -> tuple[int, _Run]:
    """The run that is the mail's own diff, and up to which line others are quoted in its message."""
    borders = [at for at, line in enumerate(lines) if _BORDER.match(line)]
    quoted = 0
    while len(runs) > 1:
        if not any(runs[0].end <= border < runs[1].start for border in borders):
            raise SeriesError(
                f"{name}: it has two diffs with other text between them, at its lines {runs[0].start + 1} and "
                f"{runs[1].start + 1}: give each patch as a mail of its own"
            )
        quoted = runs[0].end
        runs = runs[1:]
    return quoted, runs[0]


def _runs(lines: list[str]) -> list[_Run]:
    runs: list[_Run] = []
    at = 0
    while at < len(lines):
        end = _block(lines, at)
        if end is None:
            if runs and lines[at] in SIGNATURES:
                break
            at += 1
            continue
        start, blocks = at, [(at, end)]
        at = end
        while at < len(lines):
            skipped = at
            while skipped < len(lines) and _JUNK.match(lines[skipped]) and _block(lines, skipped) is None:
                skipped += 1
            following = _block(lines, skipped) if skipped < len(lines) else None
            if following is None:
                break
            blocks.append((skipped, following))
            at = following
        runs.append(_Run(start, at, tuple(blocks)))
        if len(runs) > MAX_RUNS:
            break
    return runs


def _block(lines: list[str], at: int) -> int | None:
    """The line after the diff of one file that begins at line ``at``; None where none does."""
    line = lines[at]
    if line.startswith("diff --git ") and len(line) <= MAX_LINE:
        at += 1
        while at < len(lines) and lines[at].startswith(_EXTENDED):
            at += 1
        if at < len(lines) and lines[at].startswith("GIT binary patch"):
            while at < len(lines) and lines[at] not in SIGNATURES and not lines[at].startswith("diff --git "):
                at += 1
            return at
        if at < len(lines) and lines[at].startswith("Binary files "):
            return at + 1
        if not _sides(lines, at):
            return at
        return _hunks(lines, at + 2)
    if _sides(lines, at) and at + 2 < len(lines) and _HUNK.match(lines[at + 2]):
        return _hunks(lines, at + 2)
    return None


def _sides(lines: list[str], at: int) -> bool:
    if at + 1 >= len(lines) or len(lines[at]) > MAX_LINE or len(lines[at + 1]) > MAX_LINE:
        return False
    return lines[at].startswith("--- ") and lines[at + 1].startswith("+++ ")


def _hunks(lines: list[str], at: int) -> int:
    while at < len(lines) and (hunk := _HUNK.match(lines[at])):
        old, new = int(hunk[1] or 1), int(hunk[2] or 1)
        at += 1
        while (old > 0 or new > 0) and at < len(lines):
            mark = lines[at][:1] or " "
            if at == len(lines) - 1 and not lines[at]:  # what follows the last newline
                break
            at += 1
            if mark not in " +-\\":
                return at  # cut short: what judges the diff says where
            old -= mark in " -"
            new -= mark in " +"
        while at < len(lines) and lines[at].startswith("\\ "):
            at += 1
    return at


def _canonical(lines: list[str], run: _Run, name: str) -> tuple[str, str]:
    out: list[str] = []
    plain = ""
    for start, end in run.blocks:
        block, how = _in_git_form(lines[start:end], name)
        out += block
        plain = plain or how
    return "\n".join(out) + "\n", plain


def _in_git_form(block: list[str], name: str) -> tuple[list[str], str]:
    """One file's diff with the header of ``git diff``, and what was unusual about it."""
    if not block[0].startswith("diff --git "):
        return _of_plain(block, name), "is no git diff"
    names = _GIT.match(block[0])
    if names is None:
        return block, ""
    old, new = _two_names(block[0])
    if old.startswith("a/") and new.startswith("b/"):
        return block, ""
    if old == new:
        path, how = new, "has no a/ and b/ before its paths"
    elif "/" in old and "/" in new and old.split("/", 1)[1] == new.split("/", 1)[1]:
        path, how = new.split("/", 1)[1], f"has {old.split('/', 1)[0]}/ and {new.split('/', 1)[0]}/ for a/ and b/"
    else:
        return block, ""
    made = [f"diff --git a/{path} b/{path}"]
    for at, line in enumerate(block[1:], 1):
        if _sides(block, at):
            made += [_named("---", "a", path, line), _named("+++", "b", path, block[at + 1]), *block[at + 2 :]]
            break
        made.append(line)
    return made, how


def _named(mark: str, prefix: str, path: str, line: str) -> str:
    return line if line.startswith(f"{mark} /dev/null") else f"{mark} {prefix}/{path}"


def _two_names(line: str) -> tuple[str, str]:
    """The two names of a ``diff --git`` line; where they are equal, a blank in them parts nothing."""
    words = line.removeprefix("diff --git ")
    half, odd = divmod(len(words), 2)
    if odd and words[half] == " ":
        left, right = words[:half], words[half + 1 :]
        if left == right or (left[:2] == "a/" and right[:2] == "b/" and left[2:] == right[2:]):
            return unquoted(left), unquoted(right)
    names = _GIT.match(line)
    return (unquoted(names["old"]), unquoted(names["new"])) if names else ("", "")


def _of_plain(block: list[str], name: str) -> list[str]:
    """The diff of ``diff -u`` or quilt: its paths have one folder before them, or none where both are equal."""
    old, stamp = _side(block[0])
    new, later = _side(block[1])
    first = _HUNK.match(block[2])
    born = old == "/dev/null" or (stamp.startswith("1970-01-01") and bool(first) and block[2].startswith("@@ -0,0 "))
    gone = new == "/dev/null" or (later.startswith("1970-01-01") and " +0,0 @@" in block[2])
    path = _common(old, new)
    if path is None:
        raise SeriesError(
            f"{name}: the diff of {old!r} and {new!r} has no 'diff --git' line and names no one file; "
            "make it with git format-patch"
        )
    head = [f"diff --git a/{path} b/{path}"]
    head += ["new file mode 100644"] if born else ["deleted file mode 100644"] if gone else []
    head += ["--- /dev/null" if born else f"--- a/{path}", "+++ /dev/null" if gone else f"+++ b/{path}"]
    return head + block[2:]


def _side(line: str) -> tuple[str, str]:
    found = _SIDE.match(line)
    return (unquoted(found[1]), found[2] or found[3] or "") if found else ("", "")


def _common(old: str, new: str) -> str | None:
    if "/dev/null" in (old, new):
        path = new if old == "/dev/null" else old
        return path.split("/", 1)[1] if "/" in path and not TOPS.fullmatch(path.split("/", 1)[0]) else path
    if old == new:
        return new
    if "/" in old and "/" in new and old.split("/", 1)[1] == new.split("/", 1)[1]:
        return new.split("/", 1)[1]
    return None
