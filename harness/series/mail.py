"""A patch as a mail: its header, message and diff, and what makes one unsafe to apply.

``parse`` and ``written`` are the plain form of a series folder. ``parse_diff`` judges every diff, wherever it came
from. Nothing is executed: what is not plainly a text patch inside the tree is refused by name.
"""

from __future__ import annotations

import email
import email.errors
import email.header
import email.message
import email.policy
import email.utils
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from harness.errors import SeriesError
from harness.series import diff as mail_diff
from harness.series.words import flattened
from kvmodel.series import Claim

MAX_BYTES: Final = 4 << 20  # of one mail
LINES: Final = "X-Kvmirror-Message-Lines"  # of a message that has what else would end it
_BRING_IN: Final = "bring it in with series import"
_TAG = re.compile(r"^\s*\[([^\]]*)\]\s*")
_NUMBER = re.compile(r"\b(\d+)\s*/\s*(\d+)\b")
_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_FILE = re.compile(rf"^diff --git (?P<old>{_QUOTED}|a/.*?) (?P<new>{_QUOTED}|b/.*?)$")
_HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_NO_CHANGE = re.compile(r"\bno\s+functional\s+changes?\b", re.I)


@dataclass(frozen=True, slots=True)
class Hunk:
    """This is one hunk: its number in the file's diff from 1, where it starts in the old file and in the new one (lines
    from 1), and its rows, each with its mark.
    """

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
    """This is a mail with a patch. ``name`` says where it came from, for messages; ``number`` and ``total`` are its
    place.
    """

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
        """The mail changes these files, in the diff's order.

        Raises SeriesError for anything unsafe.
        """
        return tuple(parse_diff(self.diff, self.name))


def parse(data: bytes, name: str) -> Mail:
    """The function reads a patch of a series folder: one plain mail in UTF-8, as ``series import`` writes it.

    A mail as it was posted, which may be encoded in many ways, is for ``harness.posted``.

    Raises SeriesError, naming ``name``, when it is no such mail.
    """
    if len(data) > MAX_BYTES:
        raise SeriesError(
            f"{name}: {len(data)} bytes are too much for a patch mail (at most {MAX_BYTES}); split the patch"
        )
    data = data.replace(b"\r\n", b"\n")
    if data.startswith(b"From "):
        data = data.partition(b"\n")[2]
    try:
        message = email.message_from_bytes(data, policy=email.policy.compat32)
        header = {field: _decoded(str(message.get(field, ""))) for field in ("Subject", "Message-ID", "Date")}
        real, address = email.utils.parseaddr(str(message.get("From", "")))
        author = f"{_decoded(real) or address} <{address}>"
        body = data.partition(b"\n\n")[2].decode("utf-8")
    except (LookupError, UnicodeError, ValueError, RecursionError, email.errors.HeaderParseError) as error:
        raise SeriesError(f"{name}: it cannot be read as a plain mail in UTF-8 ({error}); {_BRING_IN}") from error
    coded = str(message.get("Content-Transfer-Encoding", "8bit")).strip().lower()
    if message.is_multipart() or coded not in ("7bit", "8bit", "binary"):
        raise SeriesError(f"{name}: its text is encoded ({coded}) or in parts; {_BRING_IN}")
    subject = header["Subject"]
    number = total = None
    version = 1
    if tag := _TAG.match(subject):
        if found := _NUMBER.search(tag[1]):
            number, total = int(found[1]), int(found[2])
        if revised := re.search(r"\bv(\d+)\b", tag[1], re.I):
            version = int(revised[1])
        subject = subject[tag.end() :]
    if not subject or "@" not in address:
        raise SeriesError(f"{name}: a patch mail needs a From: with an address and a Subject:; give it what it lacks")
    text, diff = _divided(body, str(message.get(LINES, "")), name)
    return Mail(
        name, number, total, version, subject, author, header["Message-ID"].strip("<>"), header["Date"], text, diff
    )


def _decoded(value: str) -> str:
    return " ".join(str(email.header.make_header(email.header.decode_header(value))).split())


def _divided(body: str, lines: str, name: str) -> tuple[str, str]:
    if not lines:
        divided = mail_diff.divide(body, name)
        return divided.message, divided.diff
    if not lines.isdigit():
        raise SeriesError(f"{name}: {LINES}: {lines!r} is no number of lines; make the folder anew with series import")
    rows = body.split("\n")
    return "\n".join(rows[: int(lines)]).strip(), mail_diff.divide("\n".join(rows[int(lines) :]), name).diff


def file_name(number: int, subject: str) -> str:
    """The file has the name that git format-patch gives it, but for the length."""
    return f"{number:04}-{re.sub(r'[^A-Za-z0-9]+', '-', subject).strip('-')[:52].strip('-') or 'patch'}.patch"


def written(mail: Mail, number: int, total: int, message_id: str) -> str:
    """The function writes the mail as a patch of a series folder: plain, for ``parse`` and for ``git am``."""
    real, _, address = mail.author.rpartition(" <")
    subject = f"[PATCH {number}/{total}] {mail.subject}"
    if not subject.isascii():
        subject = email.header.Header(subject, "utf-8").encode()
    head = [
        f"From {'0' * 40} Mon Sep 17 00:00:00 2001",
        f"From: {email.utils.formataddr((real, address[:-1]), 'utf-8')}",
    ]
    head += [f"Date: {mail.date}"] if mail.date else []
    head += [f"Subject: {subject}"]
    head += [f"Message-ID: <{message_id}>"] if message_id else []
    head += ["MIME-Version: 1.0", "Content-Type: text/plain; charset=UTF-8", "Content-Transfer-Encoding: 8bit"]
    divided = mail_diff.divide(f"{mail.message}\n---\n\n", mail.name)
    if (divided.message, divided.diff) != (mail.message, ""):  # it has a border, or quotes a diff
        head += [f"{LINES}: {len(mail.message.split(chr(10)))}"]
    return "\n".join([*head, "", mail.message, "---", "", mail.diff])


def unsafe_path(path: str) -> str | None:
    """The path must not be written to for this reason; None where it may."""
    if not path or path.startswith("/") or "\\" in path:
        return "it is no path inside the tree"
    if flattened(path) != path:
        return "it has characters that cannot be seen"
    parts = path.split("/")
    if any(p in ("", ".", "..") for p in parts):
        return "it leaves the tree or is not in its simplest form"
    if any(p.lower() == ".git" for p in parts):
        return "it names git's own folder"
    return None


def parse_diff(diff: str, name: str) -> list[FileDiff]:
    """The function gives the files of a git diff.

    Raises SeriesError for paths that leave the tree, symbolic links, binary patches, renames and copies, mode changes,
    and for a diff that is cut short or of no kind known here.
    """
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
    head = _FILE.match(lines[0]) if len(lines[0]) <= mail_diff.MAX_LINE else None
    if head is None:
        raise SeriesError(f"{name}: {lines[0][:200]!r} names no two files; make it with git format-patch")
    old, new = mail_diff.unquoted(head["old"])[2:], mail_diff.unquoted(head["new"])[2:]
    for path in (old, new):
        if reason := unsafe_path(path):
            raise SeriesError(f"{name}: the path {path!r} is refused: {reason}; leave the file out")
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
            raise SeriesError(
                f"{name}: it changes {new} as a binary file: binary patches are refused; leave the file out"
            )
        elif line.startswith(("rename ", "copy ", "similarity ", "dissimilarity ")):
            raise SeriesError(
                f"{name}: it moves or copies {old} to {new}: renames are refused; "
                "make it with git format-patch --no-renames"
            )
        elif line.startswith(("old mode ", "new mode ")):
            raise SeriesError(f"{name}: it changes the mode of {new}: mode changes are refused; leave it out")
        elif mode := re.match(r"(new file|deleted file) mode (\d+)$", line):
            if mode[2] not in ("100644", "100755"):
                kind = "a symbolic link" if mode[2] == "120000" else f"of mode {mode[2]}"
                raise SeriesError(f"{name}: {new} is {kind}: only plain files are taken; leave it out")
            is_new, is_deleted = mode[1] == "new file", mode[1] == "deleted file"
        elif link := re.match(r"index \S+ (\d+)$", line):
            if link[1] not in ("100644", "100755"):
                raise SeriesError(
                    f"{name}: {new} is no plain file (mode {link[1]}): symbolic links are refused; leave it out"
                )
        elif side := re.match(r"(---|\+\+\+) (.*?)(?:\t.*)?$", line):
            wanted = {"---": "/dev/null" if is_new else f"a/{old}", "+++": "/dev/null" if is_deleted else f"b/{new}"}
            if mail_diff.unquoted(side[2]) != wanted[side[1]]:
                raise SeriesError(
                    f"{name}: the diff of {new} names {side[2]!r} in its {side[1]} line: it is refused; "
                    "make it with git format-patch"
                )
    if left_old > 0 or left_new > 0:
        raise SeriesError(f"{name}: hunk {len(heads)} of {new} is cut short; fetch the mail again")
    if old != new:
        raise SeriesError(
            f"{name}: it moves {old} to {new}: renames are refused; make it with git format-patch --no-renames"
        )
    hunks = (Hunk(n, *head, tuple(body)) for n, (head, body) in enumerate(zip(heads, rows, strict=True), 1))
    return FileDiff(new, tuple(hunks), added, removed, is_new, is_deleted)
