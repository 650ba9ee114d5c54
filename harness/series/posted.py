"""A series as it was posted, made into a series folder: from an mbox, a folder of mails or a range of commits."""

from __future__ import annotations

import email.header
import email.utils
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import InputError, SeriesError
from harness.process import programs
from harness.series import folder as series_io
from harness.series import mail as mails
from harness.series import parameter, pinned
from harness.series.base_said import base_said
from harness.series.mail import Mail
from kvmodel import series as model
from kvmodel.series import Claim

MAX_MAILS: Final = 500
MAX_BYTES: Final = 64 << 20
SUFFIXES: Final = (".patch", ".eml", ".mbox", ".txt", ".mail")
_REPLY = re.compile(rb"^subject:\s*(re|aw|fwd?):", re.I | re.M)
# Git's own is one wherever it stands: mails put together by cat may lack the blank line before it.
_GIT_SEPARATOR = re.compile(rb"From [0-9a-f]{40} Mon Sep 17 00:00:00 2001$", re.M)
_SEPARATOR = re.compile(rb"^From \S+.*\b\d\d:\d\d(:\d\d)?\b.*$", re.M)


@dataclass(frozen=True, slots=True)
class Raw:
    """One mail as found, and where."""

    name: str
    data: bytes


def gather(source: str, linux: Path | None = None) -> list[Raw]:
    """The mails of an mbox file, a folder of mail files, or a range ``A..B`` of the git tree ``linux``.

    InputError where ``source`` is none of them, SeriesError for what cannot be taken.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return _mbox(path)
    if ".." in source and linux is not None:
        return _range(source, linux)
    raise InputError(
        f"{source}: there is no such file or folder; name an mbox, a folder of mails, or a range A..B with --linux"
    )


def _mbox(path: Path) -> list[Raw]:
    if path.stat().st_size > MAX_BYTES:
        raise SeriesError(f"{path}: {path.stat().st_size} bytes are too much for a series (at most {MAX_BYTES})")
    data = path.read_bytes().replace(b"\r\n", b"\n")
    starts = [
        m.start()
        for m in _SEPARATOR.finditer(data)
        if not m.start() or data[m.start() - 2 : m.start()] == b"\n\n" or _GIT_SEPARATOR.match(data, m.start())
    ]
    if not starts:
        return [Raw(str(path), data)]
    if starts[0]:
        raise SeriesError(f"{path}: it does not begin with a mail; it is no mbox")
    ends = [*starts[1:], len(data)]
    if len(starts) == 1:
        return [Raw(str(path), data)]
    found = []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True), 1):
        mail = re.sub(rb"^>(>*From )", rb"\1", data[start:end], flags=re.M)
        found.append(Raw(f"{path}, mail {number}", mail))
    return found


def _folder(folder: Path) -> list[Raw]:
    found: list[Raw] = []
    for path in sorted(folder.iterdir()):
        if path.suffix not in SUFFIXES:
            continue
        if path.is_symlink() or not path.is_file():
            raise SeriesError(f"{path}: it is no plain file: symbolic links are refused")
        found += _mbox(path)
    if not found:
        raise SeriesError(f"{folder}: it has no mails (files ending in {', '.join(SUFFIXES)})")
    return found


def _range(span: str, linux: Path) -> list[Raw]:
    if span.startswith("-"):
        raise InputError(f"{span!r} is no range of commits")

    def git(*words: str) -> bytes:
        return programs.run(["git", "-C", linux, *words], error=InputError).data

    if merges := git("rev-list", "--merges", span, "--").split():
        raise SeriesError(f"{span}: commit {merges[0].decode()[:12]} is a merge: a series is a line of commits")
    data = git("format-patch", "--stdout", "--no-signature", "--full-index", "--no-renames", "--numbered", span, "--")
    if not data:
        raise SeriesError(f"{span}: it has no commits in {linux}")
    with tempfile.NamedTemporaryFile(suffix=".mbox") as file:
        file.write(data)
        file.flush()
        return [Raw(raw.name.replace(file.name, span), raw.data) for raw in _mbox(Path(file.name))]


def order(raws: Sequence[Raw]) -> tuple[str | None, list[Mail]]:
    """The cover's subject, where there is one, and the patches in order.

    Replies and mails without a diff are left out. SeriesError, naming the mails, where two have one number, a number
    is missing, a patch has none among several, or two series are mixed.
    """
    if len(raws) > MAX_MAILS:
        raise SeriesError(f"{len(raws)} mails are too many for a series (at most {MAX_MAILS})")
    title = None
    patches: list[Mail] = []
    for raw in raws:
        head = raw.data.split(b"\n\n", 1)[0]
        if _REPLY.search(head):
            continue
        if b"\ndiff --git " not in raw.data and not _encoded(head):
            if b"GIT binary patch" in raw.data:
                raise SeriesError(f"{raw.name}: binary patches are refused")
            title = title or _title(raw)
            continue
        mail = mails.parse(raw.data, raw.name)
        if mail.diff:
            _ = mail.files  # refuse what is unsafe before anything else is said
            patches.append(mail)
        elif mail.number in (0, None):
            title = title or mail.subject
        else:
            raise SeriesError(f"{mail.name}: patch {mail.number} has no diff")
    if not patches:
        raise SeriesError("no mail here has a patch")
    if len(patches) == 1 and patches[0].number is None:
        return title, patches
    return title, _numbered(patches)


def _encoded(head: bytes) -> bool:
    return bool(re.search(rb"^content-transfer-encoding:\s*(base64|quoted-printable)", head, re.I | re.M))


def _title(raw: Raw) -> str | None:
    try:
        return mails.parse(raw.data, raw.name).subject
    except SeriesError:
        return None


def _numbered(patches: Iterable[Mail]) -> list[Mail]:
    by_number: dict[int, Mail] = {}
    totals: dict[tuple[int | None, int], str] = {}
    for mail in patches:
        if mail.number is None:
            raise SeriesError(f"{mail.name}: {mail.subject!r} has no number in its subject, and it is not alone")
        if mail.number in by_number:
            raise SeriesError(f"patch {mail.number} is there twice: {by_number[mail.number].name} and {mail.name}")
        by_number[mail.number] = mail
        totals[mail.total, mail.version] = mail.name
    if len(totals) > 1:
        raise SeriesError(f"{' and '.join(totals.values())} are of two series: give one series at a time")
    ((total, _),) = totals
    for number in range(1, (total or max(by_number)) + 1):
        if number not in by_number:
            raise SeriesError(f"patch {number} of {total} is missing among the mails given")
    if extra := [n for n in by_number if total is not None and not 1 <= n <= total]:
        raise SeriesError(f"{by_number[extra[0]].name}: number {extra[0]} is not among 1 to {total}")
    return [by_number[n] for n in sorted(by_number)]


def _is_mirrored(patches: Sequence[Mail]) -> bool:
    """Whether these are the mails of the series that ``kvmodel`` mirrors: the same subjects by the same people."""
    return [(p.subject, p.author) for p in patches] == [(p.subject, p.author) for p in model.PATCHES]


def file_name(number: int, subject: str) -> str:
    """As git format-patch names it, but for the length."""
    return f"{number:04}-{re.sub(r'[^A-Za-z0-9]+', '-', subject).strip('-')[:52].strip('-')}.patch"


def _mail_text(mail: Mail, number: int, total: int, message_id: str) -> str:
    """A plain mail for git am with what was read of the posted one."""
    real, address = email.utils.parseaddr(mail.author)
    author = email.utils.formataddr((real, address), "utf-8") if real else address
    subject = f"[PATCH {number}/{total}] {mail.subject}"
    if not subject.isascii():
        subject = email.header.Header(subject, "utf-8").encode()
    head = ["From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001", f"From: {author}"]
    head += [f"Date: {mail.date}"] if mail.date else []
    head += [f"Subject: {subject}"]
    head += [f"Message-ID: <{message_id}>"] if message_id else []
    head += ["MIME-Version: 1.0", "Content-Type: text/plain; charset=UTF-8", "Content-Transfer-Encoding: 8bit"]
    return "\n".join([*head, "", mail.message, "---", "", mail.diff])


def bring_in(source: str, target: Path, *, linux: Path | None = None) -> series_io.Series:
    """Make ``target`` a series folder of the mails of ``source``, and read it back.

    SeriesError names the mail that is refused and why; then nothing is left at ``target``.
    """
    target = target.expanduser().absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SeriesError(f"{target} is there already: name a folder that is not")
    raws = gather(source, linux)
    title, patches = order(raws)
    mirrored = _is_mirrored(patches)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        rows: list[dict[str, object]] = []
        for number, mail in enumerate(patches, 1):
            known = model.patch(number) if mirrored else None
            message_id = mail.message_id or (known.message_id if known else "")
            claim = mail.claim
            if known is not None and claim is Claim.NONE and known.claim is Claim.IMPLIED:
                claim = known.claim  # not said in the mail, but known of this series
            name = file_name(number, mail.subject)
            (work / name).write_text(_mail_text(mail, number, len(patches), message_id), encoding="utf-8")
            rows.append(
                {
                    "number": number,
                    "file": name,
                    "subject": mail.subject,
                    "author": mail.author,
                    "message_id": message_id,
                    "files": [f.path for f in mail.files],
                    "claim": claim.value,
                }
            )
        base: dict[str, object] = {"version": pinned.VERSION, "sha256": pinned.SHA256}
        if linux is not None and (linux / "Makefile").is_file():
            base = {"version": pinned.version(linux, linux)}
        series_io.write(
            work,
            name=series_io.OWN if mirrored else target.name,
            title=title or target.name,
            base=base | base_said(raw.data for raw in raws),
            rows=rows,
            parameters=parameter.found([mail.files for mail in patches]),
        )
        series_io.read(work)
        work.chmod(0o755)
        if target.exists():
            target.rmdir()
        work.rename(target)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return series_io.read(target)
