"""A patch as a mail: its header, message and diff, and what makes one unsafe to apply.

The same reader serves the patches of a series folder and mails that someone else posted. Nothing is executed and
nothing is written: what is not plainly a text patch inside the tree is refused by name.
"""

from __future__ import annotations

import email
import email.header
import email.message
import email.policy
import email.utils
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from harness.errors import SeriesError
from kvmodel.series import Claim

MAX_BYTES: Final = 4 << 20  # of one mail
_TAG = re.compile(r"^\s*(?:Re:\s*)*\[([^\]]*)\]\s*")
_NUMBER = re.compile(r"\b(\d+)\s*/\s*(\d+)\b")
_FILE = re.compile(r'^diff --git (?:"?a/(?P<old>.*?)"?) (?:"?b/(?P<new>.*?)"?)$')
_HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_NO_CHANGE = re.compile(r"\bno\s+functional\s+changes?\b", re.I)


@dataclass(frozen=True, slots=True)
class Hunk:
    """One hunk: its number in the file's diff from 1, where it starts in the old file and in the new one (lines from
    1), and its rows, each with its mark."""

    number: int
    old_start: int
    old_lines: int
    new_lines: int
    new_start: int
    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileDiff:
    """What a patch does to one file; ``path`` is relative to the tree."""

    path: str
    hunks: tuple[Hunk, ...]
    added: int
    removed: int
    is_new: bool
    is_deleted: bool


@dataclass(frozen=True)
class Mail:
    """A mail with a patch. ``name`` says where it came from, for messages; ``number`` and ``total`` are its place."""

    name: str
    number: int | None
    total: int | None
    version: int
    subject: str
    author: str
    message_id: str
    date: str
    message: str
    diff: str

    @property
    def claim(self) -> Claim:
        """Whether the message says "no functional change(s)", however it goes on."""
        return Claim.STATED if _NO_CHANGE.search(self.message) else Claim.NONE

    @cached_property
    def files(self) -> tuple[FileDiff, ...]:
        """The files it changes, in the diff's order. SeriesError for anything unsafe."""
        return tuple(parse_diff(self.diff, self.name))


def _decoded(value: str) -> str:
    return " ".join(str(email.header.make_header(email.header.decode_header(value))).split())


def parse(data: bytes, name: str) -> Mail:
    """Read one mail. SeriesError, naming ``name``, where it holds no patch or an unsafe one."""
    if len(data) > MAX_BYTES:
        raise SeriesError(f"{name}: {len(data)} bytes are too much for a patch mail (at most {MAX_BYTES})")
    if data.startswith(b"From "):
        data = data.partition(b"\n")[2]
    message = email.message_from_bytes(data, policy=email.policy.compat32)
    body = _body(message, name)
    subject = _decoded(message.get("Subject", ""))
    number = total = None
    version = 1
    while tag := _TAG.match(subject):
        if found := _NUMBER.search(tag[1]):
            number, total = int(found[1]), int(found[2])
        if revised := re.search(r"\bv(\d+)\b", tag[1], re.I):
            version = int(revised[1])
        subject = subject[tag.end() :]
    author = _decoded(message.get("From", ""))
    text, mark, diff = body.partition("\ndiff --git ")
    diff = "diff --git " + diff if mark else ""
    if text.startswith("diff --git "):
        text, diff = "", body
    if said := re.match(r"\s*From:\s*(.+)\n", text):
        author = _decoded(said[1])
        text = text[said.end() :]
    text = re.split(r"^---\s*$", text, maxsplit=1, flags=re.M)[0].strip()
    real, address = email.utils.parseaddr(author)
    if not subject or not address or "\n" in author:
        raise SeriesError(f"{name}: a patch mail needs a From: with an address and a Subject:")
    return Mail(
        name,
        number,
        total,
        version,
        subject,
        f"{real} <{address}>" if real else address,
        _decoded(message.get("Message-ID", message.get("Message-Id", ""))).strip("<>"),
        message.get("Date", ""),
        text,
        _end_of_diff(diff),
    )


def _body(message: email.message.Message, name: str) -> str:
    parts = [p for p in message.walk() if not p.is_multipart()]
    texts = [p for p in parts if p.get_content_type() in ("text/plain", "text/x-patch", "text/x-diff")]
    if not texts:
        raise SeriesError(f"{name}: it has no plain text part; export it as a plain mail")
    bodies = []
    for part in texts:
        payload = part.get_payload(decode=True)
        if not isinstance(payload, bytes):
            raise SeriesError(f"{name}: its body cannot be decoded; export it as a plain mail")
        try:
            bodies.append(payload.decode("utf-8"))
        except UnicodeDecodeError:
            bodies.append(payload.decode("latin-1"))
    return "\n".join(b.replace("\r\n", "\n") for b in bodies)


def _end_of_diff(diff: str) -> str:
    """The diff without the signature and whatever else follows its last hunk."""
    lines = diff.split("\n")
    last = 0
    left_old = left_new = 0
    for at, line in enumerate(lines):
        if left_old > 0 or left_new > 0:
            left_old -= line[:1] in ("", " ", "-")
            left_new -= line[:1] in ("", " ", "+")
            last = at
        elif hunk := _HUNK.match(line):
            left_old, left_new = int(hunk[2] or 1), int(hunk[4] or 1)
            last = at
        elif line.startswith("\\ No newline"):
            last = at
        elif line.startswith(("diff --git ", "index ", "--- ", "+++ ", "new file ", "deleted file ")) and line != "-- ":
            last = at if not line.startswith("--- ") or lines[at + 1 : at + 2] != [""] else last
        elif line.startswith(("old mode", "new mode", "similarity", "rename ", "copy ", "GIT binary", "Binary ")):
            last = at
    return "\n".join(lines[: last + 1]) + "\n" if diff else ""


def unsafe_path(path: str) -> str | None:
    """Why ``path`` must not be written to, or None."""
    if not path or path.startswith("/") or "\\" in path or "\0" in path or "\n" in path:
        return "it is no path inside the tree"
    parts = path.split("/")
    if any(p in ("", ".", "..") for p in parts):
        return "it leaves the tree or is not in its simplest form"
    if any(p.lower() == ".git" for p in parts):
        return "it names git's own folder"
    return None


def parse_diff(diff: str, name: str) -> list[FileDiff]:
    """The files of a git diff. SeriesError for paths that leave the tree, symbolic links, binary patches, renames
    and copies, mode changes, and for a diff that is cut short or of no kind known here."""
    found: list[FileDiff] = []
    for block in re.split(r"(?m)^(?=diff --git )", diff):
        if block.startswith("diff --git "):
            found.append(_file(block, name))
        elif block.strip():
            raise SeriesError(f"{name}: its diff does not start with 'diff --git'; make it with git format-patch")
    seen: set[str] = set()
    for file in found:
        if file.path in seen:
            raise SeriesError(
                f"{name}: it changes {file.path} in two places of the diff; make it with git format-patch"
            )
        seen.add(file.path)
    return found


def _file(block: str, name: str) -> FileDiff:
    lines = block.removesuffix("\n").split("\n")
    head = _FILE.match(lines[0])
    if head is None:
        raise SeriesError(f"{name}: {lines[0]!r} names no two files; make it with git format-patch")
    old, new = head["old"], head["new"]
    for path in (old, new):
        if reason := unsafe_path(path):
            raise SeriesError(f"{name}: the path {path!r} is refused: {reason}")
    is_new = is_deleted = False
    heads: list[tuple[int, int, int, int]] = []
    rows: list[list[str]] = []
    added = removed = 0
    left_old = left_new = 0
    for line in lines[1:]:
        if left_old > 0 or left_new > 0:
            kind = line[:1] or " "
            if kind not in " +-\\":
                raise SeriesError(f"{name}: hunk {len(heads)} of {new} is cut short; fetch the mail again")
            rows[-1].append(line or " ")
            left_old -= kind in " -"
            left_new -= kind in " +"
            added += kind == "+"
            removed += kind == "-"
        elif hunk := _HUNK.match(line):
            left_old, left_new = int(hunk[2] or 1), int(hunk[4] or 1)
            heads.append((int(hunk[1]), left_old, left_new, int(hunk[3])))
            rows.append([])
        elif line.startswith(("GIT binary patch", "Binary files ")):
            raise SeriesError(f"{name}: it changes {new} as a binary file: binary patches are refused")
        elif line.startswith(("rename ", "copy ", "similarity ", "dissimilarity ")):
            raise SeriesError(
                f"{name}: it moves or copies {old} to {new}: renames are refused, post it as plain changes"
            )
        elif line.startswith(("old mode ", "new mode ")):
            raise SeriesError(f"{name}: it changes the mode of {new}: mode changes are refused")
        elif mode := re.match(r"(new file|deleted file) mode (\d+)$", line):
            if mode[2] not in ("100644", "100755"):
                kind = "a symbolic link" if mode[2] == "120000" else f"of mode {mode[2]}"
                raise SeriesError(f"{name}: {new} is {kind}: only plain files are taken")
            is_new, is_deleted = mode[1] == "new file", mode[1] == "deleted file"
        elif link := re.match(r"index \S+ (\d+)$", line):
            if link[1] not in ("100644", "100755"):
                raise SeriesError(f"{name}: {new} is no plain file (mode {link[1]}): symbolic links are refused")
        elif side := re.match(r"(---|\+\+\+) (.*?)(?:\t.*)?$", line):
            wanted = {"---": "/dev/null" if is_new else f"a/{old}", "+++": "/dev/null" if is_deleted else f"b/{new}"}
            if side[2].strip('"') != wanted[side[1]]:
                raise SeriesError(f"{name}: the diff of {new} names {side[2]!r} in its {side[1]} line: it is refused")
    if left_old > 0 or left_new > 0:
        raise SeriesError(f"{name}: hunk {len(heads)} of {new} is cut short; fetch the mail again")
    if old != new:
        raise SeriesError(f"{name}: it moves {old} to {new}: renames are refused, post it as plain changes")
    hunks = (Hunk(n, *head, tuple(body)) for n, (head, body) in enumerate(zip(heads, rows, strict=True), 1))
    return FileDiff(new, tuple(hunks), added, removed, is_new, is_deleted)
