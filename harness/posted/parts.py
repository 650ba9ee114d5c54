"""A mail as it came, opened: its header fields, its text, and the mails that were attached to it.

Everything is bounded before it is parsed: bytes, header fields, depth and number of parts. What cannot be read is
said in the part's ``trouble``, with the true reason; whether that matters is for others to judge.
"""

from __future__ import annotations

import binascii
import email
import email.message
import email.policy
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from harness.errors import SeriesError
from harness.series import diff as mail_diff

MAX_BYTES: Final = 4 << 20  # of one mail
MAX_HEADER: Final = 512 << 10  # bytes of all header fields together
MAX_FIELD: Final = 8 << 10  # of From:, Subject: or Date:
MAX_PARTS: Final = 64
READ: Final = ("From", "Subject", "Date")
_PATCHES: Final = ("text/x-patch", "text/x-diff", "text/patch", "text/x-git-patch", "application/x-patch")
_NAMED = re.compile(r"(?i)\.(patch|diff|eml|mbox|mbx)$")
_PACKED = re.compile(r"(?i)\.(gz|zip|xz|bz2|zst|tgz|7z)$")
_NESTING = re.compile(rb"(?im)^content-type:\s*(multipart|message)/")
_HEADER = re.compile(r"(?:>?From .*\n)?(?:(?:From|Date|Subject|Message-ID): .*\n(?:[ \t].*\n)*)+", re.I)
_SUPERSETS: Final = {
    "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc-kr": "cp949", "ks_c_5601-1987": "cp949",
    "big5": "big5hkscs", "iso-8859-8-i": "iso-8859-8",
}  # fmt: skip


@dataclass(frozen=True)
class Opened:
    """One mail: ``name`` says where it is, ``header`` has From, Subject and Date as they stand in it.

    ``message_id`` and ``parents`` (its In-Reply-To first) are without angle brackets. ``text`` is its plain text with
    the diff in it. ``trouble``: why the text cannot be had. ``notes``: what was done to it. ``outer``: the mail to
    which it was attached.
    """

    name: str
    header: dict[str, bytes]
    message_id: str
    parents: tuple[str, ...]
    text: str
    trouble: str = ""
    notes: tuple[str, ...] = ()
    outer: Opened | None = None
    attached: tuple[Opened, ...] = field(default=(), repr=False)


class _TroubleError(Exception):
    """Why a part cannot be read."""


def opened(data: bytes, name: str) -> Opened:
    """The function opens a mail, whatever is in it."""
    data = re.sub(rb"\A\s*>?From [^\n]*\n", b"", data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n"))
    head = re.match(rb"(?:[^\n]+\n)*", data[: MAX_HEADER + 1])
    top = head[0] if head else b""
    message = email.message_from_bytes(top[:MAX_HEADER] + b"\n", policy=email.policy.compat32)
    made = _letter(message, name)
    if trouble := made.trouble or _too_much(data, top):
        return replace(made, trouble=trouble)
    try:
        return _read(email.message_from_bytes(data, policy=email.policy.compat32), name, 0)
    except (RecursionError, LookupError, UnicodeError, ValueError, AttributeError, TypeError) as error:
        return replace(made, trouble=f"it is broken where its parts are described ({type(error).__name__})")


def _too_much(data: bytes, top: bytes) -> str:
    if len(data) > MAX_BYTES:
        return f"its {len(data)} bytes are too much for a patch mail (at most {MAX_BYTES})"
    if len(top) > MAX_HEADER:
        return f"its header has more than {MAX_HEADER} bytes"
    if len(_NESTING.findall(data)) > MAX_PARTS:
        return f"it has more than {MAX_PARTS} parts"
    for boundary in re.findall(rb'(?i)boundary="?([^"\s;]{1,100})', data):
        if data.count(b"--" + boundary) > 4 * MAX_PARTS:
            return f"it has more than {MAX_PARTS} parts"
    if b"\0" in data:
        return "it has a NUL byte"
    return ""


def _letter(message: email.message.Message, name: str) -> Opened:
    """The mail's header alone."""
    header: dict[str, bytes] = {}
    trouble = ""
    ids: dict[str, list[str]] = {"message-id": [], "in-reply-to": [], "references": []}
    for key, value in message.raw_items():
        raw = str(value).encode("ascii", "surrogateescape") if str(value).isascii() else _raw(str(value))
        field_name = key.capitalize()
        if field_name in READ:
            if len(raw) > MAX_FIELD:
                trouble, raw = f"its {field_name}: has {len(raw)} bytes (at most {MAX_FIELD})", raw[:200]
            if header.get(field_name, raw) != raw:
                trouble = f"it has two different {field_name}: lines"
            header.setdefault(field_name, raw)
        elif key.lower() in ids:
            ids[key.lower()] += re.findall(r"<([!-;=?-~]{1,500})>", str(value)[:100_000])
    own = ids["message-id"][0] if ids["message-id"] else ""
    parents = dict.fromkeys([*ids["in-reply-to"][:1], *reversed(ids["references"])])
    parents.pop(own, None)
    return Opened(name, header, own, tuple(parents), "", trouble)


def _raw(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def _read(message: email.message.Message, name: str, depth: int) -> Opened:
    """The mail with its text and the mails attached to it."""
    made = _letter(message, name)
    if depth > 3:
        return replace(made, trouble="mails are attached within mails more than three deep")
    texts: list[str] = []
    bare: list[str] = []
    mails: list[Opened] = []
    notes: list[str] = []
    troubles: list[str] = []
    for number, part in enumerate(_leaves(message), 1):
        kind = part.get_content_type()
        called = _file_name(part)
        at = f"{name}, attachment {number - 1}" + (f" ({called})" if called else "")
        if kind == "message/rfc822" and part.is_multipart():
            inner = part.get_payload(0)
            if isinstance(inner, email.message.Message):
                mails.append(_read(inner, at, depth + 1))
            continue
        attached = part is not message and (
            part.get_content_disposition() == "attachment" or kind in _PATCHES or bool(_NAMED.search(called))
        )
        if not (kind in ("text/plain", *_PATCHES, "text/x-c", "text/x-csrc") or (attached and _NAMED.search(called))):
            troubles += _why_not(kind, called)
            continue
        try:
            text, said = _text(part)
        except _TroubleError as error:
            troubles.append(str(error))
            continue
        notes += said
        head = _HEADER.match(text) if attached or part is not message else None
        if attached and head and re.search(r"(?im)^(subject|from):", head[0]):
            mails += _files(text, at, depth + 1)
        elif attached and _has_diff(text):
            bare.append(text)
        else:
            texts.append(text)
    return _joined(made, texts, bare, mails, notes, troubles)


def _joined(made: Opened, texts: list[str], bare: list[str], mails: list[Opened], notes: list[str],
            troubles: list[str]) -> Opened:  # fmt: skip
    trouble = made.trouble
    with_diff = [text for text in texts if _has_diff(text)]
    if len(bare) + len(with_diff) > 1 and not trouble:
        trouble = f"it has {len(bare) + len(with_diff)} diffs, in its text or attached: give each as a mail of its own"
    if with_diff:
        texts = texts[: texts.index(with_diff[-1]) + 1]  # what follows is a list's footer
    if not (texts or bare or mails) and not trouble:
        trouble = troubles[0] if troubles else "it has no plain text part; export it as a plain mail"
    elif troubles and not with_diff and not bare and not mails and not trouble:
        notes.append(troubles[0])
    text = "\n".join([*texts, *bare])
    if "\0" in text and not trouble:
        trouble = "it has a NUL byte"
    whole = replace(made, text=text, trouble=trouble, notes=tuple(dict.fromkeys(notes)))
    return replace(whole, attached=tuple(replace(mail, outer=mail.outer or whole) for mail in mails))


def _leaves(message: email.message.Message) -> Iterator[email.message.Message]:
    """The parts that hold something, in their order; of alternatives the plain one."""
    if not message.is_multipart() or message.get_content_maintype() == "message":
        yield message
        return
    parts = [part for part in message.get_payload() if isinstance(part, email.message.Message)]
    if message.get_content_type() == "multipart/alternative":
        plain = [part for part in parts if any(leaf.get_content_type() == "text/plain" for leaf in _leaves(part))]
        parts = plain[:1] or parts
    for part in parts:
        yield from _leaves(part)


def _file_name(part: email.message.Message) -> str:
    name = part.get_filename() or ""
    return "".join(c if c.isprintable() else "?" for c in str(name))[:80]


def _why_not(kind: str, called: str) -> list[str]:
    if kind in ("application/pkcs7-mime", "application/x-pkcs7-mime"):
        return ["it is an S/MIME envelope; export its signed text"]
    if kind in ("application/pgp-encrypted", "multipart/encrypted"):
        return ["it is encrypted; export its text"]
    if kind == "text/html":
        return ["it has HTML text only; export it as a plain mail"]
    if _PACKED.search(called):
        return [f"its attachment {called} is packed; unpack it and give what is in it"]
    return []


def _has_diff(text: str) -> bool:
    try:
        return bool(mail_diff.divide(text, "").diff)
    except SeriesError:
        return True


def _files(text: str, name: str, depth: int) -> list[Opened]:
    """The mails of an attached file: one, or those of a box."""
    from harness.series import git

    pieces = git.split(text.encode("utf-8", "surrogateescape"), name)
    if len(pieces) > MAX_PARTS:
        pieces = pieces[:MAX_PARTS]
    found = []
    for number, piece in enumerate(pieces, 1):
        message = email.message_from_bytes(re.sub(rb"\A>?From [^\n]*\n", b"", piece), policy=email.policy.compat32)
        # Its charset was dealt with when the attachment was decoded.
        for key in ("Content-Type", "Content-Transfer-Encoding"):
            if not re.search(r"quoted-printable|base64", str(message.get("Content-Transfer-Encoding", "")), re.I):
                del message[key]
        found.append(_read(message, name if len(pieces) == 1 else f"{name}, mail {number}", depth))
    return found


def _text(part: email.message.Message) -> tuple[str, list[str]]:
    """The part's text by its transfer encoding, its charset and its format; and what was unusual."""
    data, notes = _transferred(part)
    text, said = _in_unicode(data, str(part.get_content_charset() or "") if _plain_charset(part) else "")
    text = text.replace("\r\n", "\n")
    if str(part.get_param("format", "")).lower() == "flowed":
        text = _unflowed(text, str(part.get_param("delsp", "")).lower() == "yes")
    return _unsigned(text), notes + said


def _plain_charset(part: email.message.Message) -> bool:
    try:
        return bool(part.get_content_charset())
    except (LookupError, UnicodeError, ValueError):
        return False


def _transferred(part: email.message.Message) -> tuple[bytes, list[str]]:
    how = str(part.get("Content-Transfer-Encoding", "")).strip().lower()
    if how in ("uuencode", "x-uuencode", "uue", "x-uue"):
        return _octets(part), []
    del part["Content-Transfer-Encoding"]  # without it the bytes come as they stand
    body = _octets(part)
    if how == "base64":
        return _base64(body)
    if how == "quoted-printable":
        wrong, right = (re.search(p, body) for p in (rb"=(?![0-9A-Fa-f]{2}|[ \t]*\n|[ \t]*\Z)", rb"=[0-9A-Fa-f]{2}"))
        if wrong and right:
            raise _TroubleError("its text is not the quoted-printable that it declares")
        return binascii.a2b_qp(body), []
    return body, []


def _octets(part: email.message.Message) -> bytes:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        raise _TroubleError("its text cannot be told from its other parts")
    return data


def _base64(body: bytes) -> tuple[bytes, list[str]]:
    """Its bytes; a footer that a list put below in plain text is left out."""
    lines = body.split(b"\n")
    plain = next((n for n, line in enumerate(lines) if not re.fullmatch(rb"[A-Za-z0-9+/]*={0,2}\s*", line)), len(lines))
    ended = next((n + 1 for n, line in enumerate(lines[:plain]) if line.rstrip().endswith(b"=")), plain)
    coded = b"".join(line.strip() for line in lines[:ended])
    try:
        decoded = binascii.a2b_base64(coded, strict_mode=True) if coded else b""
    except binascii.Error:
        decoded = b""
    left = b"\n".join(lines[ended:]).strip()
    if decoded and len(left) < 2000:
        return decoded, []
    if left and mail_diff.divide(body.decode("utf-8", "replace"), "").diff:
        return body, ["it declares base64 and is plain text: it was taken as it is"]
    if not body.strip():
        return b"", []
    raise _TroubleError("its text is not the base64 that it declares")


def _in_unicode(data: bytes, charset: str) -> tuple[str, list[str]]:
    charset = charset.lower().strip("'\" ")
    if charset in ("", "utf-8", "utf8", "us-ascii", "ascii", "unknown-8bit", "unknown", "x-unknown"):
        try:
            return data.decode("utf-8"), []
        except UnicodeDecodeError:
            charset = "iso-8859-1"
    try:
        text = data.decode(_SUPERSETS.get(charset, charset))
    except (LookupError, UnicodeDecodeError) as error:
        known = "is not known here" if isinstance(error, LookupError) else "is not that of its text"
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise _TroubleError(f"the charset {charset!r} that it declares {known}") from None
        return text, [] if text.isascii() else [f"the charset {charset!r} that it declares {known}: UTF-8 was taken"]
    diff = not text.isascii() and _has_diff(text) and not mail_diff.divide(text, "").diff.isascii()
    return text, [
        f"its diff has letters beyond ASCII, from the charset {charset!r}: UTF-8 was made of them"
    ] if diff else []


def _unsigned(text: str) -> str:
    """The text of a PGP message that is signed in line, without its armour."""
    signed = re.match(r"\s*-----BEGIN PGP SIGNED MESSAGE-----\n(?:[A-Za-z]+: .*\n)*\s*\n", text)
    if signed is None:
        return text
    inner = text[signed.end() :].split("\n-----BEGIN PGP SIGNATURE-----", 1)[0]
    return re.sub(r"(?m)^- ", "", inner) + "\n"


def _unflowed(text: str, joined: bool) -> str:
    """A text of format=flowed (RFC 3676) as it was before: a mailer puts a blank before each line that begins with one,
    and breaks long lines after a blank. Many only declare it: where a line begins with a single blank none was put."""
    lines = text.split("\n")
    if any(re.match(r" (?! )", line) for line in lines):
        return text
    out: list[str] = []
    soft = False
    for stuffed in lines:
        line = stuffed.removeprefix(" ")
        if soft:
            out[-1] += line
        else:
            out.append(line)
        soft = line.endswith(" ") and line not in mail_diff.SIGNATURES and bool(line.strip())
        if soft and joined:
            out[-1] = out[-1].removesuffix(" ")
    return "\n".join(out)
