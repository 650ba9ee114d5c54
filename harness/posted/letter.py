"""A mail as it was posted, read by ``git mailinfo`` after it was opened: who wrote what, and the patch in it."""

from __future__ import annotations

import datetime
import email.utils
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from harness.errors import SeriesError
from harness.posted import parts
from harness.posted import subject as mail_subject
from harness.posted.parts import Opened
from harness.posted.subject import Tag
from harness.series import Mail, diff, flattened, git, harmless

_IN_BODY = re.compile(r"(From|Subject|Date):(.*(?:\n[ \t].*)*)\n?")
_ADDRESS = re.compile(r"(?:.*<[^<>\s]+@[^<>\s]+>|\s*[^<>\s@]+@[^<>\s@]+)\s*(?:\(.*\))?\s*", re.S)
_SCISSORS = re.compile(r"(?m)^(?=.*(?:>8|8<|>%|%<))[-><8% ]{6,200}(?:cut here)?[-><8% ]{0,200}$")
_REVIEW = re.compile(r"\A(?:[^\n]{0,200}\n){1,12}?-{8,}[ \t]*\n\s*(?=From: )")
_HEADED = re.compile(r"\s*(?:(?:From|Subject|Date):|>From |\[PATCH\])")
_BASE = re.compile(r"(?m)^(base-commit|change-id|prerequisite-[a-z-]+):[ \t]*(\S[^\n]{0,300})$")


@dataclass(frozen=True)
class Letter:
    """This is a mail of a box. ``subject`` is whole and on one line; ``tag`` is what it says. ``sender`` is the address
    that posted it, which need not be its author's. ``mail`` is its patch, None where it has none. ``trouble``: why it
    cannot be read. ``trailers``: base-commit and what else git and b4 say of the base, in order.
    """

    name: str
    subject: str
    tag: Tag
    sender: str
    message_id: str
    parents: tuple[str, ...]
    date: str
    mail: Mail | None
    trouble: str = ""
    notes: tuple[str, ...] = ()
    trailers: tuple[tuple[str, str], ...] = ()
    titled: bool = False  # its subject stands in its own text

    @property
    def called(self) -> str:
        """Messages tell of the mail by where it is and its subject."""
        return f"{harmless(self.name)} ({harmless(self.subject, 100)!r})" if self.subject else harmless(self.name)


def letters(data: bytes, name: str) -> list[Letter]:
    """The function reads the mail ``data``, and the mails attached to it."""
    return list(_all(parts.opened(data, name)))


def one(data: bytes, name: str) -> Mail:
    """The function gives the one patch that ``data`` is.

    Raises SeriesError when it is none, or several, or cannot be read.
    """
    found = letters(data, name)
    patches = [letter.mail for letter in found if letter.mail]
    if len(patches) == 1 and patches[0] is not None:
        return patches[0]
    trouble = next((letter.trouble for letter in found if letter.trouble), "")
    raise SeriesError(
        f"{name}: {trouble or f'it holds {len(patches)} patches, where one is wanted: give each as a mail of its own'}"
    )


def _all(opened: Opened) -> Iterator[Letter]:
    outer = _letter(opened)
    if outer.mail or outer.trouble or not opened.attached or not outer.tag.patch:
        yield outer
    within = [letter for attached in opened.attached for letter in _all(attached)]
    loose = [letter for letter in within if letter.mail]
    in_order = len(loose) > 1 and not any(letter.tag.number is not None or letter.tag.fraction for letter in loose)
    for letter in within:
        if in_order and letter in loose:
            at = loose.index(letter) + 1
            yield _within(letter, replace(outer, tag=mail_subject.counted(outer.tag, at, len(loose))), True)
        else:
            yield _within(letter, outer, len(within) == 1)


def _within(letter: Letter, outer: Letter, only: bool) -> Letter:
    """An attached mail as it counts: it has the place of the mail that carries it where it says none, and answers what
    that one answers."""
    tag = letter.tag
    if outer.tag.answer:
        tag = mail_subject.answering(tag)
    elif only and tag.number is None and not tag.fraction and not tag.answer:
        tag = mail_subject.placed(tag, outer.tag)
    mail = letter.mail and _placed(letter.mail, tag)
    parents = letter.parents or ((outer.message_id,) if outer.message_id else outer.parents)
    notes = (*letter.notes, f"it was attached to {outer.called}")
    return replace(
        letter,
        tag=tag,
        sender=outer.sender or letter.sender,
        parents=parents,
        date=letter.date or outer.date,
        mail=mail,
        notes=notes,
    )


def _placed(mail: Mail, tag: Tag) -> Mail:
    return replace(mail, number=tag.number, total=tag.total, version=tag.version or 1)


def _letter(opened: Opened) -> Letter:
    """Read one mail. Whatever is wrong with it is its ``trouble``."""
    header = _info(opened, "", scissors=False)
    subject, unseen = _line(header.subject) if header else ("", False)
    tag = mail_subject.read(subject)
    sender = header.address if header else ""
    trouble = opened.trouble or ("" if header else _header_trouble(opened))
    if header and len(header.subject) > 4 * mail_subject.MOST:
        trouble = trouble or f"its subject has {len(header.subject)} characters"
    notes = list(opened.notes)
    if unseen:
        notes.append("its subject or its author has control characters: they were left out")
    plain = Letter(opened.name, subject, tag, sender, opened.message_id, opened.parents,
                   _date(header.date) if header else "", None, trouble, tuple(notes))  # fmt: skip
    if trouble or header is None:
        return plain
    try:
        return _with_patch(opened, plain, header)
    except SeriesError as error:
        reason = str(error).removeprefix(f"{opened.name}: ")
        return replace(plain, trouble=reason)


def _info(opened: Opened, text: str, *, scissors: bool) -> git.Info | None:
    try:
        return git.info(opened.header, text, opened.name, scissors=scissors)
    except SeriesError:
        return None


def _header_trouble(opened: Opened) -> str:
    try:
        git.info(opened.header, "", opened.name, scissors=False)
    except SeriesError as error:
        return str(error).removeprefix(f"{opened.name}: ")
    return "its header cannot be read"


def _with_patch(opened: Opened, plain: Letter, info: git.Info) -> Letter:
    trailers = tuple((m[1], m[2].strip()) for m in _BASE.finditer(opened.text))
    divided = diff.divide(opened.text, opened.name)
    if not divided.diff or plain.tag.number == 0:
        return replace(plain, trailers=trailers)
    text, notes = opened.text, list(plain.notes)
    if review := _REVIEW.match(divided.above):
        text = text[review.end() :]
        notes.append("the words above its line of dashes were left out")
    message = re.split(r"(?m)^---\s*$", divided.above, maxsplit=1)[0]
    scissors = bool(_SCISSORS.search(message))
    if scissors:
        notes.append("the text above its scissors line was left out")
    if scissors or (_HEADED.match(text) and not _is_prose(text)):
        info = git.info(opened.header, text, opened.name, scissors=scissors)
        text = info.text
    above = divided.above
    divided = diff.divide(text, opened.name)
    if divided.plain:
        notes.append(f"its diff {divided.plain}: it was written as git writes it")
    subject, unseen = _line(info.subject)
    inner = mail_subject.read(subject)
    tag = plain.tag
    titled = subject != plain.subject
    if titled and tag.number is None and not tag.fraction and not tag.answer:
        tag = mail_subject.placed(tag, inner) if inner.number is not None else tag
    author, hidden = _author(info, opened, above)
    if (unseen or hidden) and not any("control characters" in note for note in notes):
        notes.append("its subject or its author has control characters: they were left out")
    if re.search(r" via ", author):
        notes.append(f"its author is given as {harmless(author)!r}, which is a list's or a relay's name for one")
    if not inner.title:
        raise SeriesError(f"{opened.name}: it has no Subject:, or one of tags only; give it the title of its patch")
    date = _date(info.date)
    if info.date and not date:
        notes.append(f"its date {harmless(info.date, 60)!r} is none that can be read: it was left out")
    mail = Mail(opened.name, tag.number, tag.total, tag.version or 1, inner.title, author, opened.message_id, date,
                divided.message, divided.diff)  # fmt: skip
    return replace(
        plain, tag=tag, date=date or plain.date, mail=mail, notes=tuple(notes), trailers=trailers, titled=titled
    )


def _is_prose(text: str) -> bool:
    """Whether a text begins with what git would take for header lines of the patch though it is prose: a From: without
    an address, a Date: that is none."""
    at = len(text) - len(text.lstrip("\n"))
    while found := _IN_BODY.match(text, at):
        value = " ".join(found[2].split())
        if found[1] == "From" and not _ADDRESS.fullmatch(value):
            return True
        if found[1] == "Date" and not _date(value):
            return True
        at = found.end()
    return False


def _author(info: git.Info, opened: Opened, above: str) -> tuple[str, bool]:
    """The author as ``Name <address>``, and whether characters were left out of it.

    The address must stand in the mail as it is: one that comes out of an encoded name is nobody's.
    """
    seen = opened.header.get("From", b"").decode("utf-8", "replace") + "\n" + above
    name, hidden = _line(info.author)
    address = info.address
    if not address or not re.fullmatch(r"[^\s<>,;]+@[^\s<>,;]+", address) or flattened(address) != address:
        raise SeriesError(
            f"{opened.name}: a patch mail needs a From: with an address and a Subject:; give it what it lacks"
        )
    if address not in seen or re.search(r"[<>\n\r]", info.author):
        raise SeriesError(
            f"{opened.name}: its From: has an address within an encoded name ({harmless(info.author)!r}): whose patch "
            "it is cannot be told; write the From: line as Name <address>"
        )
    return f"{name or address} <{address}>", hidden


def _line(text: str) -> tuple[str, bool]:
    """``text`` without what cannot be seen, and whether that took anything away."""
    flat = flattened(text)
    return flat, flat != " ".join(text.split())


def _date(text: str) -> str:
    """A date of a mail in the form that git takes; the empty text where it is none."""
    try:
        when = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return ""
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.UTC)
    return email.utils.format_datetime(when) if 1970 <= when.year < 2100 else ""
