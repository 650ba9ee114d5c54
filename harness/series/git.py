"""Git's own readers of mail: ``git mailsplit`` and ``git mailinfo``, under nobody's configuration."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import InputError, SeriesError
from harness.process import programs
from harness.series.words import decoded, harmless

SECONDS: Final = 60.0  # for one call on one mail or box
_OWN_SEPARATOR = re.compile(rb"^From [0-9a-f]{7,64} Mon Sep 17 00:00:00 2001$|^From git@z ", re.M)
_FIELD = re.compile(rb"^[!-9;-~]+:|^>?From |^[ \t]", re.M)


def environment(folder: Path) -> dict[str, str | None]:
    """In this environment git stays inside ``folder``, whatever repository lies around it and whatever the user set."""
    return {
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        **dict.fromkeys(
            ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_CONFIG_COUNT", "GIT_CONFIG_PARAMETERS")
        ),
        **dict.fromkeys(("GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS", "GIT_PAGER", "GIT_TRACE", "GIT_NAMESPACE")),
    }


def _git(folder: Path, *words: str, data: bytes | None = None, check: bool = True) -> programs.Completed:
    argv = ["git", *words]
    return programs.run(
        argv, cwd=folder, env=environment(folder), input=data, check=check, timeout=SECONDS, error=SeriesError
    )


def split(data: bytes, name: str) -> list[bytes]:
    """The function gives the mails of a box, or the one mail that ``data`` is; each still has its ``From `` line.

    ``>From `` at the start of a line is read as an escaped ``From ``, unless all separators are git's own, which does
    not escape. What ``git mailsplit`` takes for a mail but begins with no header is a part of the mail before it.

    Raises SeriesError, naming ``name``, when git cannot read the box.
    """
    if not data.strip():
        return []
    separators = re.findall(rb"^From .*$", data, re.M) if data.lstrip().startswith(b"From ") else []
    escaped = any(not _OWN_SEPARATOR.match(line) for line in separators if re.search(rb"\d\d:\d\d", line[:400]))
    with tempfile.TemporaryDirectory(prefix="kvmirror-mails-") as place:
        folder = Path(place)
        (folder / "box").write_bytes(data)
        (folder / "out").mkdir()
        words = ["mailsplit", "-b", "-d6", "-oout", *(["--mboxrd"] if escaped else []), "box"]
        done = _git(folder, *words, check=False)
        if done.returncode:
            raise SeriesError(
                f"{name}: git mailsplit cannot read it ({harmless(programs.tail(done.stderr, 2))}); fetch it again"
            )
        pieces = [path.read_bytes() for path in sorted((folder / "out").iterdir())]
    mails: list[bytes] = []
    for piece in pieces:
        if mails and not _FIELD.match(piece.partition(b"\n")[2]):
            mails[-1] += piece
        else:
            mails.append(piece)
    return [mail for mail in mails if mail.strip()]


@dataclass(frozen=True, slots=True)
class Info:
    """``git mailinfo`` says this of one mail: its author, subject and date, and its text with the diff in it, without
    the header lines that stood at the top of the text.
    """

    author: str
    address: str
    subject: str
    date: str
    text: str


def info(header: Mapping[str, bytes], text: str, name: str, *, scissors: bool) -> Info:
    """The function reads a mail of these header fields (as they stand in the mail) and this plain text.

    With ``scissors`` what stands above a scissors line is left out.

    Raises SeriesError, with git's own reason, when git refuses it.
    """
    fields = [b"%s: %s\n" % (field.encode(), value) for field, value in header.items()]
    mail = b"".join(fields) + b"MIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\n"
    mail += b"Content-Transfer-Encoding: 8bit\n\n" + text.encode("utf-8", "surrogateescape")
    with tempfile.TemporaryDirectory(prefix="kvmirror-mail-") as place:
        folder = Path(place)
        cut = "--scissors" if scissors else "--no-scissors"
        done = _git(folder, "mailinfo", "-k", "--encoding=UTF-8", cut, "--quoted-cr=strip", "message", "patch",
                    data=mail, check=False)  # fmt: skip
        if done.returncode:
            raise SeriesError(f"{name}: git mailinfo refuses it: {harmless(programs.tail(done.stderr, 2))}")
        body = (folder / "message").read_bytes() + (folder / "patch").read_bytes()
    found: dict[str, list[str]] = {}
    for line in done.data.split(b"\n"):
        field, colon, value = line.partition(b": ")
        if colon:
            found.setdefault(field.decode("ascii", "replace"), []).append(decoded(value))
    said = {field: " ".join(values).strip() for field, values in found.items()}
    return Info(
        said.get("Author", ""), said.get("Email", ""), said.get("Subject", ""), said.get("Date", ""), decoded(body)
    )


class GitTree:
    """This is a git repository whose commits are read; its own configuration and the user's change nothing of what is
    read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().absolute()

    def git(self, *words: str, data: bytes | None = None) -> bytes:
        """The function gives the output of a git command there.

        Raises InputError when it fails.
        """
        options = ("-c", "safe.directory=*", "-c", "core.quotePath=true", "-c", "diff.suppressBlankEmpty=false")
        argv = ["git", "-C", str(self.folder), "--no-pager", *options, *words]
        env = environment(self.folder)
        env["GIT_CEILING_DIRECTORIES"] = None  # the tree may be named by a folder inside it
        return programs.run(argv, env=env, input=data, error=InputError).data
